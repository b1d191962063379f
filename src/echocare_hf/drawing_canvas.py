"""One image to draw on: lines, marks and texts in the image's own pixel coordinates, on a tile that is large enough to read.

Coordinates are those of the image processor's `ResizeGeometry`: continuous (x, y) in pixels of the image, with 0 at the outer edge of
the first pixel, so the centre of pixel i lies at i + 0.5. Line widths and text sizes belong to the tile, whatever the image's size.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from echocare_hf.drawing_style import FRAME, INK, Colour, drawable, fit, shorten, text_font, text_width

# Edges are smooth because shapes are drawn this many times larger, then reduced.
_SUPERSAMPLING = 4
_HALO_OPACITY, _LABEL_OPACITY = 0.55, 0.8
MINIMUM_SIDE = 128

Spacing = float | tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


def check_image(image: ArrayLike) -> NDArray[np.uint8]:
    """The image as uint8 `(height, width, 3)`; grey images get three channels.

    Raises:
        ValueError: for another type or shape.
    """
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(
            f"an image to draw on is uint8 (height, width, 3) or (height, width), got {pixels.dtype} {pixels.shape}"
        )
    return pixels


def check_points(points: ArrayLike, width: int, what: str) -> NDArray[np.float64]:
    """Rows of numbers as float `(rows, width)`; none give `(0, width)`.

    Raises:
        ValueError: for another shape; `what` says in the message what a row is.
    """
    rows = np.asarray(points, dtype=float)
    if rows.size == 0:
        return np.empty((0, width))
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"each row holds {what}, {width} numbers, got shape {rows.shape}")
    return rows


def millimetres(spacing: Spacing) -> NDArray[np.float64]:
    """Spacing, one number or `(row_mm, column_mm)`, as millimetres per pixel along (x, y).

    Raises:
        ValueError: unless it is positive.
    """
    values = np.asarray(spacing, dtype=float).ravel()[::-1]
    if values.size not in (1, 2) or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"spacing is millimetres per pixel, one number above 0 or (row, column), got {spacing}")
    return np.broadcast_to(values, (2,))


def dashes(points: NDArray[np.float64], dash: float, gap: float) -> list[NDArray[np.float64]]:
    """A polyline cut into dashes.

    Args:
        points: `(n, 2)`, in the order of the line.
        dash, gap: lengths, in the unit of the points.

    Returns:
        Polylines `(m, 2)`, each `dash` long (the last one maybe shorter).
    """
    along = np.concatenate(([0.0], np.hypot(*np.diff(points, axis=0).T).cumsum()))
    pieces = []
    for start in np.arange(0.0, along[-1], dash + gap):
        end = min(start + dash, along[-1])
        inside = along[(along > start) & (along < end)]
        stops = np.concatenate(([start], inside, [end]))
        pieces.append(np.stack([np.interp(stops, along, points[:, axis]) for axis in (0, 1)], axis=1))
    return pieces


class Canvas:
    """A tile that shows an image and takes drawings on it. Methods draw at once; `picture` is the tile so far.

    Args:
        image: uint8 `(height, width, 3)` or `(height, width)`.
        side (`int`, *optional*, defaults to 512): longer side of the tile in pixels, at least 128. The image is enlarged or reduced to it;
            a very narrow or flat one stands between black bars, for texts to have room.

    Attributes:
        picture: the tile, mode RGB.
        scale: pixels of the tile per pixel of the image, along (x, y).
        offset: (x, y) of the image's corner on the tile, 0 without bars.
        line_width: of a line, in pixels of the tile.
        text_size: of a text, in pixels of the tile.
        label_boxes: left, top, right and bottom of every label so far, in pixels of the tile.

    Raises:
        ValueError: for an image of another type, or a tile that is too small.
    """

    def __init__(self, image: ArrayLike, side: int = 512) -> None:
        pixels = check_image(image)
        if side < MINIMUM_SIDE:
            raise ValueError(f"a tile needs at least {MINIMUM_SIDE} pixels a side to be readable, got {side}")
        height, width = pixels.shape[:2]
        size = fit(width / height, side)
        method = Image.Resampling.BICUBIC if size[0] > width else Image.Resampling.LANCZOS
        self.scale = np.array(size) / (width, height)  # (x, y)
        self.line_width = max(1.5, side / 220)
        self.text_size = max(12, round(side / 30))
        tile = max(size[0], min(side, 12 * self.text_size)), max(size[1], 3 * self.text_size)
        self.offset = ((tile[0] - size[0]) // 2, (tile[1] - size[1]) // 2)
        self.picture = Image.new("RGB", tile)
        self.picture.paste(Image.fromarray(pixels).resize(size, method), self.offset)
        self._size = size
        self.label_boxes: list[Box] = []
        self._mark_boxes: list[Box] = []

    # Shapes -------------------------------------------------------------------------------------------

    def line(
        self,
        points: ArrayLike,
        colour: Colour,
        *,
        closed: bool = False,
        dashed: bool = False,
        width: float = 1.0,
        halo: bool = True,
    ) -> None:
        """A polyline with a dark halo, so that it shows on black and on white.

        Args:
            points: `(n, 2)`, (x, y) in pixels of the image.
            colour: of the line.
            closed (optional): whether the last point is joined to the first.
            dashed (optional): whether the line is broken into dashes.
            width (optional): of the line, as a multiple of the tile's `line_width`.
            halo (optional): whether it gets the halo.
        """
        path = self._on_tile(points)
        if len(path) < 2:
            return
        if closed:
            path = np.concatenate((path, path[:1]))
        thickness = width * self.line_width
        pieces = dashes(path, 4 * thickness, 3 * thickness) if dashed else [path]
        if closed and not dashed:
            pieces = [np.concatenate((path, path[1:2]))]  # past the start, for a proper joint there

        def draw(layer: ImageDraw.ImageDraw, place: Callable, extra: float) -> None:
            pixels = max(1, round((thickness + 2 * extra) * _SUPERSAMPLING))
            for piece in pieces:
                layer.line([tuple(point) for point in place(piece)], 255, pixels, joint="curve")

        self._paint(path, thickness, colour, draw, halo)

    def cross(self, point: ArrayLike, colour: Colour) -> None:
        """An upright cross with an open middle, which leaves the place itself in sight."""
        centre, reach = self._on_tile(point)[0], 3.2 * self.line_width
        ways = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
        arms = [centre + reach * np.array([0.25 * way, way]) for way in ways]

        def draw(layer: ImageDraw.ImageDraw, place: Callable, extra: float) -> None:
            pixels = round((1.1 * self.line_width + 2 * extra) * _SUPERSAMPLING)
            for arm in arms:
                layer.line([tuple(end) for end in place(arm)], 255, pixels)

        self._paint(np.array([centre - reach, centre + reach]), self.line_width, colour, draw)
        self._mark_boxes.append((*(centre - reach), *(centre + reach)))

    def ring(self, point: ArrayLike, colour: Colour) -> None:
        """A small open circle."""
        centre, radius = self._on_tile(point)[0], 2.6 * self.line_width

        def draw(layer: ImageDraw.ImageDraw, place: Callable, extra: float) -> None:
            corners = place(np.array([centre - radius - extra, centre + radius + extra]))
            pixels = round((0.9 * self.line_width + 2 * extra) * _SUPERSAMPLING)
            layer.ellipse([tuple(corner) for corner in corners], outline=255, width=pixels)

        self._paint(np.array([centre - radius, centre + radius]), self.line_width, colour, draw)
        self._mark_boxes.append((*(centre - radius), *(centre + radius)))

    def fill(self, mask: ArrayLike, colour: Colour, opacity: float) -> None:
        """A translucent colour over a mask.

        Args:
            mask: bool `(height, width)`, of the image's size.
            colour: of the fill.
            opacity: 0 to 1.
        """
        cover = Image.fromarray(np.asarray(mask, dtype=np.uint8) * round(255 * opacity))
        self.picture.paste(colour, self.offset, cover.resize(self._size, Image.Resampling.BILINEAR))

    # Text ---------------------------------------------------------------------------------------------

    def label(self, text: str, point: ArrayLike, colour: Colour, away_from: ArrayLike | None = None) -> None:
        """A text beside a point, on a dark ground: inside the tile, clear of earlier labels and of marks if there is room.

        Args:
            text: one line; shortened if the tile is too narrow.
            point: (x, y) in pixels of the image.
            colour: of the mark that the text belongs to; the text is a lighter tone of it.
            away_from (optional): (x, y) of a place, such as an object's centre, that the text shall not lie towards.
        """
        tile = self.picture.size
        padding = max(2, round(self.text_size / 5))
        text = shorten(text, self.text_size, tile[0] - 2 * padding - 2)
        width = text_width(text, self.text_size) + 2 * padding
        height = self.text_size * 1.15 + 2 * padding
        place = self._on_tile(point)[0]
        inward = np.zeros(2) if away_from is None else self._on_tile(away_from)[0] - place
        inward /= max(float(np.hypot(*inward)), 1.0)

        best, lowest = (0.0, 0.0, width, height), np.inf
        for gap in self.line_width * np.array([4, 8, 14, 22, 32]):
            for across, down in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
                x, y = place[0] + across * (gap + width / 2), place[1] + down * (gap + height / 2)
                wanted = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                box = _moved_inside(wanted, tile)
                way = np.array([across, down]) / np.hypot(across, down)
                cost = (
                    sum(_overlap(box, other) for other in self.label_boxes) * 100
                    + sum(_overlap(box, other) for other in self._mark_boxes) * 10
                    + abs(box[0] - wanted[0])
                    + abs(box[1] - wanted[1])
                    + (0 if away_from is None else 30 * max(0.0, float(way @ inward) + 0.5))
                    + gap / 4
                )
                if cost < lowest:
                    best, lowest = box, cost
        box = best
        self.label_boxes.append(box)
        ground = Image.new("L", tile)
        ImageDraw.Draw(ground).rounded_rectangle(box, padding, round(255 * _LABEL_OPACITY))
        self.picture.paste((0, 0, 0), mask=ground)
        draw = ImageDraw.Draw(self.picture)
        middle = (box[1] + box[3]) / 2
        draw.text((box[0] + padding, middle), text, lighter(colour, 0.45), text_font(self.text_size), anchor="lm")

    # Inside -------------------------------------------------------------------------------------------

    def _on_tile(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points of the image, one or many, in continuous pixels of the tile: `(n, 2)`."""
        return np.asarray(points, dtype=float).reshape(-1, 2) * self.scale + self.offset

    def _paint(
        self,
        extent: NDArray[np.float64],
        thickness: float,
        colour: Colour,
        draw: Callable[[ImageDraw.ImageDraw, Callable, float], None],
        halo: bool = True,
    ) -> None:
        """Draws a shape smoothly, the dark halo first.

        Args:
            extent: `(n, 2)`, points in pixels of the tile that the shape lies between.
            thickness: of the line, in pixels of the tile.
            colour: of the shape.
            draw: draws it on a larger layer; gets the layer, the map from the tile to it, and how much wider the line shall be.
            halo: whether there is a halo.
        """
        margin = 2 * thickness + 3
        start = np.maximum(np.floor(extent.min(0) - margin), 0)
        end = np.minimum(np.ceil(extent.max(0) + margin), self.picture.size)
        if (end <= start).any():
            return  # all of it lies outside the tile
        size = (end - start).astype(int)

        def place(points: NDArray[np.float64]) -> NDArray[np.float64]:
            # Pillow's coordinate 0 is the centre of the first pixel
            return (points - start) * _SUPERSAMPLING - 0.5

        for extra, paint, opacity in ((0.45 * thickness + 0.4, (0, 0, 0), _HALO_OPACITY), (0.0, colour, 1.0)):
            if extra and not halo:
                continue
            layer = Image.new("L", tuple(size * _SUPERSAMPLING))
            draw(ImageDraw.Draw(layer), place, extra)
            cover = layer.reduce(_SUPERSAMPLING)
            if opacity < 1:
                cover = cover.point(lambda value, opacity=opacity: value * opacity)
            self.picture.paste(paint, (int(start[0]), int(start[1])), cover)


