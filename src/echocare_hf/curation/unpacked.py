"""What has to be taken apart before files can be found in it: archives, parquet and TFRecord shards, data sets of the Hub, URLs.

Everything ends as plain files in the work folder with an index of their names; a folder that is there is complete, because it was
made beside and renamed.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from echocare_hf.files import written_beside

from .archives import MAX_DEPTH, ArchiveError, Budget, is_archive, unpack
from .options import digest
from .record import ROWS_TABLE, Drop, FoundFile, drop_file

_VERSION = "4"  # of what is taken out and how it is listed; another one takes everything out anew
_INDEX = ".index.json"  # hidden, so that it is no file of the source
_LEFT_OUT = {"link_or_device": "no plain file", "same_name": "the archive has an earlier file of this name"}
_IMAGE_KEYS = ("image", "img", "picture", "png", "jpg", "jpeg", "image/encoded", "bytes")


def is_rows(name: str) -> bool:
    """Whether a file holds rows of a table with images, by its name."""
    return name.lower().endswith((".parquet", ".tfrecord", ".tfrecords"))


def open_container(
    file: FoundFile, work: Path, depth: int = 0, budget: Budget | None = None
) -> tuple[list[FoundFile], list[Drop]]:
    """The files inside an archive or a shard, archives inside it opened too.

    Args:
        file: the archive or shard.
        work: folder for what is taken out; used again if it was taken out before.
        depth: how many archives `file` lies in.
        budget: what is left of the outermost archive that `file` lies in; its own by default.

    Returns:
        The files with names such as `a.zip!/b.png`, and what could not be opened or holds nothing.
    """
    path = Path(file.path)
    stat = path.stat()
    place = work / digest(_VERSION, str(path.resolve()), str(stat.st_size), str(stat.st_mtime_ns))
    shared = budget or Budget(stat.st_size)
    taken_out = (place / _INDEX).is_file()
    try:
        entries, skipped = materialise(place, lambda target: _take_out(path, target, shared))
        if taken_out and is_archive(path.name):
            _charge(shared, path, entries, skipped)
    except ArchiveError as error:
        return [], [drop_file(file, "discover", error.reason, str(error).replace(str(path), file.name))]
    files: list[FoundFile] = []
    drops = [
        Drop(file.source, f"{file.name}!/{name}" if name else file.name, -1, "discover", reason, detail)
        for name, reason, detail in skipped
    ]
    if not entries and not drops:
        drops.append(drop_file(file, "discover", "no_image_inside", "holds no file"))
    for name, stored, size in entries:
        member = FoundFile(file.source, f"{file.name}!/{name}", str(place / stored), size)
        if not is_archive(name):
            files.append(member)
        elif depth + 1 >= MAX_DEPTH:
            detail = f"lies more than {MAX_DEPTH} archives deep; unpack it yourself and give the folder"
            drops.append(drop_file(member, "discover", "archive_limit", detail))
        else:
            inner_files, inner_drops = open_container(member, work, depth + 1, shared)
            files += inner_files
            drops += inner_drops
    return files, drops


Contents = tuple[list[tuple[str, str, int]], list[tuple[str, str, str]]]
"""`(name, stored name, bytes)` of each file, and `(name, reason, detail)` of each member left out; no name for the container itself."""


def _charge(
    budget: Budget, path: Path, entries: list[tuple[str, str, int]], skipped: list[tuple[str, str, str]]
) -> None:
    """Count what an earlier run took out, so that a second run meets the same limits."""
    for size in (*(size for _, _, size in entries), *(0 for _ in skipped)):
        budget.add_member(path)
        budget.add_bytes(path, size, size)


def materialise(place: Path, make: Callable[[Path], Contents]) -> Contents:
    """The contents of a folder that `make` fills, made once: beside first, then renamed."""
    if not (place / _INDEX).is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with written_beside(place) as beside:
                beside.mkdir()
                contents = make(beside)
                (beside / _INDEX).write_text(json.dumps(contents), encoding="utf-8")
        except OSError as error:
            if error.errno is None or error.filename:
                raise
            raise OSError(error.errno, error.strerror, str(place)) from error  # a full disk, which names no file
    files, skipped = json.loads((place / _INDEX).read_text(encoding="utf-8"))
    return [(name, stored, size) for name, stored, size in files], [
        (name, reason, detail) for name, reason, detail in skipped
    ]


def _take_out(path: Path, target: Path, budget: Budget) -> Contents:
    if path.suffix.lower() == ".parquet":
        return _write_counted(_parquet_rows(path), target)
    if is_rows(path.name):
        from .tfrecord import read_tfrecord

        return _write_counted(read_tfrecord(path), target)
    members, skipped = unpack(path, target, budget)
    files = [(name, place.relative_to(target).as_posix(), size) for name, place, size in members]
    return files, [(name, reason, _LEFT_OUT[reason]) for name, reason in skipped]


def _write_counted(rows: Iterator[dict[str, Any]], target: Path) -> Contents:
    """The files of `write_rows`, and one record of the rows that hold no image."""
    number = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal number
        for row in rows:
            number += 1
            yield row

    entries = write_rows(counted(), target)
    without = number - max(0, len(entries) - 1)  # the table is no image
    detail = f"{without:,} row{'s' * (without != 1)} without an image"
    return entries, [("", "no_image_inside", detail)] if without else []


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        with pq.ParquetFile(path) as file:
            names = _stated_classes(file.schema_arrow.metadata or {})
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    yield name_classes(row, names)
    except (ArrowException, OSError) as error:
        problem = " ".join(str(error).replace(str(path), path.name).split())[:100]
        raise ArchiveError(path, "damaged_archive", f"is no readable parquet file ({problem})") from error


def _stated_classes(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The names of classes by column, from what `datasets` writes into the schema of a parquet file."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {column: kind for column, kind in features.items() if isinstance(kind, dict)}
    return {column: kind["names"] for column, kind in kinds.items() if kind.get("_type") == "ClassLabel"}


def name_classes(row: dict[str, Any], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A row with the names of classes in the place of their numbers; a number without a name says that no class is known."""
    named = {
        column: classes[row[column]] if row.get(column) is not None and 0 <= row[column] < len(classes) else None
        for column, classes in names.items()
    }
    return {**row, **named}


