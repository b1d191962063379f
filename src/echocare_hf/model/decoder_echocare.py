"""The decoder that every head with a map as its answer stands on: segmentation, detection, keypoints, enhancement.

Two forms, chosen by `config.dense_decoder_type`. "unetr" is SwinUNETR's: residual blocks over all maps, up to full resolution.
"light" is a feature pyramid with one convolution a level, up to half the resolution, for small models.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_echocare import EchoCareConfig
from .layers_echocare import conv_channels_last, keep_variance, norm_activation


def _upsample(feature_map: Tensor, size: tuple[int, int], factor: int) -> Tensor:
    """Bilinear, by a whole factor; what hangs over `size` is cut off. (batch, height, width, channels)."""
    upsampled = F.interpolate(
        feature_map.permute(0, 3, 1, 2), scale_factor=float(factor), mode="bilinear", align_corners=False
    )
    return upsampled.permute(0, 2, 3, 1)[:, : size[0], : size[1]]


class EchoCareResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance norm and leaky ReLU, and a shortcut (1x1 convolution where the channels change).

    Source: MONAI `UnetResBlock`, whose shortcut is normalised too.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, feature_map: Tensor) -> Tensor:
        """(batch, height, width, in_channels) to (batch, height, width, out_channels)."""
        shortcut = feature_map if self.shortcut is None else conv_channels_last(self.shortcut, feature_map)
        hidden = norm_activation(conv_channels_last(self.conv1, feature_map))
        return norm_activation(conv_channels_last(self.conv2, hidden), shortcut)


class EchoCareUnetrDecoder(nn.Module):
    """SwinUNETR's decoder: a residual block on the image and on each map, then from the last map up, each joined with the next finer.

    Channels are `dense_hidden_size` for the image and the stem, and double with each stage.

    Source: Hatamizadeh et al., Swin UNETR, and MONAI `SwinUNETR`.
    """

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        width = config.dense_hidden_size
        sources = [config.num_channels, *config.stage_channels]
        # image, stem, stage1, ..., finest first
        self.channels = [width, *(width * 2**index for index in range(config.num_layers + 1))]
        self.strides = [1, *(config.patch_size * 2**index for index in range(config.num_layers + 1))]
        self.skips = nn.ModuleList(
            EchoCareResidualBlock(inputs, outputs) for inputs, outputs in zip(sources, self.channels, strict=True)
        )
        factors = [coarse // fine for fine, coarse in pairwise(self.strides)]
        self.upsamples = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, factor, stride=factor, bias=False)
            for (fine, coarse), factor in zip(pairwise(self.channels), factors, strict=True)
        )
        self.blocks = nn.ModuleList(EchoCareResidualBlock(2 * fine, fine) for fine in self.channels[:-1])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Image and maps, (batch, height, width, channels), finest first, to the decoded maps in the same order."""
        hidden = self.skips[-1](maps[-1])
        decoded = [hidden]
        for level in reversed(range(len(self.blocks))):
            skip = self.skips[level](maps[level])
            height, width = skip.shape[1:3]
            upsampled = self.upsamples[level](hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            hidden = self.blocks[level](torch.cat((upsampled[:, :height, :width], skip), -1))
            decoded.append(hidden)
        return decoded[::-1]


class EchoCarePyramidDecoder(nn.Module):
    """A small convolutional U-Net that takes in the encoder's maps on its way down.

    Down to stride 16, strided convolutions of the image make maps of their own, to which 1x1 convolutions of the encoder's maps are added;
    coarser levels are the encoder's alone. Then from the last map up, each is brought to the channels of the next finer by a 1x1
    convolution, doubled in size, added to it and passed through a residual block. Channels are `dense_hidden_size` from stride 8 on, half
    of it at stride 4 and a quarter at stride 2.

    The convolutions see what patches of 4 pixels and more are too coarse for, and learn it from few images.

    Source: Chen et al. 2023, Vision Transformer Adapter (the spatial prior beside a transformer); Lin et al. 2017, Feature Pyramid
    Networks.
    """

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        first = 2 if config.patch_size % 2 == 0 else config.patch_size
        self.strides = [first]
        while self.strides[-1] < config.output_stride:
            self.strides.append(self.strides[-1] * 2)
        width = config.dense_hidden_size
        self.channels = [max(width // max(8 // stride, 1), 8) for stride in self.strides]
        self.first_map = self.strides.index(config.patch_size)
        details = sum(stride <= 16 for stride in self.strides)
        inputs = [config.num_channels, *self.channels]
        self.details = nn.ModuleList(
            nn.Conv2d(inputs[level], self.channels[level], 3, stride=2 if level else first, padding=1, bias=False)
            for level in range(details)
        )
        self.detail_blocks = nn.ModuleList(
            EchoCareResidualBlock(channels, channels) for channels in self.channels[1:details]
        )
        self.laterals = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 1)
            for inputs, outputs in zip(config.stage_channels, self.channels[self.first_map :], strict=True)
        )
        self.reductions = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1, bias=False) for fine, coarse in pairwise(self.channels)
        )
        self.blocks = nn.ModuleList(EchoCareResidualBlock(channels, channels) for channels in self.channels[:-1])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Image and maps, (batch, height, width, channels), finest first, to the decoded maps in the same order."""
        hidden, levels = maps[0], []
        for level in range(len(self.strides)):
            lateral = None
            if level >= self.first_map:
                index = level - self.first_map
                lateral = conv_channels_last(self.laterals[index], maps[index + 1])  # type: ignore[arg-type]
            if level < len(self.details):
                hidden = norm_activation(conv_channels_last(self.details[level], hidden))  # type: ignore[arg-type]
                if lateral is not None:
                    hidden = hidden + lateral
                if level > 0:
                    hidden = self.detail_blocks[level - 1](hidden)
            else:
                assert lateral is not None
                hidden = lateral
            levels.append(hidden)
        decoded = [levels[-1]]
        for level in reversed(range(len(self.blocks))):
            height, width = levels[level].shape[1:3]
            coarse = conv_channels_last(self.reductions[level], decoded[-1])  # type: ignore[arg-type]
            decoded.append(self.blocks[level](_upsample(coarse, (height, width), 2) + levels[level]))
        return decoded[::-1]


DENSE_DECODERS: dict[str, type[EchoCareUnetrDecoder] | type[EchoCarePyramidDecoder]] = {
    "unetr": EchoCareUnetrDecoder,
    "light": EchoCarePyramidDecoder,
}


class EchoCareDenseDecoder(nn.Module):
    """The decoder that `config.dense_decoder_type` names.

    Attributes:
        channels (`list[int]`): channels of each map that it returns, finest first.
        strides (`list[int]`): pixels of the image per pixel of each map, finest first: 1 first for "unetr", 2 (or the patch size,
            where that is smaller or odd) first for "light".
    """

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        decoder = DENSE_DECODERS[config.dense_decoder_type](config)
        self.decoder = decoder
        keep_variance(decoder)
        self.channels: list[int] = decoder.channels
        self.strides: list[int] = decoder.strides

    def forward(self, pixel_values: Tensor, feature_maps: list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
        """Maps for a head, finest first.

        Args:
            pixel_values: (batch, num_channels, height, width).
            feature_maps: the encoder's `reshaped_hidden_states`, each (batch, channels, ceil(height / s), ceil(width / s)).

        Returns:
            For each entry of `strides` a map (batch, channels, ceil(height / stride), ceil(width / stride)).
        """
        pixel_values = pixel_values.to(feature_maps[0].dtype)
        maps = [feature_map.permute(0, 2, 3, 1).contiguous() for feature_map in (pixel_values, *feature_maps)]
        return [feature_map.permute(0, 3, 1, 2) for feature_map in self.decoder(maps)]


__all__ = ["EchoCareDenseDecoder"]
