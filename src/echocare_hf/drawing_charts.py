"""Charts of what a model says about an image or a sequence: scores of classes as bars, values over time as a line."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from echocare_hf.drawing_canvas import Canvas
from echocare_hf.drawing_style import (
    ACCENT,
    BLUE,
    CARD,
    FAINT,
    FRAME,
    INK,
    PREDICTION,
    SOFT,
    VERMILLION,
    drawable,
    shorten,
    text_font,
    text_width,
)

_SUPERSAMPLING = 3


def draw_scores(
    image: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    *,
    true: int | Sequence[int] | None = None,
    top_k: int = 5,
    side: int = 512,
) -> Image.Image:
    """An image and, below it, its likeliest classes as bars; what is true is marked.

    Args:
        image: uint8 `(height, width, 3)` or `(height, width)`.
        scores: `(classes,)`, 0 to 1.
        names: of the classes.
        true (optional): index of the true class, or of several; shown even where its score is low.
        top_k (optional): classes to show.
        side (optional): longer side of the image in pixels of the picture.

    Returns:
        A picture of mode RGB.

    Raises:
        ValueError: if scores and names differ in number, a score lies outside 0 to 1, or a true class does not exist.
    """
    values = np.asarray(scores, dtype=float)
    if values.shape != (len(names),) or not len(names):
        raise ValueError(f"{len(names)} class names need scores of shape ({len(names)},), got {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"scores must lie between 0 and 1, got {values.min():g} to {values.max():g}")
    right = {int(index) for index in np.atleast_1d(np.asarray([] if true is None else true, dtype=int))}
    if right and (min(right) < 0 or max(right) >= len(names)):
        raise ValueError(f"the true class is an index from 0 to {len(names) - 1}, got {sorted(right)}")
    ranked = [int(index) for index in np.argsort(-values, kind="stable")]
    shown = [index for place, index in enumerate(ranked) if place < top_k or index in right]

    canvas = Canvas(image, side)
    size, tile = canvas.text_size, canvas.picture
    width, line, padding = max(tile.width, 16 * size), round(1.7 * size), round(0.6 * size)
    drawn = Image.new("RGB", (width, tile.height + len(shown) * line + 2 * padding), CARD)
    draw = ImageDraw.Draw(drawn)
    draw.rectangle((0, 0, width, tile.height - 1), (0, 0, 0))
    drawn.paste(tile, ((width - tile.width) // 2, 0))
    number_width = math.ceil(text_width("0.00", size))
    tag_width = math.ceil(text_width("true", size)) + size if right else 0
    name_width = min(math.ceil(max(text_width(names[index], size) for index in shown)), round(0.5 * width) - tag_width)
    bar_left = padding + name_width + tag_width + padding
    bar_right = width - 2 * padding - number_width
    for row, index in enumerate(shown):
        middle = tile.height + padding + row * line + line / 2
        draw.text((padding, middle), shorten(names[index], size, name_width), INK, text_font(size), anchor="lm")
        if index in right:
            tag = (padding + name_width + size // 2, middle - 0.68 * size, bar_left - padding, middle + 0.68 * size)
            draw.rounded_rectangle(tag, size // 3, ACCENT)
            centre = ((tag[0] + tag[2]) / 2, middle)
            draw.text(centre, "true", CARD, text_font(max(10, size - 3)), anchor="mm")
        draw.rectangle((bar_left, middle - size // 3, bar_right, middle + size // 3), FAINT)
        end = bar_left + (bar_right - bar_left) * values[index]
        draw.rectangle((bar_left, middle - size // 3, max(end, bar_left + 1), middle + size // 3), PREDICTION)
        draw.text((width - padding, middle), f"{values[index]:.2f}", INK, text_font(size), anchor="rm")
    return drawn


def draw_values(
    values: ArrayLike,
    times: ArrayLike | None = None,
    *,
    spread: ArrayLike | None = None,
    reference: ArrayLike | None = None,
    title: str = "",
    value_name: str = "",
    time_name: str = "frame",
    size: tuple[int, int] = (640, 360),
) -> Image.Image:
    """A value over the time of a sequence: a line, a band of its spread, and reference points.

    Args:
        values: predictions `(n,)`; NaN breaks the line.
        times (optional): of the frames, `(n,)`, rising; 0 to n - 1 when not given.
        spread (optional): half width of the band, one number or `(n,)`, in the unit of the values, e.g. one standard deviation.
        reference (optional): true values `(n,)`, or `(observers, n)`; NaN where there is none.
        title (optional): heading.
        value_name (optional): of the value, with its unit, e.g. `"thickness (mm)"`.
        time_name (optional): of the time, with its unit, e.g. `"time (s)"`.
        size (optional): width and height of the picture in pixels, at least 320 x 200.

    Returns:
        A picture of mode RGB.

    Raises:
        ValueError: if lengths differ, times do not rise, or there is nothing finite to draw.
    """
    line = np.asarray(values, dtype=float)
    if line.ndim != 1 or not np.isfinite(line).any():
        raise ValueError(f"values are a sequence (n,) with finite numbers in it, got shape {line.shape}")
    when = np.arange(len(line), dtype=float) if times is None else np.asarray(times, dtype=float)
    if when.shape != line.shape or not (np.diff(when) > 0).all():
        raise ValueError(f"times are {len(line)} rising numbers, one a value, got shape {when.shape}")
    band = np.zeros_like(line) if spread is None else np.asarray(spread, dtype=float)
    truth = np.full((1, len(line)), np.nan) if reference is None else np.atleast_2d(np.asarray(reference, dtype=float))
    if band.shape not in ((), line.shape) or truth.ndim != 2 or truth.shape[1] != len(line):
        raise ValueError(
            f"spread and reference have one number a value ({len(line)}), got shapes {band.shape} and {truth.shape}"
        )
    if min(size[0] / 320, size[1] / 200) < 1:
        raise ValueError(f"a chart needs at least 320 x 200 pixels, got {size[0]} x {size[1]}")
    band = np.broadcast_to(band, line.shape)

    chart = _Chart(
        when, np.concatenate((line - band, line + band, truth.ravel())), size, bool(title), bool(value_name)
    )
    for run in _runs(np.isfinite(line)):
        if spread is not None:
            chart.band(when[run], (line - band)[run], (line + band)[run])
    for run in _runs(np.isfinite(line)):
        chart.line(when[run], line[run])
    for row in truth:
        there = np.isfinite(row)
        chart.rings(when[there], row[there])
    entries = [("prediction", "line")]
    entries += [("spread", "band")] if spread is not None else []
    entries += [("reference", "ring")] if np.isfinite(truth).any() else []
    return chart.finish(title, value_name, time_name, entries)


class _Chart:
    """Axes of a line chart; shapes are drawn large and reduced, texts last."""

    def __init__(
        self, times: NDArray[np.float64], values: NDArray[np.float64], size: tuple[int, int], title: bool, name: bool
    ) -> None:
        self.size = size
        self.text_size = max(12, round(min(size) / 24))
        self.y_ticks = nice_ticks(float(np.nanmin(values)), float(np.nanmax(values)), 5)
        self.x_ticks = nice_ticks(float(times[0]), float(times[-1]), 7)
        self.x_ticks = [tick for tick in self.x_ticks if times[0] <= tick <= times[-1]] or [float(times[0])]
        line = 1.5 * self.text_size
        left = max(text_width(tick_text(tick, self.y_ticks), self.text_size) for tick in self.y_ticks) + line
        top = line * (0.6 + (1.3 if title else 0) + 1.1)
        last = text_width(tick_text(self.x_ticks[-1], self.x_ticks), self.text_size) / 2 + 2
        self.area = (left, top, size[0] - max(line, last), size[1] - line * 2.6)
        self.times = (float(times[0]), float(times[-1])) if len(times) > 1 else (times[0] - 1, times[0] + 1)
        self.values = (self.y_ticks[0], self.y_ticks[-1])
        self.shapes = Image.new("RGB", (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING), CARD)
        self.draw = ImageDraw.Draw(self.shapes)
        for tick in self.y_ticks:
            ends = self.place(np.array(self.times), np.array([tick, tick]))
            self.draw.line([tuple(end) for end in ends], FRAME, _SUPERSAMPLING)

    def place(self, times: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points `(n, 2)` on the enlarged picture."""
        left, top, right, bottom = self.area
        x = left + (right - left) * (times - self.times[0]) / (self.times[1] - self.times[0])
        y = bottom - (bottom - top) * (values - self.values[0]) / (self.values[1] - self.values[0])
        return np.stack((x, y), axis=1) * _SUPERSAMPLING

    def band(self, times: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
        outline = np.concatenate((self.place(times, low), self.place(times, high)[::-1]))
        self.draw.polygon([tuple(point) for point in outline], _BAND)

    def line(self, times: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        points = [tuple(point) for point in self.place(times, values)]
        if len(points) > 1:
            self.draw.line(points, BLUE, round(2.2 * _SUPERSAMPLING), joint="curve")
        else:
            self._dot(points[0], 3, BLUE, None)

    def rings(self, times: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        for point in self.place(times, values):
            self._dot(tuple(point), 3.5, CARD, VERMILLION)

    def _dot(self, point: tuple[float, ...], radius: float, fill: tuple, outline: tuple | None) -> None:
        reach = radius * _SUPERSAMPLING
        box = (point[0] - reach, point[1] - reach, point[0] + reach, point[1] + reach)
        self.draw.ellipse(box, fill, outline, round(1.6 * _SUPERSAMPLING))

    def finish(self, title: str, value_name: str, time_name: str, entries: list[tuple[str, str]]) -> Image.Image:
        """The picture with its texts: title, value name and legend above the axes, ticks and time name below."""
        left, top, right, bottom = self.area
        size, line = self.text_size, 1.5 * self.text_size
        legend = sum(text_width(name, size) + 3.2 * size for name, _ in entries)
        start, middle = right - legend, top - line * 0.9
        places = []
        for name, kind in entries:
            places.append((start + 2.2 * size, name))
            ends = np.array([(start, middle), (start + 1.8 * size, middle)]) * _SUPERSAMPLING
            if kind == "ring":
                self._dot(tuple(ends.mean(0)), 3.5, CARD, VERMILLION)
            else:
                thick = round((2.2 if kind == "line" else 0.8 * size) * _SUPERSAMPLING)
                self.draw.line([tuple(end) for end in ends], BLUE if kind == "line" else _BAND, thick)
            start += text_width(name, size) + 3.2 * size
        picture = self.shapes.reduce(_SUPERSAMPLING)
        draw = ImageDraw.Draw(picture)
        if title:
            heading = shorten(title, round(1.2 * size), right - size)
            draw.text((size, 0.6 * size), heading, INK, text_font(round(1.2 * size)))
        draw.text(
            (size, middle), shorten(value_name, size, right - legend - 2 * size), SOFT, text_font(size), anchor="lm"
        )
        for x, name in places:
            draw.text((x, middle), drawable(name), INK, text_font(size), anchor="lm")
        for tick in self.y_ticks:
            y = self.place(np.zeros(1), np.array([tick]))[0, 1] / _SUPERSAMPLING
            draw.text((left - size / 2, y), tick_text(tick, self.y_ticks), SOFT, text_font(size), anchor="rm")
        for tick in self.x_ticks:
            x = self.place(np.array([tick]), np.zeros(1))[0, 0] / _SUPERSAMPLING
            draw.text((x, bottom + 0.5 * size), tick_text(tick, self.x_ticks), SOFT, text_font(size), anchor="ma")
        name = shorten(time_name, size, right - left)
        draw.text(((left + right) / 2, bottom + 0.5 * size + line * 0.9), name, SOFT, text_font(size), anchor="ma")
        return picture


_BAND = (190, 216, 236)


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, evenly spaced, about `most` of them.

    Args:
        low, high: the range to cover; an empty range is widened.
        most: of the ticks, give or take the two ends.
    """
    largest = max(abs(low), abs(high))
    if high - low < 1e-9 * max(largest, 1.0):
        room = 0.05 * largest if largest > 1e-9 else 1.0
        low, high = low - room, high + room
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(multiple * power for multiple in (1, 2, 2.5, 5, 10) if multiple * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 12) for number in range(first, last + 1)]


def tick_text(tick: float, ticks: Sequence[float]) -> str:
    """A tick with as many decimals as the ticks need to differ."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    decimals = next(count for count in range(12) if abs(round(step, count) - step) < 1e-6 * abs(step) or count == 11)
    return f"{tick:.{decimals}f}"


def _runs(there: NDArray[np.bool_]) -> list[slice]:
    """The stretches of a sequence that are True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], there.astype(int), [0]))))
    return [slice(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


__all__ = ["draw_scores", "draw_values", "nice_ticks", "tick_text"]
