"""Landmarks: mean radial error (MRE) and successful detection rate (SDR)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .common import check_names, mean_known


def keypoint_metrics(
    predictions: ArrayLike,
    references: ArrayLike,
    spacing: ArrayLike | None = None,
    pairs: Sequence[Sequence[int]] = (),
    radii: Sequence[float] = (2, 4, 10),
    keypoint_names: Sequence[str] | None = None,
) -> dict[str, float]:
    """How far predicted landmarks lie from the true ones.

    Distances are in millimetres if the spacing of every image is known, else all are in pixels; names end in the unit, here `mm`:

    - `mre_mm`: mean radial error, the mean distance over all labelled landmarks of all images.
    - `mse_mm2`: mean squared radial error, likewise, in squared units.
    - `sdr_2mm`, `sdr_4mm`, `sdr_10mm`: successful detection rate, the share of these landmarks at most that far off, 0 to 1.
    - `mre_<keypoint>_mm`: mean radial error of each landmark.

    All are nan where nothing is labelled.

    Args:
        predictions (`array` of shape `(n, keypoints, 2)`): predicted x and y in pixels; finite wherever there is a reference.
        references (`array` of shape `(n, keypoints, 2)`): true x and y in pixels, nan where not labelled.
        spacing (`array` of shape `(n, 2)`, *optional*): millimetres per pixel between rows and between columns; nan where not known.
        pairs (`list[tuple[int, int]]`, *optional*): landmarks whose order has no meaning, such as the two ends of a diameter. Each pair of
            each image is measured in the order with the smaller sum of distances.
        radii (`list[float]`, *optional*, defaults to `(2, 4, 10)`): distances for the successful detection rate, in the unit.
        keypoint_names (`list[str]`, *optional*): used in the names of the values; the index where not given.

    Returns:
        `dict[str, float]`

    Raises:
        ValueError: for shapes that do not fit, predictions that are not finite, infinite references, a spacing that is not positive, or
            an impossible pair.

    Source: Wang et al. 2016, A benchmark for comparison of dental radiography analysis algorithms (MRE and SDR).
    """
    predicted, true = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.float64)
    if predicted.shape != true.shape or predicted.ndim != 3 or predicted.shape[2] != 2:
        raise ValueError(
            f"predictions and references must both be (images, keypoints, 2), got {predicted.shape} and {true.shape}"
        )
    count, keypoints = predicted.shape[:2]
    names = [str(index) for index in range(keypoints)] if keypoint_names is None else keypoint_names
    check_names(names, keypoints, "keypoint_names")
    labelled = ~np.isnan(true).any(2)
    if np.isinf(true).any():
        raise ValueError("references are infinite: give a landmark that is not labelled nan")
    if not np.isfinite(predicted[labelled]).all():
        raise ValueError("predictions are nan or infinite where there is a reference: give every landmark a position")
    paired = [index for pair in pairs for index in pair]
    if (
        any(len(pair) != 2 for pair in pairs)
        or len(set(paired)) < len(paired)
        or not set(paired) <= set(range(keypoints))
    ):
        raise ValueError(f"`pairs` are of different landmarks from 0 to {keypoints - 1}, got {list(pairs)}")

    unit, scale = _scale(spacing, count)
    predicted, true = predicted * scale, true * scale  # (n, keypoints, 2)
    distances = _distances(predicted, true)  # (n, keypoints)
    for pair in pairs:
        first, second = pair
        straight = distances[:, [first, second]]
        crossed = _distances(predicted[:, [first, second]], true[:, [second, first]])
        # A pair of which one end is labelled has one distance in either order.
        better = np.nansum(crossed, 1) < np.nansum(straight, 1)
        distances[:, [first, second]] = np.where(better[:, None], crossed, straight)

    known = distances[~np.isnan(distances)]
    found = {f"mre_{unit}": mean_known(known), f"mse_{unit}2": mean_known(known**2)}
    found |= {f"sdr_{radius:g}{unit}": mean_known(known <= radius) for radius in radii}
    return found | {f"mre_{name}_{unit}": mean_known(distances[:, index]) for index, name in enumerate(names)}


def _scale(spacing: ArrayLike | None, count: int) -> tuple[str, np.ndarray]:
    """The unit, and what x and y are multiplied by, (n, 1, 2).

    Raises:
        ValueError: for another shape, or a spacing that is not positive.
    """
    if spacing is None:
        return "px", np.ones((count, 1, 2))
    pixel = np.asarray(spacing, dtype=np.float64)
    if pixel.shape != (count, 2):
        raise ValueError(f"`spacing` must be ({count}, 2), between rows and between columns, got {pixel.shape}")
    if np.isnan(pixel).any():
        return "px", np.ones((count, 1, 2))
    if not (np.isfinite(pixel).all() and (pixel > 0).all()):
        raise ValueError("`spacing` is millimetres per pixel: positive, or nan where not known")
    return "mm", pixel[:, None, ::-1]


def _distances(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Distances (n, keypoints), nan where not labelled."""
    return np.hypot(*np.moveaxis(predicted - true, 2, 0))
