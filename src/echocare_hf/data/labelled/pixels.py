"""The pixels behind a `Sample`: its frames, its mask, its better image."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..reading import UltrasoundRecord, UnreadableFileError, read_ultrasound
from ..reading_image import to_rgb
from ..reading_record import check_size, one_line
from .drawn import draw_mask
from .record import DrawnMask, ImageSource, MaskSource, RowReference, Sample

CINE_FORMATS = (
    ".dcm",
    ".dicom",
    ".mp4",
    ".m4v",
    ".mov",
    ".avi",
    ".mkv",
    ".webm",
    ".wmv",
    ".mpg",
    ".mpeg",
    ".gif",
    ".webp",
    ".avif",
)
"""Suffixes of files that may hold a whole cine loop."""

STILL_FORMATS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".jp2", ".j2k")
"""Suffixes of files that hold one image."""


class Clip(NamedTuple):
    """Frames and when they were taken.

    Attributes:
        frames: uint8 `(num_frames, height, width, 3)`, RGB, 0..255.
        times_ms: one time a frame in milliseconds, from any origin; None if unknown.
    """

    frames: np.ndarray
    times_ms: tuple[float, ...] | None


def has_dicom_preamble(path: str | os.PathLike[str]) -> bool:
    """Whether a file of any name is DICOM by its first bytes; False for one that cannot be opened."""
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def may_be_cine(path: str) -> bool:
    """Whether a file may hold a whole cine loop: by its suffix, or DICOM whose name does not say so."""
    lower = path.lower()
    return lower.endswith(CINE_FORMATS) or (not lower.endswith(STILL_FORMATS) and has_dicom_preamble(path))


def read_image(sample: Sample) -> np.ndarray:
    """The image of a sample, or the frame of a cine loop that it stands for.

    Returns:
        uint8 `(height, width, 3)`, RGB, 0..255.

    Raises:
        UnreadableFileError: if it cannot be read, naming it.
        FileNotFoundError: if the file is gone.
        ValueError: if the file has fewer frames than `sample.frame` asks for.
    """
    return read_source(sample.images[0], sample.frame)


def read_clip(sample: Sample, num_frames: int | None = None) -> Clip:
    """The frames of a clip, all of them or an even choice.

    Args:
        sample: a sample of the task "video".
        num_frames: at most this many, evenly spaced from the first to the last; None for all.

    Returns:
        A `Clip`. Frames of another size than the first are resized to it, bilinearly.

    Raises:
        UnreadableFileError: if a frame cannot be read, naming it.
        FileNotFoundError: if a file is gone.
    """
    times = sample.frame_times_ms
    if len(sample.images) == 1 and isinstance(sample.images[0], str):
        record = read_ultrasound(sample.images[0])
        frames, times = list(record.frames), times or record.frame_times_ms
        chosen = _even_choice(len(frames), num_frames)
        frames = [frames[index] for index in chosen]
    else:
        chosen = _even_choice(len(sample.images), num_frames)
        frames = [read_source(sample.images[index]) for index in chosen]
    if times is not None:
        times = tuple(times[index] for index in chosen)
    height, width = frames[0].shape[:2]
    same = [frame if frame.shape[:2] == (height, width) else _resized(frame, width, height) for frame in frames]
    return Clip(np.stack(same), times)


def read_target_image(sample: Sample) -> np.ndarray:
    """The better image that an enhanced one shall look like: uint8 `(height, width, 3)`.

    Raises:
        ValueError: if the sample has none, or it cannot be read.
    """
    if sample.target_image is None:
        raise ValueError(f"{sample.name}: has no target image; degrade the image itself instead")
    return read_source(sample.target_image)


def read_mask(sample: Sample, mask_values: Mapping[int, int]) -> np.ndarray:
    """The mask of a sample as class indices; where it has several, the largest class of each pixel.

    Args:
        sample: a sample with a mask.
        mask_values: `LabelledData.mask_values`.

    Returns:
        uint8 `(height, width)`, class indices, `IGNORE_INDEX` where the pixel shall be left out.

    Raises:
        ValueError: for a sample without mask, a value that is not in `mask_values`, or a file that cannot be read.
    """
    if not sample.mask:
        raise ValueError(f"{sample.name}: has no mask; leave it out, or give it an empty one if it shows nothing")
    masks = [map_mask(read_raw_mask(source), mask_values, str(source)) for source in sample.mask]
    for source, mask in zip(sample.mask, masks, strict=True):
        if mask.shape != masks[0].shape:
            raise ValueError(
                f"{source}: is {_size(mask)} pixels, the image's other mask {_size(masks[0])}; save it again"
            )
    return np.maximum.reduce(masks)


def map_mask(raw: np.ndarray, mask_values: Mapping[int, int], where: str) -> np.ndarray:
    """Raw mask values to class indices, uint8 of the same shape.

    Raises:
        ValueError: for values that are not in `mask_values`, listing them.
    """
    values = raw_values(raw)
    unknown = [value for value in values if value not in mask_values]
    if unknown:
        raise ValueError(
            f"{where}: has the mask values {value_list(unknown)}, which are not in the label map ({value_list(mask_values)}); add "
            "them to --mask_values, or correct the mask"
        )
    indices = np.array([mask_values[value] for value in values], np.uint8)
    return indices[np.searchsorted(values, raw)]


def raw_values(raw: np.ndarray) -> list[int]:
    """The different values in a mask, in ascending order."""
    if raw.min() >= 0 and raw.max() <= 0xFFFF:  # counting is ten times as fast as sorting
        return np.flatnonzero(np.bincount(raw.ravel())).tolist()
    return np.unique(raw).tolist()


def value_list(values: Any, limit: int = 12) -> str:
    """Mask values for a message: numbers, colours as #rrggbb, the first `limit` of them."""
    shown = [str(value) if value <= 0xFFFF else f"#{value:06x}" for value in sorted(values)]
    return ", ".join(shown[:limit]) + (f", ... ({len(shown)} in all)" if len(shown) > limit else "")


