"""Text burnt into the pixels: found by the look of its letters, removed near the border, reported elsewhere.

Letters are small, thin, about as bright as each other and brighter than what they stand on, alike in height, and they stand in rows.
Speckle has spots like that, but not rows of them. On bright tissue letters stand out less: there they are told by a colour that tissue
does not have, or by being nearly white, and then a row needs more of them.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from .channels import brightness, spread
from .record import Drop, Item

BORDER = 0.2
"""Text is removed where it reaches into the outer fifth of the image, on any side."""

LEAST_LETTERS = 3
"""A row of fewer letters is taken for speckle."""

_LEAST_WHITE_LETTERS = 6  # of a row that stands out little
_CONTRAST = 70  # grey levels that a letter stands above its surroundings
_WHITE, _WHITE_CONTRAST = 235, 25  # the same for letters that are nearly white
_COLOUR = 70  # grey levels between the channels of coloured letters
_MOST_COLOURED = 0.03  # share of coloured pixels; more are colour flow or a tinted image
_LETTER_HEIGHT = (5, 40)  # pixels
_WIDEST = 5  # times as wide as high: letters that touch
_ONE_COLOUR = 30  # grey levels between the brightest pixels of two letters of a row
_LEAST_BRIGHT = 120  # grey level of a letter
_WORK_SIDE = 1024  # larger images are looked at in a reduced copy


class TextLine(NamedTuple):
    """A row of letters: its box, half-open, in pixels, and the number of letters in it."""

    x0: int
    y0: int
    x1: int
    y1: int
    letters: int


def remove_text(items: list[Item]) -> tuple[list[Item], list[Drop]]:
    """Fill the text near the border of each image with what is around it, and count the lines that are left.

    Args:
        items: images cut to their region.

    Returns:
        The images with `pixels`, `text_removed` and `text_suspected` changed; no drops.
    """
    done = []
    for item in items:
        pixels = item.pixels
        near: list[TextLine] = []
        far: list[TextLine] = []
        for line in find_text(pixels):
            (near if _near_border(line, pixels.shape) else far).append(line)
        if near:
            pixels = fill_lines(pixels, near)
        done.append(replace(item, pixels=pixels, text_removed=len(near), text_suspected=len(far)))
    return done, []


def find_text(pixels: np.ndarray) -> list[TextLine]:
    """The rows of letters in an image.

    Args:
        pixels: uint8 `(height, width, 3)`.

    Returns:
        The rows, from top to bottom.
    """
    height, width = pixels.shape[:2]
    scale = max(1, -(-max(height, width) // _WORK_SIDE))
    light, colour = brightness(pixels), spread(pixels)
    if scale > 1:
        light, colour = (np.asarray(Image.fromarray(values).reduce(scale)) for values in (light, colour))
    above = light.astype(np.int16) - _ground(light)
    coloured = colour >= _COLOUR
    looks = [((light >= _LEAST_BRIGHT) & (above >= _CONTRAST), LEAST_LETTERS)]
    looks.append(((light >= _WHITE) & (above >= _WHITE_CONTRAST), _LEAST_WHITE_LETTERS))
    if 0 < coloured.mean() <= _MOST_COLOURED:
        looks.append((coloured, LEAST_LETTERS))
    lines = []
    for mask, least in looks:
        letters = _letters(light, mask)
        for row in _rows(letters, least):
            row = _whole_line(row, letters)
            x0, y0 = row[:, 0:2].min(axis=0).tolist()
            x1, y1 = row[:, 2:4].max(axis=0).tolist()
            lines.append(TextLine(x0 * scale, y0 * scale, x1 * scale, y1 * scale, len(row)))
    return sorted(_without_doubles(lines), key=lambda line: (line.y0, line.x0))


def _without_doubles(lines: list[TextLine]) -> list[TextLine]:
    """Lines that were found in several ways once: one whose middle lies in a longer one is left out."""
    kept: list[TextLine] = []
    for line in sorted(lines, key=lambda one: (one.x0 - one.x1, one)):
        x, y = (line.x0 + line.x1) / 2, (line.y0 + line.y1) / 2
        if not any(other.x0 <= x <= other.x1 and other.y0 <= y <= other.y1 for other in kept):
            kept.append(line)
    return kept


def _letters(light: np.ndarray, stands_out: np.ndarray) -> np.ndarray:
    """Small thin spots of a mask, int `(letters, 5)`: x0, y0, x1, y1, half-open, and the brightest grey level."""
    if stands_out.mean() > 0.2:  # a texture, not text
        return np.empty((0, 5), int)
    spots, _ = ndimage.label(stands_out, np.ones((3, 3), int))
    boxes = []
    sizes = np.bincount(spots.ravel())
    places = ndimage.find_objects(spots)
    for number in np.flatnonzero((sizes[1:] >= _LETTER_HEIGHT[0]) & (sizes[1:] <= _LETTER_HEIGHT[1] ** 2)) + 1:
        place = places[number - 1]
        rows, columns = place
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        if not _LETTER_HEIGHT[0] <= tall <= _LETTER_HEIGHT[1] or wide > _WIDEST * tall:
            continue
        if sizes[number] < 0.15 * tall * wide or sizes[number] < tall:
            continue
        peak = int(light[place][spots[place] == number].max())
        boxes.append((columns.start, rows.start, columns.stop, rows.stop, peak))
    return np.array(boxes, int).reshape(-1, 5)


def _ground(light: np.ndarray) -> np.ndarray:
    """What is left of an image once everything thinner than about 9 pixels is gone, uint8 of its shape."""
    height, width = light.shape
    even = np.pad(light, ((0, height % 2), (0, width % 2)), mode="edge")
    half = np.minimum(np.minimum(even[::2, ::2], even[1::2, ::2]), np.minimum(even[::2, 1::2], even[1::2, 1::2]))
    opened = ndimage.maximum_filter(ndimage.minimum_filter(half, 4), 5)
    return opened.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]


def _rows(boxes: np.ndarray, least: int) -> list[np.ndarray]:
    """Group letters into rows: alike in height and brightness, on one base line, close to each other."""
    boxes = boxes[np.argsort(boxes[:, 0], kind="stable")]
    free = np.ones(len(boxes), bool)
    rows = []
    for first in range(len(boxes)):
        if not free[first]:
            continue
        row = [first]
        while (following := _next(boxes, free, row[-1])) is not None:
            row.append(following)
        if len(row) >= least:
            free[row] = False
            rows.append(boxes[row])
    return rows


def _whole_line(row: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A row with the letters of its line that differ too much in height to follow each other, and the words beside it."""
    while True:
        x0, y0 = row[:, :2].min(axis=0).tolist()
        x1, y1 = row[:, 2:4].max(axis=0).tolist()
        tall = y1 - y0
        heights = boxes[:, 3] - boxes[:, 1]
        inside = np.minimum(boxes[:, 3], y1) - np.maximum(boxes[:, 1], y0)  # of each height, in the line
        gap = np.maximum(boxes[:, 0] - x1, x0 - boxes[:, 2])
        fits = (
            (gap <= 1.2 * tall)
            & (inside >= 0.6 * heights)
            & (heights <= 1.5 * tall)
            & (np.abs(boxes[:, 4] - np.median(row[:, 4])) <= _ONE_COLOUR)
        )
        grown = np.unique(np.concatenate([row, boxes[fits]]), axis=0)
        if len(grown) == len(row):
            return row
        row = grown


