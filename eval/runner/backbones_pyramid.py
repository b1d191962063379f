"""From the feature maps that a network has to the ones that EchoCare's heads read: one map for each stride, each twice the one before.

EchoCare's encoder returns maps at strides such as 4, 8, 16, 32, 64. Other networks return maps at other strides, several at one, or all at
one. What is done with them:

    several strides     (ResNet, Swin, ConvNeXt, EfficientNet ...) Of each stride the deepest map, unchanged. A stride that is left out
                        between two others is the next finer map, averaged over 2x2 places. Nothing is added below the finest or above
                        the coarsest: the heads are built for the strides that are there.
    one stride          (ViT, DINO ...) Four maps from a quarter, half, three quarters and the end of the network become strides 4, 8, 16
                        and 32: enlarged bilinearly, or averaged over 2x2 places. Each passes the layer norm over channels without
                        parameters that EchoCare's own maps pass, since tokens inside a transformer have any scale. The 1x1 or first
                        convolution of each head's decoder brings them to its channels, as it does for EchoCare's maps.
                        Patches of 14 pixels and the like are fed an image that is resized so that a patch covers 16 of its pixels.

Source: Li et al. 2022, Exploring plain vision transformer backbones for object detection (a pyramid from maps of one stride); Bao et al.
2022, BEiT (four depths for four strides).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from echocare_hf.model.layers_echocare import channel_layer_norm

COLUMN_STRIDES = (4, 8, 16, 32)  # what maps of one stride are resampled to


@dataclass(frozen=True)
class Level:
    """One map of the pyramid.

    Attributes:
        source: which of the network's maps it is made of.
        stride: pixels of the image for one place.
        factor: how many times finer it is than its source: 1 unchanged, 2 and 4 enlarged, 1/2 averaged over 2x2 places.
    """

    source: int
    stride: int
    factor: float = 1.0


@dataclass(frozen=True)
class Plan:
    """How the maps of a network become a pyramid.

    Attributes:
        levels: finest first.
        column: whether all maps had one stride.
        zoom: how much larger or smaller the network sees the image, for patches whose side is no power of two.
    """

    levels: tuple[Level, ...]
    column: bool
    zoom: float = 1.0

    @property
    def multiple(self) -> int:
        """The sides of the image are padded to multiples of it, in pixels."""
        return self.levels[-1].stride

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """What the network sees of an image of this size, in pixels."""
        padded = (math.ceil(side / self.multiple) * self.multiple for side in (height, width))
        rows, columns = (round(side * self.zoom) for side in padded)
        return rows, columns

    def pad(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width), padded with black at the right and below, and resized where the plan says so."""
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        if self.zoom == 1:
            return images
        size = self.input_size(height, width)
        return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)

    def pyramid(self, maps: Sequence[Tensor], height: int, width: int) -> tuple[Tensor, ...]:
        """The maps (batch, channels, ceil(height / stride), ceil(width / stride)), finest first.

        Args:
            maps: of the network, (batch, channels, rows, columns), for the padded image.
            height, width: of the image before it was padded, in pixels.
        """
        made = []
        for level in self.levels:
            feature_map = maps[level.source]
            if self.column:
                feature_map = channel_layer_norm(feature_map.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            if level.factor > 1:
                feature_map = F.interpolate(
                    feature_map, scale_factor=level.factor, mode="bilinear", align_corners=False
                )
            elif level.factor < 1:
                feature_map = F.avg_pool2d(feature_map, round(1 / level.factor))
            rows, columns = math.ceil(height / level.stride), math.ceil(width / level.stride)
            made.append(feature_map[..., :rows, :columns])
        return tuple(made)


def plan_pyramid(strides: Sequence[int]) -> Plan:
    """How maps of these strides become a pyramid.

    Args:
        strides: pixels of the image for one place of each map, shallow first.

    Raises:
        ValueError: if there is no map, or the strides do not double.
    """
    if not strides:
        raise ValueError("there are none")
    if len(set(strides)) == 1:
        return _column(len(strides), strides[0])
    deepest = {stride: source for source, stride in enumerate(strides)}
    levels: list[Level] = []
    for stride in sorted(deepest):
        while levels and levels[-1].stride * 2 < stride:
            finer = levels[-1]
            levels.append(Level(finer.source, finer.stride * 2, finer.factor / 2))
        if levels and levels[-1].stride * 2 != stride:
            raise ValueError(f"their strides are {', '.join(map(str, sorted(deepest)))}, which do not double")
        levels.append(Level(deepest[stride], stride))
    return Plan(tuple(levels), column=False)


def _column(count: int, patch: int) -> Plan:
    stride = 2 ** round(math.log2(patch))
    sources = quarters(count)
    levels = (Level(source, wanted, stride / wanted) for source, wanted in zip(sources, COLUMN_STRIDES, strict=True))
    return Plan(tuple(levels), column=True, zoom=patch / stride)


def quarters(depth: int) -> list[int]:
    """The last block of each quarter of so many, counted from 0; with fewer than four some stand for two quarters."""
    return [max(round(depth * part / 4), 1) - 1 for part in (1, 2, 3, 4)]


__all__ = ["COLUMN_STRIDES", "Level", "Plan", "plan_pyramid", "quarters"]
