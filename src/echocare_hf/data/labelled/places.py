"""Where things are, from the columns of a table: boxes and ellipses of objects, landmarks."""

from collections.abc import Sequence
from typing import Any

from .common import Files, entry_name
from .geometry import box_columns, box_from_row, listed_boxes, point_columns, point_from_cells
from .labels import Labels, alike_notes, choose_class_names, known_of, mask_cells, masks
from .options import Options, parse_keypoint_pairs
from .record import Box
from .table import LABEL_COLUMNS, Entries, is_blank, number, text


def objects(entries: Entries, options: Options, files: Files) -> Labels:
    """The boxes of each image: from columns, else read off the masks later."""
    table = entries.table
    columns = box_columns(table)
    if columns is None:
        if mask_cells(entries, options, files) is None:
            raise ValueError(
                f"{table.source}: has no columns of boxes (x0, y0, x1, y1; cx, cy, long_axis, short_axis, angle; or ellipse_*) and no "
                f"masks to read them off; it has {', '.join(table.columns)}"
            )
        labels = masks(entries, options, files)
        labels.from_masks = True
        return labels
    known = known_of(entries, files)
    scales = entries.first(table.find((known.scale_column,)) if known and known.scale_column else None)
    from_centre = options.first_pixel == "centre" or (
        options.first_pixel is None and "axis1" in columns[2 % len(columns)]
    )
    label = None if options.one_class else (options.labels[0] if options.labels else entries.find(LABEL_COLUMNS))
    fallback = options.one_class or (known.object_class if known else None) or "object"
    found: list[list[tuple[str, tuple[float, ...]]]] = []
    for index, rows in enumerate(entries.rows):
        where = f"{table.source}: {entry_name(entries, index)}"
        offset = 0.5 * _scale(scales[index]) if from_centre else 0.0
        found.append([])
        for row in rows:
            if columns == ("objects",):
                named = listed_boxes(row["objects"], where)
                found[-1] += [(options.one_class or name or fallback, box) for name, box in named]
            elif (box := box_from_row(row, columns, offset, where)) is not None:
                value = None if label is None else row.get(label)
                found[-1].append((fallback if is_blank(value) else text(value), box))
    used = {name for boxes in found for name, _ in boxes}
    if not used:
        raise ValueError(f"{table.source}: no image has a box; fill {', '.join(columns)}")
    declared = table.class_names.get(columns[0] if columns == ("objects",) else label or "")
    names = choose_class_names(used, declared, entries, options)
    return Labels(
        [{"boxes": tuple(Box(names.index(name), *box) for name, box in boxes)} for boxes in found],
        {"class_names": names},
        alike_notes(names, table.source),
    )


def landmarks(entries: Entries, options: Options, files: Files) -> Labels:
    """The landmarks of each image."""
    table = entries.table
    if "keypoints" in table.columns and table.keypoint_names:
        names: tuple[str, ...] = table.keypoint_names
        points: list[list[tuple[float, float]]] = [cell or [] for cell in entries.first("keypoints")]
        if options.keypoints is not None:
            names, points = _chosen_points(table.source, names, points, options.keypoints)
    else:
        names, points = _points_from_columns(entries, options, files)
    known = known_of(entries, files)
    fields: list[dict[str, Any] | None] = [
        {"keypoints": tuple(found)} if any(x == x for x, _ in found) else None for found in points
    ]
    if options.keypoint_pairs is not None:
        stated = parse_keypoint_pairs(options.keypoint_pairs)
    else:
        stated = known.keypoint_pairs if known else ()
    for name in (name for pair in stated if options.keypoint_pairs is not None for name in pair):
        if name not in names:
            raise ValueError(f"{table.source}: --keypoint_pairs names {name!r}, which is none of {', '.join(names)}")
    pairs = tuple((names.index(a), names.index(b)) for a, b in stated if a in names and b in names)
    labels = Labels(fields, {"keypoint_names": names, "keypoint_pairs": pairs})
    labels.report_left_out(entries, "keypoints")
    return labels


def _chosen_points(
    source: str, names: tuple[str, ...], points: list[list[tuple[float, float]]], wanted: Sequence[str]
) -> tuple[tuple[str, ...], list[list[tuple[float, float]]]]:
    """The wanted ones of the landmarks that a file names, in the order in which they are wanted."""
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(f"{source}: --keypoints names {missing[0]!r}, which is none of {', '.join(names)}")
    places = [names.index(name) for name in wanted]
    return tuple(wanted), [[found[place] for place in places] if found else [] for found in points]


def _points_from_columns(
    entries: Entries, options: Options, files: Files
) -> tuple[tuple[str, ...], list[list[tuple[float, float]]]]:
    table = entries.table
    candidates = [(part, point_columns(part, None)) for part in (table, *table.sides)]
    columns = next((found for _, found in candidates if found), None)
    if options.keypoints is not None:
        with_landmarks = next((part for part, found in candidates if found), table)
        part = next((part for part, _ in candidates if f"{options.keypoints[0]}_x" in part.columns), with_landmarks)
        columns = point_columns(part, options.keypoints)
    if not columns:
        raise ValueError(
            f"{table.source}: has no columns of keypoints, named <name>_x and <name>_y; it has {', '.join(table.columns)}"
        )
    known = known_of(entries, files)
    scales = entries.first(table.find((known.scale_column,)) if known and known.scale_column else None)
    cells = {column: entries.first(column) for pair in columns.values() for column in pair}
    points = []
    for index in range(len(entries)):
        offset = 0.0 if options.first_pixel == "edge" else 0.5 * _scale(scales[index])
        where = f"{table.source}: {entry_name(entries, index)}"
        points.append(
            [
                point_from_cells(cells[x][index], cells[y][index], offset, f"{where}, keypoint {name}")
                for name, (x, y) in columns.items()
            ]
        )
    return tuple(columns), points


def _scale(value: Any) -> float:
    """How much a copy was reduced, 1 if nothing is said."""
    return 1.0 if value is None else number(value, "column scale")
