"""The look that all pictures of the package share: colours, type, and how a text or a picture is fitted into its place."""

import unicodedata
from bisect import bisect_right
from functools import cache, lru_cache

from PIL import ImageFont

Colour = tuple[int, int, int]

GROUND, CARD, FRAME = (244, 246, 248), (255, 255, 255), (217, 223, 229)
INK, SOFT, FAINT = (22, 33, 43), (92, 107, 120), (228, 233, 238)
ACCENT, WARNING = (15, 118, 140), (176, 84, 12)

# The colours of Okabe and Ito (2008), which people with any kind of colour blindness tell apart; the darkest come last, since they
# show least on an ultrasound image. Their black is left out.
SKY_BLUE, ORANGE, GREEN, YELLOW = (86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66)
PURPLE, VERMILLION, BLUE = (204, 121, 167), (213, 94, 0), (0, 114, 178)
PALETTE = (SKY_BLUE, ORANGE, GREEN, YELLOW, PURPLE, VERMILLION, BLUE)

# What was found and what is known to be true, wherever the two stand side by side.
PREDICTION, REFERENCE = ORANGE, SKY_BLUE
NEUTRAL = (200, 200, 200)  # in a legend, for a line that may have any colour

_SPELLED_OUT = str.maketrans(
    {"→": "->", "←": "<-", "–": "-", "—": "-", "−": "-", "×": "x", "µ": "u", "μ": "u", "²": "2", "³": "3"}
)


@cache
def text_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow, so that a picture looks the same on every machine."""
    return ImageFont.load_default(size=size)


@cache
def _is_drawable(character: str) -> bool:
    """Whether the font has the character: what it lacks it draws as one and the same box."""
    font = text_font(20)
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))


def drawable(text: str) -> str:
    """The text in characters that the font has: accents dropped, signs spelled out, a question mark for all else."""
    if text.isascii() or all(map(_is_drawable, text)):
        return text
    plain = unicodedata.normalize("NFKD", text.translate(_SPELLED_OUT))
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    return "".join(character if _is_drawable(character) else "?" for character in plain)


@lru_cache(maxsize=4096)
def text_width(text: str, size: int) -> float:
    """Width of a line of text in pixels."""
    return text_font(size).getlength(drawable(text))


@lru_cache(maxsize=4096)
def shorten(text: str, size: int, width: float) -> str:
    """The text cut to a width in pixels, with three dots where something is missing."""
    text = drawable(text)
    if text_width(text, size) <= width:
        return text
    lengths = range(1, len(text) + 1)
    fitting = bisect_right(lengths, width, key=lambda length: text_width(text[:length] + "...", size))
    return text[:fitting].rstrip() + "..."


def wrap(text: str, size: int, width: float, most_lines: int) -> list[str]:
    """The text broken between words into lines of a width in pixels; its own line breaks stay, the rest is cut off.

    Args:
        text: any text.
        size: of the font, in pixels.
        width: most width of a line, in pixels.
        most_lines: most lines to return; the last ends in three dots if some text is missing.
    """
    lines: list[str] = []
    for paragraph in drawable(text).split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and text_width(longer, size) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    if len(lines) > most_lines:
        lines = [*lines[: most_lines - 1], " ".join(lines[most_lines - 1 :])]
    return [shorten(line, size, width) for line in lines]


def fit(aspect: float, side: int) -> tuple[int, int]:
    """Width and height of a picture of this aspect ratio (width over height) inside a square of `side` pixels."""
    return (side, max(1, round(side / aspect))) if aspect >= 1 else (max(1, round(side * aspect)), side)
