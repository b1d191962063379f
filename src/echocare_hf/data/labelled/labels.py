"""What the columns of a table mean: classes, findings, masks, better images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from .common import Files, entry_name
from .findings import UNKNOWN, Findings, findings_in_columns, has_lists, names_in_lists, unknown_note
from .folder import IMAGE_FOLDERS, MASK_FOLDERS, split_name
from .known import KnownSet, known_set
from .options import Options, natural_key, parse_mask_values
from .record import DrawnMask, MaskSource, Quality
from .table import (
    LABEL_COLUMNS,
    LABELLED_CLASSES_COLUMNS,
    MASK_COLUMNS,
    QUALITY_COLUMNS,
    TARGET_IMAGE_COLUMNS,
    Entries,
    is_blank,
    is_number,
    text,
)

FEWEST_MEASURED = 10
"""Up to so many different numbers in a column of labels are classes, such as grades, however few images there are."""

_QUALITIES: dict[str, Quality] = {
    "low": "low",
    "poor": "low",
    "noisy": "low",
    "high": "high",
    "good": "high",
    "clean": "high",
}


@dataclass
class Labels:
    """What a table says for one task.

    Attributes:
        fields: for each entry the fields of its `Sample`; None leaves it out.
        extras: fields of `LabelledData`.
        problems: one line each.
        mask_names: raw mask value to class name, as the user states it.
        usual_mask_names: the same as the format or the literature of a known set states it; what does not occur is dropped.
        looked_for: for entries that say so, the names of the classes that were looked for in their masks.
        from_masks: whether the boxes are still to be read off the masks.
    """

    fields: list[dict[str, Any] | None]
    extras: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    mask_names: dict[int, str] | None = None
    usual_mask_names: dict[int, str] = field(default_factory=dict)
    looked_for: dict[int, str] = field(default_factory=dict)
    from_masks: bool = False

    def report_left_out(self, entries: Entries, what: str) -> None:
        """Note how many entries have no label; raise if none has one."""
        missing = [index for index, fields in enumerate(self.fields) if fields is None]
        if len(missing) == len(self.fields):
            raise ValueError(f"{entries.table.source}: no image has {what}; name the column that has it, or fill it")
        if missing:
            first = entry_name(entries, missing[0])
            self.problems.append(
                f"{entries.table.source}: {len(missing)} of {len(entries)} images have no {what} and are no examples, first {first}"
            )


def class_labels(entries: Entries, options: Options) -> Labels:
    """One class an image from one column, or findings that may occur together from several columns of yes and no, or from lists."""
    table = entries.table
    if len(options.labels) > 1:
        return _findings(entries, [table.need(column, "label") for column in options.labels])
    column = table.need(options.labels[0], "label") if options.labels else label_column(entries)
    if column is None:
        raise ValueError(
            f"{table.source}: has no column of labels (one of {', '.join(LABEL_COLUMNS)}); name one with --label, of "
            f"{', '.join(table.columns)}"
        )
    if has_lists(entries, column):
        return _listed_findings(entries, column, options)
    values = [sorted({text(value) for value in values}) for values in entries.values(column)]
    for index, found in enumerate(values):
        if len(found) > 1:
            raise ValueError(
                f"{table.source}: {entry_name(entries, index)} has the labels {' and '.join(found)}; give each image one"
            )
    used = Counter(found[0] for found in values if found)
    stated = column in table.class_names or Path(table.source).is_dir()  # by the data set, or by folders
    if options.classes is None and not stated:
        _check_not_measured(used, column, table.source)
    names = choose_class_names(set(used), table.class_names.get(column), entries, options)
    fields = [{"label": names.index(found[0])} if found else None for found in values]
    labels = Labels(fields, {"class_names": names}, alike_notes(names, table.source))
    labels.report_left_out(entries, f"{column}")
    return labels


def _check_not_measured(used: Counter[str], column: str, source: str) -> None:
    """Refuse a column of numbers that are nearly all different, such as a length: its every value would be a class."""
    if len(used) > max(FEWEST_MEASURED, used.total() / 2) and all(map(is_number, used)):
        raise ValueError(
            f"{source}: the column {column} holds {len(used)} different numbers in {used.total()} images, which looks measured; predict "
            f"the number with regression --target {column} (of clips: video --target {column}), or list --classes if these are classes"
        )


def alike_notes(names: Sequence[str], source: str) -> list[str]:
    """A line on classes whose names differ by upper case or blanks only."""
    spelled: dict[str, list[str]] = {}
    for name in names:
        spelled.setdefault(" ".join(name.casefold().split()), []).append(name)
    return [
        f"{source}: {' and '.join(map(repr, alike))} are different classes, though only upper case or blanks differ; write them alike "
        "if they are one"
        for alike in spelled.values()
        if len(alike) > 1
    ]


def label_column(entries: Entries) -> str | None:
    """The column of classes by its usual names, else `organ` where it tells images apart."""
    found = entries.find(LABEL_COLUMNS)
    if found is not None:
        return found
    organ = entries.table.find(("organ",))
    return organ if organ is not None and len({text(value) for value in entries.first(organ) if value}) > 1 else None


def choose_class_names(
    used: set[str], declared: Sequence[str] | None, entries: Entries, options: Options
) -> tuple[str, ...]:
    """The classes in their order: the user's, else those the format declares, as far as they occur, else sorted naturally."""
    if options.classes is not None:
        unknown = sorted(used - set(options.classes), key=natural_key)
        if unknown:
            raise ValueError(
                f"{entries.table.source}: has the labels {', '.join(unknown)}, which are not in the class list "
                f"({', '.join(options.classes)}); add them to --classes, or correct them"
            )
        return tuple(options.classes)
    if declared is not None:
        return tuple(name for name in dict.fromkeys(map(text, declared)) if name in used)
    return tuple(sorted(used, key=natural_key))


