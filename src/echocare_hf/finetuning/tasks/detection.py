"""Ellipses and boxes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from echocare_hf.data.augmentation import Augmentation
from echocare_hf.data.labelled import LabelledData, Sample, read_image
from echocare_hf.drawing_predictions import draw_boxes, draw_ellipses
from echocare_hf.metrics import (
    detection_metrics,
    ellipse_errors,
    upright_overlap,
)
from echocare_hf.model.ellipses_echocare import ellipse_bounds, ellipse_overlap, transform_ellipses

from .base import TILE, Example, Task

SURE = 0.5  # score from which a prediction is drawn and counted on the contact sheet


class Detection(Task):
    auto_class = "AutoModelForObjectDetection"
    pipeline_tag = "object-detection"
    best_metric = "ap75"
    threshold = 0.05  # of the predictions that metrics see

    def __init__(self, data: LabelledData, processor: Any, options: Any) -> None:
        super().__init__(data, processor, options)
        self.oriented = any(box.angle not in (0.0, 90.0) for sample in data.samples for box in sample.boxes or ())
        self.overlap = ellipse_overlap if self.oriented else upright_overlap
        if not self.oriented:  # a rectangle that is turned is no upright one any more
            self.augmentation = Augmentation(replace(self.augmentation.settings, rotation=0.0))

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {**super().config_values(samples), "oriented_boxes": self.oriented}

    def boxes(self, sample: Sample) -> dict[str, Tensor]:
        """Classes and ellipses in pixels of the original image."""
        boxes = sample.boxes or ()
        return {
            "class_labels": torch.tensor([box.class_index for box in boxes], dtype=torch.long),
            "boxes": torch.tensor([box[1:] for box in boxes], dtype=torch.float32).reshape(-1, 5),
        }

    def prepare(self, sample: Sample) -> Example:
        item = super().prepare(sample)
        geometry = self.processor.resize_geometry(*item["size"])
        scale = torch.tensor(geometry.scale[::-1], dtype=torch.float32)
        labels = self.boxes(sample)
        offset = torch.tensor(geometry.offset[::-1], dtype=torch.float32)
        return {**item, **labels, "boxes": transform_ellipses(labels["boxes"], torch.diag(scale), offset)}

    def augment(self, image: Tensor, item: Example, generator: torch.Generator) -> tuple[Tensor, Example]:
        moved = self.augmentation(image, generator, boxes=item["boxes"])
        return moved.image, {**item, "boxes": moved.boxes}

    def labels(self, item: Example) -> Example:
        height, width = self.size
        x, y = item["boxes"][:, 0], item["boxes"][:, 1]
        inside = (x > 0) & (x < width) & (y > 0) & (y < height)  # augmentation may move a centre out of the image
        boxes = item["boxes"][inside]
        if not self.oriented:  # the angle of a square is rounding noise
            boxes = torch.cat((boxes[:, :4], (boxes[:, 4:] / 90).round() % 2 * 90), 1)
        return {"labels": {"class_labels": item["class_labels"][inside], "boxes": boxes}}

    def collate(self, examples: Sequence[Example]) -> Example:
        pixel_values = torch.stack([example["pixel_values"] for example in examples])
        return {"pixel_values": pixel_values, "labels": [example["labels"] for example in examples]}

    def predict(
        self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]
    ) -> list[dict[str, np.ndarray]]:
        found = self.processor.post_process_oriented_detection(
            outputs, threshold=self.threshold, target_sizes=[item["size"] for item in items]
        )
        return [{name: result[name].numpy() for name in ("scores", "labels", "boxes")} for result in found]

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample], last: bool = True) -> dict[str, float]:
        references = []
        for sample in samples:
            boxes = self.boxes(sample)
            references.append({"labels": boxes["class_labels"].numpy(), "boxes": boxes["boxes"].numpy()})
        values = detection_metrics(predictions, references, self.data.class_names, overlap=self.overlap)
        errors = [
            ellipse_errors(prediction["boxes"][0], reference["boxes"][0], sample.spacing)
            for prediction, reference, sample in zip(predictions, references, samples, strict=True)
            if sample.spacing is not None and len(prediction["boxes"]) and len(reference["boxes"]) == 1
        ]
        names = ("long_axis_error_mm", "short_axis_error_mm")
        for name in (*(("circumference_error_mm",) if self.oriented else ()), *names) if errors else ():
            values[name.replace("error", "mae")] = float(np.mean([abs(error[name]) for error in errors]))
        return values

    def matches(self, prediction: dict[str, np.ndarray], sample: Sample, surest: bool = False) -> list[float]:
        """Overlaps (IoU) of true objects with predictions of their class, each used once, the best pairs first.

        Args:
            prediction: of `predict`.
            sample: the case.
            surest: of each class as many predictions as there are true objects, those with the highest scores, instead of all whose
                score is 0.5 or more: like AP it takes scores for an order alone.
        """
        true, kept = self.boxes(sample), prediction["scores"] >= SURE
        if surest:
            order, kept = np.argsort(-prediction["scores"], kind="stable"), np.zeros(len(kept), bool)
            for label, count in zip(*np.unique(true["class_labels"].numpy(), return_counts=True), strict=True):
                kept[order[prediction["labels"][order] == label][:count]] = True
        found = torch.from_numpy(prediction["boxes"][kept]).float()
        overlaps = self.overlap(true["boxes"], found)  # (true, found)
        overlaps[true["class_labels"][:, None] != torch.from_numpy(prediction["labels"][kept])] = 0
        matched = []
        while overlaps.numel() and overlaps.max() > 0:
            row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
            matched.append(float(overlaps[row, column]))
            overlaps[row], overlaps[:, column] = 0, 0
        return matched

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        """The overlaps of what was matched, as a share of the true and the wrongly found objects; 1 where there is rightly nothing."""
        matched, true, found = self.matches(prediction, sample), len(sample.boxes or ()), prediction["scores"] >= SURE
        missed, extra = true - len(matched), int(found.sum()) - len(matched)
        value = sum(matched) / (true + extra) if true + extra else 1.0
        if not found.any():
            best = prediction["scores"].max(initial=0)
            told = f"best score {best:.2f}" if best else f"no score above {self.threshold}"
            return value, f"{sample.name}\n{'' if true else 'rightly '}nothing above {SURE} ({told})"
        parts = [f"IoU {np.mean(matched):.2f}"] if matched else []
        parts += [f"{count} {what}" for count, what in ((missed, "missed"), (extra, "wrongly found")) if count]
        return value, f"{sample.name}\n{', '.join(parts)}"

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        sure = prediction["scores"] >= SURE
        labels = [
            f"{self.data.class_names[label]} {score:.2f}"
            for label, score in zip(prediction["labels"][sure], prediction["scores"][sure], strict=True)
        ]
        image, found, true = read_image(sample), prediction["boxes"][sure], self.boxes(sample)["boxes"]
        if self.oriented:
            return draw_ellipses(image, found, true.numpy(), spacing=sample.spacing, labels=labels, side=TILE)
        corners = ellipse_bounds(torch.from_numpy(found)).numpy()
        return draw_boxes(image, corners, ellipse_bounds(true).numpy(), labels=labels, side=TILE)
