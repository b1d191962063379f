"""Boxes, ellipses and points from the columns of a table or from a mask, in the coordinates of `record`."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from echocare_hf.model.ellipses_echocare import boxes_from_corners, covariance_ellipse

from .record import IGNORE_INDEX, Box
from .table import Row, Table, is_blank, number

_CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
_ELLIPSES = (
    ("cx", "cy", "axis1", "axis2", "angle_deg"),
    ("cx", "cy", "long_axis", "short_axis", "angle"),
    ("cx", "cy", "long_axis", "short_axis", "angle_deg"),
)
_PREFIXES = ("", "bbox_", "box_", "ellipse_")

SMALLEST_OBJECT = 16
"""Connected pixels of a mask below this many are no object, but a slip of the annotator."""


def box_columns(table: Table) -> tuple[str, ...] | None:
    """The columns that hold a box: five for an ellipse with an angle, four for the corners of a rectangle, one for `objects`.

    Ellipses are `cx, cy, axis1, axis2, angle_deg` (full axes in any order, the angle that of the first axis, as OpenCV's
    `fitEllipse` returns it) or `cx, cy, long_axis, short_axis, angle`; corners `x0, y0, x1, y1`, `xmin, ymin, xmax, ymax` and the
    like. A prefix `bbox_`, `box_` or `ellipse_` is allowed. None if there are none.
    """
    if "objects" in table.columns:
        return ("objects",)
    for layouts in (_ELLIPSES, _CORNERS):
        for prefix in _PREFIXES:
            for layout in layouts:
                found = [table.find([prefix + name]) for name in layout]
                if all(column is not None for column in found):
                    return tuple(str(column) for column in found)
    return None


def box_from_row(row: Row, columns: Sequence[str], offset: float, where: str) -> tuple[float, ...] | None:
    """Centre x and y, long axis, short axis and angle of the box in a row; None if its cells are empty.

    Args:
        row: the row.
        columns: five or four names, from `box_columns`.
        offset: where the centre of the first pixel lies that the numbers count from: 0 if they count from its outer edge.
        where: start of an error message.

    Raises:
        ValueError: for a box that is half filled, has text in it, or has no extent.
    """
    cells = [row.get(column) for column in columns]
    if all(is_blank(cell) for cell in cells):
        return None
    if any(is_blank(cell) for cell in cells):
        raise ValueError(f"{where}: only a part of {', '.join(columns)} is filled; fill all of them, or none")
    values = [number(cell, f"{where}, column {column}") for column, cell in zip(columns, cells, strict=True)]
    if len(columns) == 4:
        x0, y0, x1, y1 = (value + offset for value in values)
        return box_from_corners(x0, y0, x1, y1, where)
    x, y, first, second, angle = values
    if min(first, second) <= 0:
        raise ValueError(f"{where}: an ellipse with axes {first:g} and {second:g} has no extent; correct {columns[2]}")
    return x + offset, y + offset, max(first, second), min(first, second), (angle + 90 * (second > first)) % 180


def box_from_corners(x0: float, y0: float, x1: float, y1: float, where: str) -> tuple[float, ...]:
    """Centre x and y, long axis, short axis and angle (0 or 90) of an upright rectangle.

    Raises:
        ValueError: if it has no extent.
    """
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"{where}: the box ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) has no extent; correct or remove it")
    return tuple(boxes_from_corners(torch.tensor([x0, y0, x1, y1], dtype=torch.float64)).tolist())


def listed_boxes(cell: Any, where: str) -> list[tuple[str | None, tuple[float, ...]]]:
    """Class name and box of every object in a cell of the column `objects`.

    Args:
        cell: a list of `(class name, x, y, width, height)`, or the Hub's `{"bbox": [[x, y, width, height], ...], "category": [...]}`;
            x and y are the upper left corner.
        where: start of an error message.
    """
    if is_blank(cell):
        return []
    if isinstance(cell, dict):
        boxes = cell.get("bbox")
        names = next((cell[key] for key in ("category", "categories", "label") if key in cell), None)
        if boxes is None:
            raise ValueError(f"{where}: `objects` has no `bbox` but {', '.join(cell)}; name the boxes bbox")
        names = [None] * len(boxes) if names is None else names
        cell = [(name, *box) for name, box in zip(names, boxes, strict=True)]
    found = []
    for name, *box in cell:
        if len(box) != 4:
            raise ValueError(f"{where}: a box has {len(box)} numbers; give x, y, width and height")
        x, y, width, height = (float(value) for value in box)
        box5 = box_from_corners(x, y, x + width, y + height, where)
        found.append((None if name is None else str(name), box5))
    return found


def point_columns(table: Table, names: Sequence[str] | None) -> dict[str, tuple[str, str]]:
    """The columns `<name>_x` and `<name>_y` of each landmark, in the order of the table or of `names`.

    Copies in the pixels of a larger original (`orig_<name>_x`) are no landmarks of their own, nor are the corners of boxes and the
    centres of ellipses.

    Raises:
        ValueError: if one of `names` has no such columns.
    """
    if names is not None:
        for name in names:
            if not {f"{name}_x", f"{name}_y"} <= set(table.columns):
                landmarks = ", ".join(point_columns(table, None))
                there = (
                    f"the landmarks are {landmarks}" if landmarks else f"the columns are {', '.join(table.columns)}"
                )
                raise ValueError(
                    f"{table.source}: there are no columns '{name}_x' and '{name}_y' for --keypoints {name}; {there}"
                )
        return {name: (f"{name}_x", f"{name}_y") for name in names}
    stems = [column[:-2] for column in table.columns if column.endswith("_x")]
    return {
        stem: (f"{stem}_x", f"{stem}_y")
        for stem in stems
        if f"{stem}_y" in table.columns and not stem.startswith(("orig_", "bbox_", "box_")) and stem != "orig"
    }


def point_from_cells(x: Any, y: Any, offset: float, where: str) -> tuple[float, float]:
    """One landmark, (NaN, NaN) if its cells are empty.

    Raises:
        ValueError: if only one of them is filled or holds text.
    """
    if is_blank(x) and is_blank(y):
        return math.nan, math.nan
    if is_blank(x) or is_blank(y):
        raise ValueError(f"{where}: has one of its two coordinates only; fill both, or none")
    return number(x, where) + offset, number(y, where) + offset


def boxes_from_mask(mask: np.ndarray) -> tuple[Box, ...]:
    """The ellipse of every connected piece of every class of a mask: centre and second moments of its pixels.

    Args:
        mask: `(height, width)` of class indices; 0 is background and `IGNORE_INDEX` nothing. Class 1 becomes the box's class 0.

    Returns:
        Boxes by class, the largest first; pieces below `SMALLEST_OBJECT` pixels are left out.
    """
    boxes: list[Box] = []
    for value in np.flatnonzero(np.bincount(mask.ravel())):
        if value in (0, IGNORE_INDEX):
            continue
        y, x = np.nonzero(mask == value)
        top, left = y.min(), x.min()
        window = np.zeros((y.max() - top + 1, x.max() - left + 1), bool)
        window[y - top, x - left] = True
        piece = connected_components(window)[0][y - top, x - left] - 1  # (pixels,)
        areas, ellipses = _moment_ellipses(piece, y, x)
        kept = [index for index in np.argsort(-areas, kind="stable") if areas[index] >= SMALLEST_OBJECT]
        boxes += [Box(int(value) - 1, *ellipses[index].tolist()) for index in kept]
    return tuple(boxes)


def _moment_ellipses(piece: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
    """Area of each piece `(pieces,)`, and the ellipse with its area moments `(pieces, 5)`, as `ellipse_from_mask` defines it."""
    areas = np.bincount(piece)
    mean_x, mean_y = np.bincount(piece, x) / areas, np.bincount(piece, y) / areas
    dx, dy = x - mean_x[piece], y - mean_y[piece]
    moments = [np.bincount(piece, product) / areas for product in (dx * dx, dx * dy, dx * dy, dy * dy)]
    covariances = torch.from_numpy(np.stack(moments, -1)).unflatten(-1, (2, 2))
    covariances = covariances + torch.eye(2, dtype=torch.float64) / 12  # each pixel is a square
    centres = torch.from_numpy(np.stack((mean_x, mean_y), -1)) + 0.5
    return areas, covariance_ellipse(centres, 4 * covariances)


def connected_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the pieces of a mask that touch along a side or at a corner.

    Args:
        mask: bool `(height, width)`.

    Returns:
        int `(height, width)` with 0 outside and 1, 2, ... in reading order of each piece's first pixel, and the number of pieces.
    """
    height, width = mask.shape
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)  # (height, width + 1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]  # runs of pixels: row, first column, column after the last
    parents = list(range(len(rows)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    first_of_row = np.searchsorted(rows, np.arange(height + 1))
    for row in range(1, height):
        above, here = int(first_of_row[row - 1]), int(first_of_row[row])
        above_end, here_end = here, int(first_of_row[row + 1])
        while above < above_end and here < here_end:
            if starts[above] <= ends[here] and starts[here] <= ends[above]:
                low, high = sorted((root(above), root(here)))
                parents[high] = low
            if ends[above] < ends[here]:
                above += 1
            else:
                here += 1
    labels = np.zeros((height, width), np.int32)
    numbers: dict[int, int] = {}
    for run, (line, start, end) in enumerate(zip(rows, starts, ends, strict=True)):
        labels[line, start:end] = numbers.setdefault(root(run), len(numbers) + 1)
    return labels, len(numbers)
