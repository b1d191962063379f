"""Classes of an image: one, several, or ordered ones."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from echocare_hf.data.labelled import Sample, read_image
from echocare_hf.drawing_predictions import (
    draw_scores,
)
from echocare_hf.metrics import (
    classification_metrics,
)

from .base import TILE, Example, Task

LARGEST_POSITIVE_WEIGHT = 20.0  # a finding that a handful of images show must not outweigh all others


class Classification(Task):
    """One class an image, ordered classes, or, from several columns of 0 and 1, findings that may occur together.

    The loss weights each class by how rare it is; of findings it weights "present" by the images without by those with it.
    """

    auto_class = "AutoModelForImageClassification"
    pipeline_tag = "image-classification"
    best_metric = "auc"

    @property
    def problem_type(self) -> str:
        if self.options.ordinal and self.data.multi_label:
            raise ValueError(
                f"{self.data.source}: findings from several columns of --label have no order; leave --ordinal out"
            )
        if self.options.ordinal:
            return "ordinal_classification"
        return self.data.problem_type or "single_label_classification"

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        values = {**super().config_values(samples), "problem_type": self.problem_type}
        counts = np.array([*replace(self.data, samples=tuple(samples)).class_counts().values()])
        findings = self.problem_type == "multi_label_classification"
        empty = (counts == 0) | (findings & (counts == len(samples)))
        if empty.any():
            name = self.data.class_names[int(empty.argmax())]
            share = "no" if not counts[empty.argmax()] else "every"
            raise ValueError(
                f"{self.data.source}: {share} image of the training part shows {name}, which cannot be learned so: add images, leave it "
                "out, or try another --split_seed"
            )
        if self.options.balance_classes and findings:
            values["positive_weights"] = [
                round(min(float((len(samples) - count) / count), LARGEST_POSITIVE_WEIGHT), 4) for count in counts
            ]
        elif self.options.balance_classes:
            values["class_weights"] = [round(float(len(samples) / (len(counts) * count)), 4) for count in counts]
        return values

    def prepare(self, sample: Sample) -> Example:
        dtype = torch.float32 if isinstance(sample.label, tuple) else torch.long
        return {**super().prepare(sample), "label": torch.tensor(sample.label, dtype=dtype)}

    def predict(self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]) -> list[np.ndarray]:
        logits = outputs.logits.float()
        multi_label = self.problem_type == "multi_label_classification"
        return list((logits.sigmoid() if multi_label else logits.softmax(-1)).numpy())

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample], last: bool = True) -> dict[str, float]:
        labels = np.array([sample.label for sample in samples])
        return classification_metrics(np.stack(predictions), labels, self.data.class_names, self.problem_type)

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        if isinstance(sample.label, tuple):
            right = np.abs(prediction - np.array(sample.label)).mean()
            return -float(right), f"{sample.name}\nmean error {right:.2f}"
        assert sample.label is not None
        value = float(prediction[sample.label])
        return value, f"{sample.name}\n{self.data.class_names[sample.label]} {value:.2f}"

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        true = (
            [index for index, present in enumerate(sample.label) if present]
            if isinstance(sample.label, tuple)
            else sample.label
        )
        return draw_scores(read_image(sample), prediction, self.data.class_names, true=true, side=TILE)
