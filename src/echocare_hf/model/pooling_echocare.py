"""What the classification and video heads see of an image: one vector, pooled from the last map or from all of them.

A place of the last map covers 32 or 64 pixels, and the mean over all places dilutes texture and small lesions. With
`config.classifier_pooling = "all"` the head sees the mean and the maximum of every map instead, each feature brought to mean 0 and
deviation 1, so that features of all maps weigh alike.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_echocare import EchoCareConfig
from .encoder_echocare import EchoCareModel, EchoCareModelOutput, encode_with_maps

# Least share of a training batch in the running statistics. The first batches count equally: 1, 1/2, 1/3, ...
MOMENTUM = 0.1
EPSILON = 1e-5


def pooled_channels(config: EchoCareConfig) -> int:
    """Channels of `pooled_features`."""
    return 2 * sum(config.stage_channels) if config.classifier_pooling == "all" else config.hidden_size


def pooled_features(
    encoder: EchoCareModel, pixel_values: Tensor | None, **kwargs
) -> tuple[Tensor, EchoCareModelOutput]:
    """Encodes images and pools what `config.classifier_pooling` names.

    Args:
        pixel_values: (batch, num_channels, height, width).
        kwargs: handed to the encoder.

    Returns:
        (batch, `pooled_channels(config)`): `pooler_output`, or the means of all maps and then their maxima, stem first; and the
        encoder's output, with feature maps only where the caller or the configuration asks for them.
    """
    if encoder.config.classifier_pooling == "last":
        outputs = encoder(pixel_values, **kwargs)
        return outputs.pooler_output, outputs
    outputs, maps = encode_with_maps(encoder, pixel_values, **kwargs)
    features = torch.cat([*(m.mean((2, 3)) for m in maps), *(m.amax((2, 3)) for m in maps)], -1)
    return features, outputs


class EchoCareFeatureNorm(nn.Module):
    """Brings each feature to mean 0 and deviation 1 over the training images.

    Unlike batch norm it uses running statistics in training too, which the batch has just updated. So a batch may be one image,
    or the frames of one clip, whose common part batch norm would subtract; and training sees what inference will see.
    No gradient flows through the statistics.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.running_mean: Tensor
        self.running_variance: Tensor
        self.num_batches: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_variance", torch.ones(channels))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.long))

    def reset(self) -> None:
        """To how a new module is: features pass unchanged until the first training batch. For `_init_weights`."""
        init.zeros_(self.running_mean)
        init.ones_(self.running_variance)
        init.zeros_(self.num_batches)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """(..., channels) to the same shape; `mask` (...) is False for what the statistics shall leave out."""
        values = features.to(torch.promote_types(features.dtype, torch.float32))
        if self.training:
            self._update(values.detach(), mask)
        scale = (self.running_variance.to(values.dtype) + EPSILON).rsqrt()
        return ((values - self.running_mean.to(values.dtype)) * scale).to(features.dtype)

    @torch.no_grad()
    def _update(self, values: Tensor, mask: Tensor | None) -> None:
        values = values.flatten(0, -2)
        weights = torch.ones_like(values[:, :1]) if mask is None else mask.reshape(-1, 1).to(values.dtype)
        weights = weights / weights.sum()
        mean = (values * weights).sum(0)
        variance = ((values - mean).square() * weights).sum(0)
        self.num_batches += 1
        share = (1 / self.num_batches).clamp(min=MOMENTUM).to(values.dtype)
        shift = mean - self.running_mean
        # Of the mixture of what was and what came: the distance of the two means adds to the variance.
        mixed = (1 - share) * (self.running_variance + share * shift.square()) + share * variance
        self.running_variance.copy_(mixed)
        self.running_mean.add_(share * shift)


__all__ = ["EchoCareFeatureNorm", "pooled_channels", "pooled_features"]
