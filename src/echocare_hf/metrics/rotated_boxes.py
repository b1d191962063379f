"""Oriented detection by the overlap of rotated rectangles, as rotated detectors are measured: average precision (AP)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..model.ellipses_echocare import ellipse_overlap
from .common import mean_known
from .detection import detection_metrics

COCO_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
SHAPES = ("rectangle", "ellipse")


def oriented_average_precision(
    predictions: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    shape: str = "rectangle",
) -> dict[str, float]:
    """Average precision (AP) of oriented boxes.

    - `ap50`, `ap75`: at an overlap of at least 0.5 and 0.75, the mean over the classes that occur; `ap50_<class>`, `ap75_<class>`.
    - `ap`, `ap_<class>`: the mean over the overlaps 0.5, 0.55, ..., 0.95, as COCO has it.

    Overlap is the intersection over union of the rotated rectangles (or of the ellipses in them, which is another number: for a
    small shift or turn of a long object it differs in the second digit). The area under the curve of precision over recall is taken at all
    points, see `average_precision`; the paper states neither overlap nor interpolation.

    Args:
        predictions (`list[dict]`, one an image): `scores` (k,), `labels` (k,) and `boxes` (k, 5); k may be 0.
        references (`list[dict]`, one an image): `labels` (m,) and `boxes` (m, 5); m may be 0.
            Boxes are centre x, centre y, long axis, short axis (full lengths) and angle of the long axis in degrees, from +x towards +y.
        class_names (`list[str]`): labels are indices into it.
        shape (`str`, *optional*, defaults to `"rectangle"`): or `"ellipse"`.

    Returns:
        `dict[str, float]`, 0 to 1; nan for a class that no image holds.

    Raises:
        ValueError: for another shape, or what `detection_metrics` raises.

    Source: Everingham et al. 2015 (all points); Lin et al. 2014 (COCO); Xie et al. 2021, Oriented R-CNN, for rotated overlap.
    """
    if shape not in SHAPES:
        raise ValueError(f"`shape` is one of {', '.join(SHAPES)}, got {shape!r}")
    overlap = ellipse_overlap if shape == "ellipse" else rectangle_overlap
    table = detection_metrics(predictions, references, class_names, COCO_THRESHOLDS, overlap)
    columns = {name: [table[f"{_key(t)}_{name}"] for t in COCO_THRESHOLDS] for name in class_names}
    whole = {name: float(np.mean(values)) for name, values in columns.items()}
    found = {"ap": mean_known(list(whole.values())), "ap50": table["ap50"], "ap75": table["ap75"]}
    for name in class_names:
        found |= {
            f"ap_{name}": whole[name],
            f"ap50_{name}": table[f"ap50_{name}"],
            f"ap75_{name}": table[f"ap75_{name}"],
        }
    return found


def rectangle_overlap(boxes: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of rotated rectangles.

    Args:
        boxes (`array` of shape `(n, 5)`): centre x, centre y, two full side lengths, and the angle of the first in degrees.
        others (`array` of shape `(m, 5)`): likewise.

    Returns:
        `array` of shape `(n, m)`, 0 to 1; 0 for a rectangle without area.

    Raises:
        ValueError: for another shape.
    """
    sides = [np.asarray(group, dtype=np.float64) for group in (boxes, others)]
    if any(group.ndim != 2 or group.shape[1] != 5 for group in sides):
        raise ValueError(f"boxes must be (n, 5), got {sides[0].shape} and {sides[1].shape}")
    areas = [group[:, 2] * group[:, 3] for group in sides]
    corners = [_corners(group) for group in sides]
    reach = [np.hypot(group[:, 2], group[:, 3]) / 2 for group in sides]
    overlaps = np.zeros((len(sides[0]), len(sides[1])))
    distances = np.hypot(*np.moveaxis(sides[0][:, None, :2] - sides[1][None, :, :2], 2, 0))
    for row, column in np.argwhere(distances < reach[0][:, None] + reach[1][None]):
        shared = _polygon_area(_clip(corners[0][row], corners[1][column]))
        union = areas[0][row] + areas[1][column] - shared
        overlaps[row, column] = min(shared / union, 1.0) if union > 0 else 0.0
    return overlaps


def _key(threshold: float) -> str:
    return f"ap{round(100 * threshold)}"


def _corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The four corners in turn: (n, 5) to (n, 4, 2)."""
    angle = np.deg2rad(boxes[:, 4])
    along = np.stack((np.cos(angle), np.sin(angle)), 1) * boxes[:, 2:3] / 2
    across = np.stack((-np.sin(angle), np.cos(angle)), 1) * boxes[:, 3:4] / 2
    return np.stack([boxes[:, :2] + a * along + b * across for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))], 1)


def _clip(polygon: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
    """What of a convex polygon (k, 2) lies in another (4, 2), both turning the same way.

    Source: Sutherland, Hodgman 1974, Reentrant polygon clipping.
    """
    for start, end in zip(window, np.roll(window, -1, 0), strict=True):
        if not len(polygon):
            break
        edge = end - start
        side = edge[0] * (polygon[:, 1] - start[1]) - edge[1] * (polygon[:, 0] - start[0])  # at least 0 inside
        kept: list[NDArray[np.float64]] = []
        for index in range(len(polygon)):
            last = index - 1
            if (side[index] >= 0) != (side[last] >= 0):
                share = side[last] / (side[last] - side[index])
                kept.append(polygon[last] + share * (polygon[index] - polygon[last]))
            if side[index] >= 0:
                kept.append(polygon[index])
        polygon = np.array(kept).reshape(-1, 2)
    return polygon


def _polygon_area(polygon: NDArray[np.float64]) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
