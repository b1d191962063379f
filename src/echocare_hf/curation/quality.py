"""Empty images, and images that are no ultrasound.

What tells ultrasound from other pictures, in this order: a DICOM header that says CT or MR; few grey levels (masks, drawings); colour
all over (photographs); steps between pixels that are no larger down than across, since sound resolves better along the beam; and a
logistic regression on numbers of the texture (`texture.py`), fitted by eval/curation/train_filter.py, which says how well it does on
sources it has not seen.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from .channels import brightness, spread
from .options import CurateOptions
from .record import Drop, Item
from .texture import NAMES, texture_of

FEW_LEVELS = 12
"""An image with at most this many grey levels that cover `LEVEL_SHARE` of it is a mask or a drawing."""

LEVEL_SHARE = 0.98
COLOUR_SPREAD = 40
"""Grey levels between the channels of a coloured pixel."""

MAX_COLOURED = 0.6
"""Colour flow covers less of an image than this."""

LEAST_ELONGATION = 0.1
"""Least `elongation_1` of `texture.NAMES`: 0.15 is the smallest of 518 real images, 0.20 of 44 phantoms, about 0 elsewhere."""

WEIGHTS_FILE = Path(__file__).with_name("ultrasound_weights.json")


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
    """Why an image is not ultrasound, as a reason and a detail; None if it may be.

    A file whose DICOM header says ultrasound passes the rule on texture.
    """
    if item.declared not in ("", "US", "IVUS"):
        return "other_modality", item.declared
    reason = simple_rule(item.pixels)
    if reason is not None or item.declared:
        return reason
    weights, intercept, least = _weights()
    texture = texture_of(item.pixels)
    elongation = float(texture[NAMES.index("elongation_1")])
    if elongation < LEAST_ELONGATION:
        return "no_speckle", f"{elongation:.2f}"
    score = float(likeness(texture[None], weights, intercept)[0])
    return ("unlike_ultrasound", f"{score:.3f}") if score < least else None


def simple_rule(pixels: np.ndarray) -> tuple[str, str] | None:
    """The rules on grey levels and colour alone, for an image `(height, width, 3)`, uint8."""
    light = brightness(pixels)
    counts = np.sort(Image.fromarray(light).histogram())[::-1]
    if counts[:FEW_LEVELS].sum() >= LEVEL_SHARE * light.size and counts[1] > 0.02 * light.size:
        return "few_grey_levels", ""
    coloured = float((spread(pixels) >= COLOUR_SPREAD).mean())
    return ("coloured_all_over", f"{coloured:.2f}") if coloured > MAX_COLOURED else None


def likeness(textures: np.ndarray, weights: np.ndarray, intercept: float) -> np.ndarray:
    """How much images are like ultrasound, 0 to 1: `(images,)` for textures `(images, 26)` and weights `(26,)`."""
    return 1 / (1 + np.exp(-np.clip(textures @ weights + intercept, -60, 60)))


@cache
def _weights() -> tuple[np.ndarray, float, float]:
    """The weights in the order of `NAMES`, the intercept, and the least likeness of what is kept."""
    stored = json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))
    return np.array([stored["weights"][name] for name in NAMES]), stored["intercept"], stored["least"]
