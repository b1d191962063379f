"""What has to be taken apart before files can be found in it: archives, parquet and TFRecord shards, data sets of the Hub, URLs.

Everything ends as plain files in the work folder with an index of their names; a folder that is there is complete, because it was
made beside and renamed.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from echocare_hf.data.reading_codecs import HEAD_BYTES, codec_of
from echocare_hf.files import written_beside

from .archives import MAX_DEPTH, ArchiveError, Budget, is_archive, unpack
from .options import digest
from .record import ROWS_TABLE, Drop, FoundFile, drop_file

_VERSION = "6"  # of what is taken out and how it is listed; another one takes everything out anew
_INDEX = ".index.json"  # hidden, so that it is no file of the source
_LEFT_OUT = {"link_or_device": "no plain file", "same_name": "the archive has an earlier file of this name"}
_PLAIN_SUFFIX = re.compile(r"\.[a-z0-9_+-]{1,15}")
_MAGIC = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",
    b"MM\0+": ".tif",
    b"\0\0\x01\xba": ".mpg",
    b"\x30\x26\xb2\x75\x8e\x66": ".wmv",
    b"\x1a\x45\xdf\xa3": ".mkv",
}
_CODEC_SUFFIXES = {"webp": ".webp", "jpg_2000": ".jp2", "avif": ".avif", "heif": ".heic"}
_IMAGE_KEYS = ("image", "img", "picture", "png", "jpg", "jpeg", "image/encoded", "bytes")


def is_rows(name: str) -> bool:
    """Whether a file holds rows of a table with images, by its name."""
    return name.lower().endswith((".parquet", ".tfrecord", ".tfrecords"))


def open_container(
    file: FoundFile, work: Path, depth: int = 0, budget: Budget | None = None
) -> tuple[list[FoundFile], list[Drop]]:
    """The files inside an archive or a shard, archives and shards inside it opened too.

    Args:
        file: the archive or shard.
        work: folder for what is taken out; used again if it was taken out before.
        depth: how many archives or shards `file` lies in.
        budget: what is left of the outermost one that `file` lies in; its own by default.

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
        if taken_out:
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
        if not is_archive(name) and not is_rows(name):
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
    for size in (*(size for _, _, size in entries), *(0 for name, _, _ in skipped if name)):
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
        return _write_counted(_parquet_rows(path, budget), target, path, budget)
    if is_rows(path.name):
        from .tfrecord import read_tfrecord

        return _write_counted(read_tfrecord(path), target, path, budget)
    members, skipped = unpack(path, target, budget)
    files = [(name, place.relative_to(target).as_posix(), size) for name, place, size in members]
    return files, [(name, reason, _LEFT_OUT[reason]) for name, reason in skipped]


def _write_counted(rows: Iterator[dict[str, Any]], target: Path, path: Path, budget: Budget) -> Contents:
    """The files of `write_rows` of the shard at `path`, and one record of the rows that hold no image."""
    number = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal number
        for row in rows:
            number += 1
            yield row

    def charge(count: int, is_whole: bool) -> None:
        if is_whole:
            budget.add_member(path)
        budget.add_bytes(path, count, count)

    entries = write_rows(counted(), target, charge)
    if entries:
        budget.add_member(path)  # the table
    without = number - max(0, len(entries) - 1)  # the table is no image
    detail = f"{without:,} row{'s' * (without != 1)} without an image"
    return entries, [("", "no_image_inside", detail)] if without else []


def _parquet_rows(path: Path, budget: Budget) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        with pq.ParquetFile(path) as file:
            _check_size(path, file.metadata, budget)
            names = _stated_classes(file.schema_arrow.metadata or {})
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    yield name_classes(row, names)
    except ArchiveError:
        raise
    except (
        ArrowException,
        OSError,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: text that is no UTF-8, or no JSON
        problem = " ".join(str(error).replace(str(path), path.name).split())[:100]
        raise ArchiveError(path, "damaged_archive", f"is no readable parquet file ({problem})") from error


def _check_size(path: Path, metadata: Any, budget: Budget) -> None:
    """Refuse a parquet file that says itself that it is above a limit, before it fills the memory.

    Raises:
        ArchiveError: above a limit.
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    trial = replace(budget, members=budget.members + metadata.num_rows)
    trial.add_member(path)
    trial.add_bytes(path, size, 0)


def _stated_classes(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The names of classes by column, from what `datasets` writes into the schema of a parquet file.

    Raises:
        ValueError: if that is no JSON; JSON that is built in another way states no classes.
    """
    stated: Any = json.loads(metadata.get(b"huggingface", b"{}"))
    for key in ("info", "features"):
        stated = stated.get(key) if isinstance(stated, dict) else None
    features = stated if isinstance(stated, dict) else {}
    kinds = {column: kind for column, kind in features.items() if isinstance(kind, dict)}
    classes = {column: kind.get("names") for column, kind in kinds.items() if kind.get("_type") == "ClassLabel"}
    return {column: names for column, names in classes.items() if isinstance(names, list)}


def name_classes(row: dict[str, Any], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A row with the names of classes in the place of their numbers; a number without a name says that no class is known.

    What is no whole number, such as a name that was put in already, stays.
    """
    numbers = {column: row[column] for column in names if isinstance(row.get(column), int)}
    named = {
        column: names[column][number] if 0 <= number < len(names[column]) else None
        for column, number in numbers.items()
    }
    return {**row, **named}


def write_rows(
    rows: Iterator[dict[str, Any]], target: Path, charge: Callable[[int, bool], None] | None = None
) -> list[tuple[str, str, int]]:
    """Write the image of every row to a file, and the other columns to one table, `ROWS_TABLE`, beside them.

    Args:
        rows: with an image as bytes, or as a dict of `bytes` and `path` as `datasets` has it, in the first column that holds one.
        target: folder.
        charge (optional): called before anything is written, with its bytes and whether it is a whole file; what it raises ends the work.

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
            if charge is not None:
                charge(len(content), True)
            (target / stored).write_bytes(content)
            entries.append((stored, stored, len(content)))
            others = {
                key: value
                for key, value in row.items()
                if key != column and key.strip().lower() != "file_name" and _is_plain(value)
            }
            line = json.dumps({"file_name": stored, **others}, default=str) + "\n"
            if charge is not None:
                charge(len(line), False)
            table.write(line)
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
            stated = Path(path).suffix.lower()
            return column, value, stated if _PLAIN_SUFFIX.fullmatch(stated) else _suffix(value)
    return None


def _suffix(content: bytes) -> str:
    """What the name of an image would end in, by its first bytes."""
    if content[128:132] == b"DICM":
        return ".dcm"
    if (codec := codec_of(content[:HEAD_BYTES])) is not None:
        return _CODEC_SUFFIXES[codec]
    if content[4:8] == b"ftyp":
        return ".mp4"
    if content[:4] == b"RIFF" and content[8:12] == b"AVI ":
        return ".avi"
    if content[:2] == b"BM" and int.from_bytes(content[2:6], "little") == len(content):
        return ".bmp"
    return next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), ".bin")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
