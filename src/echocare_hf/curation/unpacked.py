"""What has to be taken apart before files can be found in it: archives, parquet and TFRecord shards, data sets of the Hub, URLs.

Everything ends as plain files in the work folder with an index of their names; a folder that is there is complete, because it was
made beside and renamed.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from echocare_hf.files import written_beside

from .archives import MAX_DEPTH, ArchiveError, is_archive, unpack
from .options import digest
from .record import Drop, FoundFile, drop_file

_INDEX = ".index.json"  # hidden, so that it is no file of the source
_IMAGE_KEYS = ("image", "img", "picture", "png", "jpg", "jpeg", "image/encoded", "bytes")


def is_rows(name: str) -> bool:
    """Whether a file holds rows of a table with images, by its name."""
    return name.lower().endswith((".parquet", ".tfrecord", ".tfrecords"))


def open_container(file: FoundFile, work: Path, depth: int = 0) -> tuple[list[FoundFile], list[Drop]]:
    """The files inside an archive or a shard, archives inside it opened too.

    Args:
        file: the archive or shard.
        work: folder for what is taken out; used again if it was taken out before.
        depth: how many archives `file` lies in.

    Returns:
        The files with names such as `a.zip!/b.png`, and what could not be opened.
    """
    path = Path(file.path)
    stat = path.stat()
    place = work / digest(str(path.resolve()), str(stat.st_size), str(stat.st_mtime_ns))
    try:
        entries, skipped = materialise(place, lambda target: _take_out(path, target))
    except ArchiveError as error:
        return [], [drop_file(file, "discover", error.reason, str(error))]
    files: list[FoundFile] = []
    drops = [
        Drop(file.source, f"{file.name}!/{name}", -1, "discover", reason, "no plain file") for name, reason in skipped
    ]
    for name, stored, size in entries:
        member = FoundFile(file.source, f"{file.name}!/{name}", str(place / stored), size)
        if not is_archive(name):
            files.append(member)
        elif depth + 1 >= MAX_DEPTH:
            detail = f"lies more than {MAX_DEPTH} archives deep; unpack it yourself and give the folder"
            drops.append(drop_file(member, "discover", "archive_limit", detail))
        else:
            inner_files, inner_drops = open_container(member, work, depth + 1)
            files += inner_files
            drops += inner_drops
    return files, drops


Contents = tuple[list[tuple[str, str, int]], list[tuple[str, str]]]
"""`(name, stored name, bytes)` of each file, and `(name, reason)` of each member left out."""


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
    return [(name, stored, size) for name, stored, size in files], [(name, reason) for name, reason in skipped]


def _take_out(path: Path, target: Path) -> Contents:
    if path.suffix.lower() == ".parquet":
        return write_rows(_parquet_rows(path), target), []
    if is_rows(path.name):
        from .tfrecord import read_tfrecord

        return write_rows(read_tfrecord(path), target), []
    members, skipped = unpack(path, target)
    files = [(name, place.relative_to(target).as_posix(), size) for name, place, size in members]
    return files, [(name, reason) for name, reason in skipped]


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
        raise ArchiveError(path, "damaged_archive", f"is no readable parquet file ({str(error)[:100]})") from error


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
    """Write the image of every row to a file, and the other columns to one `metadata.jsonl` beside them.

    Args:
        rows: with an image as bytes, or as a dict of `bytes` and `path` as `datasets` has it, in the first column that holds one.
        target: folder.

    Returns:
        `(name, stored name, bytes)` of each file. Rows without an image are left out.
    """
    entries = []
    with (target / "metadata.jsonl").open("w", encoding="utf-8") as table:
        for number, row in enumerate(rows):
            found = _image_of(row)
            if found is None:
                continue
            column, content, suffix = found
            stored = f"{number:07d}{suffix}"
            (target / stored).write_bytes(content)
            entries.append((stored, stored, len(content)))
            others = {key: value for key, value in row.items() if key != column and _is_plain(value)}
            table.write(json.dumps({"file_name": stored, **others}, default=str) + "\n")
    size = (target / "metadata.jsonl").stat().st_size
    return [*entries, ("metadata.jsonl", "metadata.jsonl", size)] if entries else []


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
