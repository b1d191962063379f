"""White lines of text with a dark edge, as the frames of a clip carry them: each is drawn once, and then laid on picture after picture.

FreeType takes longer to draw the edge of a line than a small network takes for a frame; captions of a clip differ in a score at most.
"""

from functools import lru_cache

from PIL import Image, ImageDraw

from echocare_hf.drawing_style import CARD, text_font

_MARGIN = 4  # pixels around a text, for its edge and for letters that reach out of their place


def stamp_text(picture: Image.Image, place: tuple[int, int], text: str, size: int) -> None:
    """Writes a line as `ImageDraw.text` does with a black edge of one pixel: its last word, which may be a score, apart from the others.

    Args:
        picture: of mode RGB or L; it is changed.
        place: of the text's upper left corner, x and y.
        text: one line, in characters that the font has.
        size: of the font, in pixels.
    """
    head, space, tail = text.rpartition(" ")
    advance = float(text_font(size).getlength(head + space)) if head else 0.0
    pieces = [(0, head), (round(advance), tail)] if head and advance.is_integer() else [(0, text)]
    for along, piece in pieces:
        for colour, mask in zip((0, CARD[0]), _stamps(piece, size), strict=True):
            corner = place[0] + along - _MARGIN, place[1] - _MARGIN
            picture.paste(colour if picture.mode == "L" else (colour,) * 3, corner, mask)


@lru_cache(maxsize=512)
def _stamps(text: str, size: int) -> tuple[Image.Image, Image.Image]:
    """Masks of the text with its edge, and of the text alone, with `_MARGIN` around them."""
    font = text_font(size)
    box = round(font.getlength(text)) + 2 * _MARGIN + size, 2 * size + 2 * _MARGIN
    masks = []
    for width in (1, 0):
        mask = Image.new("L", box)
        ImageDraw.Draw(mask).text((_MARGIN, _MARGIN), text, 255, font, stroke_width=width)
        masks.append(mask)
    return masks[0], masks[1]


__all__ = ["stamp_text"]
