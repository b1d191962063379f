"""PNG, JPEG, BMP, TIFF and GIF through Pillow: one frame, or the pages and animation frames there are."""

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from .reading_intensity import grey_to_rgb, range_to_uint8, volume_to_uint8
from .reading_record import (
    UltrasoundRecord,
    UnreadableFileError,
    check_decoded_bytes,
    check_size,
    one_line,
    pick_frames,
    times_at,
    too_large,
)

# What Pillow raises for damaged files. UnidentifiedImageError is an OSError; PNG chunks raise SyntaxError.
_DAMAGE = (OSError, SyntaxError, EOFError, ValueError, struct.error, KeyError, IndexError, TypeError)


def read_image(path: Path, every: int = 1, max_frames: int | None = None) -> UltrasoundRecord:
    """Read an image file. Arguments, result and errors are those of `read_ultrasound`.

    16-bit grey is scaled from its full range (65535 becomes 255); 32-bit grey follows `volume_to_uint8`; transparency
    is laid on black; EXIF orientation is applied to stills. Pages of a TIFF must share one size. Pixel density tags
    (dots per inch) describe paper, not tissue, so `spacing` is None.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_size judges the size instead
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        try:
            with Image.open(path) as image:
                return _read_open_image(path, image, every, max_frames)
        except UnreadableFileError:
            raise
        except Image.DecompressionBombError as error:
            raise too_large(path, "too many pixels") from error
        except _DAMAGE as error:
            raise UnreadableFileError(
                path, f"is a damaged or cut-short image ({one_line(error, 100)}); copy or export it again"
            ) from error


def _read_open_image(path: Path, image: Image.Image, every: int, max_frames: int | None) -> UltrasoundRecord:
    width, height = image.size
    check_size(path, height, width)
    # A JPEG of several pictures (MPO) holds previews of the first, not a sequence.
    num_frames = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
    indices = pick_frames(num_frames, every, max_frames)
    check_decoded_bytes(path, len(indices), height, width)
    mode, file_format = image.mode, image.format
    frames: list[np.ndarray] = []
    durations_ms: list[float | None] = []
    # Durations add up, so every frame up to the last one wanted is visited.
    for index in range(indices[-1] + 1):
        image.seek(index)
        image.load()  # the duration of a GIF or PNG frame is known once it is decoded
        durations_ms.append(image.info.get("duration"))
        if index not in indices:
            continue
        if image.size != (width, height):
            raise UnreadableFileError(
                path,
                f"its page {index + 1} is {image.size[0]} x {image.size[1]}, its first {width} x {height};"
                " save the pages as separate files",
            )
        still = (ImageOps.exif_transpose(image) or image) if num_frames == 1 else image
        frames.append(to_rgb(path, still))
    metadata: dict[str, Any] = {"format": "JPEG" if file_format == "MPO" else file_format, "color_mode": mode}
    metadata |= {"width": frames[0].shape[1], "height": frames[0].shape[0], "num_frames": num_frames}
    return UltrasoundRecord(
        frames=np.stack(frames),
        frame_times_ms=times_at(_start_times(durations_ms) if num_frames > 1 else None, indices),
        metadata=metadata,
    )


def _start_times(durations_ms: list[float | None]) -> list[float] | None:
    """Start of each frame in ms, the first at 0; None if a duration that is needed is missing."""
    starts = [0.0]
    for duration in durations_ms[:-1]:
        if duration is None:
            return None
        starts.append(starts[-1] + float(duration))
    return starts


def to_rgb(path: Path, image: Image.Image) -> np.ndarray:
    """One Pillow image of any mode to uint8 `(height, width, 3)`."""
    if image.mode.startswith("I;16"):
        return grey_to_rgb(range_to_uint8(np.asarray(image), 0, 65535))
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        if invalid := int(np.count_nonzero(~np.isfinite(values))):
            raise UnreadableFileError(path, f"{invalid} pixels are NaN or infinite; replace them and save again")
        return grey_to_rgb(volume_to_uint8(values))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        colour = image.convert("RGBA")
        black = Image.new("RGBA", colour.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, colour).convert("RGB"))
    return np.array(image.convert("RGB"))
