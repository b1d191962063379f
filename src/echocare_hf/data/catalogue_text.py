"""How the catalogue of data sets is printed: a table of many, all fields of one."""

from collections.abc import Sequence

from ..anatomy import AnatomyTree
from .catalogue import DatasetEntry

WIDTH = 100
"""Columns of the table where it goes to a file or another command."""

_HEADINGS = ("KEY", "ANATOMY", "TASKS", "SIZE", "LICENCE", "COMMERCIAL")
_SHRINKABLE = (1, 2, 4)  # anatomy, tasks, licence
_NARROWEST = 4  # of these, columns
_GAP = "  "


def format_table(entries: Sequence[DatasetEntry], width: int = WIDTH) -> str:
    """An aligned table, one line a data set, and the number of them below.

    Long lists of nodes and tasks and long licences are cut with an ellipsis so that no line has more than `width` columns, down to 75
    or so. What is unknown is blank.
    """
    rows = [_HEADINGS, *(_cells(entry) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        column = max(_SHRINKABLE, key=lambda each: widths[each])
        if widths[column] <= _NARROWEST:
            break
        widths[column] -= 1
    lines = [_GAP.join(_fit(cell, size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows]
    sets = "1 data set" if len(entries) == 1 else f"{len(entries)} data sets"
    return "\n".join([*lines, "", f"{sets}; `echocare catalogue KEY` shows all that is known of one"])


def _cells(entry: DatasetEntry) -> tuple[str, ...]:
    unit, number = next(iter(entry.count.items()), ("", 0))
    return (
        entry.key,
        ", ".join(entry.nodes),
        ", ".join(entry.tasks),
        f"{number:,} {unit}" if unit else "",
        entry.licence or "",
        {True: "yes", False: "no", None: ""}[entry.commercial],
    )


def _fit(text: str, size: int) -> str:
    return text.ljust(size) if len(text) <= size else text[: size - 1] + "…"


def format_entry(entry: DatasetEntry, tree: AnatomyTree) -> str:
    """All fields of one data set, a line each; `unknown` is what no source states."""
    commercial = {True: "allowed by the licence", False: "not allowed", None: ""}[entry.commercial]
    values = (
        ("key", [entry.key]),
        ("anatomy", [f"{tree.path(node)} [{node}]" for node in entry.nodes]),
        ("tasks", [", ".join(entry.tasks)]),
        ("modality", [", ".join(entry.modality)]),
        ("count", [", ".join(f"{number:,} {unit}" for unit, number in entry.count.items())]),
        ("licence", [entry.licence]),
        ("commercial", [commercial]),
        ("home", [entry.home]),
        ("paper", [entry.paper]),
        ("access", [entry.access]),
        ("layout", [entry.layout]),
        ("readers", [_reader(reader) for reader in entry.readers]),
        ("sources", list(entry.sources)),
        ("checked", [entry.checked.isoformat()]),
        *((("note", [entry.note]),) if entry.note else ()),
    )
    lines = [entry.name]
    for name, texts in values:
        known = [text for text in texts if text] or ["unknown"]
        lines += [f"  {label:<11} {text}" for label, text in zip([name, *[""] * len(known)], known, strict=False)]
    return "\n".join(lines)


def _reader(reader: str) -> str:
    kind, _, of = reader.partition(":")
    return {
        "curate": "echocare curate",
        "finetune": f"python training/finetune.py {of}",
        "eval": f"python eval/run.py --task {of}",
    }[kind]