def lighter(colour: Colour, share: float) -> Colour:
    """The colour mixed with a share of white, 0 to 1."""
    red, green, blue = (round(value + (255 - value) * share) for value in colour)
    return red, green, blue


def add_legend(picture: Image.Image, entries: Sequence[tuple[str, Colour, bool]], text_size: int) -> Image.Image:
    """The picture with a strip below it that says what each colour means.

    Args:
        picture: any picture.
        entries: text, colour, and whether its line is dashed; in reading order.
        text_size: in pixels.

    Returns:
        A picture of the same width, higher by the strip; the same picture if there are no entries.
    """
    if not entries:
        return picture
    swatch, gap, line = 2 * text_size, round(0.9 * text_size), round(1.5 * text_size)
    left, top, places = gap // 2, 0, []
    for name, colour, dashed in entries:
        name = shorten(name, text_size, picture.width - swatch - 2 * gap)
        width = swatch + gap // 2 + text_width(name, text_size)
        if left > gap and left + width > picture.width - gap // 2:
            left, top = gap // 2, top + line
        places.append((left, top, name, colour, dashed))
        left += round(width) + gap
    strip = Image.new("RGB", (picture.width * 2, (top + line) * 2), (255, 255, 255))
    draw = ImageDraw.Draw(strip)
    for left, top, _, colour, dashed in places:
        middle, thick = 2 * top + line, max(4, text_size // 2)
        draw.rectangle((2 * left, middle - thick, 2 * (left + swatch), middle + thick), INK)
        pieces = [(0.0, 0.36), (0.64, 1.0)] if dashed else [(0.0, 1.0)]
        for start, end in pieces:
            edges = (2 * left + 4 + (2 * swatch - 8) * start, 2 * left + 4 + (2 * swatch - 8) * end)
            draw.rectangle((edges[0], middle - thick / 2, edges[1], middle + thick / 2), colour)
    strip = strip.resize((picture.width, strip.height // 2), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(strip)
    for left, top, name, _, _ in places:
        draw.text((left + swatch + gap // 2, top + line / 2), drawable(name), INK, text_font(text_size), anchor="lm")
    drawn = Image.new("RGB", (picture.width, picture.height + strip.height), FRAME)
    drawn.paste(picture, (0, 0))
    drawn.paste(strip, (0, picture.height))
    return drawn


def _moved_inside(box: Box, size: tuple[int, int]) -> Box:
    """The box moved the shortest way into a tile of a size (width, height)."""
    left = min(max(box[0], 1), max(1, size[0] - 1 - (box[2] - box[0])))
    top = min(max(box[1], 1), max(1, size[1] - 1 - (box[3] - box[1])))
    return left, top, left + box[2] - box[0], top + box[3] - box[1]


def _overlap(first: Box, second: Box) -> float:
    """Area in which two boxes lie over each other, in square pixels."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)


__all__ = [
    "MINIMUM_SIDE",
    "Canvas",
    "Spacing",
    "add_legend",
    "check_image",
    "check_points",
    "dashes",
    "lighter",
    "millimetres",
]
