"""From the maps of a dense head back to the original image: label maps of a segmentation, enhanced images."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
from torch import Tensor
from torch.nn import functional as F
from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput


class DensePostProcessingMixin:
    """`post_process_*` of the segmentation and enhancement heads, for an image processor of EchoCare."""

    resize_geometry: Callable[..., Any]
    reconstruct_images: Callable[..., Any]

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[Tensor] | list[SemanticSegmentationPostProcessorOutput]:
        """The class of each pixel, at the size of the original images.

        Padding is cut off, logits are resized bilinearly, and the class with the largest wins.

        Args:
            outputs (`EchoCareSemanticSegmenterOutput`):
                Output of [`EchoCareForSemanticSegmentation`], with `logits` of shape `(batch, num_labels, height, width)`.
            target_sizes (`list[tuple[int, int]]` or `torch.Tensor` of shape `(batch, 2)`, *optional*):
                Height and width of each original image, in pixels. Without them maps have the size of the logits, padding included.
            return_segmentation_scores (`bool`, *optional*, defaults to `False`):
                Whether to return the resized logits too.

        Returns:
            `list[torch.Tensor]`: for each image a map `(height, width)`, int64. With `return_segmentation_scores`, for each image a
            [`SemanticSegmentationPostProcessorOutput`] with the fields `segmentation` (that map) and `segmentation_scores`
            `(num_labels, height, width)`.

        Raises:
            ValueError: for another number of sizes than images, or a size below 1 pixel.

        Source: upstream `SegformerImageProcessor.post_process_semantic_segmentation`.
        """
        scores = list(outputs.logits)
        if target_sizes is not None:
            placed = self._cut_padding(outputs.logits, target_sizes)
            scores = [
                F.interpolate(logits[None].float(), size=size, mode="bilinear", align_corners=False)[0]
                for logits, size in placed
            ]
        # `argmax` over the first axis says the same and takes 5 to 15 times as long on a CPU.
        maps = [score.max(0).indices for score in scores]
        if not return_segmentation_scores:
            return maps
        return [
            SemanticSegmentationPostProcessorOutput(data={"segmentation": label_map, "segmentation_scores": score})
            for label_map, score in zip(maps, scores, strict=True)
        ]

    def post_process_image_to_image(
        self, outputs: Any, target_sizes: Sequence[tuple[int, int]] | Tensor | None = None
    ) -> list[np.ndarray]:
        """Enhanced images as pixels, at the size of the original images.

        Args:
            outputs (`EchoCareImageToImageOutput`):
                Output of [`EchoCareForImageToImage`], with `reconstruction` of shape `(batch, channels, height, width)`.
            target_sizes (`list[tuple[int, int]]` or `torch.Tensor` of shape `(batch, 2)`, *optional*):
                Height and width of each original image, in pixels: padding is cut off and the rest resized (bicubic). Without them
                images have the model's size, padding included.

        Returns:
            `list[np.ndarray]`: for each image `(height, width, 3)`, uint8, 0 to 255; one grey channel comes back three times.

        Raises:
            ValueError: for another number of sizes than images, or a size below 1 pixel.
        """
        reconstruction = outputs.reconstruction
        placed: list[tuple[Tensor, tuple[int, int]]] = [(image, tuple(image.shape[1:])) for image in reconstruction]
        if target_sizes is not None:
            placed = self._cut_padding(reconstruction, target_sizes)
        images = []
        for values, (height, width) in placed:
            pixels = self.reconstruct_images(values[None])[0]  # (height, width, channels)
            image = PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
            if image.size != (width, height):
                image = image.resize((width, height), PIL.Image.Resampling.BICUBIC)
            images.append(np.array(image))
        return images

    def _cut_padding(
        self, maps: Tensor, target_sizes: Sequence[tuple[int, int]] | Tensor
    ) -> list[tuple[Tensor, tuple[int, int]]]:
        """For each map the part (channels, height, width) that its image covers, and the size of the original image."""
        if len(target_sizes) != len(maps):
            raise ValueError(
                f"`target_sizes` must hold one (height, width) an image, got {len(target_sizes)} for {len(maps)}"
            )
        size = dict(zip(("height", "width"), maps.shape[2:], strict=True))
        placed = []
        for single, (height, width) in zip(maps, target_sizes, strict=True):
            target = (int(height), int(width))
            if min(target) < 1:
                raise ValueError(f"`target_sizes` are (height, width) of at least 1 pixel, got {target}")
            # By the size of the map, not of the processor: the call may have had a `size` of its own.
            geometry = self.resize_geometry(*target, size=size)
            (top, left), (rows, columns) = geometry.offset, geometry.resized
            placed.append((single[:, top : top + rows, left : left + columns], target))
        return placed


__all__ = ["DensePostProcessingMixin"]
