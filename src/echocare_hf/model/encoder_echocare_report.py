"""From the images of one report to what its decoder attends to, in no order: tokens of the last maps, and one pooled vector."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput, auto_docstring

from .configuration_echocare import EchoCareConfig
from .encoder_echocare import PRETRAINING_ONLY, EchoCareModel, EchoCareModelOutput, EchoCarePreTrainedModel
from .layers_echocare import keep_variance
from .pooling_echocare import EchoCareFeatureNorm, pooled_channels, pooled_features

# Where no gradient flows into the encoder, it sees this many images at a time.
IMAGES_AT_A_TIME = 32
# Waves across an image in the encoding of a token's place, in half periods: from one side to the other, to an eighth.
WAVES = (1, 2, 4, 8)

# Initial deviation of what marks a view, where that of a token is about 1.
VIEW_DEVIATION = 0.5


@auto_docstring(custom_intro="Output of the report generator's encoder.")
@dataclass
class EchoCareReportEncoderOutput(ModelOutput):
    r"""
    last_hidden_state (`torch.FloatTensor` of shape `(batch_size, images * tokens, width)`):
        What the decoder attends to: for each image one token for all of it, and one for each place of its last maps.
    attention_mask (`torch.BoolTensor` of shape `(batch_size, images * tokens)`, *optional*):
        False for the tokens of padding; None where no report has any.
    pooler_output (`torch.FloatTensor` of shape `(batch_size, 2 * features)`):
        Mean and maximum over the images of what the classification head sees of each.
    hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
        The encoder's feature maps `(images of all reports, height * width, channels)`; padding is not encoded.
    """

    last_hidden_state: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def place_features(height: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of where each token of a map lies, (height * width, 4 * waves), in the type and on the device of `like`."""
    axes = [(torch.arange(size, device=like.device) + 0.5) / size for size in (height, width)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)  # (height * width, 2)
    angles = (grid[..., None] * torch.tensor(WAVES, device=like.device) * math.pi).flatten(1)
    return torch.cat((angles.sin(), angles.cos()), -1).to(like.dtype)


