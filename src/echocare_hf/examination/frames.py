"""The frames of one file, one after the other: constant memory for a clip of any length.

with open_frames("clip.mp4") as source:
    for frame in source:
        frame.index, frame.time_ms, frame.pixels  # uint8 (height, width, 3)
"""

from pathlib import Path

from echocare_hf.data.reading import open_ultrasound
from echocare_hf.data.reading_record import UnreadableFileError
from echocare_hf.data.reading_stream import Frame, FrameSource

__all__ = ["Frame", "FrameSource", "UnreadableFileError", "open_frames"]


def open_frames(path: Path, every: int = 1, max_frames: int | None = None) -> FrameSource:
    """Open a file as `open_ultrasound` does; a file that is gone is unreadable like any other.

    Args:
        path: an image, DICOM, video or volume file.
        every: keep every n-th frame, starting with the first; at least 1.
        max_frames: keep at most this many frames, at least 1; None for all.

    Returns:
        A `FrameSource`, to be used in a `with` statement.

    Raises:
        UnreadableFileError: if the file cannot be read, with one line that names it and the cure.
        ImportError: if the format needs an extra that is not installed.
        ValueError: if `every` or `max_frames` is below 1.
    """
    try:
        return open_ultrasound(path, every=every, max_frames=max_frames)
    except FileNotFoundError as error:
        raise UnreadableFileError(path, "there is no such file any more; check the path") from error
