"""Measured values from the columns of a table."""

from collections.abc import Sequence
from typing import Any

from .common import Files
from .labels import Labels, known_of, places_of
from .options import Options
from .table import Entries, is_number, number, numeric_columns, text

# Names of a measured value, where a table does not leave the choice to one numeric column.
_TARGET_COLUMNS = ("target", "value", "ef", "ejection_fraction")
_UNITS = {
    "mm": "mm",
    "cm": "cm",
    "ml": "ml",
    "deg": "degrees",
    "degree": "degrees",
    "degrees": "degrees",
    "rad": "rad",
    "percent": "%",
    "ms": "ms",
    "weeks": "weeks",
    "px": "pixels",
}


def measured_values(entries: Entries, options: Options, files: Files) -> Labels:
    """One or more measured values an image; several observers' values are averaged and kept."""
    table = entries.table
    columns = [table.need(column, "target") for column in options.targets] or [_target_column(entries, files)]
    values = {}
    places = places_of(entries)
    for column in columns:
        cells_of = entries.values(column)
        _check_not_words([cell for cells in cells_of for cell in cells], column, table.source)
        values[column] = [
            [number(cell, f"{where}, column {column}") for cell in cells]
            for where, cells in zip(places, cells_of, strict=True)
        ]
    fields: list[dict[str, Any] | None] = []
    for index in range(len(entries)):
        found = {column: values[column][index] for column in columns}
        if not all(found.values()):
            fields.append(None)
            continue
        targets = {column: sum(cells) / len(cells) for column, cells in found.items()}
        readings = {column: tuple(cells) for column, cells in found.items() if len(cells) > 1}
        fields.append({"targets": targets, "readings": readings})
    units = tuple(_unit(column) for column in columns)
    labels = Labels(fields, {"target_names": tuple(columns), "target_units": units})
    labels.report_left_out(entries, " and ".join(columns))
    return labels


def _check_not_words(cells: Sequence[Any], column: str, source: str) -> None:
    """Refuse a column of words as a measured value: they are classes."""
    words = sorted({text(cell) for cell in cells if not is_number(cell)})
    if words and not any(map(is_number, cells)):
        shown = ", ".join(words[:5]) + (", ..." if len(words) > 5 else "")
        raise ValueError(
            f"{source}: the column {column} holds no numbers but {shown}; to tell classes apart run classification --label {column} (of "
            f"clips: video --label {column})"
        )


def target_column(entries: Entries, files: Files) -> str | None:
    """The measured value that a set is known for, or that a column is named for; None if there is none."""
    known = known_of(entries, files)
    if known is not None and known.target is not None:
        for table in (entries.table, *entries.table.sides):
            if known.target in table.columns:
                return known.target
    return entries.table.find(_TARGET_COLUMNS)


def _target_column(entries: Entries, files: Files) -> str:
    column = target_column(entries, files)
    if column is not None:
        return column
    numeric = [name for table in (entries.table, *entries.table.sides) for name in numeric_columns(table)]
    if len(numeric) == 1:
        return numeric[0]
    raise ValueError(
        f"{entries.table.source}: which column shall be predicted? name it with --target, of {', '.join(numeric) or 'none'}"
    )


def _unit(column: str) -> str:
    """The unit that the last words of a column's name tell: `head_circumference_mm` is in mm."""
    for word in reversed(column.lower().split("_")):
        if word in _UNITS:
            return _UNITS[word]
    return ""
