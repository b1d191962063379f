"""What `read_ultrasound` returns, the one error it raises, and the limits it keeps.

Every reader beside this file (images, DICOM, video, volumes) fills the same `UltrasoundRecord`, so that the rest of
the package never asks what kind of file a frame came from.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

Modality = Literal["B-mode", "Doppler", "M-mode", "CEUS", "elastography", "unknown"]
Spacing = tuple[float, float]

MIN_SIDE = 8
"""Smallest height and width, in pixels, that is taken for an image."""

MAX_FRAME_PIXELS = 100_000_000
"""Most pixels of one frame: 100 megapixels. Larger files are refused before any pixel is decoded."""

MAX_DECODED_BYTES = 2 * 1024**3
"""Most bytes of decoded RGB frames of one call: 2 GiB, about 2,300 frames of 640 x 480."""


class UnreadableFileError(ValueError):
    """A file that cannot be read as ultrasound. The message is one line that names the file and the cure."""

    def __init__(self, path: object, problem: str) -> None:
        super().__init__(f"{one_line(path, 1000)}: {one_line(problem)}")


@dataclass(frozen=True)
class UltrasoundRegion:
    """One calibrated part of the screen (DICOM PS3.3 C.8.5.5, US Region Calibration Module).

    Attributes:
        box: `(x0, y0, x1, y1)` in pixels of the frames, half-open, `0 <= x0 < x1 <= width` and
            `0 <= y0 < y1 <= height`; the corners DICOM stores are inclusive, so `x1` is its max X plus one.
        spacing: `(row_mm, column_mm)`, millimetres per pixel down and across, as the file states them, or None where
            the axes are not both lengths (an M-mode or spectral region, a trace).
        spatial_format: "None", "2D", "M-Mode", "Spectral", "Waveform" or "Graphics" (PS3.3 C.8.5.5.1.1).
        data_type: "Tissue", "Color Flow", "PW Spectral Doppler", ... (PS3.3 C.8.5.5.1.2).
        clipped: True where the box in the file reached beyond the grid and was cut to it. By more than one pixel, that
            is the mark of frames that were scaled or cropped after the region was written: `spacing` is then doubtful.
    """

    box: tuple[int, int, int, int]
    spacing: Spacing | None
    spatial_format: str
    data_type: str
    clipped: bool


def image_regions(regions: Iterable[UltrasoundRegion]) -> list[UltrasoundRegion]:
    """The 2D regions that are large enough to be an image, in their order."""
    return [each for each in regions if each.spatial_format == "2D" and min(_sides(each.box)) >= MIN_SIDE]


def scales_differ(regions: Iterable[UltrasoundRegion]) -> bool:
    """Whether no one spacing holds for all 2D regions of a file: images side by side, each of a depth of its own.

    Args:
        regions: as the file states them. Those that are not 2D, or too small to be an image, do not matter.

    Returns:
        True if two of them state spacings more than 0.1 % apart, or if some state one and others none. A region without one inside
        the largest, as a colour box often is, has that one's.
    """
    shown = image_regions(regions)
    if len(shown) < 2 or all(each.spacing is None for each in shown):
        return False
    main = max(shown, key=lambda each: math.prod(_sides(each.box)))
    if main.spacing is None:
        return True
    for each in shown:
        if each.spacing is None:
            if not _is_within(each.box, main.box):
                return True
        elif not all(math.isclose(*pair, rel_tol=1e-3) for pair in zip(each.spacing, main.spacing, strict=True)):
            return True
    return False


def _sides(box: tuple[int, int, int, int]) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def _is_within(inner: tuple[int, int, int, int], outer: tuple[int, int, int, int]) -> bool:
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


@dataclass(frozen=True, eq=False)
class UltrasoundRecord:
    """One ultrasound file: an image, a cine loop or a sweep.

    Attributes:
        frames: uint8, `(num_frames, height, width, 3)`, RGB, 0..255, at least one frame of at least 8 x 8 pixels.
        spacing: `(row_mm, column_mm)`, millimetres per pixel down and across, both above 0; None if the file does not
            say, says it of another grid, or has 2D regions that differ in it.
        regions: the calibrated regions of a DICOM file, in its order; empty for other formats.
        modality: as far as the file itself tells: "B-mode", "Doppler", "M-mode", "CEUS", "elastography" or "unknown".
            Nothing is guessed from pixels.
        frame_times_ms: for each frame its time in milliseconds after the first frame of the file; None for stills and
            where the file does not say.
        metadata: a few facts about equipment and encoding from a fixed pass-list (format, manufacturer, bits stored,
            ...). Names, identifiers, dates, institutions, comments and paths are never in it. Text burnt into the
            pixels is not removed by reading.
    """

    frames: np.ndarray = field(repr=False)
    spacing: Spacing | None = None
    regions: tuple[UltrasoundRegion, ...] = ()
    modality: Modality = "unknown"
    frame_times_ms: tuple[float, ...] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def image(self) -> Image.Image:
        """The first frame as a PIL image of mode RGB."""
        return Image.fromarray(self.frames[0])


def one_line(text: object, limit: int = 240) -> str:
    """Collapse every run of white space, so that a library's message fits one line of `limit` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def clean_spacing(row_mm: object, column_mm: object) -> Spacing | None:
    """Return `(row_mm, column_mm)` as floats, or None unless both are finite numbers above 0."""
    try:
        spacing = float(str(row_mm)), float(str(column_mm))
    except ValueError:
        return None
    return spacing if all(math.isfinite(value) and value > 0 for value in spacing) else None


