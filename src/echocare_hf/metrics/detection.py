"""Detection of ellipses: average precision at given overlaps, and errors of size and place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..model.ellipses_echocare import ellipse_bounds, ellipse_circumference, ellipse_overlap, scale_ellipses
from .common import check_names, mean_known

# Axes that differ by less, as a share of the long one, make a circle, which has no direction.
CIRCLE = 1e-6


def detection_metrics(
    predictions: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    thresholds: Sequence[float] = (0.5, 0.75),
    overlap: Callable[[torch.Tensor, torch.Tensor], Any] = ellipse_overlap,
) -> dict[str, float]:
    """Average precision (AP) of detected ellipses, or of objects of another shape.

    - `ap50_<class>`, `ap75_<class>`: the area under the curve of precision over recall, see `average_precision`, where a detection is
      right if its ellipse overlaps one of the same class in the image by at least that much (intersection over union of the ellipses
      themselves, not of boxes around them). Detections choose in the order of their scores: each takes the ellipse that it overlaps
      most among those not yet taken, so that a second detection of one object is wrong. nan for a class of which no image holds any,
      0 for one of which none is found.
    - `ap50`, `ap75`: the mean over the classes that occur.

    Args:
        predictions (`list[dict]`, one an image): `scores` (k,), `labels` (k,) and `boxes` (k, 5); k may be 0.
        references (`list[dict]`, one an image): `labels` (m,) and `boxes` (m, 5); m may be 0.
            Boxes are centre x, centre y, long axis, short axis (full lengths) and angle in degrees, in pixels.
        class_names (`list[str]`): labels are indices into it.
        thresholds (`list[float]`, *optional*, defaults to `(0.5, 0.75)`): overlaps, above 0 and at most 1, in whole hundredths.
        overlap (`Callable`, *optional*, defaults to `ellipse_overlap`): intersection over union (k, m) of boxes (k, 5) and (m, 5), such as
            `upright_overlap` for rectangles with sides along the axes of the image.

    Returns:
        `dict[str, float]`, 0 to 1.

    Raises:
        ValueError: for another number of images, shapes that do not fit, values that are not finite, a class or threshold that there
            is not.

    Source: Everingham et al. 2015, The PASCAL visual object classes challenge: a retrospective (area under the curve, all points);
    Lin et al. 2014 (COCO) for the choice among objects not yet taken.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references: give one of each an image")
    check_names(class_names, len(class_names), "class_names")
    keys = {f"ap{round(100 * threshold)}": threshold for threshold in thresholds}
    if len(keys) != len(thresholds) or any(not 0 < threshold <= 1 for threshold in thresholds):
        raise ValueError(f"`thresholds` are different hundredths above 0 and at most 1, got {tuple(thresholds)}")
    found = [_objects(image, len(class_names), f"prediction {index}", True) for index, image in enumerate(predictions)]
    true = [_objects(image, len(class_names), f"reference {index}", False) for index, image in enumerate(references)]

    by_class: dict[str, dict[str, float]] = {key: {} for key in keys}
    for label, name in enumerate(class_names):
        scores, overlaps = [], []
        for detected, expected in zip(found, true, strict=True):
            chosen = detected["labels"] == label
            order = np.argsort(-detected["scores"][chosen], kind="stable")
            scores.append(detected["scores"][chosen][order])
            boxes = (detected["boxes"][chosen][order], expected["boxes"][expected["labels"] == label])
            overlaps.append(np.asarray(overlap(*(torch.from_numpy(group) for group in boxes))))
        count = sum(overlap.shape[1] for overlap in overlaps)
        for key, threshold in keys.items():
            hits = [_match(overlap, threshold) for overlap in overlaps]
            by_class[key][name] = (
                average_precision(np.concatenate(scores), np.concatenate(hits), count) if count else np.nan
            )
    means = {key: mean_known(list(values.values())) for key, values in by_class.items()}
    return means | {
        f"{key}_{name}": float(value) for key, values in by_class.items() for name, value in values.items()
    }


