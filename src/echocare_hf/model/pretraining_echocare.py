"""EchoCare as it is pretrained: an image decoder, a classifier over the anatomy tree, and their losses."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple

from .configuration_echocare import EchoCareConfig
from .encoder_echocare import EchoCareModel, EchoCarePreTrainedModel, encode_with_maps
from .layers_echocare import conv_channels_last, keep_variance, norm_activation
from .losses_echocare import (
    anatomy_hierarchy_loss,
    ancestor_matrix,
    coherent_anatomy_scores,
    masked_reconstruction_loss,
)


@auto_docstring(custom_intro="Output of EchoCare's pretraining model: every loss by its name.")
@dataclass
class EchoCareForPreTrainingOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*):
        Weighted sum of the losses below; returned when `bool_masked_pos` or `labels` is given.
    reconstruction_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `bool_masked_pos` is given):
        L_MIM, mean absolute error over masked pixels.
    anatomy_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        L_HIE, the hierarchical anatomy loss.
    reconstruction (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`):
        The image as the decoder sees it, of the input's size and scale.
    anatomy_logits (`torch.FloatTensor` of shape `(batch_size, num_anatomy_nodes)`):
        One logit for each node of the tree.
    anatomy_scores (`torch.FloatTensor` of shape `(batch_size, num_anatomy_nodes)`):
        Scores from 0 to 1 in which no node stands above its parent.
    reshaped_hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
        The encoder's feature maps as `(batch_size, channels, height, width)`.
    """

    loss: torch.Tensor | None = None
    reconstruction_loss: torch.Tensor | None = None
    anatomy_loss: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    anatomy_logits: torch.Tensor | None = None
    anatomy_scores: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None


class EchoCareConvUpsampleDecoder(nn.Module):
    """Image decoder of the released code: 3x3 convolution, instance norm, leaky ReLU and 2x bilinear upsampling, up to pixels.

    Channels halve at each step, down to `embed_dim` (for base 2048, 1024, 512, 256, 128, 128, then the image's 3).
    """

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        steps = max((config.output_stride - 1).bit_length(), 1)
        widths = [config.hidden_size]
        for _ in range(steps):
            widths.append(max(widths[-1] // 2, config.embed_dim))
        self.convs = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, padding=1) for inputs, outputs in pairwise(widths))
        self.output = nn.Conv2d(widths[-1], config.num_channels, 1)
        self.stride = config.output_stride

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The encoder's maps, finest first, to (batch, num_channels, stride * height, stride * width) of the last one."""
        feature_map = maps[-1]
        height, width = feature_map.shape[-2:]
        for conv in self.convs:
            hidden = norm_activation(conv_channels_last(conv, feature_map.permute(0, 2, 3, 1)))  # type: ignore[arg-type]
            feature_map = F.interpolate(
                hidden.permute(0, 3, 1, 2), scale_factor=2.0, mode="bilinear", align_corners=False
            )
        image = self.output(feature_map)
        size = (height * self.stride, width * self.stride)
        if image.shape[-2:] != size:  # a stride that is no power of two
            image = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        return image


class EchoCarePixelShuffleDecoder(nn.Module):
    """Image decoder of SimMIM: one 1x1 convolution to all pixels of a place, and pixel shuffle."""

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        self.output = nn.Conv2d(config.hidden_size, config.output_stride**2 * config.num_channels, 1)
        self.stride = config.output_stride

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The encoder's maps, finest first, to (batch, num_channels, stride * height, stride * width) of the last one."""
        return F.pixel_shuffle(self.output(maps[-1]), self.stride)


class EchoCareMultiScaleDecoder(nn.Module):
    """Image decoder that reads every map: from the last one up, each is brought to `decoder_hidden_size` channels by a 1x1 convolution,
    added to the coarser ones, doubled in size, and passed through a 3x3 convolution; then a 1x1 convolution to the pixels of each patch.

    Where the last map is a few pixels wide, as tiny's is at 128 pixels, an image cannot be told from it alone, and what stands in the
    finer maps learns nothing of places. Hidden patches are hidden in every map, so none of them gives the answer away.

    Source: Gao et al. 2022, MCMAE, and Ryali et al. 2023, Hiera (masked autoencoders that decode from all stages).
    """

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        width = config.decoder_hidden_size or config.dense_hidden_size
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in config.stage_channels)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(config.num_layers))
        self.output = nn.Conv2d(width, config.patch_size**2 * config.num_channels, 1)
        self.patch_size = config.patch_size
        keep_variance(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The encoder's maps, finest first, to (batch, num_channels, stride * height, stride * width) of the first one."""
        levels = [
            conv_channels_last(lateral, feature_map.permute(0, 2, 3, 1).contiguous())  # type: ignore[arg-type]
            for lateral, feature_map in zip(self.laterals, maps, strict=True)
        ]
        hidden = levels[-1]
        for conv, level in zip(self.convs, levels[-2::-1], strict=True):
            height, width = level.shape[1:3]
            hidden = F.interpolate(hidden.permute(0, 3, 1, 2), scale_factor=2.0, mode="nearest").permute(0, 2, 3, 1)
            hidden = norm_activation(conv_channels_last(conv, hidden[:, :height, :width] + level))  # type: ignore[arg-type]
        return F.pixel_shuffle(self.output(hidden.permute(0, 3, 1, 2)), self.patch_size)


IMAGE_DECODERS = {
    "conv_upsample": EchoCareConvUpsampleDecoder,
    "pixel_shuffle": EchoCarePixelShuffleDecoder,
    "multi_scale": EchoCareMultiScaleDecoder,
}


class EchoCareAnatomyClassifier(nn.Module):
    """Two linear layers on the pooled feature, one logit for each node of the tree (paper section 4.1)."""

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.anatomy_hidden_size)
        self.output = nn.Linear(config.anatomy_hidden_size, config.num_anatomy_nodes)

    def forward(self, pooled: Tensor) -> Tensor:
        """(batch, hidden_size) to (batch, nodes)."""
        return self.output(self.dense(pooled))


