"""What an examination says while it runs: a file was opened, a frame analysed, a file finished; or it failed, or was left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from .clip import ClipFindings
from .inputs import InputFile
from .region import Region
from .results import FileResult, FrameResult


@dataclass(eq=False)
class Opened:
    """A file that could be read, with what is known of it before its first frame is analysed.

    Attributes:
        file: the input.
        result: without findings so far; the same object as in `Finished`.
        region: what of its grid is analysed.
        is_clip: whether it has more than one frame.
        dataset_path: the DICOM file, None for other kinds.
        num_frames: that will be analysed, as far as the header tells.
        started: of reading, by `time.perf_counter`.
    """

    file: InputFile
    result: FileResult
    region: Region
    is_clip: bool
    dataset_path: Path | None = None
    num_frames: int | None = None
    started: float = 0.0


@dataclass(eq=False)
class Analysed:
    """A frame of the file that was opened last.

    Attributes:
        pixels: uint8 `(height, width, 3)`.
        found: what was found in it.
        grey: the analysed region, uint8 `(box height, box width)`, where it has no colour, else None; see `Region.grey_crop`.
    """

    pixels: np.ndarray = field(repr=False)
    found: FrameResult
    grey: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class SeenClip:
    """What a model of clips saw of a file.

    Attributes:
        frames: the chosen ones, resized, uint8 `(frames, 3, height, width)`.
        times_ms: when each was taken, rising; None if the file does not say.
    """

    frames: Tensor
    times_ms: Sequence[float] | None


@dataclass(eq=False)
class Finished:
    """All frames of the file are done. `clip` has what they show together, None for a still; `draft_problem` why there is no draft report,
    although one was asked for; `seen` what each model of clips saw, by its name."""

    result: FileResult
    clip: ClipFindings | None = None
    draft_problem: str | None = None
    seen: Mapping[str, SeenClip] = field(default_factory=dict, repr=False)


@dataclass(eq=False)
class Failed:
    """A file that could not be analysed to its end, and why, in one line; `is_unread` if its bytes cannot be read, whatever they are."""

    file: InputFile
    reason: str
    is_unread: bool = False


@dataclass(eq=False)
class Skipped:
    """A file that was left out, because it is done already."""

    file: InputFile


Event = Opened | Analysed | Finished | Failed | Skipped

__all__ = ["Analysed", "Event", "Failed", "Finished", "Opened", "SeenClip", "Skipped"]
