"""MP4, AVI and the other containers that FFmpeg reads, through PyAV; also the MPEG streams inside some DICOM files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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

_STEP_BACK_MS = 1000
"""Times that go back by more than this are those of another recording, by less those of frames out of order."""

_KINDS = {"avi": "AVI", "matroska": "Matroska", "mpeg": "MPEG", "mpegts": "MPEG", "mov": "MP4", "asf": "WMV"}


def read_video(
    path: Path, every: int = 1, max_frames: int | None = None, stream: BinaryIO | None = None
) -> UltrasoundRecord:
    """Read the first video stream. Arguments, result and errors are those of `read_ultrasound`.

    Frames are decoded one by one: with `max_frames` the rest of the file is never decoded, and with `every` only the
    frames that are kept are converted to RGB. They are turned and mirrored as the container says. `frame_times_ms` are the
    presentation times; where they are missing, or are those of the order of decoding, the mean frame rate counts; where they
    begin anew, as in recordings that were joined, they go on one frame later. They never go back.

    Args:
        stream: an open binary file to read in place of `path`, which then only names it in messages.
    """
    with _named_damage(path), _opened(path, stream or path) as (container, video):
        return _read_container(path, container, video, every, max_frames)


def open_video(path: Path, every: int = 1, max_frames: int | None = None, stored: Path | None = None) -> FrameSource:
    """Open the first video stream for reading frame by frame; frames and errors are those of `read_video`.

    The first frame is decoded at once, because only then the size is certain, and so is the second where the file states only one.

    Args:
        stored: a file to read in place of `path`, which then only names it in messages.
    """
    with _named_damage(path), _opened(path, stored or path) as (container, video):
        stated = _promised(video)
        beginning = _decoded(path, container, video, every=1, max_frames=2)
        first = next(beginning, None)
        if first is None:
            raise _no_frame(path)
        height, width = first.pixels.shape[:2]
        if stated == 1 and next(beginning, None) is not None:
            stated = 0  # which is not true
        kind = _KINDS.get(container.format.name.split(",")[0], container.format.name.split(",")[0].upper())
        metadata: dict[str, Any] = {
            "format": "video",
            "codec": video.codec_context.name,
            "width": width,
            "height": height,
        }

    def pictures() -> Iterator[Frame]:
        with _opened(path, stored or path) as (container, video):
            yield from _decoded(path, container, video, every, max_frames)

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
        wanted = -(-_promised(video) // every)
        check_decoded_bytes(path, min(wanted, max_frames or wanted), video.height, video.width)
    codec = video.codec_context.name
    frames: list[np.ndarray] = []
    times_ms: list[float | None] = []
    count = _Count()
    for frame in _decoded(path, container, video, every, max_frames, count):
        height, width = frame.pixels.shape[:2]
        check_decoded_bytes(path, len(frames) + 1, height, width)
        frames.append(frame.pixels)
        times_ms.append(frame.time_ms)
    if not frames:
        raise _no_frame(path)
    metadata = {"format": "video", "codec": codec, "width": width, "height": height}
    promised = count.decoded if count.is_all else _promised(video)
    if count.is_all or promised > count.decoded:
        metadata["num_frames"] = promised
    known = tuple(time_ms for time_ms in times_ms if time_ms is not None)
    return UltrasoundRecord(
        frames=np.stack(frames), frame_times_ms=known if len(known) == len(times_ms) else None, metadata=metadata
    )


@dataclass
class _Count:
    """How many frames were decoded, and whether these are all of the file."""

    decoded: int = 0
    is_all: bool = False


class _Clock:
    """The time of one frame after the other, in ms after the first."""

    def __init__(self, container: Any, video: Any) -> None:
        rate = video.average_rate
        self.step_ms = float(1000 / rate) if rate else None
        # AVI has no presentation times: with B-frames, what FFmpeg gives are the places in the order of decoding.
        self.has_times = not (container.format.name == "avi" and video.codec_context.has_b_frames)
        self.first: float | None = None  # of the recording that the frame is in, in its own seconds
        self.begin_ms = self.last_ms = 0.0

    def tell(self, number: int, seconds: float | None) -> float | None:
        """The time of a frame from its number and its presentation time; called for every frame."""
        if number == 0:
            self.first = seconds
        if not self.has_times or self.first is None:
            return None if self.step_ms is None else number * self.step_ms
        if seconds is None:
            if self.step_ms is None:
                return None
            self.last_ms += self.step_ms
            return self.last_ms
        time_ms = self.begin_ms + 1000 * (seconds - self.first)
        if time_ms < self.last_ms:
            few = 3 * (self.step_ms or 0.0)  # frames
            if self.last_ms - time_ms > (few if seconds <= self.first else _STEP_BACK_MS):
                self.first, self.begin_ms = seconds, self.last_ms + (self.step_ms or 0.0)
                time_ms = self.begin_ms
            else:
                time_ms = self.last_ms
        self.last_ms = time_ms
        return time_ms


def _decoded(
    path: Path, container: Any, video: Any, every: int, max_frames: int | None, count: _Count | None = None
) -> Iterator[Frame]:
    """The wanted frames.

    Raises:
        UnreadableFileError: if the size changes; and after the last frame, if there are far fewer than the header says.
    """
    count = count or _Count()
    size: tuple[int, int] | None = None
    kept = 0
    clock = _Clock(container, video)
    for frame in container.decode(video):
        time_ms = clock.tell(count.decoded, frame.time)
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
            yield Frame(count.decoded, time_ms, _upright(frame))
        count.decoded += 1
    count.is_all = True
    promised = _promised(video)
    if kept and count.decoded < _KEPT_SHARE * promised:
        raise UnreadableFileError(
            path, f"is cut short: {count.decoded} of {promised} frames are there; copy or export it again"
        )


def _promised(video: Any) -> int:
    """How many frames the header says will be shown, 0 if it does not say: those that an edit list leaves out are no loss."""
    if not (video.frames and video.duration and video.time_base and video.average_rate):
        return int(video.frames)
    return min(int(video.frames), round(video.duration * video.time_base * video.average_rate))


def _upright(frame: Any) -> np.ndarray:
    """A decoded frame as uint8 RGB `(height, width, 3)`, turned and mirrored by the display matrix of its container."""
    pixels = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    # Across is a x + c y, down is b x + d y (ISO/IEC 14496-12, 6.2.2), in 16.16 fixed point.
    a, b, _, c, d = np.frombuffer(bytes(matrix)[:20], np.int32).tolist()
    if a == d == 0 and b and c:
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    elif b or c:
        return pixels  # a slant, which no camera writes
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _no_frame(path: Path) -> UnreadableFileError:
    return UnreadableFileError(path, "holds no video frame that can be decoded; export the clip again")