class EchoCareReportEncoder(EchoCarePreTrainedModel):
    """EchoCare's encoder for the several images of a report.

    The images are a set: what comes out does not depend on their order, only on the view that each is marked with.

    Args:
        config (`EchoCareConfig`): of the encoder.
        width (`int`): channels of the tokens, those of the decoder.
        num_views (`int`): views that an image can be marked with.
        num_maps (`int`): feature maps that tokens are made of, counted from the last.
    """

    _keys_to_ignore_on_load_unexpected = [*PRETRAINING_ONLY, r"embeddings\.mask_token$"]

    def __init__(self, config: EchoCareConfig, width: int, num_views: int = 0, num_maps: int = 2) -> None:
        super().__init__(config)
        features = pooled_channels(config)
        self.echocare = EchoCareModel(config, use_mask_token=False)
        self.feature_norm = EchoCareFeatureNorm(features) if config.classifier_pooling == "all" else None
        self.num_maps = num_maps
        self.num_views = num_views
        self.map_projections = nn.ModuleList(
            nn.Linear(channels, width) for channels in config.stage_channels[-num_maps:]
        )
        self.place_projection = nn.Linear(4 * len(WAVES), width, bias=False)
        self.image_projection = nn.Linear(features, width)
        self.view_embeddings = nn.Embedding(max(num_views, 1), width)
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        keep_variance(self)
        self.view_embeddings.initializer_std = VIEW_DEVIATION  # type: ignore[assignment]
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EchoCareFeatureNorm):
            module.reset()

    def get_input_embeddings(self) -> nn.Module:
        return self.echocare.get_input_embeddings()

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        views: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        image_features: torch.Tensor | None = None,
        image_maps: Sequence[torch.Tensor] | None = None,
    ) -> EchoCareReportEncoderOutput:
        """Encodes the images of each report.

        Args:
            pixel_values: (batch, images, channels, height, width), or (batch, channels, height, width) for one image a report.
            image_mask: (batch, images), True for images, False for padding, whose content does not matter.
            views: (batch, images), 0 where not marked, else 1 + index of the view.
            output_attentions, output_hidden_states: as in transformers; of the encoder.
            return_dict: for `generate`, which always asks for a dictionary.
            image_features, image_maps: instead of `pixel_values`, what `encode_images` made of them, which an encoder that does not learn
                need not do again: (batch, images, features), and for each map (batch, images, channels, height, width).

        Raises:
            ValueError: for other shapes, a report without an image, or a view that the model does not have.
        """
        if image_features is None:
            pixel_values, mask = check_images(pixel_values, image_mask)
            images = pixel_values.flatten(0, 1)[mask.flatten()]
            wanted = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
            wanted = {name: value for name, value in wanted.items() if value}
            tokens, features, outputs = self._encode(images, **wanted)
        else:
            _, mask = check_images(image_features[..., None, None], image_mask)
            features = image_features[mask]
            tokens = self._tokens([feature_map[mask] for feature_map in image_maps or ()])
            outputs = EchoCareModelOutput()
        views = check_views(views, mask, self.num_views)
        if self.feature_norm is not None:
            features = self.feature_norm(features)
        whole = self.image_projection(features)[:, None]  # (images, 1, width)
        marked = views[mask]
        marks = self.view_embeddings((marked - 1).clamp(min=0)) * (marked > 0)[:, None]  # (images, width)
        tokens = self.layernorm(torch.cat((whole, tokens), 1) + marks[:, None])

        count = tokens.shape[1]
        placed = scatter(tokens, mask).flatten(1, 2)  # (batch, images * tokens, width)
        shares = mask[..., None].to(features.dtype)
        features = scatter(features, mask)  # (batch, images, features)
        mean = features.sum(1) / shares.sum(1)
        highest = features.masked_fill(~mask[..., None], torch.finfo(features.dtype).min).amax(1)
        return EchoCareReportEncoderOutput(
            last_hidden_state=placed,
            attention_mask=None if image_mask is None else mask.repeat_interleave(count, 1),
            pooler_output=torch.cat((mean, highest), -1),
            hidden_states=outputs.hidden_states if output_hidden_states else None,
            attentions=outputs.attentions,
        )

    def _encode(self, images: Tensor, **kwargs) -> tuple[Tensor, Tensor, EchoCareModelOutput]:
        """Tokens (images, tokens, width) and pooled features (images, features), and what else the encoder returns.

        Where nothing has to be kept for a gradient, the images go through in chunks, which needs the same memory for any number.
        """
        learns = torch.is_grad_enabled() and (images.requires_grad or any(p.requires_grad for p in self.parameters()))
        if learns or kwargs or len(images) <= IMAGES_AT_A_TIME:
            return self._encode_chunk(images, **kwargs)
        chunks = [self._encode_chunk(chunk)[:2] for chunk in images.split(IMAGES_AT_A_TIME)]
        tokens, features = (torch.cat(parts) for parts in zip(*chunks, strict=True))
        return tokens, features, EchoCareModelOutput()

    def _encode_chunk(self, images: Tensor, **kwargs) -> tuple[Tensor, Tensor, EchoCareModelOutput]:
        features, outputs = pooled_features(self.echocare, images, **{**kwargs, "output_hidden_states": True})
        maps: Any = outputs.reshaped_hidden_states
        return self._tokens(maps[-self.num_maps :]), features, outputs

    def _tokens(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (images, channels, height, width) to tokens (images, tokens, width)."""
        tokens = []
        for project, feature_map in zip(self.map_projections, maps, strict=True):
            places = place_features(feature_map.shape[2], feature_map.shape[3], feature_map)
            tokens.append(project(feature_map.flatten(2).transpose(1, 2)) + self.place_projection(places))
        return torch.cat(tokens, 1)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What an encoder that does not learn makes of images, for `forward` to take instead of them.

        Args:
            images: (images, channels, height, width).

        Returns:
            Features (images, features) and, for each map that tokens are made of, (images, channels, height, width).
        """
        features, outputs = pooled_features(self.echocare, images, output_hidden_states=True)
        maps: Any = outputs.reshaped_hidden_states
        return features, list(maps[-self.num_maps :])


def scatter(values: Tensor, mask: Tensor) -> Tensor:
    """Values (images, ...) of the places where `mask` (batch, places) is True as (batch, places, ...), 0 elsewhere."""
    if len(values) == mask.numel():
        return values.unflatten(0, mask.shape)
    placed = values.new_zeros(mask.numel(), *values.shape[1:])
    return placed.index_copy(0, mask.flatten().nonzero()[:, 0], values).unflatten(0, mask.shape)


def check_images(pixel_values: Tensor | None, image_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The images with their five dimensions, and their mask (batch, images), all True without `image_mask`.

    Raises:
        ValueError: for missing images, other shapes, or a report without an image.
    """
    if pixel_values is None:
        raise ValueError("you have to specify `pixel_values`")
    if pixel_values.ndim == 4:
        pixel_values = pixel_values[:, None]
    if pixel_values.ndim != 5 or not pixel_values.shape[0] or not pixel_values.shape[1]:
        raise ValueError(
            "`pixel_values` must be (batch, images, channels, height, width) of at least one image, or (batch, channels, height, width), "
            f"got {tuple(pixel_values.shape)}"
        )
    shape = pixel_values.shape[:2]
    if image_mask is None:
        return pixel_values, torch.ones(shape, dtype=torch.bool, device=pixel_values.device)
    if image_mask.shape != shape:
        raise ValueError(f"`image_mask` must be (batch, images), here {tuple(shape)}, got {tuple(image_mask.shape)}")
    mask = image_mask.to(pixel_values.device).bool()
    if not torch.compiler.is_compiling() and not bool(mask.any(1).all()):
        raise ValueError(f"`image_mask` leaves report {int((~mask.any(1)).nonzero()[0])} without an image")
    return pixel_values, mask


def check_views(views: Tensor | None, mask: Tensor, num_views: int) -> Tensor:
    """The views (batch, images), all 0 where None.

    Raises:
        ValueError: for another shape, or a view that the model does not have.
    """
    if views is None:
        return torch.zeros_like(mask, dtype=torch.long)
    if views.ndim == 1 and mask.shape[1] == 1:
        views = views[:, None]
    if views.shape != mask.shape:
        raise ValueError(f"`views` must be (batch, images), here {tuple(mask.shape)}, got {tuple(views.shape)}")
    views = views.to(mask.device)
    if not torch.compiler.is_compiling() and not bool(((views >= 0) & (views <= num_views))[mask].all()):
        raise ValueError(f"`views` must lie between 0 (not marked) and {num_views}, got {views[mask].tolist()}")
    return views


__all__ = ["EchoCareReportEncoder", "EchoCareReportEncoderOutput"]