def _next(boxes: np.ndarray, free: np.ndarray, index: int) -> int | None:
    """The letter that follows one in its row, None if there is none."""
    x0, y0, x1, y1, peak = boxes[index]
    tall = y1 - y0
    heights = boxes[:, 3] - boxes[:, 1]
    gap = boxes[:, 0] - x1
    fits = (
        free
        & (boxes[:, 0] > x0)
        & (gap >= -1)
        & (gap <= 1.2 * tall)
        & (np.abs(boxes[:, 3] - y1) <= max(1, 0.15 * tall))
        & (np.abs(heights - tall) <= max(1, 0.3 * tall))
        & (np.abs(boxes[:, 4] - peak) <= _ONE_COLOUR)
    )
    candidates = np.flatnonzero(fits)
    return int(candidates[np.argmin(gap[candidates])]) if candidates.size else None


def _near_border(line: TextLine, shape: tuple[int, ...]) -> bool:
    height, width = shape[:2]
    return min(line.x0, width - line.x1) < BORDER * width or min(line.y0, height - line.y1) < BORDER * height


def fill_lines(pixels: np.ndarray, lines: list[TextLine]) -> np.ndarray:
    """Replace boxes of text by the median of a ring around them.

    The margin is a quarter of their height, and at both ends one and a half times their height, for a letter that was not recognised.

    Args:
        pixels: uint8 `(height, width, 3)`.
        lines: what to fill.

    Returns:
        A copy.
    """
    filled = pixels.copy()
    for line in lines:
        margin = max(2, (line.y1 - line.y0) // 4)
        ends = round(1.5 * (line.y1 - line.y0))
        inner = _grown(line, margin, ends, pixels.shape)
        y0, y1, x0, x1 = _grown(line, 3 * margin, ends + 2 * margin, pixels.shape)
        ring = np.ones((y1 - y0, x1 - x0), bool)
        ring[inner[0] - y0 : inner[1] - y0, inner[2] - x0 : inner[3] - x0] = False
        around = filled[y0:y1, x0:x1][ring]
        filled[inner[0] : inner[1], inner[2] : inner[3]] = np.median(around, axis=0) if len(around) else 0
    return filled


def _grown(line: TextLine, margin: int, ends: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Rows and columns of a box with a margin above and below and one at both ends, cut to the image: y0, y1, x0, x1."""
    return (
        max(0, line.y0 - margin),
        min(shape[0], line.y1 + margin),
        max(0, line.x0 - ends),
        min(shape[1], line.x1 + ends),
    )
