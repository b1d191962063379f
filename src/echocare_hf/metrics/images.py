"""Enhanced images against their references: peak signal-to-noise ratio (PSNR) and structural similarity (SSIM)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..model.dense_losses_echocare import SSIM_K1, SSIM_K2, SSIM_SIGMA, SSIM_WINDOW
from .common import mean_known


def image_metrics(
    predictions: Sequence[NDArray[np.uint8]], references: Sequence[NDArray[np.uint8]]
) -> dict[str, float]:
    """Likeness of images to their references, the mean over all images.

    - `psnr`: 10 log10(255^2 / mean squared error over all pixels and channels) of each image, in dB; infinite if one is equal to its
      reference.
    - `ssim`: structural similarity with a Gaussian window of 11x11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03 and a data range of 255,
      the mean over the places at which the window lies inside the image and over the channels; at most 1. An image smaller than the
      window gets the largest odd window that fits.

    A grey image stored as three equal channels scores as its one channel does.

    Args:
        predictions (`list[array]`, uint8 of shape `(height, width, 3)` or `(height, width)`): images.
        references (`list[array]`, likewise): the image that each should be, of its size.

    Returns:
        `dict[str, float]`, nan without images.

    Raises:
        ValueError: for another number, type or size of images.

    Source: Wang et al. 2004, Image quality assessment: from error visibility to structural similarity; scikit-image's
    `peak_signal_noise_ratio` and `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} images for {len(references)} references: give one of each")
    ratios, similarities = [], []
    for index, (image, reference) in enumerate(zip(predictions, references, strict=True)):
        first, second = _checked(image, f"image {index}"), _checked(reference, f"reference {index}")
        if first.shape != second.shape:
            raise ValueError(
                f"image {index} is {image.shape}, its reference {reference.shape}: they must be of one size"
            )
        if all(
            (pixels == pixels[..., :1]).all() for pixels in (first, second)
        ):  # grey: each channel would say the same
            first, second = first[..., :1], second[..., :1]
        error = float(np.square(first - second).mean())
        ratios.append(-10 * np.log10(error) if error else float("inf"))
        similarities.append(_structural_similarity(first, second))
    return {"psnr": mean_known(ratios), "ssim": mean_known(similarities)}


def _structural_similarity(image: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """SSIM of images (height, width, channels), 0 to 1.

    The loss `structural_similarity` finds the same. It is meant for fp32, which areas of a single grey level cost the sixth digit, and
    torch's convolutions take several times as long in fp64.
    """
    from scipy.ndimage import gaussian_filter

    radii = [min(SSIM_WINDOW // 2, (size - 1) // 2) for size in image.shape[:2]]
    inside = tuple(slice(radius, size - radius) for radius, size in zip(radii, image.shape[:2], strict=True))

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(values, SSIM_SIGMA, radius=radii, axes=(0, 1))[inside]

    mean_x, mean_y = mean(image), mean(reference)
    variances = mean(image**2) - mean_x**2 + mean(reference**2) - mean_y**2
    covariance = mean(image * reference) - mean_x * mean_y
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * (2 * covariance + c2) / (variances + c2)).mean())


def _checked(image: NDArray[np.uint8], what: str) -> NDArray[np.float64]:
    """One image as (height, width, channels), 0 to 1.

    Raises:
        ValueError: for another type or shape.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or not image.size:
        raise ValueError(
            f"{what} must be uint8 of shape (height, width, 3) or (height, width), got {image.dtype} {image.shape}"
        )
    return np.atleast_3d(image) / 255