def read_source(source: ImageSource, frame: int | None = None) -> np.ndarray:
    """One image: uint8 `(height, width, 3)`, RGB.

    Args:
        source: file or row.
        frame: which frame of a cine loop, from 0; the first if None.

    Raises:
        UnreadableFileError: if it cannot be read, naming it.
        ValueError: if the file has too few frames.
    """
    if isinstance(source, RowReference):
        return _decode_row(source)
    record = read_record(source, frame)
    return record.frames[-1]


def read_record(path: str, frame: int | None = None) -> UltrasoundRecord:
    """The file up to the frame that is wanted; the last frame of the record is that one."""
    wanted = frame if frame is not None and may_be_cine(path) else 0
    record = read_ultrasound(path, max_frames=wanted + 1)
    if len(record.frames) <= wanted:
        raise ValueError(
            f"{path}: has {len(record.frames)} frames, frame {wanted} is wanted; correct the column frame"
        )
    return record


def read_raw_mask(source: MaskSource) -> np.ndarray:
    """A mask as it is stored: `(height, width)` of whole numbers, colours as 0xRRGGBB.

    Raises:
        UnreadableFileError: if it cannot be read, naming it.
        FileNotFoundError: if there is no such file.
    """
    if isinstance(source, DrawnMask):
        return draw_mask(source)
    if isinstance(source, RowReference):
        return _open_row(source, _mask_array)
    try:
        with Image.open(source) as image:
            return _mask_array(source, image)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source}: there is no such mask; check the path") from error
    except UnreadableFileError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableFileError(
            source, f"is a damaged mask ({one_line(error, 100)}); save it again as PNG"
        ) from error


def _mask_array(name: Any, image: Image.Image) -> np.ndarray:
    check_size(Path(str(name)), image.height, image.width)
    if image.mode in ("P", "L", "1", "I") or image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.int32)
    if image.mode in ("LA", "La"):
        return np.asarray(image.getchannel(0)).astype(np.int32)
    if image.mode == "F":
        values = np.asarray(image)
        if not np.array_equal(values, np.round(values)):
            raise UnreadableFileError(name, "holds fractions, which are no classes; save the mask as whole numbers")
        return values.astype(np.int32)
    colour = np.asarray(image.convert("RGB")).astype(np.int32)
    if (colour == colour[..., :1]).all():
        return colour[..., 0]
    return (colour[..., 0] << 16) | (colour[..., 1] << 8) | colour[..., 2]


def _decode_row(source: RowReference) -> np.ndarray:
    return _open_row(source, lambda name, image: to_rgb(Path(str(name)), image))


def _open_row(source: RowReference, decode: Any) -> np.ndarray:
    cell = source.dataset[source.row][source.column][0].as_py()
    if source.index is not None:
        cell = cell[source.index]
    if cell is None:
        raise UnreadableFileError(source, "is empty; fill the cell or remove the row")
    content = cell["bytes"] if cell["bytes"] is not None else cell["path"]
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            check_size(Path(str(source)), image.height, image.width)
            return decode(source, image)
    except UnreadableFileError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableFileError(source, f"is a damaged image ({one_line(error, 100)}); replace it") from error


def _even_choice(count: int, wanted: int | None) -> list[int]:
    """`wanted` indices out of `count`, evenly from the first to the last; all of them if there are not more."""
    if wanted is None or count <= wanted:
        return list(range(count))
    return [int(index) for index in np.linspace(0, count - 1, wanted).round()]


def _resized(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def _size(mask: np.ndarray) -> str:
    return f"{mask.shape[1]} x {mask.shape[0]}"
