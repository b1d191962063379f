"""The ultrasound region of a screen: DICOM regions where a file has them, else what the pixels show; all around it goes.

A scanner shows one large connected area of echoes (a fan, a trapezium, a rectangle) on black, and text, scales and logos around it
that are small or thin. So: reduce and smooth the image, take what is bright beside its own echoes, open it (thin things vanish), keep the
large pieces, and take their convex hull. Inside the hull the image stays as it is. A darker, brighter or compressed copy gives nearly
the same hull, since the limit goes with the image.
"""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from .channels import brightness
from .record import Drop, Item

DARK_SHARE = 0.1
"""What is no brighter than this share of the echoes counts as black; so a gain changes nothing. See `_darkest`."""

DARK = 3
"""Grey values up to this count as black in any case; compressed images are not quite 0 there."""

SMOOTHING = 1.0
"""Standard deviation, in pixels of the reduced image, of the Gaussian filter before the limit."""

WORK_SIDE = 256
"""Longest side, in pixels, of the reduced image in which the region is looked for."""

LARGE_SHARE = 0.15
"""A piece belongs to the region if it has at least this share of the largest piece's area."""

LEAST_AREA = 0.05
"""A region covers at least this share of the image, else the whole image is kept."""

LEAST_LIGHT = 0.6
"""A region holds at least this share of the image's brightness, else the whole image is kept."""

BAR = 6
"""A piece that is more than this many times as long as it is thick is a tool bar or a scale, unless it is the largest."""

Box = tuple[int, int, int, int]


def find_region(items: list[Item]) -> tuple[list[Item], list[Drop]]:
    """Cut each image to its ultrasound region, and blacken what is around the region within its box.

    Args:
        items: images with `regions` as DICOM states them.

    Returns:
        The images with `pixels`, `box` and `shape` changed, and the ones in which no pixel is left (reason "no_region").
    """
    kept, drops = [], []
    for item in items:
        height, width = item.pixels.shape[:2]
        stated = dicom_box(item)
        x0, y0, x1, y1 = stated or (0, 0, width, height)
        pixels = item.pixels[y0:y1, x0:x1]
        hull = hull_of(brightness(pixels))
        if hull is None:
            shape = "full"
        else:
            mask = polygon_mask(hull, pixels.shape[:2])
            left, top, right, bottom = _mask_box(mask)
            mask = mask[top:bottom, left:right]
            pixels = pixels[top:bottom, left:right] * mask[..., None]
            x0, y0, x1, y1 = x0 + left, y0 + top, x0 + right, y0 + bottom
            shape = "rectangle" if mask.mean() > 0.95 else "sector"
        if min(pixels.shape[:2]) < 8 or not pixels.any():
            drops.append(item.drop("region", "no_region", "nothing but black"))
            continue
        shape = "dicom" if stated else shape
        kept.append(replace(item, pixels=np.ascontiguousarray(pixels), box=(x0, y0, x1, y1), shape=shape))
    return kept, drops


def dicom_box(item: Item) -> Box | None:
    """The box around the 2D regions that a DICOM file states (M-mode and spectral ones where there is no 2D one), None without them.

    Regions that were written for another grid (`UltrasoundRegion.clipped`) say nothing of this one.
    """
    boxes = [region.box for region in item.regions if region.spatial_format == "2D" and not region.clipped]
    if not boxes:
        boxes = [
            region.box
            for region in item.regions
            if region.spatial_format in ("M-Mode", "Spectral") and not region.clipped
        ]
    if not boxes:
        return None
    x0, y0, x1, y1 = (side for side in zip(*boxes, strict=True))
    return min(x0), min(y0), max(x1), max(y1)


def hull_of(light: np.ndarray) -> np.ndarray | None:
    """The corners of the convex region that holds the echoes.

    Args:
        light: uint8 `(height, width)`, the largest channel of each pixel.

    Returns:
        float `(corners, 2)`, x and y in pixels, 0 at the outer edge of the first one; None where the whole image is the region, or no
        region stands out.
    """
    height, width = light.shape
    scale = max(height, width, WORK_SIDE) / WORK_SIDE
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    small = np.asarray(Image.fromarray(light).resize(size, Image.Resampling.BOX))
    smooth = ndimage.gaussian_filter(small.astype(np.float32), SMOOTHING)
    corners = _corners(_large_pieces(smooth > _darkest(smooth)))
    if corners is None:
        return None
    inside = polygon_mask(corners, small.shape)
    if inside.mean() < LEAST_AREA or small[inside].sum(dtype=np.int64) < LEAST_LIGHT * small.sum(dtype=np.int64):
        return None
    if inside.all():
        return None
    return corners * (width / size[0], height / size[1])


def _darkest(smooth: np.ndarray) -> float:
    """The limit between black and echoes: a share of the mean brightness weighted by itself, which black pixels do not enter."""
    total = float(smooth.sum())
    return max(DARK, DARK_SHARE * float(np.square(smooth).sum()) / total) if total else DARK


def _large_pieces(bright: np.ndarray) -> np.ndarray:
    """The large pieces of a mask, bool of the same shape: without lines, letters, scales and bars."""
    # Closing with 5 x 5 pixels, opening with 7 x 7.
    closed = ~_grown(~_grown(bright, 2), 2)
    pieces, _ = ndimage.label(_grown(~_grown(~closed, 3), 3))
    areas = np.bincount(pieces.ravel())
    areas[0] = 0
    large = areas >= max(1, LARGE_SHARE * areas.max())
    for number, (rows, columns) in enumerate(ndimage.find_objects(pieces), 1):
        thin, long = sorted((rows.stop - rows.start, columns.stop - columns.start))
        if thin * BAR < long and areas[number] < areas.max():
            large[number] = False
    return large[pieces]


def _grown(mask: np.ndarray, reach: int) -> np.ndarray:
    """Dilation by a square that reaches so many pixels to each side, bool of the same shape; nothing comes in over the image's edge."""
    for axis in (0, 1):
        lines = np.moveaxis(mask, axis, 0)
        mask = mask.copy()
        grown = np.moveaxis(mask, axis, 0)
        for step in range(1, reach + 1):
            grown[step:] |= lines[:-step]
            grown[:-step] |= lines[step:]
    return mask


def _corners(mask: np.ndarray) -> np.ndarray | None:
    """The convex hull of a mask's pixels, from their outer edges; None if there is no area."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    columns = np.concatenate([mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)])
    rows = np.tile(rows, 2)  # the first and the last pixel of each row are enough
    points = np.concatenate([np.stack([columns + dx, rows + dy], 1) for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1))])
    try:
        return points[ConvexHull(points).vertices].astype(np.float64)
    except QhullError:
        return None  # all pixels in one line


def polygon_mask(corners: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which pixels of a `(height, width)` grid lie in a polygon: bool, True inside."""
    canvas = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(canvas).polygon([(x - 0.5, y - 0.5) for x, y in corners.tolist()], fill=1, outline=1)
    return np.asarray(canvas)


def _mask_box(mask: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
