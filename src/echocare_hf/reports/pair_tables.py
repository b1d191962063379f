"""Files of image-report pairs as tables, and which column of them means what."""

import codecs
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from echocare_hf.data.labelled.datasets import is_saved_dataset, table_from_parquet, table_from_saved
from echocare_hf.data.labelled.folder import split_name
from echocare_hf.data.labelled.table import (
    IMAGE_COLUMNS,
    LICENCE_COLUMNS,
    PATIENT_COLUMNS,
    SEQUENCE_COLUMNS,
    SPLIT_COLUMNS,
    Table,
    read_table,
)

COLUMNS: dict[str, tuple[str, ...]] = {
    "images": ("images", "image_paths", *IMAGE_COLUMNS),
    "report": ("report", "report_text", "text", "finding", "caption", "description", "impression", "findings"),
    "organ": ("organ", "body_part", "anatomy"),
    "indication": ("indication", "clinical_indication", "history", "reason"),
    "views": ("views", "view"),
    "group": (*PATIENT_COLUMNS, "exam", "examination", *SEQUENCE_COLUMNS[:-1]),
    "split": SPLIT_COLUMNS,
    "findings": ("findings",),
    "licence": LICENCE_COLUMNS,
    "language": ("language", "lang"),
    "name": ("name", "id", "uid", "report_id"),
}
"""The names that columns are known by, in order of preference; case does not matter. Several columns `image_1`, `image_2`, ... are images
of one report, and `finding:NAME` is a finding, 1, 0 or empty."""

_NUMBERED_IMAGE = re.compile(r"(?:image|img|image_path|file_name)_?\d+", re.IGNORECASE)
FINDING_PREFIXES = ("finding:", "findings.")
_NAMES = ("pairs", "reports", "metadata", "train")
_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
_LISTS = ("pairs", "reports", "data", "annotations", "rows")  # of an object that holds the rows under one name


def open_pairs(path: Path) -> Table:
    """The rows of a file, or of the one file in a folder that holds pairs.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, not UTF-8, or of another format.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder; check the path")
    if path.is_dir():
        if is_saved_dataset(path):
            return table_from_saved(path)
        path = _file_in(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        table = table_from_parquet([path], path.parent)
        table.root, table.source = path.parent, str(path)
        return table
    if suffix not in _SUFFIXES:
        raise ValueError(f"{path}: is no file of image-report pairs; give a {', '.join(_SUFFIXES)} file")
    _check_encoding(path)
    return _from_json(path) if suffix == ".json" else read_table(path)


def columns_of(table: Table, wanted: Mapping[str, str]) -> dict[str, list[str]]:
    """The columns of each kind of `COLUMNS`, as the table spells them.

    Args:
        table: the rows.
        wanted: those that the user names.

    Raises:
        ValueError: for a column that is not there, or a table without images or reports.
    """
    unknown = sorted(set(wanted) - set(COLUMNS))
    if unknown:
        raise ValueError(f"columns are named for {', '.join(COLUMNS)}, not for {unknown[0]}")
    found: dict[str, list[str]] = {}
    for what, names in COLUMNS.items():
        if what in wanted:
            if wanted[what] not in table.columns:
                raise ValueError(
                    f"{table.source}: there is no column {wanted[what]!r} of {what}; it has {', '.join(table.columns)}"
                )
            found[what] = [wanted[what]]
            continue
        column = table.find(names)
        found[what] = [] if column is None else [column]
    numbered = [column for column in table.columns if _NUMBERED_IMAGE.fullmatch(column)]
    if "images" not in wanted and numbered:
        found["images"] = numbered
    found["findings"] = [column for column in found["findings"] if column not in found["report"]]
    found["findings"] += [column for column in table.columns if column.lower().startswith(FINDING_PREFIXES)]
    for what in ("images", "report"):
        if not found[what]:
            usual = ", ".join(COLUMNS[what][:4])
            raise ValueError(
                f"{table.source}: has no column of {what} ({usual}, ...); it has {', '.join(table.columns)}: name yours"
            )
    return found


def _file_in(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
    named = [path for name in _NAMES for path in files if path.stem.lower() == name]
    if named or len(files) == 1:
        return (named or files)[0]
    if not files:
        raise ValueError(f"{folder}: holds no file of image-report pairs ({', '.join(_SUFFIXES)}); add pairs.json")
    shown = ", ".join(path.name for path in files[:6])
    raise ValueError(f"{folder}: holds {shown}; name the file of pairs itself")


def _check_encoding(path: Path) -> None:
    """Refuses what is not UTF-8 (or UTF-16 by its mark): a report in another encoding would be learned as nonsense."""
    raw = path.read_bytes()
    try:
        raw.decode(_encoding(raw))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}: line {line} is not {error.encoding.upper()} (perhaps GB18030 or Windows-1252); save it as UTF-8"
        ) from error


def _encoding(raw: bytes) -> str:
    """UTF-16 by its mark, else UTF-8 with or without one."""
    return "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _from_json(path: Path) -> Table:
    try:
        raw = path.read_bytes()
        content = json.loads(raw.decode(_encoding(raw)))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno} is no JSON ({error.msg}); write it again") from error
    rows: list[Any] = []
    if isinstance(content, list):
        rows = content
    elif isinstance(content, dict):
        splits = {name: part for name, part in content.items() if split_name(name) and isinstance(part, list)}
        rows = next((content[name] for name in _LISTS if isinstance(content.get(name), list)), [])
        for name, part in splits.items():
            rows += [{**row, "split": name} if isinstance(row, dict) else row for row in part]
    if not rows:
        raise ValueError(f"{path}: holds no rows; write a list of objects, such as {_EXAMPLE}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: row {number} is no object; write one such as {_EXAMPLE}")
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    return Table(source=str(path), root=path.parent, rows=rows, columns=columns)


_EXAMPLE = '{"images": ["a.png", "b.png"], "report": "..."}'

__all__ = ["COLUMNS", "FINDING_PREFIXES", "columns_of", "open_pairs"]
