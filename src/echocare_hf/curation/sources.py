"""Where images come from: folders, archives, shards, manifests, single files, URLs and data sets of the Hub.

sources = [open_source(text, work) for text in ("breast_busi", "more=archive.zip", "s3://bucket/prefix/**")]
files, drops = discover(sources[0], work)
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from echocare_hf.data.labelled.folder import IMAGE_FORMATS
from echocare_hf.data.labelled.table import IMAGE_COLUMNS, Row, Table, is_blank, read_table, text

from .archives import is_archive
from .engine import import_daft
from .options import digest
from .record import Drop, FoundFile, drop_file
from .unpacked import is_rows, materialise, open_container, write_rows

_NAMED = re.compile(r"([A-Za-z0-9][\w.-]*)=(.+)")
_URL = re.compile(r"[a-z][a-z0-9+]*://", re.IGNORECASE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?::[\w.-]+)?")
_MANIFESTS = (".csv", ".tsv", ".jsonl", ".json")
_TABLES = (*_MANIFESTS, ".md", ".txt")
_SUFFIXES = (*IMAGE_FORMATS, ".dic", ".nii", ".nii.gz", ".mhd", ".mha")


@dataclass(frozen=True)
class Source:
    """One source of images.

    Attributes:
        name: how it is called in the corpus; no two sources share one.
        root: a folder, or a file.
        table: rows of a manifest, None for other sources.
        files: for a manifest, the files that it lists, found already.
        drops: for a manifest, the files that it lists and that are not there.
    """

    name: str
    root: Path
    table: Table | None = None
    files: tuple[FoundFile, ...] = field(default=(), repr=False)
    drops: tuple[Drop, ...] = field(default=(), repr=False)


def open_source(given: str, work: Path) -> Source:
    """Find out what a source is, and fetch it if it is not on this machine.

    Args:
        given: a folder; an archive (.zip, .tar, .tar.gz, .gz, .rar); a shard (.parquet, .tfrecord, a webdataset .tar); a manifest (.csv,
            .tsv, .json, .jsonl) with a column of files; an image, DICOM or video file; a URL or a glob of URLs (s3://, gs://, https://,
            hf://); or an id of a data set on the Hub, `name/of_it` or `name/of_it:split`. `NAME=` before it names the source.
        work: folder for what has to be fetched.

    Returns:
        The source.

    Raises:
        ValueError: if it is none of these, in one line with the cure.
        FileNotFoundError: if there is no such file or folder.
    """
    match = _NAMED.fullmatch(given) if not Path(given).exists() else None
    name, place = (match[1], match[2]) if match else (None, given)
    if _URL.match(place):
        return Source(name or _name_of(re.sub(r"[*?].*", "", place)), _fetch(place, work / "fetched"))
    path = Path(place)
    if not path.exists():
        if _HUB_ID.fullmatch(place):
            return Source(name or place.replace("/", "_").replace(":", "_"), _from_hub(place, work / "fetched"))
        raise FileNotFoundError(f"{place}: there is no such file or folder; check the path")
    name = name or _name_of(str(path.resolve()))
    if path.is_file() and path.suffix.lower() in _MANIFESTS:
        return _from_manifest(name, path)
    return Source(name, path)


def discover(source: Source, work: Path) -> tuple[list[FoundFile], list[Drop]]:
    """All files of a source, archives and shards opened, in an order that depends on their names only.

    Args:
        source: the source.
        work: folder for what is taken out of archives.

    Returns:
        The files, tables of labels among them, and what could not be opened.

    Raises:
        ValueError: if there is no file in it.
    """
    files: list[FoundFile] = []
    drops = list(source.drops)
    found: Iterator[FoundFile] = iter(source.files) if source.table is not None else _walk(source)
    for file in found:
        if is_archive(file.name) or is_rows(file.name):
            inner, lost = open_container(file, work / "unpacked")
            files += inner
            drops += lost
        else:
            files.append(file)
    if not files and not drops:
        raise ValueError(f"{source.root}: holds no files; give the folder that holds the images")
    return sorted(files), sorted(drops)


def sort_by_type(files: list[FoundFile]) -> tuple[list[FoundFile], list[FoundFile], list[Drop]]:
    """What may be an image, what may be a table of labels, and a record for everything that is no image.

    A file counts as an image by its suffix, or by the DICOM preamble where the suffix says nothing.
    """
    images, tables, drops = [], [], []
    for file in files:
        suffix = Path(file.name).suffix.lower()
        if suffix in _MANIFESTS:
            tables.append(file)
        if file.name.lower().endswith(_SUFFIXES) or (suffix not in _TABLES and _has_dicom_preamble(file.path)):
            images.append(file)
        else:
            drops.append(drop_file(file, "discover", "not_an_image", suffix))
    return images, tables, drops


def _has_dicom_preamble(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False  # a file that cannot be opened is counted as no image, with its name in the index


def _name_of(place: str) -> str:
    last = place.rstrip("/").rpartition("/")[2]
    stem = re.sub(r"(\.(csv|tsv|jsonl?|zip|tar|gz|tgz|rar|parquet|tfrecords?))+$", "", last, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "_", stem).strip("_.") or "source"


def _walk(source: Source) -> Iterator[FoundFile]:
    if source.root.is_file():
        yield FoundFile(source.name, source.root.name, str(source.root), source.root.stat().st_size)
        return
    for folder, folders, names in os.walk(source.root):
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        for entry in sorted(names):
            path = Path(folder, entry)
            if entry.startswith(".") or not path.is_file():
                continue
            yield FoundFile(source.name, path.relative_to(source.root).as_posix(), str(path), path.stat().st_size)


def _from_manifest(name: str, path: Path) -> Source:
    table = _read_json(path) if path.suffix.lower() == ".json" else read_table(path)
    column = table.find(IMAGE_COLUMNS)
    if column is None:
        raise ValueError(
            f"{path}: has no column of files ({', '.join(IMAGE_COLUMNS[:4])}, ...), only {', '.join(table.columns)}"
        )
    files: dict[str, FoundFile] = {}
    drops: dict[str, Drop] = {}
    for row in table.rows:
        if is_blank(row.get(column)):
            continue
        cell = text(row[column]).replace("\\", "/")
        place = path.parent / cell
        if place.is_file():
            files[cell] = FoundFile(name, cell, str(place), place.stat().st_size)
        else:
            drops[cell] = Drop(
                name, cell, -1, "discover", "missing_file", "the manifest names it, but it is not there"
            )
    return Source(name, path, table, tuple(files.values()), tuple(drops.values()))


def _read_json(path: Path) -> Table:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no JSON ({error}); write a list of objects, one an image") from error
    if not isinstance(content, list) or not content or not all(isinstance(row, dict) for row in content):
        raise ValueError(f"{path}: is no list of objects; write one object of named values an image")
    rows: list[Row] = content
    return Table(str(path), path.parent, rows, tuple(dict.fromkeys(column for row in rows for column in row)))


def _fetch(url: str, work: Path) -> Path:
    """Copies of the files behind a URL or a glob of URLs, made once, through Daft's readers."""
    daft = import_daft()

    def fetch(target: Path) -> tuple[list[tuple[str, str, int]], list[tuple[str, str]]]:
        paths = [url]
        if re.search(r"[*?]", url) or url.endswith("/"):
            glob = url if not url.endswith("/") else url + "**"
            paths = [row["path"] for row in daft.from_glob_path(glob).select("path").iter_rows()]
        entries = []
        for start in range(0, len(paths), 64):
            part = daft.from_pydict({"path": paths[start : start + 64]})
            part = part.with_column("content", daft.functions.download(daft.col("path")))
            for row in part.iter_rows():
                stored = f"{digest(row['path'], size=6)}_{row['path'].rpartition('/')[2]}"
                (target / stored).write_bytes(row["content"])
                entries.append((row["path"], stored, len(row["content"])))
        return entries, []

    place = work / digest(url)
    try:
        materialise(place, fetch)
    except (daft.exceptions.DaftCoreException, FileNotFoundError) as error:
        raise ValueError(
            f"{url}: cannot be read ({' '.join(str(error).split())[:160]}); check it and your access"
        ) from error
    return place


def _from_hub(place: str, work: Path) -> Path:
    """The rows of a data set of the Hub as files, made once."""
    from datasets import load_dataset

    name, _, split = place.partition(":")

    def rows() -> Iterator[dict[str, Any]]:
        data = load_dataset(name, split=split or "train", streaming=True)
        yield from data.decode(False)

    target = work / digest(place)
    try:
        materialise(target, lambda folder: (write_rows(rows(), folder), []))
    except (FileNotFoundError, ConnectionError) as error:
        raise ValueError(
            f"{place}: is no file or folder here, and no data set of the Hub that can be reached"
            f" ({' '.join(str(error).split())[:120]}); check the name"
        ) from error
    return target
