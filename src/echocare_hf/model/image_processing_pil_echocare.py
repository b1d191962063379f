"""Image processor of EchoCare on Pillow and numpy: for machines without torchvision, same results within rounding."""

from typing import Any

import numpy as np
import PIL.Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ImageInput, PILImageResampling, SizeDict
from transformers.processing_utils import Unpack
from transformers.utils import auto_docstring

from .post_processing_echocare import EchoCareImageProcessingMixin, EchoCareImageProcessorKwargs, resize_geometry


@auto_docstring
class EchoCareImageProcessorPil(EchoCareImageProcessingMixin, PilBackend):  # type: ignore[misc]
    """PIL backend for EchoCare: RGB, 256x256, values in [0, 1], no mean and standard deviation."""

    def __init__(self, **kwargs: Unpack[EchoCareImageProcessorKwargs]):
        super().__init__(**kwargs)  # type: ignore[misc]

    @auto_docstring
    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        **kwargs: Unpack[EchoCareImageProcessorKwargs],
    ) -> BatchFeature:
        r"""
        segmentation_maps (`ImageInput`, *optional*):
            One label map an image, of its height and width: whole numbers or booleans. They are resized along with
            nearest neighbour and returned as `labels`, (batch, height, width) int64, `ignore_index` on padding.
        """
        return super().preprocess(images, segmentation_maps, **kwargs)

    def resize(  # type: ignore[override]
        self, image: np.ndarray, size: SizeDict, resample: Any = None, **kwargs
    ) -> np.ndarray:
        """Resizes channel by channel, in the image's own type.

        transformers' version goes through an 8-bit RGB image, which loses the precision of floating-point pixels,
        refuses those that are no whole numbers, and weighs four channels by the last as if it were opacity.

        Args:
            image (`np.ndarray` of shape `(channels, height, width)`): uint8 or float32.
            size (`SizeDict`): `height` and `width` to resize to, in pixels.
            resample (`PILImageResampling`, `int` or torchvision's `InterpolationMode`, *optional*): bilinear if None.

        Returns:
            `np.ndarray` of shape `(channels, size.height, size.width)`, same type.
        """
        if resample is None:
            resample = PILImageResampling.BILINEAR
        elif not isinstance(resample, int):  # torchvision's InterpolationMode, by its name
            resample = getattr(PILImageResampling, resample.name.removesuffix("_EXACT"))
        target = (size["width"], size["height"])
        return np.stack([np.asarray(PIL.Image.fromarray(channel).resize(target, resample)) for channel in image])

    def _preprocess(  # type: ignore[override]
        self,
        images: list[np.ndarray],
        do_resize: bool,
        size: SizeDict,
        resample: Any,
        resize_mode: str,
        **kwargs,
    ) -> BatchFeature:
        """Fits and pads where `resize_mode` says so; everything else is the backend's."""
        if do_resize and resize_mode == "pad":
            target = (size["height"], size["width"])
            padded = []
            for image in images:
                geometry = resize_geometry(image.shape[1], image.shape[2], target, resize_mode)
                image = self.resize(image, SizeDict(*geometry.resized), resample)
                margins = [
                    (geometry.offset[axis], target[axis] - geometry.resized[axis] - geometry.offset[axis])
                    for axis in (0, 1)
                ]
                padded.append(np.pad(image, [(0, 0), *margins]))
            images, do_resize = padded, False
        return super()._preprocess(images, do_resize=do_resize, size=size, resample=resample, **kwargs)


__all__ = ["EchoCareImageProcessorPil"]
