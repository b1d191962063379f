"""Small folders of labelled images for the tests of `read_labelled`."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    """A smooth grey image that no other seed gives, uint8 `(height, width)`."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, pixels: np.ndarray) -> Path:
    """Save an image, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def save_pictures(folder: Path, names: Sequence[str], first_seed: int = 0) -> None:
    """Save a different picture under each name."""
    for index, name in enumerate(names):
        save(folder / name, picture(first_seed + index))


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], delimiter: str = ",") -> Path:
    """Write rows that share their keys, with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def square_mask(
    value: int = 1, height: int = 40, width: int = 48, box: tuple[int, int, int, int] = (10, 8, 30, 28)
) -> np.ndarray:
    """A mask with one filled rectangle (x0, y0, x1, y1), uint8 `(height, width)`."""
    mask = np.zeros((height, width), np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = value
    return mask
