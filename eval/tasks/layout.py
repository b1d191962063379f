"""Finding and reading the files of a data set as published, and saying what is missing where."""

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from echocare_hf.data.labelled.options import natural_key
from echocare_hf.data.labelled.pixels import STILL_FORMATS
from echocare_hf.data.labelled.table import delimiter_of, is_blank, is_number, table_text, with_point

Row = dict[str, str]

DEPTH = 6
"""Levels of folders that hold one folder alone, as unpacking makes them, that are looked through."""
NO_DATA = "__MACOSX"
"""What macOS packs beside the files."""


def roots(folder: Path) -> list[Path]:
    """Where a data set may lie: in the folder, in one of those in it, and, where there is one alone, in those below that."""
    found, here = [folder], folder
    for _ in range(DEPTH):
        below = folders_of(here)
        found += below
        if len(below) != 1:
            break
        here = below[0]
    return found


def find_root(folder: Path, marks: Sequence[str], what: str) -> Path:
    """The folder that holds all of `marks`: the given one, or the only one of its `roots` that does.

    Args:
        folder: what the user gave.
        marks: names of files or folders, `/` between levels, in any case of letters.
        what: the data set and its layout in a few words, for the message.

    Raises:
        ValueError: if there is none, or more than one.
    """
    candidates = roots(folder)
    found = [path for path in candidates if all(place(path, mark) is not None for mark in marks)]
    if found:
        if found[0] != folder and len(found) > 1:
            raise ValueError(
                f"{folder}: holds {what} {len(found)} times, in {found[0].name} and {found[1].name}; give one"
            )
        return found[0]
    lacking = [mark for mark in marks if all(place(path, mark) is None for path in candidates)] or list(marks)
    raise ValueError(
        f"{folder / lacking[0]}: was expected here ({what}), but {folder.name} holds {_listing(folder)}; give the folder that holds "
        f"{', '.join(marks)}, with the names as published"
    )


def place(folder: Path, name: str) -> Path | None:
    """The file or folder of a name below `folder`, whatever its upper case; None if there is none."""
    path = folder
    for part in name.split("/"):
        if (path / part).exists():
            path = path / part
            continue
        named = [child for child in _visible(path) if child.name.lower() == part.lower()]
        if not named:
            return None
        path = min(named)
    return path


def need(folder: Path, names: str | Sequence[str], why: str) -> Path:
    """The first of `names` that exists below `folder`.

    Raises:
        ValueError: if none does, naming the first as the place where it was expected.
    """
    names = [names] if isinstance(names, str) else names
    found = next((path for name in names if (path := place(folder, name)) is not None), None)
    if found is None:
        others = f" (or {', '.join(names[1:])})" if len(names) > 1 else ""
        raise ValueError(
            f"{folder / names[0]}: was expected here{others}: {why}; {folder.name} holds {_listing(folder)}; unpack the data set again, "
            "with the names as published"
        )
    return found


def folders_of(folder: Path) -> list[Path]:
    """The folders in a folder, in natural order."""
    return [path for path in _children(folder) if path.is_dir()]


def files_of(folder: Path, suffixes: Sequence[str] = STILL_FORMATS, below: bool = False) -> list[Path]:
    """The files with one of `suffixes` in a folder (and, if asked for, at any level below it), in natural order, hidden ones left out."""
    paths = folder.rglob("*") if below else folder.iterdir()
    found = [
        path
        for path in paths
        if path.suffix.lower() in suffixes
        and path.is_file()
        and path.name[0] not in "._"
        and NO_DATA not in path.relative_to(folder).parts
    ]
    return sorted(found, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their name without suffix.

    Raises:
        ValueError: for two of one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise ValueError(f"{path}: has the name of {found[path.stem]}; remove one of them")
        found[path.stem] = path
    return found


def _children(folder: Path) -> list[Path]:
    return sorted(_visible(folder), key=lambda path: natural_key(path.name))


def _visible(folder: Path) -> list[Path]:
    """What a folder holds, in no order, but for hidden files and what macOS packs beside the files."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.name[0] != "." and path.name != NO_DATA]


def _listing(folder: Path) -> str:
    names = [path.name for path in _children(folder)]
    return (", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")) or "nothing"


def image_size(path: Path) -> tuple[int, int]:
    """Height and width from the header of an image.

    Raises:
        ValueError: if it is none.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: is no readable image ({error}); copy it again") from error


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        ValueError: if it is none.
    """
    try:
        raw = path.read_bytes()
        return raw.decode("utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as text in UTF-8 ({error}); copy it again") from error


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        ValueError: if it is none, with the line.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is damaged JSON at line {error.lineno} ({error.msg}); download it again") from error


def read_rows(path: Path, columns: Sequence[str] = ()) -> list[tuple[str, Row]]:
    """The rows of a CSV file, each with the place that messages call it by.

    Comma, semicolon and tab are recognised, as `read_labelled` does; where semicolons part the cells, a comma in a number is its decimal
    point.

    Args:
        path: the file.
        columns: those it must have, in any case of letters; rows spell them as here.

    Raises:
        ValueError: if a column is missing, or a row has another number of cells than there are columns.
    """
    try:
        content = table_text(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); copy it again") from error
    delimiter = delimiter_of(content)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, skipinitialspace=True)
    spelled = {name.lower(): name for name in columns}
    rows = []
    try:
        header = [spelled.get(name.strip().lower(), name.strip()) for name in next(reader, [])]
        missing = [name for name in columns if name not in header]
        if missing:
            raise ValueError(
                f"{path}: was expected to have the column {', '.join(missing)}, its first line is {', '.join(header) or 'empty'}; use "
                "the file as published"
            )
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"{path}: line {reader.line_num}"
            if len(cells) != len(header):
                raise ValueError(
                    f"{where} has {len(cells)} cells, its first line {len(header)}; download the file again"
                )
            values = [with_point(cell.strip()) if delimiter == ";" else cell.strip() for cell in cells]
            rows.append((where, dict(zip(header, values, strict=True))))
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {reader.line_num} cannot be read ({error}); download the file again"
        ) from error
    if not rows:
        raise ValueError(f"{path}: holds no rows; download it again")
    return rows


def attributes_of(
    values: Mapping[str, str], texts: Mapping[str, str], numbers: Mapping[str, str] | None = None
) -> dict[str, str | float]:
    """What a row says of a case, as the attributes of a sample.

    Args:
        values: cells by column.
        texts: column to name of the attribute, for those that are words or codes.
        numbers: the same for those that are numbers.

    Returns:
        The attributes that the row states: no blank ones, and no number that is none (`unknown`, `n/a`), since a subgroup is not worth an
        unread data set.
    """
    words = {name: values[column].strip() for column, name in texts.items() if not is_blank(values.get(column))}
    counted = {
        name: float(values[column]) for column, name in (numbers or {}).items() if is_number(values.get(column))
    }
    return words | counted


def read_number(cell: str, where: str, kind: Callable[[str], Any] = float) -> Any:
    """A number in a cell, finite.

    Raises:
        ValueError: if it is none, naming the place.
    """
    try:
        value = kind(cell)
    except ValueError as error:
        raise ValueError(f"{where} says {cell!r} where a number was expected; download the file again") from error
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{where} says {cell!r} where a finite number was expected; download the file again")
    return value


def without_images(root: Path, what: str, names: Sequence[str]) -> tuple[str, ...]:
    """A note on labels whose image is not there; nothing without any."""
    return (f"{root}: {len(names)} {what} belong to no image, and are not used: {shortened(names)}",) if names else ()


def shortened(names: Sequence[str], limit: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
