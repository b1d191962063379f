"""A contact sheet whose title and notes are wrapped to its width, however narrow it is."""

from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw

from echocare_hf.drawing_sheet import contact_sheet
from echocare_hf.drawing_style import GROUND, INK, SOFT, text_font, wrap

_MARGIN, _GAP = 28, 14
_TITLE, _SUBTITLE, _FOOTER = (34, 44), (20, 27), (18, 24)  # size of the font and height of a line, in pixels
_MOST_LINES = 12


def noted_sheet(
    tiles: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    title: str,
    subtitle: str = "",
    footer: str = "",
    sections: Sequence[str] | None = None,
    columns: int | None = None,
) -> Image.Image:
    """`contact_sheet` with as many lines of title, subtitle and footer as they need, up to twelve each; the arguments are its own.

    Raises:
        ValueError: as `contact_sheet` does.
    """
    cards = contact_sheet(tiles, captions, title="", sections=sections, columns=columns)
    bounds = ImageChops.difference(cards, Image.new("RGB", cards.size, GROUND)).getbbox()
    assert bounds is not None  # there is a card at least
    cards = cards.crop((0, bounds[1], cards.width, bounds[3]))
    above = [*_lines(title, _TITLE, cards.width), *_lines(subtitle, _SUBTITLE, cards.width)]
    below = _lines(footer, _FOOTER, cards.width)
    top = 24 + sum(height for _, (_, height) in above) + _GAP
    foot = top + cards.height + _GAP
    sheet = Image.new("RGB", (cards.width, foot + sum(height for _, (_, height) in below) + _GAP), GROUND)
    sheet.paste(cards, (0, top))
    draw = ImageDraw.Draw(sheet)
    for lines, level in ((above, 24), (below, foot)):
        for text, (size, height) in lines:
            draw.text((_MARGIN, level), text, INK if size == _TITLE[0] else SOFT, text_font(size))
            level += height
    return sheet


def _lines(text: str, kind: tuple[int, int], width: int) -> list[tuple[str, tuple[int, int]]]:
    """Lines of a text on a sheet of a width, each with the size of its font and its height."""
    return [(line, kind) for line in wrap(text, kind[0], width - 2 * _MARGIN, _MOST_LINES)] if text else []
