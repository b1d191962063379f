"""The cells of a row: a report, a list of images, findings."""

import ast
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

from echocare_hf.data.labelled.record import ImageSource, RowReference
from echocare_hf.data.labelled.table import Row, is_blank, text

from .findings import LABELS
from .pair_tables import FINDING_PREFIXES

_SPACE = re.compile(r"[^\S\n]+")
_SEPARATORS = re.compile(r"\s*[;|]\s*")
_FINDING_SEPARATORS = re.compile(r"\s*[;|,、，；]\s*")
_SENTENCE = re.compile(r"[.!?](?:\s|$)|[。！？]")
_INVISIBLE = "\u200b\u2060\ufeff\u00ad"  # zero-width spaces, byte order marks, soft hyphens
_NO_CHARACTERS = ("Cc", "Cs", "Co", "Cn")  # control, half of a pair, private, not assigned
MOST_UNREADABLE = 0.1
"""Share of a report's characters that may be unreadable; a report with more is not used."""

_WORDS = {"1": "present", "true": "present", "yes": "present", "0": "absent", "false": "absent", "no": "absent"}
_UNKNOWN = ("-1", "", "none", "nan")


def clean_report(cell: Any, where: str) -> tuple[str, list[str]]:
    """The text of a report without characters that stand for nothing, and what was removed.

    Raises:
        ValueError: for an empty report, one that is no text, or one of which too much is unreadable.
    """
    if is_blank(cell):
        raise ValueError(f"{where} has an empty report; write one or remove the row")
    if not isinstance(cell, str):
        raise ValueError(f"{where} has a report that is no text but {type(cell).__name__}; write it as text")
    lines = unicodedata.normalize("NFC", cell).replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    lines = lines.translate(dict.fromkeys(map(ord, _INVISIBLE)))
    unknown = [letter for letter in lines if letter == "\ufffd" or (letter != "\n" and _is_no_character(letter))]
    remarks = []
    if unknown:
        shown = ", ".join(f"U+{ord(letter):04X}" for letter in dict.fromkeys(unknown))
        if len(unknown) > MOST_UNREADABLE * len(lines):
            raise ValueError(f"{where}: its report is unreadable ({shown}); save the file as UTF-8 from its source")
        remarks.append(f"{where}: its report holds {len(unknown)} unknown characters ({shown}), which were removed")
        lines = "".join(letter for letter in lines if letter not in unknown)
    cleaned = "\n".join(_SPACE.sub(" ", line).strip() for line in lines.split("\n")).strip()
    if not any(letter.isalnum() for letter in cleaned):
        raise ValueError(f"{where} has an empty report; write one or remove the row")
    return cleaned, remarks


def _is_no_character(letter: str) -> bool:
    return unicodedata.category(letter) in _NO_CHARACTERS


def listed_cell(cell: Any) -> list[Any]:
    """A list, JSON of a list, or names between semicolons or bars, as a list; empty for a blank cell."""
    if isinstance(cell, list | tuple):
        return [item for item in cell if not is_blank(item)]
    if is_blank(cell):
        return []
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            return [item for item in json.loads(cell) if not is_blank(item)]
        except json.JSONDecodeError:
            listed = _written_by_python(cell)
            if listed is not None:
                return listed  # else: a name may begin with a bracket
    return [item for item in _SEPARATORS.split(cell) if item] if isinstance(cell, str) else [cell]


def _written_by_python(cell: str) -> list[Any] | None:
    """A list as `str` and pandas write it, ['a.png', 'b.png']; None for other texts."""
    try:
        value = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return [item for item in value if not is_blank(item)] if isinstance(value, list) else None


def source_of(cell: Any, root: Path | None, where: str) -> ImageSource:
    """The file that a cell names, or the image in the row itself.

    Raises:
        ValueError: if there is no such file, or the cell names none.
    """
    if isinstance(cell, RowReference):
        return cell
    if not isinstance(cell, str):
        raise ValueError(f"{where} has an image that is no name of a file but {type(cell).__name__}; write its path")
    names = [cell, cell.replace("\\", "/")] if "\\" in cell else [cell]  # as Windows writes paths
    folders = [Path()] if root is None else [root, root / "images"]
    places = [folder / name for name in names for folder in folders]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        folder = "" if root is None else f" in {root}"
        several = "; put semicolons between several names" if re.search(r"\.\w+\s*,", cell) else ""
        raise ValueError(
            f"{where}: there is no image {cell}{folder}; copy it there, or name the folder of the images{several}"
        )
    return str(found)


def finding_cell(row: Row, columns: list[str], where: str) -> dict[str, str]:
    """The findings that a row states: "present", "absent" or "unknown" by name.

    Raises:
        ValueError: for a value that says none of these.
    """
    found: dict[str, str] = {}
    for column in columns:
        prefix = next((prefix for prefix in FINDING_PREFIXES if column.lower().startswith(prefix)), None)
        cell = row.get(column)
        if isinstance(cell, str) and cell.lstrip().startswith(("{", "[")):
            try:
                cell = json.loads(cell)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f'{where}, {column} is no JSON ({error.msg}); write such as {{"cyst": 1}} or names between semicolons'
                ) from error
        if prefix is not None:
            found[column[len(prefix) :].strip()] = _label(cell, f"{where}, {column}")
        elif isinstance(cell, dict):
            found |= {str(name): _label(value, f"{where}, {name}") for name, value in cell.items()}
        elif isinstance(cell, str) and not is_blank(cell):
            if _SENTENCE.search(cell):
                raise ValueError(
                    f"{where}, {column} is text, not names of findings; if it is the report, say so with --columns report={column}"
                )
            found |= {name: "present" for name in _FINDING_SEPARATORS.split(cell.strip()) if name}
        elif isinstance(cell, list):
            found |= {text(name): "present" for name in cell}
    return found


def _label(value: Any, where: str) -> str:
    word = "" if is_blank(value) else text(value).lower()
    if word in LABELS:
        return word
    if word in _UNKNOWN:
        return "unknown"
    if word not in _WORDS:
        raise ValueError(f"{where} is {value!r}; write 1 (present), 0 (absent) or leave it empty (unknown)")
    return _WORDS[word]


__all__ = ["clean_report", "finding_cell", "listed_cell", "source_of"]
