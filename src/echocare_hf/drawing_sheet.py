"""Many pictures on one sheet, each with its caption: best and worst predictions at a glance."""

from collections.abc import Sequence
from itertools import groupby

from PIL import Image, ImageDraw

from echocare_hf.drawing_style import ACCENT, CARD, FRAME, GROUND, INK, SOFT, shorten, text_font, wrap

_MARGIN, _GAP, _PADDING = 28, 18, 12
_WIDEST, _MOST_COLUMNS, _CAPTION_LINES, _NOTE_LINES = 2200, 4, 3, 12


def contact_sheet(
    tiles: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    title: str,
    subtitle: str = "",
    footer: str = "",
    sections: Sequence[str] | None = None,
    columns: int | None = None,
) -> Image.Image:
    """A sheet of pictures with captions below them.

    Args:
        tiles: pictures of any size, shown as they are, on cards of one size.
        captions: a text for each; its first line stands out, and at most three lines fit.
        title: heading of the sheet.
        subtitle (optional): below it, in as many lines as the sheet's width asks for, up to twelve, as the title and the footer.
        footer (optional): at the foot.
        sections (optional): for each tile the heading it stands under, e.g. `["Best", "Best", "Worst"]`.
        columns (optional): cards side by side; by default as many as fit into about 2,200 pixels, four at most.

    Returns:
        A picture of mode RGB.

    Raises:
        ValueError: if there are no tiles, or captions or sections differ from them in number.
    """
    if not tiles:
        raise ValueError("a contact sheet needs at least one tile")
    headings = [""] * len(tiles) if sections is None else list(sections)
    for what, texts in (("captions", captions), ("sections", headings)):
        if len(texts) != len(tiles):
            raise ValueError(f"{len(tiles)} tiles need as many {what}, got {len(texts)}")
    inner = max(240, *(tile.width for tile in tiles))
    card_width = inner + 2 * _PADDING
    groups = [(heading, len(list(members))) for heading, members in groupby(headings)]
    if columns is None:
        room = max(1, (_WIDEST - 2 * _MARGIN + _GAP) // (card_width + _GAP))
        columns = min(_MOST_COLUMNS, room, max(count for _, count in groups))
    if columns < 1:
        raise ValueError(f"a contact sheet needs at least one column, got {columns}")
    width = 2 * _MARGIN + columns * card_width + (columns - 1) * _GAP

    text_size = max(15, round(inner / 26))
    line = round(1.4 * text_size)
    lines = [wrap(caption, text_size, inner, _CAPTION_LINES) for caption in captions]
    titles, subtitles, notes = (
        wrap(words, size, width - 2 * _MARGIN, _NOTE_LINES) if words else []
        for words, size in ((title, 34), (subtitle, 20), (footer, 18))
    )
    below_title = 24 + 44 * len(titles)
    top = below_title + (34 + 27 * (len(subtitles) - 1) if subtitles else 0) + 14

    # Lay out first: rows of cards, each as high as its highest.
    heights = [
        tile.height + text_size // 2 + len(text) * line + 2 * _PADDING for tile, text in zip(tiles, lines, strict=True)
    ]
    places: list[tuple[int, int, int]] = []  # left and top of a card, height of its row
    heading_places: list[tuple[int, str]] = []
    for heading, count in groups:
        if heading:
            heading_places.append((top, heading))
            top += 42
        for first in range(0, count, columns):
            start = len(places)
            row = heights[start : start + min(columns, count - first)]
            places += [(_MARGIN + column * (card_width + _GAP), top, max(row)) for column in range(len(row))]
            top += max(row) + _GAP
    sheet = Image.new("RGB", (width, top + (46 + 24 * (len(notes) - 1) if notes else 10)), GROUND)

    draw = ImageDraw.Draw(sheet)
    for number, text in enumerate(titles):
        draw.text((_MARGIN, 24 + 44 * number), text, INK, text_font(34))
    for number, text in enumerate(subtitles):
        draw.text((_MARGIN + 1, below_title + 2 + 27 * number), text, SOFT, text_font(20))
    for heading_top, heading in heading_places:
        draw.text((_MARGIN + 1, heading_top + 4), shorten(heading, 23, width - 2 * _MARGIN), ACCENT, text_font(23))
    for tile, text_lines, (left, card_top, height) in zip(tiles, lines, places, strict=True):
        draw.rounded_rectangle((left, card_top, left + card_width - 1, card_top + height - 1), 10, CARD, FRAME)
        sheet.paste(tile.convert("RGB"), (left + _PADDING + (inner - tile.width) // 2, card_top + _PADDING))
        below = card_top + _PADDING + tile.height + text_size // 2
        for number, text in enumerate(text_lines):
            place = (left + _PADDING, below + number * line)
            draw.text(place, text, SOFT if number else INK, text_font(text_size))
    for number, text in enumerate(notes):
        draw.text((_MARGIN + 1, top + 4 + 24 * number), text, SOFT, text_font(18))
    return sheet


__all__ = ["contact_sheet"]
