"""MP4, AVI and the other containers that FFmpeg reads, through PyAV; also the MPEG streams inside some DICOM files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .reading_record import (
    UltrasoundRecord,
    UnreadableFileError,
    check_decoded_bytes,
    check_size,
    one_line,
    pick_frames,
)
from .reading_stream import Frame, FrameSource, step_by_step

_KEPT_SHARE = 0.9
"""A video that yields less than this share of the frames its header promises is refused as cut short."""


_KINDS = {"avi": "AVI", "matroska": "Matroska", "mpeg": "MPEG", "mpegts": "MPEG", "mov": "MP4", "asf": "WMV"}


def read_video(
    path: Path, every: int = 1, max_frames: int | None = None, stream: BinaryIO | None = None
) -> UltrasoundRecord:
    """Read the first video stream. Arguments, result and errors are those of `read_ultrasound`.

    Frames are decoded one by one: with `max_frames` the rest of the file is never decoded, and with `every` only the
    frames that are kept are converted to RGB. `frame_times_ms` are the presentation times.

    Args:
        stream: an open binary file to read in place of `path`, which then only names it in messages.
    """
    with _named_damage(path), _opened(path, stream or path) as (container, video):
        return _read_container(path, container, video, every, max_frames)


def open_video(path: Path, every: int = 1, max_frames: int | None = None, stored: Path | None = None) -> FrameSource:
    """Open the first video stream for reading frame by frame; frames and errors are those of `read_video`.

    The first frame is decoded at once, because only then the size is certain. Times come from the presentation time of each frame, or
    from the mean frame rate for one that has none.

    Args:
        stored: a file to read in place of `path`, which then only names it in messages.
    """
    with _named_damage(path), _opened(path, stored or path) as (container, video):
        first = next(_decoded(path, container, video, every=1, max_frames=1), None)
        if first is None:
            raise _no_frame(path)
        height, width = first.height, first.width
        stated = int(video.frames)
        kind = _KINDS.get(container.format.name.split(",")[0], container.format.name.split(",")[0].upper())
        metadata: dict[str, Any] = {
            "format": "video",
            "codec": video.codec_context.name,
            "width": width,
            "height": height,
        }

    def pictures() -> Iterator[Frame]:
        with _opened(path, stored or path) as (container, video):
            rate, start = video.average_rate, None
            for number, frame in enumerate(_decoded(path, container, video, every, max_frames)):
                start = frame.time if number == 0 else start
                if start is not None and frame.time is not None:
                    time_ms = 1000 * (frame.time - start)
                else:
                    time_ms = float(1000 * number * every / rate) if rate else None
                yield Frame(number * every, time_ms, frame.to_ndarray(format="rgb24"))

    return FrameSource(
        path,
        kind=kind,
        height=height,
        width=width,
        num_frames=len(pick_frames(stated, every, max_frames)) if stated else None,
        is_clip=stated != 1,
        make_frames=lambda: step_by_step(pictures(), lambda: _named_damage(path)),
        metadata=metadata | ({"num_frames": stated} if stated else {}),
    )


@contextmanager
def _named_damage(path: Path) -> Iterator[None]:
    """What FFmpeg raises for a damaged file becomes one line that names it."""
    av = import_av()
    try:
        yield
    except av.error.FFmpegError as error:
        # The library's text repeats the path; its class says what happened.
        reason = one_line(error.strerror or type(error).__name__, 100)
        raise UnreadableFileError(
            path, f"is a damaged or cut-short video ({reason}); copy or export it again"
        ) from error


@contextmanager
def _opened(path: Path, source: Path | BinaryIO) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream."""
    # Titles and comments in any encoding (GBK, Latin-1, ...) must not keep the pictures from being read.
    with import_av().open(
        str(source) if isinstance(source, Path) else source, mode="r", metadata_errors="replace"
    ) as container:
        if not container.streams.video:
            raise UnreadableFileError(path, "is cut short or holds no video stream; export the clip as MP4 or AVI")
        video = container.streams.video[0]
        if video.codec_context is None:
            raise UnreadableFileError(
                path, "is compressed with a codec that PyAV does not know; export it as MP4 (H.264)"
            )
        # Some containers know their size only once a frame is decoded.
        if video.height and video.width:
            check_size(path, video.height, video.width)
        yield container, video


def import_av() -> Any:
    """Import PyAV, or say which extra brings it."""
    try:
        import av
    except ImportError as error:
        raise ImportError('reading videos needs PyAV: pip install "echocare-hf[video]"') from error
    return av


def _read_container(path: Path, container: Any, video: Any, every: int, max_frames: int | None) -> UltrasoundRecord:
    if video.height and video.width:
        wanted = -(-video.frames // every)
        check_decoded_bytes(path, min(wanted, max_frames or wanted), video.height, video.width)
    codec = video.codec_context.name
    frames: list[np.ndarray] = []
    seconds: list[float | None] = []
    count = _Count()
    for frame in _decoded(path, container, video, every, max_frames, count):
        check_decoded_bytes(path, len(frames) + 1, frame.height, frame.width)
        frames.append(frame.to_ndarray(format="rgb24"))
        seconds.append(frame.time)
    if not frames:
        raise _no_frame(path)
    height, width = frames[0].shape[:2]
    metadata = {"format": "video", "codec": codec, "width": width, "height": height}
    if video.frames or count.is_all:
        metadata["num_frames"] = video.frames or count.decoded
    return UltrasoundRecord(
        frames=np.stack(frames), frame_times_ms=_times_ms(seconds, every, video.average_rate), metadata=metadata
    )


@dataclass
class _Count:
    """How many frames were decoded, and whether these are all of the file."""

    decoded: int = 0
    is_all: bool = False


def _decoded(
    path: Path, container: Any, video: Any, every: int, max_frames: int | None, count: _Count | None = None
) -> Iterator[Any]:
    """The wanted frames as PyAV decodes them.

    Raises:
        UnreadableFileError: if the size changes; and after the last frame, if there are far fewer than the header says.
    """
    count = count or _Count()
    size: tuple[int, int] | None = None
    kept = 0
    for frame in container.decode(video):
        if count.decoded % every == 0:
            if max_frames is not None and kept == max_frames:
                return
            check_size(path, frame.height, frame.width)
            if size is not None and size != (frame.height, frame.width):
                raise UnreadableFileError(
                    path, f"changes its frame size at frame {count.decoded + 1}; export it at one size"
                )
            size = (frame.height, frame.width)
            kept += 1
            yield frame
        count.decoded += 1
    count.is_all = True
    if kept and count.decoded < _KEPT_SHARE * video.frames:
        raise UnreadableFileError(
            path, f"is cut short: {count.decoded} of {video.frames} frames are there; copy or export it again"
        )


def _no_frame(path: Path) -> UnreadableFileError:
    return UnreadableFileError(path, "holds no video frame that can be decoded; export the clip again")


def _times_ms(seconds: list[float | None], every: int, rate: Fraction | None) -> tuple[float, ...] | None:
    """Presentation times from 0 in ms; from the mean frame rate where the stream has none; else None."""
    known = [second for second in seconds if second is not None]
    if len(known) == len(seconds):
        return tuple(1000 * (second - known[0]) for second in known)
    if rate:
        return tuple(float(1000 * index * every / rate) for index in range(len(seconds)))
    return None
