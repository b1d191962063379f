"""Image processor of EchoCare on torchvision: batched, on any device. See the PIL twin for machines without it."""

import torchvision.transforms.v2.functional as tvF
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_transforms import group_images_by_shape, reorder_images
from transformers.image_utils import ImageInput, PILImageResampling, SizeDict
from transformers.processing_utils import Unpack
from transformers.utils import auto_docstring

from .post_processing_echocare import EchoCareImageProcessingMixin, EchoCareImageProcessorKwargs, resize_geometry


@auto_docstring
class EchoCareImageProcessor(EchoCareImageProcessingMixin, TorchvisionBackend):  # type: ignore[misc]
    """Torchvision backend for EchoCare: RGB, 256x256, values in [0, 1], no mean and standard deviation."""

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

    def _preprocess(  # type: ignore[override]
        self,
        images: list,
        do_resize: bool,
        size: SizeDict,
        resample: "PILImageResampling | tvF.InterpolationMode | int | None",
        resize_mode: str,
        disable_grouping: bool | None,
        **kwargs,
    ) -> BatchFeature:
        """Fits and pads where `resize_mode` says so; everything else is the backend's."""
        if do_resize and resize_mode == "pad":
            target = (size["height"], size["width"])
            groups, index = group_images_by_shape(images, disable_grouping=disable_grouping)
            for shape, stacked in groups.items():
                geometry = resize_geometry(stacked.shape[-2], stacked.shape[-1], target, resize_mode)
                stacked = self.resize(stacked, SizeDict(*geometry.resized), resample)
                top, left = geometry.offset
                bottom, right = (target[axis] - geometry.resized[axis] - geometry.offset[axis] for axis in (0, 1))
                groups[shape] = tvF.pad(stacked, [left, top, right, bottom])
            images, do_resize = list(reorder_images(groups, index)), False
        return super()._preprocess(
            images, do_resize=do_resize, size=size, resample=resample, disable_grouping=disable_grouping, **kwargs
        )


__all__ = ["EchoCareImageProcessor"]
