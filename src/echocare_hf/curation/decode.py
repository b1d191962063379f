"""Files to images: reading, sampling of cine loops, fingerprints."""

import errno
import math
from collections.abc import Sequence
from dataclasses import replace

from echocare_hf.data.labelled.fingerprint import grey_values, perceptual_hash, pixel_digest
from echocare_hf.data.reading import UnsupportedFormatError, read_ultrasound
from echocare_hf.data.reading_record import UltrasoundRecord, UnreadableFileError

from .options import CurateOptions
from .record import Drop, FoundFile, Item, drop_file

MAX_FRAMES = 1_000
"""Most frames that are kept of one file, so that no single file fills the memory."""

WHOLE_BYTES = 256 * 1024**2
"""Clips of at most this many decoded bytes are read as a whole when they are sampled by time, longer ones with a stride."""

_TOO_LARGE = ("GiB of memory;", "above the limit of")  # what `check_decoded_bytes` and `too_large` of the readers say


def decode(file: FoundFile, options: CurateOptions) -> tuple[list[Item], list[Drop]]:
    """Read a file and sample its frames.

    Args:
        file: what to read.
        options: `every` and `every_seconds` count.

    Returns:
        An item a frame with its fingerprints; or none, and the reason: "corrupt" for what cannot be read, "too_large" for what would
        take too much memory, "missing_reader" where an optional package is not installed, "unsupported_format" for HEIC.

    Raises:
        OSError: if the memory does not suffice, which says nothing of the file.
    """
    try:
        if options.every_seconds is None:
            record, stride = read_ultrasound(file.path, every=options.every, max_frames=MAX_FRAMES), options.every
            numbers = list(range(0, stride * len(record.frames), stride))
        else:
            record, numbers = _read_in_time(file.path, options.every_seconds, options.every)
    except ImportError as error:
        return [], [drop_file(file, "decode", "missing_reader", _without_path(error, file))]
    except UnsupportedFormatError as error:
        return [], [drop_file(file, "decode", "unsupported_format", _without_path(error, file))]
    except (UnreadableFileError, FileNotFoundError) as error:
        detail = _without_path(error, file)
        is_too_large = any(words in detail.removeprefix(file.name) for words in _TOO_LARGE)
        return [], [drop_file(file, "decode", "too_large" if is_too_large else "corrupt", detail)]
    except MemoryError as error:
        problem = "the memory does not suffice to read it; use fewer --workers or a machine with more, and run again"
        raise OSError(errno.ENOMEM, problem, file.path) from error
    items = []
    for number, pixels in zip(numbers, record.frames, strict=True):
        grey = grey_values(pixels)
        item = Item(
            file=file,
            frame=number,
            pixels=pixels,
            spacing=record.spacing,
            regions=record.regions,
            modality=record.modality,
            declared=str(record.metadata.get("dicom_modality", "")),
            says_text=str(record.metadata.get("burned_in_annotation", "")).upper() == "YES",
            pixel_digest=pixel_digest(grey),
            raw_hash=perceptual_hash(grey),
            box=(0, 0, pixels.shape[1], pixels.shape[0]),
        )
        items.append(item)
    return items, []


def _read_in_time(path: str, seconds: float, every: int) -> tuple[UltrasoundRecord, list[int]]:
    """The frames of a file that are `seconds` apart and their numbers; every n-th one where the file has no times.

    A clip above `WHOLE_BYTES` is decoded with a stride that follows from the mean frame rate of its start, so that memory follows the
    frames that are kept; two of them are then at least `seconds` minus one frame apart.
    """
    first = read_ultrasound(path, max_frames=2)  # what a header says of the number need not be true
    if len(first.frames) == 1:
        return first, [0]
    most = max(2, WHOLE_BYTES // first.frames[0].nbytes)
    times = first.frame_times_ms
    if times is not None:
        start = read_ultrasound(path, max_frames=most + 1)
        times = start.frame_times_ms
        if times is not None and len(times) <= most:
            numbers = frames_in_time(times, seconds)[:MAX_FRAMES]
            return _select(start, numbers), numbers
        del start
    frame_ms = times[-1] / (len(times) - 1) if times else 0.0
    # Containers round times, so a hair above a whole number of frames is that number.
    stride = max(1, math.ceil(1000 * seconds / frame_ms - 0.05)) if frame_ms > 0 else every
    record = read_ultrasound(path, every=stride, max_frames=MAX_FRAMES)
    if frame_ms <= 0 or record.frame_times_ms is None:
        chosen = list(range(len(record.frames)))
    else:
        chosen = frames_in_time(record.frame_times_ms, seconds - frame_ms / 1000)
    return _select(record, chosen), [stride * place for place in chosen]


def frames_in_time(times_ms: Sequence[float], seconds: float) -> list[int]:
    """Places of the times, in milliseconds, that follow each other in at least `seconds`, from the first one on."""
    chosen: list[int] = []
    for place, time_ms in enumerate(times_ms):
        if not chosen or time_ms - times_ms[chosen[-1]] >= 1000 * seconds - 1e-6:
            chosen.append(place)
    return chosen


def _select(record: UltrasoundRecord, places: list[int]) -> UltrasoundRecord:
    if len(places) == len(record.frames):
        return record  # without a copy
    return replace(record, frames=record.frames[places], frame_times_ms=None)


def _without_path(error: BaseException, file: FoundFile) -> str:
    """The message without the place of this machine's copy: the index names the file by its source."""
    return str(error).replace(file.path, file.name)
