"""Bars for the card of a data set: how many images of each node, source, licence, modality."""

from collections.abc import Mapping

from PIL import Image, ImageDraw

from echocare_hf.drawing_style import BLUE, CARD, FAINT, INK, SOFT, shorten, text_font

_WIDTH, _NAMES, _NUMBERS, _ROW, _SIZE = 900, 330, 90, 26, 15
MOST_BARS = 40
"""Further ones are added up in a last bar."""


def draw_counts(title: str, counts: Mapping[str, int]) -> Image.Image:
    """A picture of mode RGB with a bar for each count, in the given order, on a linear axis that starts at 0.

    Args:
        title: what is counted.
        counts: number by name, each 0 or more; names are cut to the room there is.
    """
    entries = list(counts.items())
    if len(entries) > MOST_BARS:
        rest = entries[MOST_BARS - 1 :]
        entries = [*entries[: MOST_BARS - 1], (f"{len(rest)} others", sum(number for _, number in rest))]
    image = Image.new("RGB", (_WIDTH, 50 + _ROW * max(1, len(entries))), CARD)
    draw = ImageDraw.Draw(image)
    draw.text((16, 12), title, INK, text_font(_SIZE + 2))
    largest = max((number for _, number in entries), default=0) or 1
    left, right = _NAMES, _WIDTH - _NUMBERS
    for place, (name, number) in enumerate(entries):
        middle = 42 + _ROW * place + _ROW / 2
        draw.text((left - 10, middle), shorten(name, _SIZE, left - 26), INK, text_font(_SIZE), anchor="rm")
        draw.rectangle((left, middle - 8, right, middle + 8), FAINT)
        if number:
            draw.rectangle(
                (left, middle - 8, max(left + 1, left + (right - left) * number / largest), middle + 8), BLUE
            )
        draw.text((right + 8, middle), f"{number:,}", SOFT, text_font(_SIZE), anchor="lm")
    return image
