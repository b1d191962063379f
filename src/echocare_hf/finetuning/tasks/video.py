"""Classes or measured values of a clip."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from echocare_hf.data.labelled import LabelledData, Sample, read_clip
from echocare_hf.data.labelled.options import natural_key
from echocare_hf.drawing_charts import draw_values

from .base import TILE, Example, Task
from .classification import Classification
from .regression import Regression


class Video(Task):
    """A classification or, where there are targets, a regression of clips."""

    auto_class = "AutoModelForVideoClassification"
    pipeline_tag = "video-classification"

    def __init__(self, data: LabelledData, processor: Any, options: Any) -> None:
        super().__init__(data, processor, options)
        self.of_clip: Classification | Regression = (Regression if data.target_names else Classification)(
            data, processor, options
        )
        self.augmentation = self.of_clip.augmentation
        self.best_metric, self.greater_is_better = self.of_clip.best_metric, self.of_clip.greater_is_better

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {**self.of_clip.config_values(samples), "num_frames": self.options.num_frames}

    def prepare(self, sample: Sample) -> Example:
        clip = read_clip(sample, self.options.num_frames)
        times = clip.times_ms or tuple(1000 / 30 * index for index in range(len(clip.frames)))
        if isinstance(self.of_clip, Regression):
            label = self.of_clip.target(sample)
        else:
            label = torch.tensor(sample.label)
        return {
            "pixels": self.resize(list(clip.frames)),
            "times": torch.tensor(times, dtype=torch.float32),
            "label": label.float() if isinstance(sample.label, tuple) else label,
            "size": clip.frames.shape[1:3],
        }

    def example(self, item: Example, generator: torch.Generator | None) -> Example:
        images = item["pixels"].float() / 255
        if generator is not None and self.options.augmentation > 0:
            images = self.augmentation(images, generator).image
        return {"pixel_values": self.normalize(images), "frame_times": item["times"], "labels": item["label"]}

    def collate(self, examples: Sequence[Example]) -> Example:
        longest = max(len(example["pixel_values"]) for example in examples)
        batch: dict[str, list[Tensor]] = {"pixel_values": [], "frame_times": [], "frame_mask": [], "labels": []}
        for example in examples:
            frames = example["pixel_values"]
            missing = longest - len(frames)
            batch["pixel_values"].append(torch.cat((frames, frames.new_zeros(missing, *frames.shape[1:]))))
            batch["frame_times"].append(torch.nn.functional.pad(example["frame_times"], (0, missing)))
            batch["frame_mask"].append(torch.arange(longest) < len(frames))
            batch["labels"].append(example["labels"])
        return {name: torch.stack(values) for name, values in batch.items()}

    def predict(self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]) -> list[np.ndarray]:
        values = self.of_clip.predict(outputs, samples, items)
        if outputs.spread is None:
            return values
        return [np.concatenate(pair) for pair in zip(values, outputs.spread.float().numpy(), strict=True)]

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample], last: bool = True) -> dict[str, float]:
        return self.of_clip.metrics(predictions, samples, last)

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        return self.of_clip.score(prediction, sample)

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        """The last frame: that of the label where a value changes from frame to frame."""
        return self.of_clip.draw(prediction, replace(sample, images=sample.images[-1:]))

    def charts(self, predictions: Sequence[Any], samples: Sequence[Sample]) -> Iterator[tuple[Image.Image, str]]:
        """Values over the time of each sequence that is measured in three frames or more, with captions."""
        if not isinstance(self.of_clip, Regression):
            return
        count = len(self.data.target_names)
        for rows in _sequences(samples):
            values = np.stack([predictions[row] for row in rows])
            true = np.stack([self.of_clip.target(samples[row]).numpy() for row in rows])
            taken = np.array([(samples[row].frame_times_ms or (np.nan,))[-1] for row in rows])
            times = taken / 1000 if (np.diff(taken) > 0).all() else None  # nan is not above
            for target, (name, unit) in enumerate(zip(self.data.target_names, self.data.target_units, strict=True)):
                error = np.nanmean(np.abs(values[:, target] - true[:, target]))
                chart = draw_values(
                    values[:, target],
                    times,
                    spread=values[:, count + target] if values.shape[1] > count else None,
                    reference=true[:, target],
                    time_name="measured frame" if times is None else "time (s)",
                    size=(TILE, 280),
                )
                ends = " to ".join(Path(samples[row].name).stem for row in (rows[0], rows[-1]))
                yield chart, f"{ends}\n{name}: mean error {error:.2f} {unit}"


def _sequences(samples: Sequence[Sample]) -> list[list[int]]:
    """Rows of clips that are windows of one sequence, in its order: each shares a frame with the one before."""
    order = sorted(range(len(samples)), key=lambda row: (samples[row].group or "", natural_key(samples[row].name)))
    found: list[list[int]] = []
    for row in order:
        before = set(map(str, samples[found[-1][-1]].images)) if found else set()
        if before & set(map(str, samples[row].images)):
            found[-1].append(row)
        else:
            found.append([row])
    return [rows for rows in found if len(rows) >= 3]