def check_size(path: Path, height: int, width: int) -> None:
    """Refuse frames too small to be an image, or too large to decode safely. Call it before decoding.

    Raises:
        UnreadableFileError: if a side is under `MIN_SIDE` or the frame has more than `MAX_FRAME_PIXELS`.
    """
    if height <= 0 or width <= 0:
        raise UnreadableFileError(path, f"has no pixels ({width} x {height}); export the image again")
    if height * width > MAX_FRAME_PIXELS:
        raise too_large(path, f"{width} x {height} pixels")
    if min(height, width) < MIN_SIDE:
        raise UnreadableFileError(
            path, f"is only {width} x {height} pixels; give an image of at least {MIN_SIDE} x {MIN_SIDE}"
        )


def too_large(path: Path, size: str) -> UnreadableFileError:
    """The error for a frame above `MAX_FRAME_PIXELS`; `size` says how large it is."""
    limit = MAX_FRAME_PIXELS // 1_000_000
    return UnreadableFileError(
        path, f"a frame has {size}, above the limit of {limit} megapixels; crop or downscale the file first"
    )


def check_decoded_bytes(path: Path, num_frames: int, height: int, width: int) -> None:
    """Refuse to decode more than `MAX_DECODED_BYTES` of RGB frames in one call.

    Raises:
        UnreadableFileError: naming `every` and `max_frames` as the cure.
    """
    if num_frames * height * width * 3 > MAX_DECODED_BYTES:
        raise UnreadableFileError(
            path,
            f"{num_frames} frames of {width} x {height} would take more than {MAX_DECODED_BYTES // 1024**3} GiB of"
            " memory; pass every=10 to sample, or max_frames=N to stop early",
        )


def count_invalid(values: np.ndarray) -> int:
    """How many values are NaN or infinite."""
    return int(np.count_nonzero(~np.isfinite(values))) if np.issubdtype(values.dtype, np.floating) else 0


def check_finite(path: Path, invalid: int) -> None:
    """Refuse a file with NaN or infinite pixels.

    Args:
        path: names the file.
        invalid: how many there are, see `count_invalid`.

    Raises:
        UnreadableFileError: if there are any.
    """
    if invalid:
        raise UnreadableFileError(path, f"{invalid} pixels are NaN or infinite; replace them and save again")


def pick_frames(num_frames: int, every: int, max_frames: int | None) -> range:
    """Indices of the frames to decode: 0, `every`, 2 `every`, ... below `num_frames`, at most `max_frames` of them."""
    return range(0, num_frames, every)[:max_frames]


def times_at(times_ms: Iterable[float] | None, indices: Iterable[int]) -> tuple[float, ...] | None:
    """The times of the frames at `indices`, in milliseconds, or None where the file gives none."""
    if times_ms is None:
        return None
    times = list(times_ms)
    return tuple(float(times[index]) for index in indices)
