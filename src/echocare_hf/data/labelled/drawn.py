"""Masks that a COCO file draws: filled polygons, and run lengths in either of pycocotools' encodings (read without pycocotools)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .record import DrawnMask


def draw_mask(drawn: DrawnMask) -> np.ndarray:
    """Draw the regions of a mask in their order, later ones over earlier ones.

    Returns:
        int32 `(height, width)` of raw values, 0 where nothing is drawn.

    Raises:
        ValueError: for a region that cannot be drawn, naming the mask.
    """
    mask = np.zeros(drawn.size, np.int32)
    for value, shape in drawn.regions:
        inside = decode_run_lengths(shape, drawn.name) if isinstance(shape, dict) else fill_polygons(shape, drawn.size)
        if inside.shape != drawn.size:
            raise ValueError(
                f"{drawn.name}: run lengths of a {inside.shape[1]} x {inside.shape[0]} mask on an image of "
                f"{drawn.size[1]} x {drawn.size[0]}; correct its height and width in the json"
            )
        mask[inside] = value
    return mask


def fill_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre lies inside any of the polygons.

    Args:
        polygons: each `(x0, y0, x1, y1, ...)` in pixels, 0 at the outer edge of the first pixel, at least three points. One that
            crosses itself is filled by the even-odd rule.
        size: height and width.

    Returns:
        bool `(height, width)`.
    """
    inside = np.zeros(size, bool)
    for polygon in polygons:
        inside |= _fill_polygon(np.asarray(polygon, np.float64).reshape(-1, 2), *size)
    return inside


def _fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    toggles = np.zeros((height, width + 1), bool)
    centres = np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        if y0 == y1:
            continue
        rows = np.flatnonzero((centres >= min(y0, y1)) & (centres < max(y0, y1)))
        crossings = x0 + (centres[rows] - y0) * (x1 - x0) / (y1 - y0)
        first = np.clip(np.ceil(crossings - 0.5), 0, width).astype(int)  # the first centre right of the crossing
        toggles[rows, first] ^= True
    return np.logical_xor.accumulate(toggles, axis=1)[:, :width]


def decode_run_lengths(shape: dict[str, Any], where: str) -> np.ndarray:
    """Run lengths down the columns, plain or in pycocotools' text encoding, to a mask.

    Args:
        shape: `{"size": [height, width], "counts": [...] or text}`; the first run is outside.
        where: start of an error message.

    Returns:
        bool `(height, width)`.

    Raises:
        ValueError: if the runs do not fill the mask.
    """
    height, width = (int(side) for side in shape["size"])
    counts = shape["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    runs = _decode_text(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise ValueError(
            f"{where}: its run lengths add up to {sum(runs)} pixels, not {width} x {height}; export it again"
        )
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape(width, height).T


def _decode_text(encoded: str) -> list[int]:
    """pycocotools' `rleFrString`: five bits a character, least first, each run from the fourth on relative to the last but one."""
    runs: list[int] = []
    value = shift = 0
    for character in encoded:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift  # a negative difference
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