def _findings(entries: Entries, columns: Sequence[str]) -> Labels:
    """Findings from columns of yes and no; an image is an example as soon as one of them is known."""
    rows = findings_in_columns([entries.first(column) for column in columns], columns, places_of(entries))
    return _labels_of_findings(entries, rows, columns, "known finding")


def _listed_findings(entries: Entries, column: str, options: Options) -> Labels:
    """Findings from a column of lists of their names."""
    found = names_in_lists(entries.first(column), column, places_of(entries))
    used = {name for listed in found for name in listed or ()}
    if not used:
        raise ValueError(f"{entries.table.source}: no list of the column {column} names a finding; fill it")
    names = choose_class_names(used, entries.table.class_names.get(column), entries, options)
    rows = [
        (UNKNOWN,) * len(names) if listed is None else tuple(int(name in listed) for name in names) for listed in found
    ]
    labels = _labels_of_findings(entries, rows, names, column)
    labels.problems += alike_notes(names, entries.table.source)
    return labels


def _labels_of_findings(entries: Entries, rows: Sequence[Findings], names: Sequence[str], what: str) -> Labels:
    known = [row for row in rows if set(row) != {UNKNOWN}]
    fields: list[dict[str, Any] | None] = [None if set(row) == {UNKNOWN} else {"label": row} for row in rows]
    labels = Labels(fields, {"class_names": tuple(names), "multi_label": True})
    labels.report_left_out(entries, what)
    if note := unknown_note(known, names):
        labels.problems.append(f"{entries.table.source}: {note}")
    return labels


def places_of(entries: Entries) -> list[str]:
    """The start of an error message for each entry."""
    return [f"{entries.table.source}: {entry_name(entries, index)}" for index in range(len(entries))]


