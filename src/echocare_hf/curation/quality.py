"""Empty images, and images that are no ultrasound.

What tells ultrasound from other pictures, in this order: a DICOM header that says CT or MR; few grey levels (masks, drawings); colour
all over (photographs); and three numbers of its texture. Sound resolves better along the beam than across it, so speckle is wider than
it is high; it is never quite smooth; and most of an image is darker than mid-grey.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from .channels import brightness, spread
from .options import CurateOptions
from .record import Drop, Item

FEW_LEVELS = 12
"""An image with at most this many grey levels that cover `LEVEL_SHARE` of it is a mask or a drawing."""

LEVEL_SHARE = 0.98
COLOUR_SPREAD = 40
"""Grey levels between the channels of a coloured pixel."""

MAX_COLOURED = 0.6
"""Colour flow covers less of an image than this."""

LEAST_ELONGATION = 0.03
"""Natural logarithm of the mean vertical over the mean horizontal step between pixels; 0.12 to 1.3 in ultrasound, about 0 elsewhere."""

COLOURED_ELONGATION = (0.15, 0.1)
"""An image of which more than this share is coloured needs more than this elongation."""

LEAST_VARIATION = 0.04
"""Median of standard deviation over mean in 5 x 5 pixels, where it is not black; 0.05 to 0.3 in ultrasound, below in smooth pictures."""

LARGEST_MEDIAN = 0.58
"""Median of the brightness where it is not black, 0 to 1; up to 0.56 in ultrasound."""

_WORK_SIDE = 256
_BLACK = 8


class Texture(NamedTuple):
    """Numbers of the texture of an image; see the limits above."""

    elongation: float
    variation: float
    median: float


def drop_empty(items: list[Item], options: CurateOptions) -> tuple[list[Item], list[Drop]]:
    """Drop images with fewer than `options.min_nonzero` pixels above 0 (paper section 4.4)."""
    kept, drops = [], []
    for item in items:
        count = int(np.count_nonzero(brightness(item.pixels)))
        if count >= options.min_nonzero:
            kept.append(item)
        else:
            drops.append(item.drop("nonzero", "few_nonzero_pixels", f"{count} pixels above 0"))
    return kept, drops


def drop_other_images(items: list[Item]) -> tuple[list[Item], list[Drop]]:
    """Drop what is not ultrasound, with the rule that says so as the reason."""
    kept, drops = [], []
    for item in items:
        reason = not_ultrasound(item)
        if reason is None:
            kept.append(item)
        else:
            drops.append(item.drop("ultrasound", *reason))
    return kept, drops


def not_ultrasound(item: Item) -> tuple[str, str] | None:
    """Why an image is not ultrasound, as a reason and a detail; None if it may be."""
    if item.declared not in ("", "US", "IVUS"):
        return "other_modality", item.declared
    light = brightness(item.pixels)
    counts = np.sort(Image.fromarray(light).histogram())[::-1]
    if counts[:FEW_LEVELS].sum() >= LEVEL_SHARE * light.size and counts[1] > 0.02 * light.size:
        return "few_grey_levels", ""
    coloured = float((spread(item.pixels) >= COLOUR_SPREAD).mean())
    if coloured > MAX_COLOURED:
        return "coloured_all_over", f"{coloured:.2f}"
    if item.declared:
        return None  # the header of the file says ultrasound
    texture = texture_of(light)
    if texture.median > LARGEST_MEDIAN:
        return "too_bright", f"{texture.median:.2f}"
    if texture.variation < LEAST_VARIATION:
        return "too_smooth", f"{texture.variation:.3f}"
    share, least = COLOURED_ELONGATION
    if texture.elongation < (least if coloured > share else LEAST_ELONGATION):
        return "no_speckle", f"{texture.elongation:.2f}"
    return None


def texture_of(light: np.ndarray) -> Texture:
    """The texture of an image, reduced to a longest side of 256 pixels if it is larger.

    Args:
        light: uint8 `(height, width)`, the brightness.
    """
    image = Image.fromarray(light)
    if max(image.size) > _WORK_SIDE:
        image.thumbnail((_WORK_SIDE, _WORK_SIDE), Image.Resampling.BOX)
    small = np.asarray(image, np.float32)
    mean = ndimage.uniform_filter(small, 5)
    deviation = np.sqrt(np.maximum(ndimage.uniform_filter(small * small, 5) - mean * mean, 0))
    bright = small > _BLACK
    solid = ndimage.minimum_filter(bright.view(np.uint8), 5).view(bool)
    variation = float(np.median(deviation[solid] / mean[solid])) if solid.sum() > 50 else 0.0
    median = float(np.median(small[bright])) / 255 if bright.any() else 0.0
    down, across = np.abs(np.diff(small, axis=0)).mean(), np.abs(np.diff(small, axis=1)).mean()
    return Texture(float(np.log((down + 0.1) / (across + 0.1))), variation, median)
