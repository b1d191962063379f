"""Local normalized cross-correlation (LNCC) of images: whether structures agree, whatever brightness and contrast."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .common import mean_known
from .images import _checked

# Variances below this (of grey levels 0 to 1) are rounding errors of a window of a single grey level.
FLAT = 1e-8


def local_correlation_metrics(
    predictions: Sequence[NDArray[np.uint8]], references: Sequence[NDArray[np.uint8]], window: int = 9
) -> dict[str, float]:
    """Correlation of grey levels in windows around each pixel, the mean over all windows, then over all images.

    - `lncc`: mean of Pearson's correlation r of the grey levels in a window, -1 to 1.
    - `lncc_squared`: mean of r^2, 0 to 1, which registration takes as a loss; it does not tell an image from its negative.

    Windows lie inside the image. A window in which both images have a single grey level, such as a black margin, is left out; one in
    which only one of them has counts as 0. The number depends on the window: state it.

    Args:
        predictions (`list[array]`, uint8 of shape `(height, width, 3)` or `(height, width)`): images; of colours the mean is taken.
        references (`list[array]`, likewise): the image that each should be, of its size.
        window (`int`, *optional*, defaults to 9): side of the windows in pixels, odd, at least 3.

    Returns:
        `dict[str, float]`, nan without images, or for images that are smaller than a window or have a single grey level.

    Raises:
        ValueError: for another number, type or size of images, or another window.

    Source: Avants et al. 2008, Symmetric diffeomorphic image registration with cross-correlation; MONAI
    `LocalNormalizedCrossCorrelationLoss` (which pads with zeros and finds -r^2).
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} images for {len(references)} references: give one of each")
    if window < 3 or window % 2 == 0:
        raise ValueError(f"`window` is an odd number of pixels, at least 3, got {window}")
    means, squares = [], []
    for index, (image, reference) in enumerate(zip(predictions, references, strict=True)):
        first, second = (
            _checked(picture, f"{what} {index}").mean(2)
            for picture, what in ((image, "image"), (reference, "reference"))
        )
        if first.shape != second.shape:
            raise ValueError(f"image {index} is {first.shape}, its reference {second.shape}: they must be of one size")
        correlation = _correlations(first, second, window)
        means.append(mean_known(correlation))
        squares.append(mean_known(correlation**2))
    return {"lncc": mean_known(means), "lncc_squared": mean_known(squares)}


def _correlations(first: NDArray[np.float64], second: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """r in each window inside the images, nan where both are flat."""
    from scipy.ndimage import uniform_filter

    if min(first.shape) < window:
        return np.empty((0, 0))
    half = window // 2
    inside = tuple(slice(half, side - half) for side in first.shape)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return uniform_filter(values, window)[inside]

    centres = mean(first), mean(second)
    variances = [mean(values**2) - centre**2 for values, centre in zip((first, second), centres, strict=True)]
    covariance = mean(first * second) - centres[0] * centres[1]
    flat = [variance < FLAT for variance in variances]
    scale = np.sqrt(np.maximum(variances[0], FLAT) * np.maximum(variances[1], FLAT))
    correlation = np.where(flat[0] | flat[1], 0.0, np.clip(covariance / scale, -1, 1))
    return np.where(flat[0] & flat[1], np.nan, correlation)
