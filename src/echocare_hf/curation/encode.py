"""The stored image: reduced to the largest side, encoded anew, so that nothing of the old file's metadata is in it."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from echocare_hf.data.labelled.fingerprint import grey_values, perceptual_hash
from echocare_hf.data.reading_record import Spacing

from .channels import spread
from .options import CurateOptions
from .record import Item

JPEG_QUALITY = 95
GREY_SPREAD = 6
"""An image whose channels nowhere differ by more than this is stored grey: JPEG makes such small differences itself."""


def shrink(item: Item, max_side: int) -> Item:
    """Reduce an image to a longest side of `max_side` pixels, and tell its spacing and fingerprint anew."""
    height, width = item.pixels.shape[:2]
    pixels, spacing = item.pixels, item.spacing
    if max(height, width) > max_side:
        scale = max_side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX, reducing_gap=None))
        spacing = rescaled(spacing, height / size[1], width / size[0])
    return replace(item, pixels=pixels, spacing=spacing, hash=perceptual_hash(grey_values(pixels)))


def rescaled(spacing: Spacing | None, down: float, across: float) -> Spacing | None:
    """The spacing of an image whose pixels became this many times as large."""
    return None if spacing is None else (spacing[0] * down, spacing[1] * across)


def encode(pixels: np.ndarray, options: CurateOptions) -> bytes:
    """An RGB image, uint8 `(height, width, 3)`, as JPEG or PNG: grey if it is grey."""
    image = Image.fromarray(grey_values(pixels) if spread(pixels).max(initial=0) <= GREY_SPREAD else pixels)
    buffer = io.BytesIO()
    if options.image_format == "png":
        image.save(buffer, "PNG", optimize=False)
    else:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
