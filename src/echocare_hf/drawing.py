"""Pictures of what the pretraining model did: the masked image, the reconstruction, the anatomy path, and a sheet of many of these.

A `GalleryItem` is one image and its results; `item_panels` gives its three small pictures, `draw_gallery` lays many items out on one
sheet (for a README, a slide, a report), and `echocare_hf.drawing_page` makes a web page of the same items. Results of the task heads are
drawn by `echocare_hf.drawing_predictions`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from echocare_hf.drawing_style import (
    ACCENT,
    CARD,
    FAINT,
    FRAME,
    GROUND,
    INK,
    SOFT,
    WARNING,
    fit,
    shorten,
    text_font,
)

PANEL_NAMES = ("input", "masked", "reconstructed")

_PANEL = 216  # side of a small picture, in pixels of the sheet
_GAP, _PADDING, _MARGIN = 6, 18, 28
_BAR_WIDTH, _LINE = 150, 27
_TEXT_HEIGHT = 34 + 3 * _LINE + 30

_MASK_FILL, _MASK_LINE = (38, 50, 62), (58, 73, 88)


@dataclass(frozen=True, eq=False)
class GalleryItem:
    """One image and what the model made of it.

    Attributes:
        title: what it is, in a few words.
        image: uint8 `(height, width, 3)`, the model's input.
        mask: bool `(rows, columns)`, True for the units that were hidden from the model.
        reconstruction: uint8 `(height, width, 3)`, what the model painted, over the whole image.
        path: the anatomy path, from the region down, as `(name, score)` with scores 0 to 1; empty if no region is likely.
        aspect: width over height of the original, which the model's input was squashed from.
        details: one line of facts, e.g. where the image is from.
        numbers: one line of measurements, e.g. the error and what it is compared with.
        warning: one line on why not to trust the result; empty for none.
        section: heading under which it stands; items of one section follow each other.
    """

    title: str
    image: np.ndarray = field(repr=False)
    mask: np.ndarray = field(repr=False)
    reconstruction: np.ndarray = field(repr=False)
    path: tuple[tuple[str, float], ...] = ()
    aspect: float = 1.0
    details: str = ""
    numbers: str = ""
    warning: str = ""
    section: str = ""


def pixel_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask of units `(rows, columns)` as a mask of pixels, bool `(height, width)`; the last units may be cut off."""
    rows, columns = mask.shape
    unit_height, unit_width = -(-height // rows), -(-width // columns)
    return mask.repeat(unit_height, 0).repeat(unit_width, 1)[:height, :width]


def draw_masked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image as the model saw it: hidden units are slate, with a hairline between them.

    Args:
        image: uint8 `(height, width, 3)`.
        mask: bool `(rows, columns)` of units.

    Returns:
        uint8 `(height, width, 3)`, a new array.
    """
    height, width = image.shape[:2]
    hidden = pixel_mask(mask, height, width)
    drawn = image.copy()
    drawn[hidden] = _MASK_FILL
    lines = np.zeros((height, width), dtype=bool)
    lines[:: -(-height // mask.shape[0])] = True
    lines[:, :: -(-width // mask.shape[1])] = True
    drawn[hidden & lines] = _MASK_LINE
    return drawn


def fill_masked(image: np.ndarray, mask: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """The image with its hidden units filled from the reconstruction: uint8 `(height, width, 3)`, a new array."""
    hidden = pixel_mask(mask, *image.shape[:2])
    return np.where(hidden[..., None], reconstruction, image)


def item_panels(item: GalleryItem, height: int) -> list[Image.Image]:
    """The three pictures of an item in its original aspect ratio, in the order of `PANEL_NAMES`.

    Args:
        item: the item.
        height: largest height and width of a picture, in pixels.
    """
    size = fit(item.aspect, height)
    masked = draw_masked(item.image, item.mask)
    filled = fill_masked(item.image, item.mask, item.reconstruction)
    smooth, sharp = Image.Resampling.BICUBIC, Image.Resampling.NEAREST
    return [
        Image.fromarray(pixels).resize(size, method)
        for pixels, method in ((item.image, smooth), (masked, sharp), (filled, smooth))
    ]


def draw_gallery(
    items: Sequence[GalleryItem], *, title: str, subtitle: str, footer: str, columns: int = 2
) -> Image.Image:
    """One sheet with every item: input, masked, reconstructed, and the anatomy path with its scores.

    Args:
        items: what to show, section by section.
        title: heading of the sheet.
        subtitle: one line below it.
        footer: one line at the foot.
        columns: items side by side.

    Returns:
        A picture of mode RGB, about 1,440 pixels wide with two columns.

    Raises:
        ValueError: if there are no items.
    """
    if not items:
        raise ValueError("a gallery needs at least one image")
    card_width = len(PANEL_NAMES) * _PANEL + 2 * _GAP + 2 * _PADDING
    card_height = _PANEL + _TEXT_HEIGHT + 2 * _PADDING + 20
    width = 2 * _MARGIN + columns * card_width + (columns - 1) * _PADDING

    # Lay out first: (top, heading) of each section, (left, top, item) of each card.
    headings: list[tuple[int, str]] = []
    cards: list[tuple[int, int, GalleryItem]] = []
    top, column = 122, 0
    for number, item in enumerate(items):
        if number == 0 or item.section != items[number - 1].section:
            top, column = top + (card_height + _PADDING if column else 0), 0
            if item.section:
                headings.append((top, item.section))
                top += 40
        cards.append((_MARGIN + column * (card_width + _PADDING), top, item))
        column += 1
        if column == columns:
            top, column = top + card_height + _PADDING, 0
    height = top + (card_height + _PADDING if column else 0) + 46

    sheet = Image.new("RGB", (width, height), GROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 26), title, INK, text_font(38))
    draw.text((_MARGIN + 1, 78), shorten(subtitle, 21, width - 2 * _MARGIN), SOFT, text_font(21))
    for heading_top, heading in headings:
        draw.text((_MARGIN + 1, heading_top + 4), heading, ACCENT, text_font(23))
    for left, card_top, item in cards:
        _draw_card(sheet, draw, left, card_top, card_width, card_height, item)
    draw.text((_MARGIN + 1, height - 42), shorten(footer, 18, width - 2 * _MARGIN), SOFT, text_font(18))
    return sheet


def _draw_card(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int, width: int, height: int, item: GalleryItem
) -> None:
    draw.rounded_rectangle((left, top, left + width, top + height), 10, CARD, FRAME)
    left, top, width = left + _PADDING, top + _PADDING, width - 2 * _PADDING
    for number, (name, panel) in enumerate(zip(PANEL_NAMES, item_panels(item, _PANEL), strict=True)):
        x = left + number * (_PANEL + _GAP)
        draw.rectangle((x, top, x + _PANEL - 1, top + _PANEL - 1), (0, 0, 0))
        sheet.paste(panel, (x + (_PANEL - panel.width) // 2, top + (_PANEL - panel.height) // 2))
        draw.text((x, top + _PANEL + 3), name, SOFT, text_font(15))
    top += _PANEL + 28
    draw.text((left, top), shorten(item.title, 22, width // 2), INK, text_font(22))
    details = shorten(item.numbers, 16, width // 2 - 8)
    draw.text((left + width, top + 5), details, SOFT, text_font(16), anchor="ra")
    top += 34
    if not item.path:
        draw.text((left, top + 2), "no region of the tree scores above the threshold", SOFT, text_font(18))
    for depth, (name, score) in enumerate(item.path[:3]):
        y = top + depth * _LINE
        indent = 18 * depth
        if depth:
            draw.line((left + indent - 11, y - 2, left + indent - 11, y + 11, left + indent - 3, y + 11), FRAME, 2)
        bar = left + width - _BAR_WIDTH - 52
        draw.text((left + indent, y), shorten(name, 18, bar - left - indent - 10), INK, text_font(18))
        draw.rounded_rectangle((bar, y + 6, bar + _BAR_WIDTH, y + 17), 5, FAINT)
        colour = WARNING if item.warning else ACCENT
        draw.rounded_rectangle((bar, y + 6, bar + max(10, round(_BAR_WIDTH * score)), y + 17), 5, colour)
        draw.text((left + width, y), f"{score:.2f}", INK, text_font(18), anchor="ra")
    top += 3 * _LINE + 5
    line, colour = (item.warning, WARNING) if item.warning else (item.details, SOFT)
    draw.text((left, top), shorten(line, 16, width), colour, text_font(16))


__all__ = [
    "PANEL_NAMES",
    "GalleryItem",
    "draw_gallery",
    "draw_masked",
    "fill_masked",
    "fit",
    "item_panels",
    "pixel_mask",
]
