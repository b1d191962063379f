"""What of a file's grid is analysed: the ultrasound region, as the DICOM header states it and the pixels of the first frames show it.

It is decided once for a file, so that all its frames have one geometry. A header that states regions says where 2D images are; spectral
and M-mode regions beside them are left out; a file that states no 2D region is analysed whole. Within that, or within the whole grid,
the region is the convex hull of the echoes, as in curation; where none stands out, it is all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from echocare_hf.data.reading_record import MIN_SIDE, Spacing, UltrasoundRegion, image_regions, scales_differ

from .results import Box

FIRST_FRAMES = 8
"""Frames of a clip that the region is looked for in: what is bright in any of them belongs to it."""


@dataclass(frozen=True, eq=False)
class Region:
    """The part of a file's frames that is analysed, and the way back from it.

    Attributes:
        height, width: of the original grid, pixels.
        box: of the region in the original grid.
        mask: bool `(box height, box width)`, which pixels of the box belong to the region; None for all.
        spacing: (row_mm, column_mm) of the original grid, None if unknown.
        warnings: one line each.
    """

    height: int
    width: int
    box: Box
    mask: np.ndarray | None = field(default=None, repr=False)
    spacing: Spacing | None = None
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the box."""
        x0, y0, x1, y1 = self.box
        return y1 - y0, x1 - x0

    @cached_property
    def whole(self) -> "Region":
        """All of the grid."""
        return Region(self.height, self.width, (0, 0, self.width, self.height), spacing=self.spacing)

    @cached_property
    def _kept_bits(self) -> np.ndarray | None:
        """The mask for three channels: 255 inside, 0 outside. An "and" takes a tenth of the time of a product."""
        return None if self.mask is None else np.repeat(self.mask[..., None] * np.uint8(255), 3, axis=2)

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        """The region of a frame `(height, width, 3)`, black where the box holds what does not belong to it."""
        x0, y0, x1, y1 = self.box
        cut = pixels[y0:y1, x0:x1]
        return cut if self._kept_bits is None else cut & self._kept_bits

    def grey_crop(self, pixels: np.ndarray) -> np.ndarray | None:
        """One channel of `crop`, uint8 `(box height, box width)`, where all three are equal; None where the region has colour.

        Most ultrasound is grey, and one channel takes a third of the time to resize, to draw on and to encode.
        """
        x0, y0, x1, y1 = self.box
        red, green, blue = (pixels[y0:y1, x0:x1, channel] for channel in range(3))
        if not (np.array_equal(red[::16], green[::16]) and np.array_equal(red, green) and np.array_equal(red, blue)):
            return None
        return np.ascontiguousarray(red) if self.mask is None else red * self.mask

    def paste(self, crop: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """A copy of a frame, or of a label map, with the region replaced: `crop` is `(box height, box width, ...)`."""
        x0, y0, x1, y1 = self.box
        pasted = frame.copy()
        if self.mask is None:
            pasted[y0:y1, x0:x1] = crop
        else:
            pasted[y0:y1, x0:x1][self.mask] = crop[self.mask]
        return pasted


def find_region(
    frames: Sequence[np.ndarray],
    regions: Sequence[UltrasoundRegion] = (),
    spacing: Spacing | None = None,
    search: bool = True,
) -> Region:
    """The region of a file.

    Args:
        frames: the first frames, each uint8 `(height, width, 3)`; one at least.
        regions: that the file states.
        spacing: millimetres per pixel, if known. It is left out, with a warning, where the 2D regions differ in it.
        search: False to take the whole grid.

    Raises:
        ImportError: if the pixels have to be looked at and SciPy is not installed.
    """
    height, width = frames[0].shape[:2]
    notes: tuple[str, ...] = ()
    if scales_differ(regions):
        spacing, notes = None, (_scales_text(regions),)
    whole = Region(height, width, (0, 0, width, height), spacing=spacing, warnings=notes)
    if not search:
        return whole
    try:
        from echocare_hf.curation.channels import brightness
        from echocare_hf.curation.region import hull_of, polygon_mask
    except ImportError as error:
        if (error.name or "").split(".")[0] != "scipy":
            raise
        raise ImportError(
            'finding the ultrasound region needs SciPy: pip install "echocare-hf[predict]", or give --no-region'
        ) from error
    stated, warnings = _stated_box(regions)
    warnings += notes
    x0, y0, x1, y1 = stated or whole.box
    light = brightness(frames[0][y0:y1, x0:x1])
    for frame in frames[1:]:
        light = np.maximum(light, brightness(frame[y0:y1, x0:x1]))
    hull = hull_of(light)
    if hull is None:
        return Region(height, width, (x0, y0, x1, y1), None, spacing, warnings)
    mask = polygon_mask(hull, light.shape)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    if min(bottom - top, right - left) < MIN_SIDE:
        return Region(height, width, (x0, y0, x1, y1), None, spacing, warnings)
    mask = mask[top:bottom, left:right]
    box = (x0 + left, y0 + top, x0 + right, y0 + bottom)
    return Region(height, width, box, None if mask.all() else mask, spacing, warnings)


def _stated_box(regions: Sequence[UltrasoundRegion]) -> tuple[Box | None, tuple[str, ...]]:
    """The box around the 2D regions of the file's own grid, None without them, and what to say of it."""
    whole = [region for region in regions if not region.clipped]
    boxes = [region.box for region in image_regions(whole)]
    if boxes:
        x0, y0, x1, y1 = zip(*boxes, strict=True)
        return (min(x0), min(y0), max(x1), max(y1)), ()
    formats = sorted({region.spatial_format for region in whole} & {"M-Mode", "Spectral"})
    if formats:
        return None, (f"states {' and '.join(formats)} regions but no 2D image: the models know 2D images",)
    return None, ()


def _scales_text(regions: Sequence[UltrasoundRegion]) -> str:
    spacings = [region.spacing for region in image_regions(regions)]
    texts = ["none" if each is None else f"{each[0]:.3g} x {each[1]:.3g} mm" for each in spacings]
    return (
        f"states 2D regions of different spacing ({', '.join(dict.fromkeys(texts))}): no one number holds for all of "
        "the image, so lengths and areas are in pixels"
    )


__all__ = ["FIRST_FRAMES", "Region", "find_region"]
