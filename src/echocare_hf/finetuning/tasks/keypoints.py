"""Landmarks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from echocare_hf.data.labelled import Sample, read_image
from echocare_hf.drawing_predictions import (
    draw_landmarks,
)
from echocare_hf.metrics import (
    keypoint_metrics,
)
from echocare_hf.model.keypoints_echocare import match_keypoint_pairs

from .base import TILE, Example, Task


class Keypoints(Task):
    auto_class = "AutoModelForKeypointDetection"
    pipeline_tag = "keypoint-detection"
    best_metric = "mre"
    greater_is_better = False

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {
            "num_keypoints": len(self.data.keypoint_names),
            "keypoint_names": list(self.data.keypoint_names),
            "keypoint_pairs": [list(pair) for pair in self.data.keypoint_pairs] or None,
        }

    def prepare(self, sample: Sample) -> Example:
        item = super().prepare(sample)
        points = torch.tensor(sample.keypoints, dtype=torch.float32)
        return {**item, "points": self.processor.resize_geometry(*item["size"]).to_input(points)}

    def augment(self, image: Tensor, item: Example, generator: torch.Generator) -> tuple[Tensor, Example]:
        moved = self.augmentation(image, generator, keypoints=item["points"])
        return moved.image, {**item, "points": moved.keypoints}

    def labels(self, item: Example) -> Example:
        points = item["points"]
        height, width = self.size
        inside = ((points > 0) & (points < torch.tensor([width, height]))).all(-1)  # False for NaN too
        known = points.isfinite().all(-1)
        visibility = torch.where(
            inside, 2.0, torch.where(known, -1.0, 0.0)
        )  # -1: augmentation moved it out of the image
        return {"labels": torch.cat((points.nan_to_num(0.0), visibility[:, None]), 1)}

    def predict(self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]) -> list[np.ndarray]:
        sizes = [item["size"] for item in items]
        found = self.processor.post_process_keypoint_detection(outputs, target_sizes=sizes)
        return [result["keypoints"].numpy() for result in found]

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample], last: bool = True) -> dict[str, float]:
        known = all(sample.spacing is not None for sample in samples)
        spacing = np.array([sample.spacing for sample in samples]) if known else None
        references = np.array([sample.keypoints for sample in samples], dtype=float)
        values = keypoint_metrics(np.stack(predictions), references, spacing, self.data.keypoint_pairs)
        return {**values, "mre": values["mre_mm" if known else "mre_px"]}

    def distance(self, prediction: np.ndarray, sample: Sample) -> tuple[float, str, np.ndarray]:
        """Mean distance, its unit, and the reference in the better order of each pair."""
        unit, scale = ("mm", np.array(sample.spacing[::-1])) if sample.spacing else ("px", np.ones(2))
        points = [
            torch.tensor(np.array(values), dtype=torch.float64)[None] for values in (prediction, sample.keypoints)
        ]
        reference = match_keypoint_pairs(points[0], points[1], self.data.keypoint_pairs)[0].numpy()
        return float(np.nanmean(np.linalg.norm((prediction - reference) * scale, axis=-1))), unit, reference

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        value, unit, _ = self.distance(prediction, sample)
        return -value, f"{sample.name}\nmean distance {value:.2f} {unit}"

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        reference = self.distance(prediction, sample)[2]
        names = self.data.keypoint_names
        return draw_landmarks(
            read_image(sample), prediction, reference, names=names, spacing=sample.spacing, side=TILE
        )
