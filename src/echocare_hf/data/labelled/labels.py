"""What the columns of a table mean: classes, findings, measured values, masks, better images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from .common import Files, entry_name
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
    number,
    numeric_columns,
    text,
)

# Names of a measured value, where a table does not leave the choice to one numeric column.
_TARGET_COLUMNS = ("target", "value", "ef", "ejection_fraction")
_UNITS = {
    "mm": "mm",
    "cm": "cm",
    "ml": "ml",
    "deg": "degrees",
    "percent": "%",
    "ms": "ms",
    "weeks": "weeks",
    "px": "pixels",
}
_QUALITIES: dict[str, Quality] = {
    "low": "low",
    "poor": "low",
    "noisy": "low",
    "high": "high",
    "good": "high",
    "clean": "high",
}
_TRUE, _FALSE = {"1", "true", "yes", "y", "present", "+"}, {"0", "false", "no", "n", "absent", "-"}


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
    """One class an image from one column, or findings that may occur together from several columns of yes and no."""
    table = entries.table
    if len(options.labels) > 1:
        return _findings(entries, options)
    column = table.need(options.labels[0], "label") if options.labels else label_column(entries)
    if column is None:
        raise ValueError(
            f"{table.source}: has no column of labels (one of {', '.join(LABEL_COLUMNS)}); name one with label, of "
            f"{', '.join(table.columns)}"
        )
    values = [sorted({text(value) for value in values}) for values in entries.values(column)]
    for index, found in enumerate(values):
        if len(found) > 1:
            raise ValueError(
                f"{table.source}: {entry_name(entries, index)} has the labels {' and '.join(found)}; give each image one"
            )
    names = choose_class_names(
        {value for found in values for value in found}, table.class_names.get(column), entries, options
    )
    fields = [{"label": names.index(found[0])} if found else None for found in values]
    labels = Labels(fields, {"class_names": names})
    labels.report_left_out(entries, f"{column}")
    return labels


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
                f"({', '.join(options.classes)}); add them to classes, or correct them"
            )
        return tuple(options.classes)
    if declared is not None:
        return tuple(name for name in declared if name in used)
    return tuple(sorted(used, key=natural_key))


def _findings(entries: Entries, options: Options) -> Labels:
    table = entries.table
    columns = [table.need(column, "label") for column in options.labels]
    cells = [entries.first(column) for column in columns]
    fields: list[dict[str, Any] | None] = []
    for index in range(len(entries)):
        row = [column[index] for column in cells]
        if any(value is None for value in row):
            fields.append(None)
            continue
        where = f"{table.source}: {entry_name(entries, index)}"
        fields.append({"label": tuple(_yes(value, where, name) for value, name in zip(row, columns, strict=True))})
    labels = Labels(fields, {"class_names": tuple(columns), "multi_label": True})
    labels.report_left_out(entries, "complete findings")
    return labels


def _yes(value: Any, where: str, column: str) -> int:
    word = text(value).lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"{where} has {value!r} in the column {column}; write 1 or 0 for a finding")
    return int(word in _TRUE)


def measured_values(entries: Entries, options: Options, files: Files) -> Labels:
    """One or more measured values an image; several observers' values are averaged and kept."""
    table = entries.table
    columns = [table.need(column, "target") for column in options.targets] or [_target_column(entries, files)]
    values = {}
    for column in columns:
        where = f"{table.source}, column {column}"
        values[column] = [[number(cell, where) for cell in cells] for cells in entries.values(column)]
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
        f"{entries.table.source}: which column shall be predicted? name it with target, of {', '.join(numeric) or 'none'}"
    )


def _unit(column: str) -> str:
    """The unit that the last words of a column's name tell: `head_circumference_mm` is in mm."""
    for word in reversed(column.lower().split("_")):
        if word in _UNITS:
            return _UNITS[word]
    return ""


def masks(entries: Entries, options: Options, files: Files) -> Labels:
    """The masks of each image, from a column or by the names of files, and the classes that were looked for."""
    cells = mask_cells(entries, options, files)
    if cells is None:
        raise ValueError(
            f"{entries.table.source}: has no column of masks (one of {', '.join(MASK_COLUMNS)}), and no masks lie in a folder masks; "
            "name the column with mask"
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


def mask_cells(entries: Entries, options: Options, files: Files) -> list[tuple[MaskSource, ...]] | None:
    """The masks of each entry; None if there is neither a column of them nor any file with such a name."""
    table = entries.table
    column = table.need(options.mask, "mask") if options.mask else entries.find(MASK_COLUMNS)
    if column is not None:
        listed = [cell if isinstance(cell, list) else [cell] for cell in entries.first(column)]
        return [
            tuple(cell if isinstance(cell, DrawnMask) else files.source(cell) for cell in cells if not is_blank(cell))
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
