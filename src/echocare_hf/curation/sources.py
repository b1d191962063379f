"""Where images come from: folders, archives, shards, manifests, single files, URLs and data sets of the Hub.

sources = [open_source(text, work) for text in ("breast_busi", "more=archive.zip", "s3://bucket/prefix/**")]
files, tables = sort_by_type(discover(sources[0], work, drops), work, drops)
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import pyarrow as pa

from echocare_hf.data.labelled.folder import IMAGE_FORMATS
from echocare_hf.data.labelled.json_text import parse_json
from echocare_hf.data.labelled.pixels import has_dicom_preamble
from echocare_hf.data.labelled.table import IMAGE_COLUMNS, Row, Table, is_blank, read_table, text

from .archives import is_archive
from .drops import Drops
from .facts import reading_order
from .fetched import fetch, fetch_rows, without_secrets
from .options import Progress, no_progress
from .record import ROWS_TABLE, Drop, FoundFile, drop_file, readable
from .spill import SortedRows
from .unpacked import is_rows, open_container
from .webdataset import is_side_car

_NAMED = re.compile(r"([A-Za-z0-9][\w.-]*)=(.+)")
_URL = re.compile(r"[a-z][a-z0-9+]*://", re.IGNORECASE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?::[\w.-]+)?")
_MANIFESTS = (".csv", ".tsv", ".jsonl", ".json")
_TABLES = (*_MANIFESTS, ".md", ".txt")
_LISTED = pa.schema({"source": pa.string(), "name": pa.string(), "path": pa.binary(), "size": pa.int64()})
_SUFFIXES = (*IMAGE_FORMATS, ".heic", ".heif", ".dic", ".nii", ".nii.gz", ".mhd", ".mha")


@dataclass(frozen=True)
class Source:
    """One source of images.

    Attributes:
        name: how it is called in the corpus; no two sources share one.
        root: a folder, or a file.
        given: what the corpus says of where it comes from: the last part of a path, a URL without passwords, an id.
        table: rows of a manifest, None for other sources.
        files: for a manifest, the files that it lists, found already.
        drops: for a manifest, the files that it lists and that are not there.
    """

    name: str
    root: Path
    given: str
    table: Table | None = None
    files: tuple[FoundFile, ...] = field(default=(), repr=False)
    drops: tuple[Drop, ...] = field(default=(), repr=False)


def open_source(given: str, work: Path, progress: Progress = no_progress) -> Source:
    """Find out what a source is, and fetch it if it is not on this machine.

    Args:
        given: a folder; an archive (.zip, .tar, .tar.gz, .gz, .rar); a shard (.parquet, .tfrecord, a webdataset .tar); a manifest (.csv,
            .tsv, .json, .jsonl) with a column of files; an image, DICOM or video file; a URL or a glob of URLs (s3://, gs://, https://,
            hf://); or an id of a data set on the Hub, `name/of_it` or `name/of_it:split`. `NAME=` before it names the source.
        work: folder for what has to be fetched.
        progress (optional): called as files are fetched.

    Returns:
        The source.

    Raises:
        ValueError: if it is none of these, in one line with the cure.
        FileNotFoundError: if there is no such file or folder.
    """
    match = _NAMED.fullmatch(given) if not Path(given).exists() else None
    name, place = (match[1], match[2]) if match else (None, given)
    if _URL.match(place):
        name = name or _name_of(re.sub(r"[*?].*", "", place))
        return Source(name, fetch(place, work / "fetched", progress), without_secrets(place))
    path = Path(place)
    if not path.exists():
        if _HUB_ID.fullmatch(place):
            return Source(name or re.sub("[/:]", "_", place), fetch_rows(place, work / "fetched", progress), place)
        raise FileNotFoundError(f"{place}: there is no such file or folder; check the path")
    name = name or _name_of(str(path.resolve()))
    if path.is_file() and path.suffix.lower() in _MANIFESTS:
        return _from_manifest(name, path)
    return Source(name, path, path.resolve().name)


def discover(
    source: Source, work: Path, drops: Drops, progress: Progress = no_progress, left_out: Sequence[Path] = ()
) -> Iterator[FoundFile]:
    """All files of a source, archives and shards opened, in no order.

    Args:
        source: the source.
        work: folder for what is taken out of archives.
        drops: gets a record of what could not be opened.
        progress (optional): called as archives and shards are opened.
        left_out (optional): folders below the source that are not looked into, such as the corpus that is being made.

    Yields:
        The files, tables of labels among them.

    Raises:
        ValueError: if there is no file in it.
    """
    is_empty = not source.drops
    drops.extend(source.drops)
    containers: list[FoundFile] = []
    for file in source.files if source.table is not None else _walk(source, left_out, drops):
        is_empty = False
        if is_archive(file.name) or is_rows(file.name):
            containers.append(file)
        else:
            yield file
    for done, file in enumerate(containers, 1):
        inner, lost = open_container(file, work / "unpacked")
        drops.extend(lost)
        yield from inner
        progress(f"open {source.name}", done, len(containers))
    if is_empty:
        raise ValueError(f"{source.root}: holds no files; give the folder that holds the images")


def sort_by_type(files: Iterable[FoundFile], work: Path, drops: Drops) -> tuple[SortedRows, list[FoundFile]]:
    """Set what is no image apart from what may be one.

    A file counts as an image by its suffix, or by the DICOM preamble where the suffix says nothing.

    Args:
        files: of one source.
        work: folder for the rows.
        drops: gets a record of everything that is no image.

    Returns:
        Rows `(source, name, path, size)` in the order of `facts.reading_order`, of what may be an image, and of what lies beside one in a
        webdataset shard; and what may be a table of labels.
    """
    listed = SortedRows(work / "listed", _LISTED, lambda row: reading_order(row[1]))
    tables = []
    for file in files:
        suffix = Path(file.name).suffix.lower()
        beside = is_side_car(file.name)
        is_image = not beside and (
            file.name.lower().endswith(_SUFFIXES) or (suffix not in _TABLES and has_dicom_preamble(file.path))
        )
        if is_image or beside:
            listed.add((file.source, file.name, os.fsencode(file.path), file.size))
        own = PurePosixPath(file.name).name == ROWS_TABLE
        if not is_image and not own:
            drops.append(drop_file(file, "discover", "not_an_image", suffix))
        if own or (not is_image and not beside and suffix in _MANIFESTS):
            tables.append(file)
    return listed, tables


def _name_of(place: str) -> str:
    last = place.rstrip("/").rpartition("/")[2]
    stem = re.sub(r"(\.(csv|tsv|jsonl?|zip|tar|gz|tgz|rar|parquet|tfrecords?))+$", "", last, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "_", stem).strip("_.") or "source"


def _walk(source: Source, left_out: Sequence[Path], drops: Drops) -> Iterator[FoundFile]:
    """The files below a source; links to folders, links that lead nowhere and what may not be opened go to `drops`.

    Raises:
        OSError: if the source itself may not be opened.
    """
    if source.root.is_file():
        yield FoundFile(source.name, source.root.name, str(source.root), source.root.stat().st_size)
        return
    own = {os.path.realpath(place) for place in left_out}

    def dropped(path: Path, reason: str, detail: str) -> Drop:
        return Drop(source.name, readable(path.relative_to(source.root).as_posix()), -1, "discover", reason, detail)

    def refused(error: OSError) -> None:
        path = Path(error.filename)
        if path == source.root:
            raise error
        drops.append(dropped(path, "unreadable_folder", f"cannot be opened ({error.strerror}); check its permissions"))

    for folder, folders, names in os.walk(source.root, onerror=refused):
        folders[:] = sorted(
            entry
            for entry in folders
            if not entry.startswith(".") and os.path.realpath(Path(folder, entry)) not in own
        )
        for path in (Path(folder, entry) for entry in folders):
            if path.is_symlink():  # `os.walk` does not follow it, so that no loop of links does harm
                drops.append(dropped(path, "linked_folder", "a link to a folder is not followed; name it as a source"))
        for entry in sorted(names):
            path = Path(folder, entry)
            if entry.startswith("."):
                continue
            try:
                if not path.is_file():
                    if path.is_symlink():
                        drops.append(dropped(path, "broken_link", "a link to nothing"))
                    continue
                size = path.stat().st_size
            except OSError as error:
                detail = f"cannot be looked at ({error.strerror}); check the permissions of its folder"
                drops.append(dropped(path, "unreadable_file", detail))
                continue
            yield FoundFile(source.name, path.relative_to(source.root).as_posix(), str(path), size)


def _from_manifest(name: str, path: Path) -> Source:
    table = _read_json(path) if path.suffix.lower() == ".json" else read_table(path)
    column = table.find(IMAGE_COLUMNS)
    if column is None:
        raise ValueError(
            f"{path}: has no column of files ({', '.join(IMAGE_COLUMNS[:4])}, ...), only {', '.join(table.columns)}"
        )
    files: dict[str, FoundFile] = {}
    drops: dict[str, Drop] = {}
    rows: list[Row] = []
    absolute = [PurePosixPath(cell).parent for row in table.rows if (cell := text(row.get(column))).startswith("/")]
    base = os.path.commonpath(absolute) if absolute else ""  # which says much of a machine, and nothing of a file
    for row in table.rows:
        if is_blank(row.get(column)):
            continue
        cell = text(row[column]).replace("\\", "/")
        plain = _below(cell, base)
        rows.append(row | {column: plain})
        place = path.parent / cell
        if not os.path.isfile(place):  # noqa: PTH113 - Path.is_file raises for a name that is too long
            detail = "the manifest names it, but it is not there"
            drops[plain] = Drop(name, plain, -1, "discover", "missing_file", detail)
            continue
        known = files.setdefault(plain, FoundFile(name, plain, str(place), place.stat().st_size))
        if known.path != str(place):
            raise ValueError(f"{path}: {known.path} and {place} would both be called {plain}; make two manifests")
    return Source(name, path, path.name, replace(table, rows=rows), tuple(files.values()), tuple(drops.values()))


def _below(cell: str, base: str) -> str:
    """The name of a file that a manifest lists: without what leads up from the manifest, or to `base`."""
    parts = PurePosixPath(cell.removeprefix(base) if cell.startswith("/") else cell).parts
    return "/".join(part for part in parts if part not in ("/", ".."))


def _read_json(path: Path) -> Table:
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({error}); write a list of objects, one an image") from error
    if not isinstance(content, list) or not content or not all(isinstance(row, dict) for row in content):
        raise ValueError(f"{path}: is no list of objects; write one object of named values an image")
    rows: list[Row] = content
    return Table(str(path), path.parent, rows, tuple(dict.fromkeys(column for row in rows for column in row)))
