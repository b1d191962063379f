"""Blind/referenceless image spatial quality evaluator (BRISQUE): how distorted an image looks, as people judged photographs.

The regression that people's judgements trained comes with the package brisque, which itself does not run with this numpy and is only read.
"""

import pickle
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .common import mean_known
from .niqe import _fit_distribution, _grey, _normalized

# OpenCV's cubic interpolation (a = -0.75) halfway between two pixels.
HALFWAY = np.array([-0.09375, 0.59375, 0.59375, -0.09375])
SMALLEST = 16


class _Regression(NamedTuple):
    """Support vector regression with a radial basis: vectors (k, 36), coefficients (k,), and the range (36,) of each feature."""

    vectors: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    gamma: float
    rho: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def brisque(image: NDArray[np.uint8]) -> float:
    """BRISQUE of one image; lower is better, about 0 to 100 for photographs, but not limited to it.

    The shape and scale of brightness against its surroundings, and of the products of neighbours, at full and at half size, are 36
    features of the whole image, from which a regression trained on people's judgements of distorted photographs finds the score.

    The photographs are no ultrasound images: the number ranks images of one kind and one size. In areas of a single grey level, such as
    black margins, differences count as 0 here, while the package takes the signs of rounding errors: crop such margins first.

    Args:
        image (`array`, uint8 of shape `(height, width, 3)` or `(height, width)`): 16x16 pixels at least.

    Returns:
        `float`; nan for an image that is smaller or has a single grey level.

    Raises:
        ValueError: for another type or shape, or if the package brisque is not installed.

    Source: Mittal, Moorthy, Bovik 2012, No-reference image quality assessment in the spatial domain; the package brisque (features of the
    authors' C++ program and the regression trained on them).
    """
    regression = _regression()
    grey = _grey(image)
    if min(grey.shape) < SMALLEST or np.ptp(grey) == 0:
        return float("nan")
    features = np.concatenate([_features(plane) for plane in (grey, _half_size(grey))])
    scaled = 2 * (features - regression.low) / (regression.high - regression.low) - 1
    distances = np.square(regression.vectors - scaled).sum(1)
    return float(regression.coefficients @ np.exp(-regression.gamma * distances) - regression.rho)


def brisque_metric(images: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """`brisque`, the mean over all images that it can be measured on; nan if there are none.

    Raises:
        ValueError: as `brisque`.
    """
    return {"brisque": mean_known([brisque(image) for image in images])}


@cache
def _regression() -> _Regression:
    """What the package brisque brings.

    Raises:
        ValueError: if it is not installed.
    """
    found = find_spec("brisque")
    if found is None or found.origin is None:
        raise ValueError("BRISQUE needs the regression that the package brisque brings: pip install brisque")
    folder = Path(found.origin).parent / "models"
    head, _, rows = (folder / "svm.txt").read_text().partition("SV\n")
    settings = dict(line.split(maxsplit=1) for line in head.splitlines() if " " in line)
    table = np.array([[float(cell.split(":")[-1]) for cell in row.split()] for row in rows.splitlines()])
    limits = pickle.loads((folder / "normalize.pickle").read_bytes())
    return _Regression(
        table[:, 1:],
        table[:, 0],
        float(settings["gamma"]),
        float(settings["rho"]),
        np.array(limits["min_"], dtype=np.float64),
        np.array(limits["max_"], dtype=np.float64),
    )


def _features(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of an image (height, width), 0 to 255: (18,)."""
    from scipy.special import gamma

    values = _normalized(plane)
    products = (
        values[:, :-1] * values[:, 1:],
        values[:-1] * values[1:],
        values[:-1, :-1] * values[1:, 1:],
        values[1:, :-1] * values[:-1, 1:],
    )
    found: list[float] = []
    for index, field in enumerate((values, *products)):
        shape, left, right = (float(part[0]) for part in _fit_distribution(field[None]))
        # From scales to variances of either side.
        spread = gamma(3 / shape) / gamma(1 / shape)
        variances = left**2 * spread, right**2 * spread
        if index == 0:
            found += [shape, sum(variances) / 2]
        else:
            found += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), *variances]
    return np.array(found)


def _half_size(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """As OpenCV's `resize` by a half with cubic interpolation, which does not smooth."""
    for axis in (0, 1):
        length = plane.shape[axis]
        places = 2 * np.arange(round(length / 2))[:, None] + np.arange(-1, 3)  # (half, 4)
        taken = np.take(plane, np.clip(places, 0, length - 1), axis)
        plane = np.tensordot(taken, HALFWAY, (axis + 1, 0))
    return plane