def upright_overlap(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Intersection over union (n, m) of the upright rectangles around the ellipses (n, 5) and (m, 5)."""
    first, second = ellipse_bounds(boxes)[:, None], ellipse_bounds(others)[None]
    low, high = torch.maximum(first, second)[..., :2], torch.minimum(first, second)[..., 2:]
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(corners[..., 2:] - corners[..., :2]).prod(-1) for corners in (first, second)]
    return shared / (areas[0] + areas[1] - shared)


def average_precision(scores: ArrayLike, hits: ArrayLike, count: int) -> float:
    """Area under the curve of precision over recall, interpolated at all points.

    At each recall the precision is the best that any lower threshold still reaches. Detections of equal score come and go together, so
    that the order of the images does not matter.

    Args:
        scores (`array` of shape `(k,)`): score of each detection.
        hits (`array` of shape `(k,)`): whether it is right.
        count (`int`): number of objects that there are, at least 1.

    Returns:
        `float`, 0 to 1; 0 without detections.

    Source: Everingham et al. 2015.
    """
    scores, hits = np.asarray(scores, dtype=np.float64), np.asarray(hits, dtype=bool)
    if not scores.size:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of each run of equal scores
    right = np.cumsum(hits[order])[last]
    best = np.maximum.accumulate((right / (last + 1))[::-1])[::-1]
    return float(np.sum(np.diff(right / count, prepend=0) * best))


def ellipse_errors(
    prediction_box: ArrayLike, reference_box: ArrayLike, spacing: float | Sequence[float]
) -> dict[str, float]:
    """How far one ellipse is off another, in millimetres. Lengths that are signed are prediction minus reference.

    - `circumference_error_mm`, `long_axis_error_mm`, `short_axis_error_mm`: signed.
    - `centre_distance_mm`: at least 0.
    - `angle_error_degrees`: between the long axes, 0 to 90; nan if either ellipse is a circle.

    Where pixels are not square, the ellipses are stretched first, which changes their axes and angles.

    Args:
        prediction_box (`array` of shape `(5,)`): centre x, centre y, long axis, short axis, angle in degrees, in pixels.
        reference_box (`array` of shape `(5,)`): likewise.
        spacing (`float` or `tuple[float, float]`): millimetres per pixel: one number, or between rows and between columns.

    Returns:
        `dict[str, float]`

    Raises:
        ValueError: for other shapes, values that are not finite, or a spacing that is not positive.
    """
    boxes = [np.asarray(box, dtype=np.float64) for box in (prediction_box, reference_box)]
    if any(box.shape != (5,) or not np.isfinite(box).all() for box in boxes):
        raise ValueError("a box is five finite numbers: centre x, centre y, long axis, short axis, angle in degrees")
    pixel = np.asarray(spacing, dtype=np.float64)
    if pixel.shape not in ((), (2,)) or not (np.isfinite(pixel).all() and (pixel > 0).all()):
        raise ValueError(f"`spacing` is millimetres per pixel, one positive number or (row, column), got {spacing}")
    scale = np.broadcast_to(pixel, (2, 2))[:, ::-1]  # of x and y, for either box
    ellipses = scale_ellipses(torch.from_numpy(np.stack(boxes)), torch.from_numpy(scale.copy()))
    circumference = ellipse_circumference(ellipses)
    predicted, expected = ellipses.numpy()
    turn = abs(predicted[4] - expected[4]) % 180
    circle = any(box[2] - box[3] <= CIRCLE * box[2] for box in (predicted, expected))
    return {
        "circumference_error_mm": float(circumference[0] - circumference[1]),
        "centre_distance_mm": float(np.hypot(*(predicted[:2] - expected[:2]))),
        "long_axis_error_mm": float(predicted[2] - expected[2]),
        "short_axis_error_mm": float(predicted[3] - expected[3]),
        "angle_error_degrees": float("nan") if circle else float(min(turn, 180 - turn)),
    }


def _objects(image: Mapping[str, Any], classes: int, what: str, scored: bool) -> dict[str, NDArray]:
    """The objects of one image as arrays: labels (k,), boxes (k, 5) and, if `scored`, scores (k,).

    Raises:
        ValueError: for anything missing, shapes that do not fit, values that are not finite, or a class that there is not.
    """
    names = ("labels", "boxes", "scores") if scored else ("labels", "boxes")
    missing = [name for name in names if name not in image]
    if missing:
        raise ValueError(f"{what} has no {' and no '.join(missing)}")
    labels = np.asarray(image["labels"])
    shapes = {"labels": (len(labels),), "boxes": (len(labels), 5), "scores": (len(labels),)}
    objects = {"labels": labels, "scores": np.ones(len(labels))}
    for name in names:
        values = np.asarray(image[name], dtype=np.float64)
        objects[name] = values if values.size or len(labels) else np.empty(shapes[name])
        if objects[name].shape != shapes[name]:
            raise ValueError(
                f"{what} has {len(labels)} labels, so `{name}` must be {shapes[name]}, got {values.shape}"
            )
    if not all(np.isfinite(values).all() for values in objects.values()):
        raise ValueError(f"{what} holds values that are nan or infinite")
    if (objects["boxes"][:, 2:4] < 0).any():
        raise ValueError(f"{what} holds a box with an axis below 0: axes are full lengths")
    if not np.isin(labels, np.arange(classes)).all():
        raise ValueError(f"{what} holds a class outside 0 to {classes - 1}: check `class_names`")
    return objects


def _match(overlaps: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Which detections are right: overlaps (k, m), the best score first, to (k,)."""
    free = overlaps.copy()
    hits = np.zeros(len(free), dtype=bool)
    for index, row in enumerate(free):
        if row.size and row.max() >= threshold:
            hits[index] = True
            free[:, row.argmax()] = -1
    return hits
