"""Small corpora for the tests of curation: phantoms on disk, as patients and clips have them, and planted trouble."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from echocare_hf.curation.record import FoundFile, Item
from echocare_hf.data.phantom import PHANTOM_KINDS, make_phantom

_KINDS = [kind for kind in PHANTOM_KINDS if kind != "tissue_phantom"]  # its wires and cysts have no direction


@cache
def phantom(number: int, size: int = 192) -> np.ndarray:
    """An ultrasound-like image, uint8 `(size, size, 3)`; each number is another patient."""
    kind = _KINDS[number % len(_KINDS)]
    return np.repeat(make_phantom(kind, seed=number, size=size).image[..., None], 3, axis=2)


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    """Save an image, in the format that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def item(pixels: np.ndarray, **fields: object) -> Item:
    """An item of an image, as reading gives it."""
    return Item(FoundFile("source", "image.png", "image.png", 1), 0, pixels, **fields)


def write(pixels: np.ndarray, text: str, place: tuple[int, int], size: int = 12, colour=(255, 255, 255)) -> np.ndarray:
    """An image with text burnt in."""
    image = Image.fromarray(pixels)
    ImageDraw.Draw(image).text(place, text, colour, font_size=size)
    return np.array(image)


def speckle(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Speckled grey, uint8 `(height, width)`, 20 to 200: echoes without a frame around them."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(2, height, width)), (0, 1.2, 1.2))
    return np.clip(20 + 160 * np.hypot(*field), 20, 200).astype(np.uint8)


def fan(height: int, width: int, half_angle: float = 0.6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A sector of speckle on black: image uint8 `(height, width, 3)` and the sector as a mask."""
    y, x = np.mgrid[:height, :width]
    apex_x, apex_y = width / 2, -0.1 * height
    radius, angle = np.hypot(x - apex_x, y - apex_y), np.arctan2(x - apex_x, y - apex_y)
    inside = (np.abs(angle) < half_angle) & (radius < 1.0 * height) & (radius > 0.2 * height)
    grey = np.where(inside, speckle(height, width, seed), 0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), inside


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
