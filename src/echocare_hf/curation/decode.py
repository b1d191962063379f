"""Files to images: reading, sampling of cine loops, fingerprints."""

from collections.abc import Iterable

import numpy as np

from echocare_hf.data.labelled.fingerprint import grey_values, perceptual_hash, pixel_digest
from echocare_hf.data.reading import read_ultrasound
from echocare_hf.data.reading_record import UltrasoundRecord, UnreadableFileError

from .options import CurateOptions
from .record import Drop, FoundFile, Item, drop_file

MAX_FRAMES = 1_000
"""Most frames that are kept of one file, so that no single file fills the memory; the report counts files that were cut there."""


def decode(file: FoundFile, options: CurateOptions) -> tuple[list[Item], list[Drop]]:
    """Read a file and sample its frames.

    Args:
        file: what to read.
        options: `every` and `every_seconds` count.

    Returns:
        An item a frame with its fingerprints; or none, and the reason: "corrupt" for what cannot be read, "missing_reader" where an
        optional package is not installed.
    """
    try:
        if options.every_seconds is None:
            record = read_ultrasound(file.path, every=options.every, max_frames=MAX_FRAMES)
            numbers: Iterable[int] = range(0, options.every * len(record.frames), options.every)
        else:
            record = read_ultrasound(file.path)
            numbers = frames_in_time(record, options.every_seconds, options.every)[:MAX_FRAMES]
            record = _select(record, list(numbers))
    except ImportError as error:
        return [], [drop_file(file, "decode", "missing_reader", _without_path(error, file))]
    except (UnreadableFileError, FileNotFoundError, MemoryError) as error:
        return [], [drop_file(file, "decode", "corrupt", _without_path(error, file))]
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
            pixel_digest=pixel_digest(grey),
            raw_hash=perceptual_hash(grey),
            box=(0, 0, pixels.shape[1], pixels.shape[0]),
        )
        items.append(item)
    return items, []


def frames_in_time(record: UltrasoundRecord, seconds: float, every: int) -> list[int]:
    """Numbers of the frames that follow each other in at least `seconds`; every n-th one where the file has no times."""
    if record.frame_times_ms is None:
        return list(range(0, len(record.frames), every))
    chosen: list[int] = []
    for number, time_ms in enumerate(record.frame_times_ms):
        if not chosen or time_ms - record.frame_times_ms[chosen[-1]] >= 1000 * seconds - 1e-6:
            chosen.append(number)
    return chosen


def _select(record: UltrasoundRecord, numbers: list[int]) -> UltrasoundRecord:
    return UltrasoundRecord(
        frames=np.ascontiguousarray(record.frames[numbers]),
        spacing=record.spacing,
        regions=record.regions,
        modality=record.modality,
        metadata=record.metadata,
    )


def _without_path(error: BaseException, file: FoundFile) -> str:
    """The message without the place of this machine's copy: the index names the file by its source."""
    return str(error).replace(file.path, file.name)
