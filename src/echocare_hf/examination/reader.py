"""The reading side of the pipeline: decodes, crops and resizes, in a thread of its own."""

import hashlib
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from echocare_hf.data.reading_record import Spacing, one_line

from .events import Failed, Opened, Skipped
from .frames import Frame, FrameSource, open_frames
from .handover import Handover, HandoverClosed
from .inputs import InputFile
from .models import LoadedModel
from .region import FIRST_FRAMES, Region, find_region
from .results import FileResult

# What a damaged file makes the decoders raise, and what ends with one line about the file rather than the run.
_READING_ERRORS = (
    *(ValueError, OSError, ImportError, RuntimeError, MemoryError),
    *(ArithmeticError, LookupError, TypeError, AttributeError),
)


@dataclass(eq=False)
class Read:
    """A frame on its way to the models.

    Attributes:
        frame: as it was read.
        number: among those that are analysed.
        inputs: by `LoadedModel.input_key`.
        grey: `Region.grey_crop` of the frame.
    """

    frame: Frame
    number: int
    inputs: dict[Hashable, Tensor]
    grey: np.ndarray | None = None


@dataclass(eq=False)
class End:
    """The file has been read, or, without a file, all files."""

    file: InputFile | None = None


@dataclass(eq=False)
class Reader:
    """Reads files one after the other.

    Attributes:
        models: of the run.
        inputs: models by their `input_key`; each frame is resized for every key.
        spacing: of files that do not state theirs.
        search_region: whether the ultrasound region is looked for.
        every: read every n-th frame of a clip.
        max_frames: at most this many.
        warnings: of every file.
    """

    models: Sequence[LoadedModel]
    inputs: dict[Hashable, LoadedModel]
    spacing: Spacing | None = None
    search_region: bool = True
    every: int = 1
    max_frames: int | None = None
    warnings: tuple[str, ...] = ()
    _digest: str | None = field(default=None, init=False)

    def read_all(
        self, files: Iterable[InputFile], queue: Handover[Any], is_done: Callable[[InputFile, str], bool] | None
    ) -> None:
        """Puts into the queue, for each file, `Opened`, `Read` for each frame and `End`; or `Failed`, or `Skipped`; at last an `End`.

        A mistake of the program itself is put there as the exception that it is.
        """
        try:
            for file in files:
                try:
                    self._read(file, queue, is_done)
                except _READING_ERRORS as error:
                    queue.put(
                        Failed(
                            file, reason_of(file, error), self._digest is None or not is_still(file.path, self._digest)
                        )
                    )
            queue.put(End())
        except HandoverClosed:
            return
        except BaseException as error:
            queue.put(error)

    def _read(self, file: InputFile, queue: Handover[Any], is_done: Callable[[InputFile, str], bool] | None) -> None:
        started = time.perf_counter()
        self._digest = None
        digest = self._digest = digest_of(file.path)
        if is_done is not None and is_done(file, digest):
            queue.put(Skipped(file))
            return
        with open_frames(file.path, self.every, self.max_frames) as source:
            frames = iter(source)
            first = list(islice(frames, FIRST_FRAMES))
            spacing = source.spacing or self.spacing
            region = find_region([frame.pixels for frame in first], source.regions, spacing, self.search_region)
            result = self._result(file, digest, source, region)
            queue.put(Opened(file, result, region, source.is_clip, source.dataset_path, source.num_frames, started))
            for number, frame in enumerate(chain(first, frames)):
                grey = region.grey_crop(frame.pixels)
                crop = region.crop(frame.pixels) if grey is None else grey
                inputs = {
                    key: model.resize(frame.pixels if model.sees_whole_image else crop)
                    for key, model in self.inputs.items()
                }
                size = frame.pixels.nbytes + (0 if grey is None else grey.nbytes)
                queue.put(Read(frame, number, inputs, grey), size)
            queue.put(End(file))

    def _result(self, file: InputFile, digest: str, source: FrameSource, region: Region) -> FileResult:
        """What is known of a file before its frames are analysed."""
        return FileResult(
            name=file.name,
            sha256=digest,
            study=file.study,
            kind=source.kind,
            height=source.height,
            width=source.width,
            spacing=region.spacing,
            box=region.box,
            modality=source.modality,
            models={model.name: model.facts for model in self.models},
            warnings=[*region.warnings, *self.warnings],
            facts={
                "metadata": dict(source.metadata),
                "spacing_source": "file" if source.spacing else "option" if region.spacing else "none",
                "precision": {model.name: model.precision for model in self.models},
            },
        )


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal.

    Raises:
        OSError: if they cannot be read.
    """
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def is_still(path: Path, digest: str) -> bool:
    """Whether a file is there, can be read, and has the bytes that it had."""
    try:
        return digest_of(path) == digest
    except OSError:
        return False


def reason_of(file: InputFile, error: BaseException) -> str:
    """Why a file failed, in one line that does not repeat where it lies."""
    if isinstance(error, MemoryError):
        return "needs more memory than there is; give --every or --max-frames, or a smaller file"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    text = one_line(str(error)) or type(error).__name__
    for start in (str(file.path), file.path.name):
        text = text.removeprefix(f"{start}: ")
    text = text.replace(str(file.path), file.name)
    expected = isinstance(error, (ValueError, ImportError))
    return text if expected else f"{type(error).__name__}: {text}"


__all__ = ["End", "Read", "Reader", "digest_of", "is_still", "reason_of"]
