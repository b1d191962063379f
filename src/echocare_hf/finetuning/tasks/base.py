"""What all tasks of fine-tuning share."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from echocare_hf.data.augmentation import Augmentation, AugmentationSettings
from echocare_hf.data.labelled import LabelledData, Sample, read_image

TILE = 420  # longer side of a picture on the contact sheet, in pixels

Example = dict[str, Any]


class Task:
    """What all tasks share: one image a sample.

    Args:
        data: the labelled data.
        processor: brings images into the form of the model's input.
        options: `FinetuneArguments`.
    """

    auto_class = ""
    pipeline_tag = ""
    best_metric = ""  # of the validation set; decides which weights are kept
    greater_is_better = True

    def __init__(self, data: LabelledData, processor: Any, options: Any) -> None:
        self.data, self.processor, self.options = data, processor, options
        self.size = (processor.size["height"], processor.size["width"])
        self.augmentation = Augmentation(scaled_settings(options.augmentation, options.flip))

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What the configuration of the model must hold; `samples` are those to train on."""
        names = self.data.class_names
        return {
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
        }

    def prepare(self, sample: Sample) -> Example:
        """The tensors of a sample at the model's input size, images as uint8: what is kept in memory."""
        pixels = read_image(sample)
        return {"pixels": self.resize([pixels])[0], "size": pixels.shape[:2]}

    def resize(self, images: Sequence[np.ndarray]) -> Tensor:
        """Images to the model's input size: (images, channels, height, width), uint8."""
        resized = self.processor(images=list(images), do_rescale=False, do_normalize=False, return_tensors="pt")
        return resized.pixel_values.round().clamp(0, 255).to(torch.uint8)

    def example(self, item: Example, generator: torch.Generator | None) -> Example:
        """Inputs and labels of a prepared sample; a generator is given in training, where it is augmented unless nobody wants that."""
        image = item["pixels"].float() / 255
        if generator is not None and self.options.augmentation > 0:
            image, item = self.augment(image, item, generator)
        return {"pixel_values": self.normalize(image), **self.labels(item)}

    def augment(self, image: Tensor, item: Example, generator: torch.Generator) -> tuple[Tensor, Example]:
        return self.augmentation(image, generator).image, item

    def normalize(self, image: Tensor) -> Tensor:
        """(..., channels, height, width) in 0 to 1 to what the model was trained on."""
        if not self.processor.do_normalize:
            return image
        mean, std = (
            torch.tensor(value).view(-1, 1, 1) for value in (self.processor.image_mean, self.processor.image_std)
        )
        return (image - mean) / std

    def labels(self, item: Example) -> Example:
        return {"labels": item["label"]}

    def collate(self, examples: Sequence[Example]) -> Example:
        """A batch. Every example has the same entries: one that lacks another's is a KeyError, wherever in the batch it stands."""
        names = dict.fromkeys(name for example in examples for name in example)
        return {name: torch.stack([example[name] for example in examples]) for name in names}

    def predict(self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]) -> list[Any]:
        """One prediction a sample, in pixels of the original image and in the labels' units."""
        raise NotImplementedError

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample], last: bool = True) -> dict[str, float]:
        """Every metric; those that training needs are enough where this is not the `last` evaluation."""
        raise NotImplementedError

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        """How good a prediction is (higher is better) and the caption that says so."""
        raise NotImplementedError

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        raise NotImplementedError


def scaled_settings(strength: float, flip: bool) -> AugmentationSettings:
    """The augmentation with every range (not the probabilities) times `strength`."""
    usual = AugmentationSettings()
    ranges = (
        "rotation",
        "scale",
        "translation",
        "gain",
        "contrast",
        "gamma",
        "depth_gain_range",
        "speckle_deviation",
        "blur_sigma",
    )
    return replace(
        usual, flip=usual.flip if flip else 0.0, **{name: getattr(usual, name) * strength for name in ranges}
    )
