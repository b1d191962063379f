"""The frames that a report is written from: those that show a structure best, and evenly spread ones where these are few.

They are read from the file again, one after the other, so that a clip of any length needs the memory of the chosen ones.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from echocare_hf.reports.pair_images import even_places

from .clip import ClipFindings
from .frames import open_frames
from .region import Region

MOST_FRAMES, FEWEST_FRAMES = 6, 3
"""Of a clip, for one report; where the key frames are fewer than the second, evenly spread ones join them."""


@dataclass(frozen=True, eq=False)
class ReportFrame:
    """A frame that a report is written from.

    Attributes:
        index: in the file, from 0.
        time_ms: after the file's first frame, None where the file does not say.
        shows: ids of nodes, or labels, that this frame shows best; empty for an evenly spread one.
        pixels: the analysed region, uint8 `(height, width, 3)`.
    """

    index: int
    time_ms: float | None = None
    shows: tuple[str, ...] = ()
    pixels: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8), repr=False)


def choose_frames(key_frames: Mapping[str, int], clip: ClipFindings | None) -> dict[int, tuple[str, ...]]:
    """Indices of the frames for a report, in order of time, and what each of them shows best.

    Objects and the deepest nodes go first where there are more key frames than `MOST_FRAMES`. Frames that are unfamiliar are not chosen to
    fill up, as long as there are others.

    Args:
        key_frames: id of a node, or label, to the frame that shows it best, from the region down, objects last.
        clip: what the clip shows; None for a still, whose frame is 0.
    """
    if clip is None:
        return {0: ()}
    shown: dict[int, tuple[str, ...]] = {}
    for name, index in reversed(list(key_frames.items())):
        if index in shown or len(shown) < MOST_FRAMES:
            shown[index] = (name, *shown.get(index, ()))
    if len(shown) < FEWEST_FRAMES:
        usable = clip.frames[clip.counted] if clip.counted.any() else clip.frames
        others = [int(index) for index in usable if int(index) not in shown]
        for place in even_places(len(others), FEWEST_FRAMES - len(shown)):
            shown[others[place]] = ()
    return dict(sorted(shown.items()))


def read_frames(path: Path, wanted: Mapping[int, tuple[str, ...]], region: Region) -> list[ReportFrame]:
    """The frames at some indices, in order.

    Args:
        path: of the file.
        wanted: what each frame shows, by its index.
        region: what of them is analysed.

    Raises:
        UnreadableFileError: if the file cannot be read.
    """
    if not wanted:
        return []
    found, last = [], max(wanted)
    with open_frames(path) as source:
        for frame in source:
            if frame.index in wanted:
                pixels = np.ascontiguousarray(region.crop(frame.pixels))
                found.append(ReportFrame(frame.index, frame.time_ms, wanted[frame.index], pixels))
            if frame.index >= last:
                break
    return found


def missing_frames(wanted: Collection[int], there: Collection[ReportFrame]) -> dict[int, tuple[str, ...]]:
    """For `read_frames`: frames that are not among those that were read."""
    return dict.fromkeys(sorted(set(wanted) - {frame.index for frame in there}), ())


__all__ = ["FEWEST_FRAMES", "MOST_FRAMES", "ReportFrame", "choose_frames", "missing_frames", "read_frames"]