def masks(entries: Entries, options: Options, files: Files) -> Labels:
    """The masks of each image, from a column or by the names of files, and the classes that were looked for."""
    cells = mask_cells(entries, options, files)
    if cells is None:
        raise ValueError(
            f"{entries.table.source}: has no column of masks (one of {', '.join(MASK_COLUMNS)}; name another with --mask), and no masks "
            f"lie beside their images as NAME_mask or in a folder called {', '.join(MASK_FOLDERS)}{_folders_there(files)}"
        )
    column = entries.find(LABELLED_CLASSES_COLUMNS)
    looked_for = {index: text(cell) for index, cell in enumerate(entries.first(column)) if cell is not None}
    known = known_of(entries, files)
    labels = Labels(
        [{"mask": found} if found else None for found in cells],
        mask_names=None if options.mask_values is None else parse_mask_values(options.mask_values),
        usual_mask_names=entries.table.mask_classes or (known.mask_classes if known else {}),
        looked_for=looked_for,
    )
    labels.report_left_out(entries, "mask")
    return labels


def _folders_there(files: Files) -> str:
    """What folders there are whose names mean nothing here, for a message."""
    if files.root is None:
        return ""
    folders = [path.name for path in files.root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    there = sorted(name for name in folders if name.lower() not in IMAGE_FOLDERS and split_name(name) is None)
    if not there:
        return ""
    shown = ", ".join(there[:6]) + (", ..." if len(there) > 6 else "")
    return f" (there are {shown}); rename them, images to one of {', '.join(IMAGE_FOLDERS)}"


def mask_cells(entries: Entries, options: Options, files: Files) -> list[tuple[MaskSource, ...]] | None:
    """The masks of each entry; None if there is neither a column of them nor any file with such a name."""
    table = entries.table
    column = table.need(options.mask, "mask") if options.mask else entries.find(MASK_COLUMNS)
    if column is not None:
        listed = [cell if isinstance(cell, list) else [cell] for cell in entries.first(column)]
        return [
            tuple(
                cell if isinstance(cell, DrawnMask) else files.source(cell, mask=True)
                for cell in cells
                if not is_blank(cell)
            )
            for cells in listed
        ]
    if table.root is None:
        return None
    found: list[tuple[MaskSource, ...]] = [
        tuple(str(path) for path in files.masks.of(_path(entries, files, index))) for index in range(len(entries))
    ]
    return found if any(found) else None


def _path(entries: Entries, files: Files, index: int) -> Path:
    cell = entries.rows[index][0][entries.key]
    return Path(str(files.source(cell[0] if isinstance(cell, list) else cell)))


def better_images(entries: Entries, files: Files) -> Labels:
    """For enhancement every image will do; some come with a better one, or are known to be worse or better than others."""
    better = entries.first(entries.table.find(TARGET_IMAGE_COLUMNS))
    qualities = _qualities(entries)
    fields: list[dict[str, Any] | None] = [
        {"quality": quality} if cell is None else {"target_image": files.source(cell)}
        for cell, quality in zip(better, qualities, strict=True)
    ]
    if all(found == {"quality": "low"} for found in fields):
        raise ValueError(
            f"{entries.table.source}: all images are of low quality; add high ones, or leave the column of the quality out"
        )
    return Labels(fields)


def _qualities(entries: Entries) -> list[Quality | None]:
    """What a column of the quality says of each image; a column that knows neither low nor high is about something else."""
    cells = [None if cell is None else text(cell).lower() for cell in entries.first(entries.find(QUALITY_COLUMNS))]
    if not set(cells) & set(_QUALITIES):
        return [None] * len(cells)
    for index, cell in enumerate(cells):
        if cell is not None and cell not in _QUALITIES:
            raise ValueError(
                f"{entries.table.source}: {entry_name(entries, index)} has the quality {cell!r}; write low or high, or leave it empty"
            )
    return [None if cell is None else _QUALITIES[cell] for cell in cells]


def known_of(entries: Entries, files: Files) -> KnownSet | None:
    """The public data set that all images come from; None if there is none or more than one."""
    if files.root is None:
        return None
    root = files.root.resolve()
    found = {known_set(PurePath(root, entry_name(entries, index))) for index in range(len(entries))}
    return found.pop() if len(found) == 1 else None
