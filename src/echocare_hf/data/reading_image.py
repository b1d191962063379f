"""PNG, JPEG, BMP, TIFF, GIF, WebP, AVIF and JPEG 2000 through Pillow: one frame, or the pages and animation frames there are."""

import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .reading_codecs import check_codec
from .reading_intensity import ValueRange, grey_to_rgb, range_to_uint8, value_range, volume_to_uint8
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

# TIFF 6.0, sections 4 and 19.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2

_DEPTHS = (2**8 - 1, 2**12 - 1, 2**16 - 1)
"""What may be white in 16-bit samples: many writers leave the upper bits unused and say so nowhere.

Few steps, far apart: frames of one clip in files of their own are to be scaled alike, and only one that is all but black is not.
"""


def read_image(path: Path, every: int = 1, max_frames: int | None = None) -> UltrasoundRecord:
    """Read an image file. Arguments, result and errors are those of `read_ultrasound`.

    16-bit grey is scaled from its full range (65535 becomes 255), or from that of 8 or 12 bits where all frames that are
    wanted of the file fit it; 32-bit and signed grey follows `volume_to_uint8`, over these frames together. Transparency is laid on black;
    EXIF orientation is applied to stills. Pages of a TIFF must share one size. Pixel density tags
    (dots per inch) describe paper, not tissue, so `spacing` is None.
    """
    check_codec(path)
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
    check_codec(path)
    with _named_damage(path), Image.open(path) as image:
        num_frames, indices = _plan(path, image, every, max_frames)
        metadata = _metadata(image)
        # The size that Pillow tells of a TIFF is that of the upright picture.
        turns = num_frames == 1 and image.format != "TIFF"
        is_turned = turns and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
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
        except UnidentifiedImageError as error:
            raise UnreadableFileError(
                path,
                "is damaged, or of a kind that Pillow does not read, such as TIFF of 64-bit samples; save it as PNG",
            ) from error
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
    over = _range_of(image, indices) if len(indices) > 1 else None
    # Durations add up, so every frame up to the last one wanted is visited.
    for index in range(indices[-1] + 1):
        image.seek(index)
        image.load()  # the duration of a GIF or PNG frame is known once it is decoded
        duration_ms = image.info.get("duration") or None  # 0 says "as fast as can be" (PNG) or nothing (GIF)
        if index in indices:
            if image.size != (width, height):
                raise UnreadableFileError(
                    path,
                    f"its page {index + 1} is {image.size[0]} x {image.size[1]}, its first {width} x {height};"
                    " save the pages as separate files",
                )
            if num_frames == 1:
                ImageOps.exif_transpose(image, in_place=True)  # a copy would lose the tags of a TIFF
            is_timed = num_frames > 1 and (index > 0 or duration_ms is not None)
            yield Frame(index, start_ms if is_timed else None, to_rgb(path, image, over))
        start_ms = None if start_ms is None or duration_ms is None else start_ms + float(duration_ms)


def _range_of(image: Image.Image, indices: range) -> ValueRange | None:
    """The range of the deep grey samples of some pages, over which they are scaled; None if they are of other modes."""
    over: ValueRange | None = None
    kinds: set[str] = set()
    try:
        for index in indices:
            image.seek(index)
            image.load()
            values = _deep_grey(image)
            if values is None or len(kinds := kinds | {values.dtype.kind}) > 1:
                return None
            if count_invalid(values) == 0:  # pages with invalid values are refused in their turn
                over = value_range(values).joined(over)
    except _DAMAGE:
        pass  # the pages before the damage are scaled by their own range; decoding them again meets it and reports it
    return over


def _tags(image: Image.Image) -> Mapping[int, Any]:
    return getattr(image, "tag_v2", {})  # of a TIFF


def _deep_grey(image: Image.Image) -> np.ndarray | None:
    """Grey samples of more than 8 bits or with a sign, `(height, width)`, as the file stores them; None for images of other modes."""
    tags = _tags(image)
    bits, kind = (
        tags.get(tag, (default,))[0] for tag, default in ((_BITS_PER_SAMPLE, 8), (_SAMPLE_FORMAT, _UNSIGNED))
    )
    if image.mode == "L":
        return np.asarray(image).view(np.int8) if kind == _SIGNED and image.format == "TIFF" else None
    if image.mode == "I" and image.format == "TIFF" and (bits, kind) == (32, _UNSIGNED):
        return np.asarray(image).view(np.uint32)  # for which Pillow has no mode
    return np.asarray(image) if image.mode in ("I", "F") or image.mode.startswith("I;16") else None


def _scaled(values: np.ndarray, tags: Mapping[int, Any], over: ValueRange | None) -> np.ndarray:
    """Deep grey samples to uint8, dark to bright."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        stated = 2 ** tags.get(_BITS_PER_SAMPLE, (0,))[0] - 1
        high = (over or value_range(values)).high
        depths = (stated, 2**16 - 1) if 0 < stated < 2**16 - 1 else _DEPTHS
        grey = range_to_uint8(values, 0, next((depth for depth in depths if high <= depth), depths[-1]))
    else:
        grey = volume_to_uint8(values, over)
    return 255 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey


def to_rgb(path: Path, image: Image.Image, over: ValueRange | None = None) -> np.ndarray:
    """One Pillow image of any mode to uint8 `(height, width, 3)`; `over` is the range of the whole file, where this is one page."""
    values = _deep_grey(image)
    if values is not None:
        check_finite(path, count_invalid(values))
        return grey_to_rgb(_scaled(values, _tags(image), over))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        colour = image.convert("RGBA")
        black = Image.new("RGBA", colour.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, colour).convert("RGB"))
    return np.array(image.convert("RGB"))
