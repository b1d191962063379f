"""PNG, JPEG, BMP, TIFF and GIF through Pillow: one frame, or the pages and animation frames there are."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from .reading_intensity import grey_to_rgb, range_to_uint8, volume_to_uint8
from .reading_record import (
    UltrasoundRecord,
    UnreadableFileError,
    check_decoded_bytes,
    check_finite,
    check_size,
    count_invalid,
    one_line,
    pick_frames,
    too_large,
)
from .reading_stream import Frame, FrameSource, step_by_step

# What Pillow raises for damaged files. UnidentifiedImageError is an OSError; PNG chunks raise SyntaxError.
_DAMAGE = (OSError, SyntaxError, EOFError, ValueError, struct.error, KeyError, IndexError, TypeError)


def read_image(path: Path, every: int = 1, max_frames: int | None = None) -> UltrasoundRecord:
    """Read an image file. Arguments, result and errors are those of `read_ultrasound`.

    16-bit grey is scaled from its full range (65535 becomes 255); 32-bit grey follows `volume_to_uint8`; transparency
    is laid on black; EXIF orientation is applied to stills. Pages of a TIFF must share one size. Pixel density tags
    (dots per inch) describe paper, not tissue, so `spacing` is None.
    """
    with _named_damage(path), Image.open(path) as image:
        num_frames, indices = _plan(path, image, every, max_frames)
        check_decoded_bytes(path, len(indices), image.height, image.width)
        metadata = _metadata(image)
        frames = list(_pictures(path, image, num_frames, indices))
    height, width = frames[0].pixels.shape[:2]
    times_ms = [0.0 if num_frames > 1 and frame.index == 0 else frame.time_ms for frame in frames]
    return UltrasoundRecord(
        frames=np.stack([frame.pixels for frame in frames]),
        frame_times_ms=None if None in times_ms else tuple(time for time in times_ms if time is not None),
        metadata=metadata | {"width": width, "height": height, "num_frames": num_frames},
    )


def open_image(path: Path, every: int = 1, max_frames: int | None = None) -> FrameSource:
    """Open an image file for reading frame by frame; frames and errors are those of `read_image`."""
    with _named_damage(path), Image.open(path) as image:
        num_frames, indices = _plan(path, image, every, max_frames)
        metadata = _metadata(image)
        is_turned = num_frames == 1 and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        width, height = image.size[::-1] if is_turned else image.size
        # A PNG says how it is turned behind its pixels, so they have been decoded by now.
        decoded = (
            list(_pictures(path, image, num_frames, indices)) if num_frames == 1 and image.format == "PNG" else []
        )

    def pictures() -> Iterator[Frame]:
        if decoded:
            yield decoded.pop()
            return
        with Image.open(path) as image:
            yield from _pictures(path, image, num_frames, indices)

    return FrameSource(
        path,
        kind=str(metadata["format"]),
        height=height,
        width=width,
        num_frames=len(indices),
        is_clip=num_frames > 1,
        make_frames=lambda: step_by_step(pictures(), lambda: _named_damage(path)),
        metadata=metadata | {"width": width, "height": height, "num_frames": num_frames},
    )


@contextmanager
def _named_damage(path: Path) -> Iterator[None]:
    """What Pillow raises for a damaged file becomes one line that names it; what it warns of is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_size judges the size instead
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        try:
            yield
        except UnreadableFileError:
            raise
        except Image.DecompressionBombError as error:
            raise too_large(path, "too many pixels") from error
        except _DAMAGE as error:
            raise UnreadableFileError(
                path, f"is a damaged or cut-short image ({one_line(error, 100)}); copy or export it again"
            ) from error


def _plan(path: Path, image: Image.Image, every: int, max_frames: int | None) -> tuple[int, range]:
    """Frames of the file, and the indices of those that are wanted."""
    check_size(path, image.height, image.width)
    # A JPEG of several pictures (MPO) holds previews of the first, not a sequence.
    num_frames = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
    return num_frames, pick_frames(num_frames, every, max_frames)


def _metadata(image: Image.Image) -> dict[str, Any]:
    return {"format": "JPEG" if image.format == "MPO" else image.format, "color_mode": image.mode}


def _pictures(path: Path, image: Image.Image, num_frames: int, indices: range) -> Iterator[Frame]:
    """The pages or animation frames of an open file, each with its start in ms as far as durations are known."""
    width, height = image.size
    start_ms: float | None = 0.0
    # Durations add up, so every frame up to the last one wanted is visited.
    for index in range(indices[-1] + 1):
        image.seek(index)
        image.load()  # the duration of a GIF or PNG frame is known once it is decoded
        duration_ms = image.info.get("duration")
        if index in indices:
            if image.size != (width, height):
                raise UnreadableFileError(
                    path,
                    f"its page {index + 1} is {image.size[0]} x {image.size[1]}, its first {width} x {height};"
                    " save the pages as separate files",
                )
            still = (ImageOps.exif_transpose(image) or image) if num_frames == 1 else image
            is_timed = num_frames > 1 and (index > 0 or duration_ms is not None)
            yield Frame(index, start_ms if is_timed else None, to_rgb(path, still))
        start_ms = None if start_ms is None or duration_ms is None else start_ms + float(duration_ms)


def to_rgb(path: Path, image: Image.Image) -> np.ndarray:
    """One Pillow image of any mode to uint8 `(height, width, 3)`."""
    if image.mode.startswith("I;16"):
        return grey_to_rgb(range_to_uint8(np.asarray(image), 0, 65535))
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        check_finite(path, count_invalid(values))
        return grey_to_rgb(volume_to_uint8(values))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        colour = image.convert("RGBA")
        black = Image.new("RGBA", colour.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, colour).convert("RGB"))
    return np.array(image.convert("RGB"))
