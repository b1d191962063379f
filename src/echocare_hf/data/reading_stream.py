"""The frames of a file one after the other, for clips that do not fit into memory.

Each reader beside this file opens its formats as a `FrameSource` as well; `read_ultrasound` returns the same frames all at once.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from .reading_record import Modality, Spacing, UltrasoundRegion

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a file.

    Attributes:
        index: of the frame in the file, from 0.
        time_ms: after the file's first frame, None where the file does not say, or is a still.
        pixels: uint8 RGB `(height, width, 3)`, 0..255.
    """

    index: int
    time_ms: float | None
    pixels: np.ndarray


@dataclass(eq=False)
class FrameSource:
    """An open file of ultrasound that gives its frames one by one; a context manager.

    Memory does not grow with the number of frames. Each `iter` decodes from the first frame again, so that the first frames can be
    looked at before all of them are analysed. Where a file ends or is damaged in the middle of a clip, the frames before come out and
    then the iterator raises `UnreadableFileError`.

    Attributes:
        path: the file.
        kind: "DICOM", "PNG", "JPEG", "GIF", "MP4", "AVI", "NIfTI", "MetaImage", ...
        height, width: of every frame, pixels.
        num_frames: that iterating gives, as the file states it; None where it does not say.
        is_clip: whether the file holds more than one frame, or does not say how many.
        make_frames: gives a new iterator over the frames.
        spacing: (row_mm, column_mm), millimetres per pixel, None if the file does not say.
        regions: calibrated regions of a DICOM file.
        modality: as far as the file tells.
        metadata: facts about equipment and encoding, without anything that identifies a person.
        dataset_path: the DICOM file, for outputs that refer to it; None for other kinds.
        resources: what is closed with the source.
    """

    path: Path
    kind: str
    height: int
    width: int
    num_frames: int | None
    is_clip: bool
    make_frames: Callable[[], Iterator[Frame]] = field(repr=False)
    spacing: Spacing | None = None
    regions: tuple[UltrasoundRegion, ...] = ()
    modality: Modality = "unknown"
    metadata: dict[str, Any] = field(default_factory=dict)
    dataset_path: Path | None = None
    resources: ExitStack = field(default_factory=ExitStack, repr=False)

    def __iter__(self) -> Iterator[Frame]:
        return self.make_frames()

    def __enter__(self) -> "FrameSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was unpacked for reading; iterators that were started must not be used any more."""
        self.resources.close()


@contextmanager
def closed_on_error(resources: ExitStack) -> Iterator[None]:
    """Close `resources` if what is done in this context fails."""
    try:
        yield
    except BaseException:
        resources.close()
        raise


def step_by_step(items: Iterator[T], guard: Callable[[], AbstractContextManager[None]]) -> Iterator[T]:
    """The same items, with each step taken inside a context of its own, which is left while the caller works on the item."""
    while True:
        with guard():
            try:
                item = next(items)
            except StopIteration:
                return
        yield item
