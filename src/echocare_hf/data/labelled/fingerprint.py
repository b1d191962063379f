"""Fingerprints of images: which are the same, and which look the same."""

import hashlib

import numpy as np
from PIL import Image

NEAR_DISTANCE = 3
"""Images whose perceptual hashes differ in at most this many of 64 bits are taken for one image, seen twice."""

_SIDE, _LOW = 32, 8  # side of the reduced image, and of the block of lowest frequencies that is kept


def grey_values(frame: np.ndarray) -> np.ndarray:
    """The brightness of an RGB image, uint8 `(height, width)`, which both fingerprints are taken from."""
    return np.asarray(Image.fromarray(frame).convert("L"))


def pixel_digest(grey: np.ndarray) -> str:
    """A text that two images share only if all their grey values are equal, whatever file format they come in.

    Args:
        grey: uint8 `(height, width)`.
    """
    digest = hashlib.blake2b(repr(grey.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(grey).data)
    return digest.hexdigest()


def perceptual_hash(grey: np.ndarray) -> int:
    """64 bits that stay nearly the same when an image is rescaled, compressed, brightened or written on a little.

    The image is reduced to 32 x 32 grey pixels; each bit tells whether one of the 8 x 8 lowest coefficients of its cosine transform is
    above their median.

    Args:
        grey: uint8 `(height, width)`.

    Returns:
        0 to 2^64 - 1; how far two images are apart is the number of bits in which they differ (Hamming distance).

    Source: Zauner, Implementation and benchmarking of perceptual image hash functions (2010), DCT hash.
    """
    small = Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float64)
    low = _COSINES @ pixels @ _COSINES.T  # (8, 8)
    bits = low.ravel() > np.median(low.ravel()[1:])  # the mean of the image says nothing about its looks
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_pairs(hashes: np.ndarray, distance: int) -> list[tuple[int, int]]:
    """Pairs of images whose hashes differ in at most `distance` bits.

    Args:
        hashes: uint64 `(images,)`.
        distance: most bits that may differ, 0 to 64.

    Returns:
        Pairs of indices, the smaller first, in ascending order.
    """
    pairs = []
    for index in range(len(hashes) - 1):
        differing = np.bitwise_count(hashes[index] ^ hashes[index + 1 :])
        pairs += [(index, index + 1 + int(other)) for other in np.flatnonzero(differing <= distance)]
    return pairs


def _cosines() -> np.ndarray:
    """The first 8 rows of the cosine transform (DCT-II) of 32 values, unscaled."""
    frequency, place = np.arange(_LOW)[:, None], np.arange(_SIDE)[None]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * _SIDE))


_COSINES = _cosines()
