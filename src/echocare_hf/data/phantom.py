"""Synthetic ultrasound images with anatomy labels, for quickstarts, tests and smoke runs.

    from echocare_hf.data.phantom import make_phantom, phantom_corpus

    phantom = make_phantom("fetal_brain", seed=7)
    phantom.image      # (256, 256) uint8
    phantom.mask       # (256, 256) uint8, values explained by phantom.mask_names
    phantom.labels     # ("fetal_transthalamic_plane",), nodes of the anatomy tree

The images have the look of ultrasound (speckle, sector, shadows, enhancement) and exactly known truth; they are no
substitute for patients. The physics is in `phantom_physics`, the anatomies are in `phantom_scenes`.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from echocare_hf.data.phantom_physics import Blob, Raster, render
from echocare_hf.data.phantom_scenes import SCENES, Scene

PHANTOM_KINDS: tuple[str, ...] = tuple(SCENES)
MINIMUM_SIZE = 32


@dataclass(frozen=True)
class Phantom:
    """One synthetic image and its truth.

    Attributes:
        kind: what was asked for, one of `PHANTOM_KINDS`.
        seed: the seed that makes it again.
        image: (height, width) uint8, 0 to 255, 0 outside the field of view.
        mask: (height, width) uint8, 0 for background and outside the field of view, else a key of `mask_names`.
        field_of_view: (height, width) bool, where the probe sees.
        labels: ids of nodes of the anatomy tree that the image shows, the most specific ones.
        mask_names: name of each value of the mask.
        spacing: height and width of a pixel in mm.
        geometry: true shapes in pixels. An ellipse is `{"x", "y", "a", "b", "angle_degrees", "area"}`: centre and
            semi-axes in pixels (0 at the outer edge of the first pixel), the angle of `a` from right towards down, the
            area in pixels of the whole shape, in or out of view. Other entries are plain numbers, unit in the name.
    """

    kind: str
    seed: int
    image: np.ndarray
    mask: np.ndarray
    field_of_view: np.ndarray
    labels: tuple[str, ...]
    mask_names: dict[int, str]
    spacing: tuple[float, float]
    geometry: dict[str, Any]


def make_phantom(kind: str, seed: int = 0, size: int | tuple[int, int] = 256) -> Phantom:
    """One synthetic image; the same arguments always give the same image.

    Args:
        kind (`str`): what to show, one of `PHANTOM_KINDS`.
        seed (`int`, *optional*, defaults to 0): chooses patient, scanner settings and speckle; 0 or more.
        size (`int` or `tuple[int, int]`, *optional*, defaults to 256): height and width in pixels.

    Returns:
        [`Phantom`]: image, mask, labels and true geometry.

    Raises:
        ValueError: for an unknown kind, a negative seed, or a side below 32 pixels.
    """
    if kind not in SCENES:
        raise ValueError(f"unknown phantom {kind!r}: choose one of {', '.join(SCENES)}")
    if seed < 0:
        raise ValueError(f"`seed` must be 0 or more, got {seed}")
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < MINIMUM_SIZE:
        raise ValueError(f"a phantom needs at least {MINIMUM_SIZE} pixels a side, got {height}x{width}")
    # The kind's name enters the seed, so that adding a kind changes no other one.
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    scene = SCENES[kind](rng)
    image, mask, field_of_view, raster = render(scene.probe, scene.draw, (height, width), rng)
    return Phantom(
        kind=kind,
        seed=seed,
        image=image,
        mask=mask,
        field_of_view=field_of_view,
        labels=scene.labels,
        mask_names=scene.mask_names,
        spacing=(raster.spacing, raster.spacing),
        geometry=_geometry(scene, raster),
    )


def phantom_corpus(
    count: int, seed: int = 0, size: int | tuple[int, int] = 256, kinds: Sequence[str] = PHANTOM_KINDS
) -> Iterator[Phantom]:
    """Synthetic images of every kind in turn, so that any run of `len(kinds)` images holds each kind once.

    Args:
        count (`int`): images to make.
        seed (`int`, *optional*, defaults to 0): chooses the corpus; corpora of different seeds share no image.
        size (`int` or `tuple[int, int]`, *optional*, defaults to 256): height and width in pixels.
        kinds (`Sequence[str]`, *optional*): what to show; everything when not given.

    Returns:
        Iterator of `count` [`Phantom`].

    Raises:
        ValueError: when `count` is negative, `kinds` is empty or holds an unknown kind.
    """
    unknown = [kind for kind in kinds if kind not in SCENES]
    if unknown or not kinds:
        raise ValueError(f"unknown phantoms {unknown}: choose from {', '.join(SCENES)}")
    if count < 0:
        raise ValueError(f"`count` must be 0 or more, got {count}")

    def images() -> Iterator[Phantom]:
        for number in range(count):
            yield make_phantom(kinds[number % len(kinds)], seed * 1_000_003 + number // len(kinds), size)

    return images()


def _geometry(scene: Scene, raster: Raster) -> dict[str, Any]:
    geometry: dict[str, Any] = dict(scene.values)
    for name, shape in scene.shapes.items():
        x, y = raster.to_pixels(shape.x, shape.z)
        area = shape.area if isinstance(shape, Blob) else math.pi * shape.a * shape.b
        geometry[name] = {
            "x": x,
            "y": y,
            "a": shape.a / raster.spacing,
            "b": shape.b / raster.spacing,
            "angle_degrees": math.degrees(shape.angle),
            "area": area / raster.spacing**2,
        }
    return geometry


__all__ = ["PHANTOM_KINDS", "Phantom", "make_phantom", "phantom_corpus"]
