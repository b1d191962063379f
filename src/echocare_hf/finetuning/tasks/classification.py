"""Classes of an image: one, several, or ordered ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from echocare_hf.data.labelled import LabelledData, Sample, read_image
from echocare_hf.data.labelled.options import ordered_by_number
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

    The loss weights each class by how rare it is; of findings it weights "present" by the images known to be without by those with it.
    What is not known of a finding (-1) counts in no weight, no loss and no metric.

    Raises:
        ValueError: for ordered classes whose order neither `classes` nor the numbers in their names tell, and for ordered findings.
    """

    auto_class = "AutoModelForImageClassification"
    pipeline_tag = "image-classification"
    best_metric = "auc"

    def __init__(self, data: LabelledData, processor: Any, options: Any) -> None:
        super().__init__(data, processor, options)
        if options.ordinal and data.multi_label:
            raise ValueError(
                f"{data.source}: findings from several columns of --label have no order; leave --ordinal out"
            )
        if options.ordinal and options.classes is None and not ordered_by_number(data.class_names):
            raise ValueError(
                f"{data.source}: the names of the classes ({', '.join(data.class_names)}) do not tell their order; list all of them "
                "from the lowest to the highest with --classes LOWEST ... HIGHEST"
            )

    @property
    def problem_type(self) -> str:
        if self.options.ordinal:
            return "ordinal_classification"
        return self.data.problem_type or "single_label_classification"

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        values = {**super().config_values(samples), "problem_type": self.problem_type}
        present, known = self._counts(samples)
        findings = self.problem_type == "multi_label_classification"
        useless = (present == 0) | (findings & (present == known))
        if useless.any():
            index = int(useless.argmax())
            share = "every" if present[index] else "no"
            where = "" if known[index] == len(samples) else f" (it is known in {known[index]} of {len(samples)})"
            raise ValueError(
                f"{self.data.source}: {share} image of the training part shows {self.data.class_names[index]}{where}, which cannot be "
                "learned so: add images, leave it out, or try another --split_seed"
            )
        if self.options.balance_classes and findings:
            weights = np.minimum((known - present) / present, LARGEST_POSITIVE_WEIGHT)
            values["positive_weights"] = weights.round(4).tolist()
        elif self.options.balance_classes:
            values["class_weights"] = (known / (len(present) * present)).round(4).tolist()
        return values

    def _counts(self, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
        """(classes,) each: the samples that show a class, and those of which it is known whether they do."""
        labels, classes = np.array([sample.label for sample in samples]), len(self.data.class_names)
        if labels.ndim == 2:
            return (labels == 1).sum(0), (labels >= 0).sum(0)
        return np.bincount(labels, minlength=classes), np.full(classes, len(samples))

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
            reference = np.array(sample.label)
            error = float(np.abs(prediction - reference)[reference >= 0].mean())
            return -error, f"{sample.name}\nmean error of the scores {error:.2f}"
        assert sample.label is not None
        value, likeliest = float(prediction[sample.label]), int(np.argmax(prediction))
        caption = f"true: {self.data.class_names[sample.label]} ({value:.2f})"
        if likeliest != sample.label:
            caption += f", predicted: {self.data.class_names[likeliest]} ({prediction[likeliest]:.2f})"
        return value, f"{sample.name}\n{caption}"

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        true = (
            [index for index, present in enumerate(sample.label) if present == 1]
            if isinstance(sample.label, tuple)
            else sample.label
        )
        return draw_scores(read_image(sample), prediction, self.data.class_names, true=true, side=TILE)