def write_rows(rows: Iterator[dict[str, Any]], target: Path) -> list[tuple[str, str, int]]:
    """Write the image of every row to a file, and the other columns to one table, `ROWS_TABLE`, beside them.

    Args:
        rows: with an image as bytes, or as a dict of `bytes` and `path` as `datasets` has it, in the first column that holds one.
        target: folder.

    Returns:
        `(name, stored name, bytes)` of each file. Rows without an image are left out.
    """
    entries = []
    with (target / ROWS_TABLE).open("w", encoding="utf-8") as table:
        for number, row in enumerate(rows):
            found = _image_of(row)
            if found is None:
                continue
            column, content, suffix = found
            stored = f"{number:07d}{suffix}"
            (target / stored).write_bytes(content)
            entries.append((stored, stored, len(content)))
            others = {
                key: value
                for key, value in row.items()
                if key != column and key.strip().lower() != "file_name" and _is_plain(value)
            }
            table.write(json.dumps({"file_name": stored, **others}, default=str) + "\n")
    size = (target / ROWS_TABLE).stat().st_size
    return [*entries, (ROWS_TABLE, ROWS_TABLE, size)] if entries else []


def _image_of(row: dict[str, Any]) -> tuple[str, bytes, str] | None:
    """Column, bytes and suffix of the image of a row."""
    for column in sorted(row, key=lambda name: (name.lower() not in _IMAGE_KEYS, list(row).index(name))):
        value = row[column]
        path = ""
        if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
            value, path = value["bytes"], str(value.get("path") or "")
        if isinstance(value, bytes) and len(value) > 16:
            return column, value, Path(path).suffix.lower()[:16] or _suffix(value)
    return None


def _suffix(content: bytes) -> str:
    if content.startswith(b"\x89PNG"):
        return ".png"
    if content.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    return ".dcm" if content[128:132] == b"DICM" else ".bin"


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
