"""Frames that no model can say much about: black, nearly one grey, saturated, or blurred.

The limits stand apart from 320 real images of eight sources at a longest side of 256 pixels, of which none is warned about: there the
deviation is 19 or more, the brightest percent 90 or more, saturated pixels 5 % or less, and `sharpness` 0.59 or more, while a Gaussian
blur of 2 pixels brings it to 0.57 or less (median 0.52). `eval/familiarity.py quality` measures it again.
"""

import numpy as np
from PIL import Image

WORK_SIDE = 256
DARK = 24
"""Grey value that the brightest percent of the pixels of a frame exceeds."""

LEAST_DEVIATION = 6.0
"""Standard deviation of grey values, of 255."""

SATURATED, MOST_SATURATED = 250, 0.2
"""Grey value from which a pixel is saturated, and the share of such pixels."""

LEAST_SHARPNESS = 0.56


def quality_warnings(pixels: np.ndarray) -> tuple[str, ...]:
    """What is wrong with a frame, one line each; nothing for one that is fine.

    Args:
        pixels: uint8 `(height, width, 3)`, cut to the ultrasound region.
    """
    grey = work_grey(pixels)
    if np.quantile(grey, 0.99) <= DARK:
        return ("the image is black, or nearly so",)
    if grey.std() < LEAST_DEVIATION:
        return ("the image is nearly one grey",)
    found = []
    if (share := float((grey >= SATURATED).mean())) > MOST_SATURATED:
        found.append(f"{100 * share:.0f} % of the image is saturated: the gain is too high")
    if sharpness(grey) < LEAST_SHARPNESS:
        found.append("the image is blurred: it has no detail at the size that the models see")
    return tuple(found)


def work_grey(pixels: np.ndarray) -> np.ndarray:
    """A frame as float32 grey values 0 to 255, reduced to a longest side of `WORK_SIDE`."""
    image = Image.fromarray(pixels)
    scale = WORK_SIDE / max(image.size)
    if scale < 1:
        size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
        # Not by averaging all pixels where there are far more: that takes longer than a small model.
        image = image.resize(size, Image.Resampling.BOX, reducing_gap=1.0)
    return np.asarray(image.convert("L"), np.float32)


def sharpness(grey: np.ndarray) -> float:
    """Mean step between pixels over that of the image at half its size: about 1 for noise, towards 0.5 for what is smooth."""
    height, width = grey.shape[0] // 2 * 2, grey.shape[1] // 2 * 2
    half = grey[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))
    return _step(grey) / max(_step(half), 1e-6)


def _step(grey: np.ndarray) -> float:
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())
