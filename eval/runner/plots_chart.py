"""A chart with two axes on Pillow, in the look of the package's other pictures: lines, bands, points, bars and texts in the units of the
axes."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from echocare_hf.drawing_canvas import dashes, lighter
from echocare_hf.drawing_charts import nice_ticks, tick_text
from echocare_hf.drawing_style import (
    BLUE,
    CARD,
    FAINT,
    FRAME,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    SOFT,
    VERMILLION,
    Colour,
    shorten,
    text_font,
    text_width,
)

COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE, INK)
"""Of models, those first that show best on white."""
WAYS = {"higher is better": "", "lower is better": ", less is better", "0 is best": ", 0 is best"}
"""What stands behind the name of a metric, by `direction` of headlines.py."""
TEXT = 15  # pixels
LINE = 22  # pixels from one line of text to the next
SIZE = (560, 420)
_SUPERSAMPLING = 3
_MOST_FOR_NAMES = 0.42  # of the width, for names in place of numbers at the y axis


class Entry(NamedTuple):
    """A line of the legend."""

    text: str
    colour: Colour
    kind: Literal["line", "dashed", "band", "dot", "ring", "none"] = "line"


class Axis(NamedTuple):
    """Range, ticks with their texts, and name of an axis."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    name: str = ""


def axis_of(values: ArrayLike, name: str = "", most: int = 6, margin: float = 0.0) -> Axis:
    """An axis with round ticks that covers all finite values; 0 to 1 if there are none.

    Args:
        values: of any shape.
        name: of the axis, with the unit.
        most: ticks, give or take.
        margin: free space at both ends, as a share of the range.
    """
    known = np.asarray(values, dtype=np.float64).ravel()
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    room = margin * (high - low)
    ticks = nice_ticks(low - room, high + room, most)
    return Axis(ticks[0], ticks[-1], tuple((tick, tick_text(tick, ticks)) for tick in ticks), name)


def unit_axis(name: str = "") -> Axis:
    """0 to 1 in fifths."""
    ticks = nice_ticks(0, 1, 6)
    return Axis(0, 1, tuple((tick, tick_text(tick, ticks)) for tick in ticks), name)


def names_axis(names: Sequence[str]) -> Axis:
    """A row for each name, the first at the top: row i lies at -i."""
    return Axis(-len(names) + 0.5, 0.5, tuple((-float(row), name) for row, name in enumerate(names)))


