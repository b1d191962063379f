"""Measured values of an image, such as a thickness."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from echocare_hf.data.augmentation import Augmentation, AugmentationSettings
from echocare_hf.data.labelled import LabelledData, Sample, read_image
from echocare_hf.metrics import (
    regression_metrics,
)

from .base import TILE, Example, Task

ANGLES = ("degrees", "rad", "angle")


def measuring_settings(settings: AugmentationSettings, measured: Sequence[str]) -> AugmentationSettings:
    """The augmentation without what would change measured values: no scaling, and no turning or mirroring where one is an angle.

    Args:
        settings: the usual augmentation.
        measured: units of the values, and the words of their names.
    """
    if any(word.lower() in ANGLES for word in measured):
        settings = replace(settings, rotation=0.0, flip=0.0)
    return replace(settings, scale=0.0)


class Regression(Task):
    auto_class = "AutoModelForImageClassification"
    pipeline_tag = "image-classification"
    best_metric = "error"  # mean absolute error in standard deviations of the training set
    greater_is_better = False

    def __init__(self, data: LabelledData, processor: Any, options: Any) -> None:
        super().__init__(data, processor, options)
        measured = [*data.target_units, *(word for name in data.target_names for word in name.lower().split("_"))]
        self.augmentation = Augmentation(measuring_settings(self.augmentation.settings, measured))

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        values = np.array(
            [[sample.targets[name] for name in self.data.target_names] for sample in samples], dtype=float
        )
        mean, std = np.nanmean(values, 0), np.nanstd(values, 0)
        if not (std > 0).all():
            constant = self.data.target_names[int(np.argmin(std))]
            raise ValueError(
                f"the target {constant} has one value in all images to train on: there is nothing to learn"
            )
        self.std = std
        return {
            "id2label": dict(enumerate(self.data.target_names)),
            "label2id": {name: index for index, name in enumerate(self.data.target_names)},
            "problem_type": "regression",
            "regression_mean": mean.tolist(),
            "regression_deviation": std.tolist(),
            "regression_unit": list(self.data.target_units),
        }

    def prepare(self, sample: Sample) -> Example:
        return {**super().prepare(sample), "label": self.target(sample)}

    def target(self, sample: Sample) -> Tensor:
        return torch.tensor([sample.targets[name] for name in self.data.target_names], dtype=torch.float32)

    def predict(self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]) -> list[np.ndarray]:
        """One value a target; of clips with the predicted standard deviations after them."""
        return list(outputs.logits.float().numpy())

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample], last: bool = True) -> dict[str, float]:
        references = np.stack([self.target(sample).numpy() for sample in samples])
        count = references.shape[1]
        predicted, spreads = np.split(np.stack(predictions), [count], 1)
        values = regression_metrics(
            predicted, references, self.data.target_names, spreads if spreads.shape[1] else None
        )
        return {**values, "error": float(np.nanmean(np.abs(predicted - references) / self.std))}

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        count = len(self.data.target_names)
        reference = self.target(sample).numpy()
        error = np.abs(prediction[:count] - reference) / self.std
        spreads = [f" ± {spread:.2f}" for spread in prediction[count:]] or [""] * count
        lines = [
            f"{name} {value:.2f}{spread} {unit}, true {true:.2f}"
            for name, unit, value, spread, true in zip(
                self.data.target_names, self.data.target_units, prediction[:count], spreads, reference, strict=True
            )
        ]
        return -float(np.nanmean(error)), f"{sample.name}\n" + "; ".join(lines)

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        image = Image.fromarray(read_image(sample))
        image.thumbnail((TILE, TILE))
        return image
