"""Perception-based image quality evaluator (PIQE): how distorted an image looks, without a reference and without training."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .common import mean_known
from .niqe import WINDOW_DEVIATION, WINDOW_RADIUS, _blocks, _grey

BLOCK = 16
SEGMENT = 6  # pixels of an edge that are looked at together
ACTIVE_VARIANCE = 0.1
SMOOTH_DEVIATION = 0.1
CENTRE = BLOCK // 2 - 1


def piqe(image: NDArray[np.uint8]) -> float:
    """PIQE of one image: 0 is best, 100 worst; an image without any texture has 100.

    Grey levels are stretched to 0 to 255 and normalized by their surroundings. Of each block of 16x16 pixels whose variance v exceeds 0.1:
    1 - v is added if a run of 6 pixels on one of its edges is smooth (blockiness), v if it is noisy. The score is
    100 (sum + 1) / (blocks + 1).

    Made for photographs: the number ranks images of one kind and one size.

    Args:
        image (`array`, uint8 of shape `(height, width, 3)` or `(height, width)`): rows and columns beyond whole blocks are mirrored.

    Returns:
        `float`, above 0.

    Raises:
        ValueError: for another type or shape.

    Source: Venkatanath et al. 2015, Blind image quality evaluation using perception based features; MATLAB `piqe`, whose numbers, and the
    second column that it leaves out of a block's surround, are kept; the same numbers as the package pypiqe.
    """
    from scipy.ndimage import gaussian_filter

    grey = _grey(image)
    if not grey.size:
        raise ValueError("PIQE needs an image of one pixel at least")
    grey = np.pad(grey, [(0, -side % BLOCK) for side in grey.shape], mode="symmetric")
    grey = np.round(255 * grey / max(grey.max(), 1))

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(values, WINDOW_DEVIATION, radius=WINDOW_RADIUS, mode="nearest")

    local = mean(grey)
    normalized = (grey - local) / (np.sqrt(np.abs(mean(grey * grey) - local * local)) + 1)
    blocks = _blocks(normalized, BLOCK)
    variances = blocks.var((1, 2), ddof=1)
    active = variances > ACTIVE_VARIANCE
    blocks, variances = blocks[active], variances[active]
    distortion = (_blocky(blocks) * (1 - variances) + _noisy(blocks, np.sqrt(variances)) * variances).sum()
    return float(100 * (distortion + 1) / (len(blocks) + 1))


def piqe_metric(images: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """`piqe`, the mean over all images; nan without images."""
    return {"piqe": mean_known([piqe(image) for image in images])}


def _blocky(blocks: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a run of pixels on an edge is smooth: (blocks, 16, 16) to (blocks,)."""
    edges = np.stack((blocks[:, 0], blocks[:, -1], blocks[:, :, 0], blocks[:, :, -1]), 1)
    runs = np.lib.stride_tricks.sliding_window_view(edges, SEGMENT, axis=2)
    return (runs.std(-1, ddof=1) < SMOOTH_DEVIATION).any((1, 2))


def _noisy(blocks: NDArray[np.float64], deviations: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the middle columns differ little from the others, for the block's deviation: (blocks, 16, 16) to (blocks,)."""
    centre = blocks[:, :, CENTRE : CENTRE + 2]
    around = np.delete(blocks, (CENTRE, CENTRE + 2), axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(centre.std((1, 2), ddof=1) / around.std((1, 2), ddof=1), nan=0.0, posinf=np.inf)
        return deviations > 2 * np.abs(deviations - ratio) / np.maximum(deviations, ratio)
