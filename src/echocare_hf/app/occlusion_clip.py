"""What a score of a clip rests on: places are covered in all frames at once, then frames one after the other."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from echocare_hf.examination.events import SeenClip
from echocare_hf.examination.models import LoadedModel
from echocare_hf.examination.task_findings import class_labels

from .analysis import Check
from .occlusion import OcclusionMap, cover_in_turn, lit_and_fill, without_padding

WINDOWS = 5
"""Windows along each side: fewer than for an image, since each costs the model a whole clip."""


@dataclass(frozen=True, eq=False)
class ClipOcclusion:
    """How much a score of a clip rests on each place and on each frame.

    Attributes:
        places: the map of places, covered in all frames at once.
        frames: float32 `(frames,)`: how far the score falls while this frame is covered; below 0 where it rises.
        times_ms: of these frames; None if the file does not say.
    """

    places: OcclusionMap
    frames: np.ndarray
    times_ms: list[float] | None


def clip_occlusion(
    model: LoadedModel,
    clip: SeenClip,
    label: str,
    size: tuple[int, int],
    check: Check | None = None,
    windows: int = WINDOWS,
) -> ClipOcclusion:
    """Covers windows in all frames of a clip, then single frames, with the mean colour, and looks at the score of a class.

    Args:
        model: of task video, with classes.
        clip: what it saw.
        label: the name of the class.
        size: height and width of a frame before it was resized.
        check: called before each run of the model; see `Analyser.turn`.
        windows: along each side, at least 2.

    Raises:
        ValueError: for a label that the model has no score of.
    """
    if label not in model.labels.values():
        raise ValueError(f"{model.name} has no score of {label!r}")
    times = None if clip.times_ms is None else torch.tensor([list(clip.times_ms)], device=model.device)

    @torch.inference_mode()
    def score_of(clips: Tensor) -> Tensor:
        (labels,) = class_labels(model, model.network(model.normalize(clips), frame_times=times).logits)
        return torch.tensor([next(each.score for each in labels if each.label == label)])

    places = cover_in_turn(clip.frames, score_of, check, windows, batch_size=1)
    lit, fill = lit_and_fill(clip.frames)
    falls = []
    for number in range(len(clip.frames)):
        if check is not None:
            check("the map ", f", at frame {number} of {len(clip.frames)}")
        covered = clip.frames.clone()
        covered[number] = torch.where(lit, fill[:, None, None], covered[number])
        falls.append(places.score - score_of(covered[None])[0].item())
    places = replace(
        places, values=without_padding(model, places.values, size), evaluations=places.evaluations + len(falls)
    )
    known = None if clip.times_ms is None else list(clip.times_ms)
    return ClipOcclusion(places, np.array(falls, np.float32), known)


__all__ = ["ClipOcclusion", "clip_occlusion"]
