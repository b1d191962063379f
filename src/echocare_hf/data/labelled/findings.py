"""Findings that may occur together: 1 present, 0 absent, -1 not known, one number for each of them."""

from collections.abc import Sequence
from typing import Any

from .options import natural_key
from .table import Entries, is_blank, is_number, text

UNKNOWN = -1
"""A finding that nobody looked for, or nobody could tell: it counts in no loss and no metric."""

_TRUE, _FALSE = {"1", "true", "yes", "y", "present", "+"}, {"0", "false", "no", "n", "absent", "-"}

Findings = tuple[int, ...]


def findings_in_columns(
    cells: Sequence[Sequence[Any]], columns: Sequence[str], where: Sequence[str]
) -> list[Findings]:
    """The findings of each image from columns of yes and no.

    Args:
        cells: one sequence a column with the cell of each image; empty or -1 where the finding is not known.
        columns: their names.
        where: the start of an error message for each image.

    Raises:
        ValueError: for a cell that says neither yes nor no.
    """
    return [
        tuple(_yes(column[index], start, name) for column, name in zip(cells, columns, strict=True))
        for index, start in enumerate(where)
    ]


def _yes(cell: Any, where: str, column: str) -> int:
    if is_blank(cell):
        return UNKNOWN
    word = (
        text(float(cell)) if is_number(cell) else text(cell).lower()
    )  # 1.0 is how other tools write a column with gaps
    if word == str(UNKNOWN):
        return UNKNOWN
    if word not in _TRUE | _FALSE:
        raise ValueError(
            f"{where} has {cell!r} in the column {column}; write 1 or 0 for a finding, nothing where it is not known"
        )
    return int(word in _TRUE)


def has_lists(entries: Entries, column: str) -> bool:
    """Whether a column of labels holds lists of findings, as the `datasets` library and jsonl files may have them."""
    return any(isinstance(cell, list) for cell in entries.first(column))


def names_in_lists(cells: Sequence[Any], column: str, where: Sequence[str]) -> list[list[str] | None]:
    """The names of the findings that each image shows; an empty list says that it shows none, no list that nothing is known.

    Raises:
        ValueError: for a cell that is no list, or a list of anything but names.
    """
    found: list[list[str] | None] = []
    for cell, start in zip(cells, where, strict=True):
        if cell is not None and not (isinstance(cell, list) and all(isinstance(name, str) for name in cell)):
            raise ValueError(
                f"{start} has {cell!r} in the column {column}; write a list of the names of its findings, or make each finding a column "
                "of 0 and 1"
            )
        found.append(None if cell is None else sorted({text(name) for name in cell}, key=natural_key))
    return found


def unknown_note(rows: Sequence[Findings], names: Sequence[str]) -> str | None:
    """What to say of findings that are not known everywhere; None where all are."""
    counts = [column.count(UNKNOWN) for column in zip(*rows, strict=True)]
    shown = [f"{name} in {count}" for name, count in zip(names, counts, strict=True) if count]
    if not shown:
        return None
    return f"of {len(rows)} images, some do not tell all findings and count for the others only ({', '.join(shown)})"


def contradict(first: int | Findings | None, second: int | Findings | None) -> bool:
    """Whether two labels cannot both be those of one image; a finding that is not known contradicts nothing."""
    if isinstance(first, tuple) and isinstance(second, tuple):
        return any(one != other and UNKNOWN not in (one, other) for one, other in zip(first, second, strict=True))
    return first != second


def united(findings: Sequence[Findings]) -> Findings:
    """What several statements that do not contradict each other say together."""
    return tuple(max(column) for column in zip(*findings, strict=True))
