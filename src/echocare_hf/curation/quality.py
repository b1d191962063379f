"""Empty images, and images that are no ultrasound.

What tells ultrasound from other pictures, in this order: a DICOM header that says CT or MR; few grey levels (masks, drawings); colour
all over (photographs); steps between pixels that are no larger down than across, since sound resolves better along the beam; and a
support vector machine on numbers of the texture (`texture.py`), fitted by eval/curation/train_filter.py, which says how well it does on
sources it has not seen.
"""

from dataclasses import dataclass, replace
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

DOUBTFUL = 0.4
"""Images that the machine keeps and whose decision is below are put before a person: on the audit sheet and on a page of the contact
sheet. Of nine other pictures that got in seven are below, and 2 of 410 good images (docs/results.md)."""

MACHINE_FILE = Path(__file__).with_name("ultrasound_machine.npz")


@dataclass(frozen=True, eq=False)
class Machine:
    """A support vector machine with radial basis functions on standardised textures.

    Attributes:
        mean: float `(numbers,)`, of textures.
        deviation: float `(numbers,)`, their standard deviation.
        vectors: float `(vectors, numbers)`, standardised.
        coefficients: float `(vectors,)`.
        intercept: of the decision.
        gamma: of exp(-gamma * squared distance).
        least: images whose decision is below are no ultrasound.
    """

    mean: np.ndarray
    deviation: np.ndarray
    vectors: np.ndarray
    coefficients: np.ndarray
    intercept: float
    gamma: float
    least: float

    def decide(self, textures: np.ndarray) -> np.ndarray:
        """How far images are on the side of ultrasound: `(images,)`, 0 at the border, for textures `(images, numbers)`."""
        rows = (textures - self.mean) / self.deviation
        squared = (rows**2).sum(1)[:, None] + (self.vectors**2).sum(1) - 2 * rows @ self.vectors.T
        return np.exp(-self.gamma * squared) @ self.coefficients + self.intercept


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
    """Drop what is not ultrasound, with the rule that says so as the reason; what is kept gets its `ultrasound_score`."""
    kept, drops = [], []
    for item in items:
        reason, score = _judged(item)
        if reason is None:
            kept.append(replace(item, ultrasound_score=score))
        else:
            drops.append(item.drop("ultrasound", *reason))
    return kept, drops


def not_ultrasound(item: Item) -> tuple[str, str] | None:
    """Why an image is not ultrasound, as a reason and a detail; None if it may be.

    A file whose DICOM header says ultrasound passes the rule on texture.
    """
    return _judged(item)[0]


def _judged(item: Item) -> tuple[tuple[str, str] | None, float | None]:
    """What `not_ultrasound` says, and the decision of the machine where it was asked."""
    if item.declared not in ("", "US", "IVUS"):
        return ("other_modality", item.declared), None
    reason = simple_rule(item.pixels)
    if reason is not None or item.declared:
        return reason, None
    texture = texture_of(item.pixels)
    elongation = float(texture[NAMES.index("elongation_1")])
    if elongation < LEAST_ELONGATION:
        return ("no_speckle", f"{elongation:.2f}"), None
    machine = shipped_machine()
    score = float(machine.decide(texture[None])[0])
    return (("unlike_ultrasound", f"{score:.3f}") if score < machine.least else None), score


def simple_rule(pixels: np.ndarray) -> tuple[str, str] | None:
    """The rules on grey levels and colour alone, for an image `(height, width, 3)`, uint8."""
    light = brightness(pixels)
    counts = np.sort(Image.fromarray(light).histogram())[::-1]
    if counts[:FEW_LEVELS].sum() >= LEVEL_SHARE * light.size and counts[1] > 0.02 * light.size:
        return "few_grey_levels", ""
    coloured = float((spread(pixels) >= COLOUR_SPREAD).mean())
    return ("coloured_all_over", f"{coloured:.2f}") if coloured > MAX_COLOURED else None


@cache
def shipped_machine() -> Machine:
    """The machine that the package ships, for the numbers of `texture.NAMES`."""
    with np.load(MACHINE_FILE, allow_pickle=False) as stored:
        arrays = {name: stored[name].astype(np.float64) for name in ("mean", "deviation", "vectors", "coefficients")}
        intercept, gamma, least = (float(stored[name]) for name in ("intercept", "gamma", "least"))
    return Machine(**arrays, intercept=intercept, gamma=gamma, least=least)