class Chart:
    """A chart that takes drawings in the units of its axes.

    Args:
        x, y: the axes.
        title (optional): above it, on up to one line.
        legend (optional): below it; makes the picture higher.
        size (optional): width and height in pixels without the legend.

    Attributes:
        area: left, top, right, bottom of the space between the axes, in pixels.
    """

    def __init__(
        self, x: Axis, y: Axis, title: str = "", legend: Sequence[Entry] = (), size: tuple[int, int] = SIZE
    ) -> None:
        self.x, self.y, self.title, self.legend = x, y, title, list(legend)
        width, height = size
        widest = max((text_width(text, TEXT) for _, text in y.ticks), default=0.0)
        self._names_width = min(widest, _MOST_FOR_NAMES * width)
        top = 10 + (LINE + 4 if title else 0) + (LINE + 6 if y.name else 0)
        bottom = height - 14 - LINE - (LINE if x.name else 0)
        last = text_width(x.ticks[-1][1], TEXT) / 2 if x.ticks else 0
        self.area = (round(self._names_width) + 22, top, round(width - max(16, last + 6)), bottom)
        self._legend_top = height
        self._places = self._place_legend(width)
        rows = 1 + max((row for row, *_ in self._places), default=-1)
        full = (width, height + rows * LINE + (6 if rows else 0))
        self._image = Image.new("RGB", (full[0] * _SUPERSAMPLING, full[1] * _SUPERSAMPLING), CARD)
        self._draw = ImageDraw.Draw(self._image)
        self._texts: list[tuple[tuple[float, float], str, Colour, str, int]] = []
        left, top, right, bottom = self.area
        for tick, _ in x.ticks:
            self._rule((tick, y.low), (tick, y.high))
        for tick, _ in y.ticks:
            self._rule((x.low, tick), (x.high, tick))
        corners = ((left, top), (left, bottom), (right, bottom))
        self._draw.line([(a * _SUPERSAMPLING, b * _SUPERSAMPLING) for a, b in corners], FRAME, 2 * _SUPERSAMPLING)

    # Drawing, in units of the axes --------------------------------------------------------------------

    def line(self, points: ArrayLike, colour: Colour, width: float = 2.2, dashed: bool = False) -> None:
        """A polyline through `(n, 2)` points; nan breaks it."""
        path = self._place(points)
        broken = np.flatnonzero(~np.isfinite(path).all(1))
        for piece in np.split(path, broken):
            piece = piece[np.isfinite(piece).all(1)]
            if len(piece) < 2:
                continue
            for part in dashes(piece, 7.0 * _SUPERSAMPLING, 5.0 * _SUPERSAMPLING) if dashed else [piece]:
                self._draw.line([tuple(point) for point in part], colour, round(width * _SUPERSAMPLING), "curve")

    def band(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, colour: Colour, opacity: float = 0.2) -> None:
        """A translucent band between two lines, each `(n,)`; where one is nan there is none."""
        across = np.asarray(x, dtype=np.float64)
        edges = np.stack([np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)])
        there = np.isfinite(edges).all(0)
        if there.sum() < 2:
            return
        outline = np.concatenate(
            [
                np.stack([across[there], edges[0, there]], axis=1),
                np.stack([across[there], edges[1, there]], axis=1)[::-1],
            ]
        )
        cover = Image.new("L", self._image.size)
        ImageDraw.Draw(cover).polygon([tuple(point) for point in self._place(outline)], round(255 * opacity))
        self._image.paste(colour, mask=cover)

    def points(self, points: ArrayLike, colour: Colour, radius: float = 3.2, ring: bool = False) -> None:
        """Dots at `(n, 2)` points, or rings; nan is left out."""
        reach = radius * _SUPERSAMPLING
        for across, down in self._place(points):
            if np.isfinite(across) and np.isfinite(down):
                box = (across - reach, down - reach, across + reach, down + reach)
                fill, outline = (CARD, colour) if ring else (colour, lighter(colour, 0.6))
                self._draw.ellipse(box, fill, outline, round((2 if ring else 0.7) * _SUPERSAMPLING))

    def bar(
        self, low: tuple[float, float], high: tuple[float, float], fill: Colour, outline: Colour | None = None
    ) -> None:
        """A rectangle between two corners."""
        corners = np.sort(self._place([low, high]), axis=0)
        self._draw.rectangle([*corners[0], *corners[1]], fill, outline, round(1.4 * _SUPERSAMPLING))

    def text(
        self, place: tuple[float, float], text: str, colour: Colour = INK, anchor: str = "mm", size: int = TEXT
    ) -> None:
        """A text at a place; `anchor` as in Pillow, such as "lm" for one that starts there."""
        across, down = self._place([place])[0] / _SUPERSAMPLING
        self._texts.append(((float(across), float(down)), text, colour, anchor, size))

    def picture(self) -> Image.Image:
        """The chart, mode RGB."""
        for row, left, entry in self._places:
            self._swatch(left, self._legend_top + (row + 0.5) * LINE, entry)
        picture = self._image.reduce(_SUPERSAMPLING)
        draw = ImageDraw.Draw(picture)
        left, top, right, bottom = self.area
        width, font = picture.width, text_font(TEXT)
        if self.title:
            heading = shorten(self.title, TEXT + 2, width - 20)
            draw.text((12, 10), heading, INK, text_font(TEXT + 2))
        if self.y.name:
            draw.text((12, top - 13), shorten(self.y.name, TEXT, width - 24), SOFT, font, anchor="ls")
        for tick, text in self.y.ticks:
            level = self._place([(self.x.low, tick)])[0, 1] / _SUPERSAMPLING
            draw.text((left - 8, level), shorten(text, TEXT, self._names_width + 1), INK, font, anchor="rm")
        end = -np.inf
        for tick, text in self.x.ticks:
            middle = self._place([(tick, self.y.low)])[0, 0] / _SUPERSAMPLING
            half = text_width(text, TEXT) / 2
            if middle - half > end:  # a tick whose text would touch the one before stays bare
                draw.text((middle, bottom + 7), text, SOFT, font, anchor="ma")
                end = middle + half + 6
        if self.x.name:
            name = shorten(self.x.name, TEXT, width - 24)
            half = text_width(name, TEXT) / 2
            middle = min(max((left + right) / 2, half + 12), width - half - 12)
            draw.text((middle, bottom + 7 + LINE), name, SOFT, font, anchor="ma")
        for place, text, colour, anchor, size in self._texts:
            draw.text(place, shorten(text, size, width), colour, text_font(size), anchor=anchor)
        for row, start, entry in self._places:
            draw.text((start + 34, self._legend_top + (row + 0.5) * LINE), entry.text, INK, font, anchor="lm")
        return picture

    # Inside -------------------------------------------------------------------------------------------

    def _place(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points `(n, 2)` in units of the axes, on the enlarged picture."""
        given = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        left, top, right, bottom = self.area
        x = left + (right - left) * (given[:, 0] - self.x.low) / (self.x.high - self.x.low)
        y = bottom - (bottom - top) * (given[:, 1] - self.y.low) / (self.y.high - self.y.low)
        return np.stack([x, y], axis=1) * _SUPERSAMPLING

    def _rule(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self._draw.line([tuple(point) for point in self._place([start, end])], FAINT, _SUPERSAMPLING)

    def _place_legend(self, width: int) -> list[tuple[int, float, Entry]]:
        """Row and left edge of each entry, broken into rows; texts that fit."""
        placed: list[tuple[int, float, Entry]] = []
        row, left = 0, 12.0
        for entry in self.legend:
            entry = entry._replace(text=shorten(entry.text, TEXT, width - 60))
            needed = 34 + text_width(entry.text, TEXT) + 18
            if left > 12 and left + needed > width:
                row, left = row + 1, 12.0
            placed.append((row, left, entry))
            left += needed
        return placed

    def _swatch(self, left: float, middle: float, entry: Entry) -> None:
        start, end, level = (value * _SUPERSAMPLING for value in (left, left + 26, middle))
        centre, reach = (start + end) / 2, 4.5 * _SUPERSAMPLING
        if entry.kind in ("line", "dashed"):
            pieces = (
                ((start, end),) if entry.kind == "line" else ((start, (start + centre) / 2 + 2), (centre + 2, end))
            )
            for piece in pieces:
                self._draw.line([(piece[0], level), (piece[1], level)], entry.colour, 3 * _SUPERSAMPLING)
        elif entry.kind == "band":
            self._draw.rectangle((start, level - reach, end, level + reach), lighter(entry.colour, 0.75))
        elif entry.kind in ("dot", "ring"):
            fill = entry.colour if entry.kind == "dot" else CARD
            box = (centre - reach, level - reach, centre + reach, level + reach)
            self._draw.ellipse(box, fill, entry.colour, 2 * _SUPERSAMPLING)
