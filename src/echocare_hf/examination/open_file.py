"""What is collected of a file while its frames go by, and what they show together."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from echocare_hf.anatomy import AnatomyTree

from .clip import ClipFindings, ClipSummary
from .clip_sample import ClipSample
from .events import Analysed, Finished, Opened, SeenClip
from .gates import Judgement
from .models import LoadedModel
from .reader import Read
from .results import PIXEL, SQUARE_PIXEL, FrameResult, Label, Measurement
from .task_findings import Findings, find_in_clip, rising


class OpenFile:
    """A file between its opening and its end.

    Args:
        opened: the file.
        models: of the run.
        tree: of the anatomy labels.
        threshold: smallest score of a node on a path.
        least_familiarity: frames of a clip below it count for nothing but with models of clips, which take frames of the whole clip.
    """

    def __init__(
        self,
        opened: Opened,
        models: Sequence[LoadedModel],
        tree: AnatomyTree,
        threshold: float,
        least_familiarity: float,
    ) -> None:
        self.opened, self.result, self.threshold = opened, opened.result, threshold
        self._video = [model for model in models if model.task == "video"]
        self._samples: dict[str, ClipSample[Tensor]] = {}
        self._summary: ClipSummary | None = None
        self._still: FrameResult | None = None
        self._num_asked = self._num_warned = 0
        self._is_in_pixels = False
        if opened.is_clip:
            self._samples = {model.name: ClipSample(model.config.num_frames) for model in self._video}
            self._summary = ClipSummary(tree, least_familiarity)
        else:
            for model in self._video:
                self.result.warnings.append(f"is a still: {model.name}, which takes clips, was not run on it")

    def collect(self, item: Read, findings: Mapping[str, Findings], judgement: Judgement) -> Analysed:
        """The next frame, with what each model found in it."""
        fields: dict[str, Any] = {}
        measurements: list[Measurement] = []
        for name, each in findings.items():
            for kind, value in each.items():
                if kind == "measurements":
                    measurements += value
                else:
                    fields.setdefault(kind, {})[name] = value
        self._is_in_pixels |= any(each.unit in (PIXEL, SQUARE_PIXEL) for each in measurements)
        index = item.frame.index
        if self._summary is not None:
            measurements = [replace(value, frame=index) for value in measurements]
        found = FrameResult(
            index,
            item.frame.time_ms,
            measurements=tuple(measurements),
            familiarity=judgement.score,
            warnings=tuple(judgement.warnings),
            **fields,
        )
        result = self.result
        result.num_frames += 1
        self._num_asked += found.familiarity is not None
        self._num_warned += bool(found.warnings)
        if found.familiarity is not None:
            result.familiarity = min(found.familiarity, 1.0 if result.familiarity is None else result.familiarity)
        if self._summary is None:
            self._still = found
        else:
            self._summary.add(replace(found, segmentations={}, enhanced={}))
            for model in self._video:
                self._samples[model.name].add(item.inputs[model.input_key], item.frame.time_ms)
        return Analysed(item.frame.pixels, found, item.grey)

    def finish(self) -> Finished:
        """What all frames show together."""
        result, clip = self.result, None
        seen: dict[str, SeenClip] = {}
        is_said = any("in pixels" in warning for warning in result.warnings)
        if self._is_in_pixels and result.spacing is None and not is_said:
            result.warnings.append("states no pixel spacing that can be used: lengths and areas are in pixels")
        if self._summary is None:
            still = self._still
            assert still is not None
            result.measurements += still.measurements
            result.warnings += still.warnings
            first = next((labels for labels in still.anatomy.values() if labels), ())
            result.anatomy_path = best_path(first, self.threshold)
        else:
            clip = self._summary.finish()
            result.anatomy_path, result.key_frames = clip.anatomy_path, dict(clip.key_frames)
            result.end_diastoles, result.end_systoles = clip.end_diastoles, clip.end_systoles
            seen = self._seen_clips()
            result.clip = self._clip_findings(clip, seen)
            result.measurements += result.clip.measurements
            result.warnings += clip.warnings
            if self._video and not clip.counted.all():
                names = ", ".join(model.name for model in self._video)
                result.warnings.append(f"{names}: takes frames of the whole clip, unfamiliar ones too")
            if self._num_warned:
                is_all = self._num_asked == result.num_frames
                share = f"{self._num_warned} of {self._num_asked} frames{'' if is_all else ' looked at'}"
                result.warnings.append(f"{share} are unlike what the models know; frames.jsonl says which")
        result.seconds = time.perf_counter() - self.opened.started
        return Finished(result, clip, seen=seen)

    def _seen_clips(self) -> dict[str, SeenClip]:
        """The frames that each video model gets."""
        seen = {}
        for model in self._video:
            inputs, times = self._samples[model.name].choose()
            seen[model.name] = SeenClip(torch.stack(inputs), rising(times))
        return seen

    def _clip_findings(self, clip: ClipFindings, seen: Mapping[str, SeenClip]) -> FrameResult:
        """What the video models say, and the measurements over all frames."""
        fields: dict[str, Any] = {}
        measurements: list[Measurement] = []
        for model in self._video:
            shown = seen[model.name]
            if shown.times_ms is None:
                self.result.warnings.append(
                    f"does not say when its frames were taken: {model.name} takes them for 30 a second"
                )
            findings = find_in_clip(model, shown.frames, shown.times_ms)
            measurements += findings.pop("measurements", ())
            for kind, value in findings.items():
                fields.setdefault(kind, {})[model.name] = value
        return FrameResult(-1, measurements=(*measurements, *clip.measurements), **fields)


def best_path(labels: Sequence[Label], threshold: float) -> tuple[Label, ...]:
    """The first of the likely paths, which the labels of a frame begin with, from the region down."""
    path: list[Label] = []
    for label in labels:
        if label.score < threshold or len(label.path) != len(path) + 1:
            break
        path.append(label)
    return tuple(path)


__all__ = ["OpenFile", "best_path"]
