"""The decoder that every head with a map as its answer stands on: segmentation, detection, keypoints, enhancement.

Two forms, chosen by `config.dense_decoder_type`. "unetr" is SwinUNETR's: residual blocks over all maps, up to full resolution.
"light" is a feature pyramid with one convolution a level, up to half the resolution, for small models.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_echocare import EchoCareConfig
from .layers_echocare import conv_channels_last, norm_activation


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
    """A feature pyramid: 1x1 convolutions bring every map to `dense_hidden_size` channels, then from the last map up, each is
    doubled in size, added to the next finer and passed through a 3x3 convolution.

    Patches of 4 pixels and more are too coarse for outlines, so strided convolutions of the image add levels down to stride 2.

    Source: Lin et al., Feature Pyramid Networks.
    """

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        width = config.dense_hidden_size
        strides = [config.patch_size]
        while strides[0] > 2 and strides[0] % 2 == 0:
            strides.insert(0, strides[0] // 2)
        details = len(strides) - 1
        self.strides = strides + [config.patch_size * 2**index for index in range(1, config.num_layers + 1)]
        self.channels = [width] * len(self.strides)
        inputs = [config.num_channels] + [width] * max(details - 1, 0)
        self.details = nn.ModuleList(
            nn.Conv2d(inputs[index], width, 3, stride=strides[0] if index == 0 else 2, padding=1, bias=False)
            for index in range(details)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in config.stage_channels)
        for lateral, channels in zip(self.laterals, config.stage_channels, strict=True):
            # No norm follows these convolutions: they keep the variance of the normalised maps themselves.
            lateral.initializer_std = channels**-0.5
        self.blocks = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(len(self.strides) - 1)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Image and maps, (batch, height, width, channels), finest first, to the decoded maps in the same order."""
        hidden = maps[0]
        levels = []
        for detail in self.details:
            hidden = norm_activation(conv_channels_last(detail, hidden))  # type: ignore[arg-type]
            levels.append(hidden)
        levels += [
            conv_channels_last(lateral, feature_map)  # type: ignore[arg-type]
            for lateral, feature_map in zip(self.laterals, maps[1:], strict=True)
        ]
        decoded = [levels[-1]]
        for level in reversed(range(len(self.blocks))):
            height, width = levels[level].shape[1:3]
            joined = _upsample(decoded[-1], (height, width), 2) + levels[level]
            decoded.append(norm_activation(conv_channels_last(self.blocks[level], joined)))  # type: ignore[arg-type]
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
