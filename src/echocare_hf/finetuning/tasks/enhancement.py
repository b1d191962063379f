"""Better images from worse ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from echocare_hf.data.augmentation import draw_affine, warp
from echocare_hf.data.degradation import degrade
from echocare_hf.data.labelled import Sample, read_target_image
from echocare_hf.drawing_predictions import (
    draw_before_after,
)
from echocare_hf.metrics import (
    image_metrics,
)

from .base import TILE, Example, Task


class Enhancement(Task):
    """Better images from worse ones: from the pairs of the data, or, where it has none, from images degraded on the fly."""

    auto_class = "AutoModelForImageToImage"
    pipeline_tag = "image-to-image"
    best_metric = "psnr"

    def prepare(self, sample: Sample) -> Example:
        item = super().prepare(sample)
        if sample.target_image is not None:
            return {**item, "target": self.resize([read_target_image(sample)])[0]}
        # Validation and test images are degraded once, by a seed of their own, so that every model sees the same ones.
        seed = int(sample.digests[0][:12], 16) if sample.digests else 0
        generator = torch.Generator().manual_seed(seed)
        clean = item["pixels"].float() / 255
        degraded = degrade(clean, generator, self.options.degradation)
        return {**item, "target": item["pixels"], "pixels": (degraded * 255).round().to(torch.uint8), "made": True}

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {}

    def augment(self, image: Tensor, item: Example, generator: torch.Generator) -> tuple[Tensor, Example]:
        # Only the place changes: brightness and noise are what is to be learned.
        matrix = draw_affine(self.augmentation.settings, *self.size, generator)
        clean = warp(item["target"].float() / 255, matrix)
        image = degrade(clean, generator, self.options.degradation) if "made" in item else warp(image, matrix)
        return image, {**item, "target": clean}

    def labels(self, item: Example) -> Example:
        target = item["target"]
        return {"labels": self.normalize(target.float() / 255 if target.dtype == torch.uint8 else target)}

    def predict(
        self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]
    ) -> list[dict[str, np.ndarray]]:
        enhanced = self.processor.post_process_image_to_image(outputs)
        return [
            {"before": _channels_last(item["pixels"]), "after": after, "reference": _channels_last(item["target"])}
            for item, after in zip(items, enhanced, strict=True)
        ]

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample], last: bool = True) -> dict[str, float]:
        references = [prediction["reference"] for prediction in predictions]
        before = image_metrics([prediction["before"] for prediction in predictions], references)
        after = image_metrics([prediction["after"] for prediction in predictions], references)
        return {**after, **{f"{name}_before": value for name, value in before.items()}}

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        values = self.metrics([prediction], [sample])
        gain = values["psnr"] - values["psnr_before"]
        return gain, f"{sample.name}\nPSNR {values['psnr']:.2f} dB, {gain:+.2f}"

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        return draw_before_after(
            prediction["before"], prediction["after"], prediction["reference"], side=TILE * 2 // 3
        )


def _channels_last(pixels: Tensor) -> np.ndarray:
    return pixels.permute(1, 2, 0).numpy()
