"""MP4, AVI and the other containers that FFmpeg reads, through PyAV; also the MPEG streams inside some DICOM files."""

from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .reading_record import UltrasoundRecord, UnreadableFileError, check_decoded_bytes, check_size, one_line

_KEPT_SHARE = 0.9
"""A video that yields less than this share of the frames its header promises is refused as cut short."""


def read_video(
    path: Path, every: int = 1, max_frames: int | None = None, stream: BinaryIO | None = None
) -> UltrasoundRecord:
    """Read the first video stream. Arguments, result and errors are those of `read_ultrasound`.

    Frames are decoded one by one: with `max_frames` the rest of the file is never decoded, and with `every` only the
    frames that are kept are converted to RGB. `frame_times_ms` are the presentation times.

    Args:
        stream: an open binary file to read in place of `path`, which then only names it in messages.
    """
    av = import_av()
    try:
        # Titles and comments in any encoding (GBK, Latin-1, ...) must not keep the pictures from being read.
        with av.open(stream if stream is not None else str(path), mode="r", metadata_errors="replace") as container:
            if not container.streams.video:
                raise UnreadableFileError(path, "is cut short or holds no video stream; export the clip as MP4 or AVI")
            return _read_container(path, container, every, max_frames)
    except av.error.FFmpegError as error:
        # The library's text repeats the path; its class says what happened.
        reason = one_line(error.strerror or type(error).__name__, 100)
        raise UnreadableFileError(
            path, f"is a damaged or cut-short video ({reason}); copy or export it again"
        ) from error


def import_av() -> Any:
    """Import PyAV, or say which extra brings it."""
    try:
        import av
    except ImportError as error:
        raise ImportError('reading videos needs PyAV: pip install "echocare-hf[video]"') from error
    return av


def _read_container(path: Path, container: Any, every: int, max_frames: int | None) -> UltrasoundRecord:
    video = container.streams.video[0]
    if video.codec_context is None:
        raise UnreadableFileError(path, "is compressed with a codec that PyAV does not know; export it as MP4 (H.264)")
    codec = video.codec_context.name
    # Some containers know their size only once a frame is decoded.
    if video.height and video.width:
        check_size(path, video.height, video.width)
        wanted = -(-video.frames // every)
        check_decoded_bytes(path, min(wanted, max_frames or wanted), video.height, video.width)
    frames: list[np.ndarray] = []
    seconds: list[float | None] = []
    num_decoded = 0
    finished = True
    for frame in container.decode(video):
        if num_decoded % every == 0:
            if max_frames is not None and len(frames) == max_frames:
                finished = False
                break
            check_size(path, frame.height, frame.width)
            check_decoded_bytes(path, len(frames) + 1, frame.height, frame.width)
            if frames and frames[0].shape[:2] != (frame.height, frame.width):
                raise UnreadableFileError(
                    path, f"changes its frame size at frame {num_decoded + 1}; export it at one size"
                )
            frames.append(frame.to_ndarray(format="rgb24"))
            seconds.append(frame.time)
        num_decoded += 1
    if not frames:
        raise UnreadableFileError(path, "holds no video frame that can be decoded; export the clip again")
    if finished and num_decoded < _KEPT_SHARE * video.frames:
        raise UnreadableFileError(
            path, f"is cut short: {num_decoded} of {video.frames} frames are there; copy or export it again"
        )
    height, width = frames[0].shape[:2]
    metadata = {"format": "video", "codec": codec, "width": width, "height": height}
    if video.frames or finished:
        metadata["num_frames"] = video.frames or num_decoded
    return UltrasoundRecord(
        frames=np.stack(frames), frame_times_ms=_times_ms(seconds, every, video.average_rate), metadata=metadata
    )


def _times_ms(seconds: list[float | None], every: int, rate: Fraction | None) -> tuple[float, ...] | None:
    """Presentation times from 0 in ms; from the mean frame rate where the stream has none; else None."""
    known = [second for second in seconds if second is not None]
    if len(known) == len(seconds):
        return tuple(1000 * (second - known[0]) for second in known)
    if rate:
        return tuple(float(1000 * index * every / rate) for index in range(len(seconds)))
    return None
