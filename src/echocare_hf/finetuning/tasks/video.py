"""Classes or measured values of a clip."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from echocare_hf.data.labelled import LabelledData, Sample, read_clip

from .base import Example, Task
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
        if generator is not None:
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
        return self.of_clip.draw(prediction, sample)