@auto_docstring(
    custom_intro="""
    EchoCare with the two decoders of its pretraining: an image decoder that restores the masked image, and a classifier over the
    anatomy tree of the configuration.
    """
)
class EchoCareForPreTraining(EchoCarePreTrainedModel):
    # The losses are plain means: Trainer must divide by the accumulation steps itself.
    accepts_loss_kwargs = False

    def __init__(self, config: EchoCareConfig):
        super().__init__(config)
        if not config.num_anatomy_nodes:
            raise ValueError("the configuration has no anatomy tree: give `anatomy_tree` its ids, names and parents")
        self.echocare = EchoCareModel(config)
        self.image_decoder = IMAGE_DECODERS[config.decoder_type](config)
        self.anatomy_classifier = EchoCareAnatomyClassifier(config)
        self.anatomy_ancestors: Tensor
        self.register_buffer("anatomy_ancestors", ancestor_matrix(config.anatomy_tree), persistent=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            # Buffers that are not saved hold garbage after `from_pretrained`, which builds models without memory.
            init.copy_(self.anatomy_ancestors, ancestor_matrix(self.config.anatomy_tree))

    def get_input_embeddings(self) -> nn.Module:
        return self.echocare.get_input_embeddings()

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EchoCareForPreTrainingOutput:
        r"""
        bool_masked_pos (`torch.BoolTensor`, *optional*):
            True where the image is masked, as for [`EchoCareModel`]. Without it nothing is masked and there is no
            reconstruction loss.
        labels (`torch.LongTensor` of shape `(batch_size, num_anatomy_nodes)`, *optional*):
            For each node of the tree 1 (present), 0 (absent) or -1 (unknown), as `AnatomyTree.labels` returns.

        Examples:

        ```python
        >>> import torch
        >>> from echocare_hf import AnatomyTree, EchoCareConfig, EchoCareForPreTraining

        >>> config = EchoCareConfig.preset("tiny")
        >>> model = EchoCareForPreTraining(config)
        >>> labels = torch.tensor(AnatomyTree.default().labels("Heart"))[None]
        >>> mask = torch.rand(1, 8, 8) < config.mask_ratio
        >>> outputs = model(torch.rand(1, 3, 128, 128), bool_masked_pos=mask, labels=labels)
        >>> outputs.reconstruction.shape, outputs.anatomy_scores.shape
        (torch.Size([1, 3, 128, 128]), torch.Size([1, 117]))
        ```"""
        outputs, maps = encode_with_maps(self.echocare, pixel_values, bool_masked_pos=bool_masked_pos, **kwargs)
        assert pixel_values is not None  # the encoder has checked
        height, width = pixel_values.shape[-2:]
        reconstruction = self.image_decoder(maps)[..., :height, :width]
        logits = self.anatomy_classifier(outputs.pooler_output)

        reconstruction_loss = anatomy_loss = loss = None
        if bool_masked_pos is not None:
            mask = self.echocare.embeddings.pixel_mask(bool_masked_pos, pixel_values)
            reconstruction_loss = masked_reconstruction_loss(reconstruction, pixel_values, mask)
            loss = self.config.reconstruction_loss_weight * reconstruction_loss
        if labels is not None:
            anatomy_loss = anatomy_hierarchy_loss(logits, labels, self.config.anatomy_tree)
            weighted = self.config.anatomy_loss_weight * anatomy_loss
            loss = weighted if loss is None else loss + weighted
        return EchoCareForPreTrainingOutput(
            loss=loss,
            reconstruction_loss=reconstruction_loss,
            anatomy_loss=anatomy_loss,
            reconstruction=reconstruction,
            anatomy_logits=logits,
            anatomy_scores=coherent_anatomy_scores(logits, self.anatomy_ancestors),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            reshaped_hidden_states=outputs.reshaped_hidden_states,
        )


__all__ = ["IMAGE_DECODERS", "EchoCareForPreTraining"]
