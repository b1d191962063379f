"""A class for each pixel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from echocare_hf.data.labelled import LabelledData, Sample, read_image, read_mask
from echocare_hf.drawing_predictions import (
    draw_masks,
)
from echocare_hf.metrics import (
    dice_score,
    normalized_surface_dice,
    segmentation_metrics,
)
from echocare_hf.model.post_processing_echocare import resize_label_map

from .base import TILE, Example, Task

NSD_TOLERANCE = 2.0  # pixels of the original image


class Segmentation(Task):
    auto_class = "AutoModelForSemanticSegmentation"
    pipeline_tag = "image-segmentation"
    best_metric = "dice"

    def __init__(self, data: LabelledData, processor: Any, options: Any) -> None:
        super().__init__(data, processor, options)
        # One image that says which classes were looked for makes all say it: a batch states it for each of its images, or for none.
        self.partly_labelled = any(sample.labelled_classes is not None for sample in data.samples)

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {**super().config_values(samples), "deep_supervision_weight": self.options.deep_supervision}

    def prepare(self, sample: Sample) -> Example:
        item = super().prepare(sample)
        mask = read_mask(sample, self.data.mask_values).astype(np.int64)
        geometry = self.processor.resize_geometry(*mask.shape)
        item["mask"] = torch.from_numpy(resize_label_map(mask, geometry, self.size, 255)).to(torch.uint8)
        classes = range(len(self.data.class_names)) if sample.labelled_classes is None else sample.labelled_classes
        item["annotated"] = torch.zeros(len(self.data.class_names), dtype=torch.bool)
        item["annotated"][list(classes)] = True
        return item

    def augment(self, image: Tensor, item: Example, generator: torch.Generator) -> tuple[Tensor, Example]:
        moved = self.augmentation(image, generator, mask=item["mask"])
        return moved.image, {**item, "mask": moved.mask}

    def labels(self, item: Example) -> Example:
        labels = {"labels": item["mask"].long()}
        return {**labels, "annotated_classes": item["annotated"]} if self.partly_labelled else labels

    def predict(self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]) -> list[np.ndarray]:
        sizes = [item["size"] for item in items]
        maps = self.processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        return [label_map.to(torch.uint8).numpy() for label_map in maps]

    def overlaps(self, prediction: np.ndarray, sample: Sample, surface: bool) -> tuple[np.ndarray, np.ndarray]:
        """Dice and, where it is asked for, normalized surface Dice of each class; NaN for what is not known."""
        reference = read_mask(sample, self.data.mask_values)
        count = len(self.data.class_names)
        dice = dice_score(prediction, reference, count)
        surfaces = np.full(count, np.nan)
        if surface:
            surfaces = normalized_surface_dice(prediction, reference, count, NSD_TOLERANCE)
        if sample.labelled_classes is not None:
            unknown = [index for index in range(count) if index not in sample.labelled_classes]
            dice[unknown], surfaces[unknown] = np.nan, np.nan
        return dice, surfaces

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample], last: bool = True) -> dict[str, float]:
        pairs = [
            self.overlaps(prediction, sample, last) for prediction, sample in zip(predictions, samples, strict=True)
        ]
        dice, surfaces = (np.stack(values) for values in zip(*pairs, strict=True))
        values = segmentation_metrics(dice, surfaces, self.data.class_names)
        return values if last else {name: value for name, value in values.items() if not name.startswith("nsd")}

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        foreground = self.overlaps(prediction, sample, surface=False)[0][1:]
        value = 1.0 if np.isnan(foreground).all() else float(np.nanmean(foreground))
        return value, f"{sample.name}\nDice {value:.3f}"

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        reference = read_mask(sample, self.data.mask_values)
        return draw_masks(read_image(sample), prediction, reference, class_names=self.data.class_names, side=TILE)
