"""B-mode, Doppler, M-mode, CEUS or elastography: from the header, the table, else from colours in the pixels."""

import re
from dataclasses import replace

import numpy as np

from echocare_hf.data.reading_record import Modality

from .channels import spread
from .record import Drop, Item

COLOURED = 48
"""A pixel whose largest and smallest channel differ by at least this many grey levels is coloured."""

FLOW_SHARE = (0.002, 0.5)
"""Share of coloured pixels in a colour Doppler image. Fewer are a marker, more are a tinted image or a photograph."""

_WORDS: tuple[tuple[str, Modality], ...] = (
    (r"ceus|contrast", "CEUS"),
    (r"elasto|strain|shear", "elastography"),
    (r"doppler|colou?r|\bcfm\b|\bcfi\b|flow|duplex", "Doppler"),
    (r"\bm[ _-]?mode\b", "M-mode"),
    (r"\bb[ _-]?mode\b|grey|gray|\b2d\b", "B-mode"),
)


def modality_from_text(text: str | None) -> Modality | None:
    """The mode that a table's text names, None if it names none."""
    return next((mode for pattern, mode in _WORDS if re.search(pattern, (text or "").lower())), None)


def tell_modality(items: list[Item]) -> tuple[list[Item], list[Drop]]:
    """Set the modality of images whose file does not state one, where the pixels show it: colour flow is Doppler.

    Grey images stay "unknown": a still B-mode, M-mode or contrast image cannot be told apart for certain by its pixels.
    """
    return [
        replace(item, modality="Doppler") if item.modality == "unknown" and _shows_flow(item.pixels) else item
        for item in items
    ], []


def _shows_flow(pixels: np.ndarray) -> bool:
    """Whether an RGB image `(height, width, 3)` is grey with areas of red and blue in it, as colour flow has them."""
    values = np.ascontiguousarray(pixels[::2, ::2])
    coloured = spread(values) >= COLOURED
    share = float(coloured.mean())
    if not FLOW_SHARE[0] <= share <= FLOW_SHARE[1]:
        return False
    red, green, blue = values[coloured].astype(np.int16).T
    warm, cold = (red > blue + COLOURED // 2) & (red >= green), (blue > red + COLOURED // 2) & (blue >= green)
    return bool((warm | cold).mean() > 0.7)
