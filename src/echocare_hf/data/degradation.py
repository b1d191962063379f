"""Worse images from good ones, for the enhancement task: the pair (`degrade(image)`, image) is its training example.

Each fault is one that ultrasound has: a wide beam, defocus, speckle, electronic noise, a small dynamic range.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .augmentation import BLACK, check_image, gaussian_blur, grain

# The worst that strength 1 may draw.
LATERAL_FACTOR = 4.0
"""Columns are averaged to a quarter of their number: lateral resolution, which is worse than axial on every scanner."""
BLUR_SIGMA = 1.5
"""Standard deviation of the blur in pixels."""
SPECKLE_SHARE = 0.6
"""Share of the brightness that is multiplied with Rayleigh-distributed speckle, 0 to 1."""
NOISE_DEVIATION = 0.06
"""Standard deviation of the additive noise, of the range 0 to 1."""
CLIP = 0.2
"""Share of the range that is cut off at the dark end, and at the bright end."""
FEWEST_LEVELS = 16
"""Grey levels that are left of 256."""


def degrade(image: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """A worse version of an image, every fault drawn anew between none and its worst times `strength`.

    In order: lateral resolution (columns averaged by a factor of 1 to 4), Gaussian blur (0 to 1.5 pixels), multiplicative speckle (a
    share of 0 to 0.6 of the brightness times Rayleigh noise of mean 1, with a grain of about two pixels, wider across), additive noise
    (deviation 0 to 0.06, and none where the image is black), dynamic range (0 to 0.2 cut off at either end, 256 to 16 grey levels).

    Args:
        image: (channels, height, width) or (frames, channels, height, width), floating point, 0 to 1. Channels share their noise, frames
            do not.
        generator: of the random numbers, on the CPU; the same state gives the same result.
        strength: 0 to 1; 0 leaves the image as it is.

    Returns:
        The same shape and type, 0 to 1; a new tensor.

    Raises:
        ValueError: for a strength outside 0 to 1, or an image of another kind.
    """
    check_image(image)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength lies between 0 and 1, not {strength}")
    if strength == 0:
        return image.clone()
    black = image <= BLACK
    lateral, sigma, share, deviation, dark, bright, coarseness = (
        torch.rand(7, generator=generator) * strength
    ).tolist()
    worse = _lose_columns(image, 1 + (LATERAL_FACTOR - 1) * lateral)
    worse = gaussian_blur(worse, sigma * BLUR_SIGMA)
    share *= SPECKLE_SHARE
    worse = worse * (1 - share + share * _per_frame(image, generator, _rayleigh))
    noise = deviation * NOISE_DEVIATION * _per_frame(image, generator, _white)
    worse = (worse + noise).masked_fill(black, 0)
    low, high = dark * CLIP, 1 - bright * CLIP
    worse = ((worse - low) / (high - low)).clamp(0, 1)
    levels = round(math.exp(math.log(256) - coarseness * math.log(256 / FEWEST_LEVELS))) - 1
    return (worse * levels).round() / levels


def _lose_columns(image: Tensor, factor: float) -> Tensor:
    """Average the columns to 1 / factor of their number, and interpolate them back."""
    height, width = image.shape[-2:]
    columns = max(1, round(width / factor))
    if columns == width:
        return image
    planes = image.reshape(-1, 1, height, width)
    planes = F.interpolate(planes, (height, columns), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(planes, (height, width), mode="bilinear", align_corners=False).reshape(image.shape)


def _rayleigh(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Speckle of mean 1: the modulus of a random complex field, smoother across the beam than along it, (height, width)."""
    parts = torch.stack([grain(height, width, generator) for _ in range(2)])
    parts = gaussian_blur(parts, (0.0, 0.7))
    modulus = parts.square().sum(0).sqrt()
    return modulus / modulus.mean().clamp(min=1e-6)


def _white(height: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(height, width, generator=generator)


def _per_frame(
    image: Tensor, generator: torch.Generator, draw: Callable[[int, int, torch.Generator], Tensor]
) -> Tensor:
    """Noise that channels share and frames do not: (1, height, width), or (frames, 1, height, width)."""
    height, width = image.shape[-2:]
    fields = [draw(height, width, generator) for _ in range(image.shape[0] if image.ndim == 4 else 1)]
    noise = torch.stack(fields)[:, None].to(image.dtype)  # (frames, 1, height, width)
    return noise if image.ndim == 4 else noise[0]


__all__ = ["degrade"]
