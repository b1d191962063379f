"""EchoCare's models: the encoder, the backbone, and the pretraining model."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import BackboneOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_echocare import EchoCareConfig
from .layers_echocare import (
    EchoCarePatchEmbeddings,
    EchoCareStage,
    EchoCareWindowAttention,
    channel_layer_norm,
    conv_channels_last,
    norm_activation,
)
from .losses_echocare import (
    anatomy_hierarchy_loss,
    ancestor_matrix,
    coherent_anatomy_scores,
    expand_mask,
    masked_reconstruction_loss,
)
from .remote_code_echocare import AUTO_MAP, SelfContainedSaveMixin

# Below this the last maps hold nothing; a smaller image is a broken file rather than an ultrasound image.
MINIMUM_IMAGE_SIZE = 8


@auto_docstring(custom_intro="Output of the EchoCare encoder.")
@dataclass
class EchoCareModelOutput(ModelOutput):
    r"""
    last_hidden_state (`torch.FloatTensor` of shape `(batch_size, height * width, hidden_size)`):
        The last feature map, row by row, after the channel layer norm.
    pooler_output (`torch.FloatTensor` of shape `(batch_size, hidden_size)`, *optional*):
        Average of the last feature map over its places.
    hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
        The feature maps `stem, stage1, ...`, each of shape `(batch_size, height * width, channels)`.
    reshaped_hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
        The same maps as `(batch_size, channels, height, width)`, each after the channel layer norm.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None


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


class EchoCareEmbeddings(nn.Module):
    """Patch embedding, with the mask token in the place of masked patches."""

    def __init__(self, config: EchoCareConfig, use_mask_token: bool) -> None:
        super().__init__()
        self.patch_embeddings = EchoCarePatchEmbeddings(config)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, config.embed_dim)) if use_mask_token else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.num_channels = config.num_channels
        self.patch_size = config.patch_size
        self.mask_unit_size = config.mask_unit_size

    def forward(self, pixel_values: Tensor, bool_masked_pos: Tensor | None = None) -> Tensor:
        """(batch, num_channels, height, width) to (batch, patches high, patches wide, embed_dim)."""
        check_pixel_values(pixel_values, self.num_channels)
        embeddings = self.patch_embeddings(pixel_values)
        if bool_masked_pos is not None:
            if self.mask_token is None:
                raise ValueError("this model was built without a mask token, so it takes no `bool_masked_pos`")
            mask = self.pixel_mask(bool_masked_pos, pixel_values)
            # A patch is masked with the pixel of its top left corner: units are whole patches.
            mask = mask[:, :: self.patch_size, :: self.patch_size, None].to(embeddings.dtype)
            embeddings = embeddings * (1 - mask) + self.mask_token.to(embeddings.dtype) * mask
        return self.dropout(embeddings)

    def pixel_mask(self, bool_masked_pos: Tensor, pixel_values: Tensor) -> Tensor:
        """The mask as (batch, height, width), 1.0 where masked, from a mask of units or of patches, flat or as a map."""
        height, width = pixel_values.shape[-2:]
        sizes = [(-(-height // size), -(-width // size)) for size in (self.mask_unit_size, self.patch_size)]
        batch, shape = pixel_values.shape[0], tuple(bool_masked_pos.shape)
        for (rows, columns), size in zip(sizes, (self.mask_unit_size, self.patch_size), strict=True):
            if shape in ((batch, rows * columns), (batch, rows, columns)):
                mask = bool_masked_pos.reshape(batch, rows, columns)
                return expand_mask(mask, rows * size, columns * size)[:, :height, :width]
        (unit_rows, unit_columns), (rows, columns) = sizes
        raise ValueError(
            f"`bool_masked_pos` of shape {tuple(bool_masked_pos.shape)} fits neither {unit_rows}x{unit_columns} mask units of "
            f"{self.mask_unit_size} pixels nor {rows}x{columns} patches of {self.patch_size} for {pixel_values.shape[0]} images of "
            f"{height}x{width}"
        )


def check_pixel_values(pixel_values: Tensor | None, num_channels: int) -> None:
    """One clear error for images that the encoder cannot take.

    Raises:
        ValueError: for a missing tensor, another number of dimensions or channels, images below 8 pixels, or, on a CPU in eager
            mode (elsewhere looking would cost a synchronisation), values that are not finite.
    """
    if pixel_values is None:
        raise ValueError("you have to specify `pixel_values`")
    if pixel_values.ndim != 4 or pixel_values.shape[1] != num_channels:
        raise ValueError(
            f"`pixel_values` must be (batch, {num_channels} channels, height, width), got {tuple(pixel_values.shape)}"
        )
    if min(pixel_values.shape[-2:]) < MINIMUM_IMAGE_SIZE:
        raise ValueError(
            f"images of {pixel_values.shape[-2]}x{pixel_values.shape[-1]} pixels are too small: "
            f"each side needs at least {MINIMUM_IMAGE_SIZE}"
        )
    eager = type(pixel_values) is Tensor and not torch.compiler.is_compiling() and not torch.jit.is_tracing()
    if eager and pixel_values.device.type == "cpu" and not bool(torch.isfinite(pixel_values.detach().sum())):
        bad = int((~torch.isfinite(pixel_values)).sum())
        if bad:
            raise ValueError(f"`pixel_values` holds {bad} values that are NaN or infinite")


class EchoCareEncoder(nn.Module):
    """The stages of the encoder, one after the other."""

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        total = sum(config.depths)
        rates = [config.drop_path_rate * index / max(total - 1, 1) for index in range(total)]
        starts = [sum(config.depths[:stage]) for stage in range(config.num_layers + 1)]
        self.stages = nn.ModuleList(
            EchoCareStage(config, stage, rates[starts[stage] : starts[stage + 1]])
            for stage in range(config.num_layers)
        )

    def forward(self, hidden_states: Tensor, output_hidden_states: bool, **kwargs) -> tuple[Tensor, list[Tensor]]:
        """The last map (batch, height, width, channels), and all maps where wanted; each after the channel layer norm."""
        feature_maps = [channel_layer_norm(hidden_states)] if output_hidden_states else []
        for stage in self.stages:
            hidden_states = stage(hidden_states, **kwargs)
            if output_hidden_states:
                feature_maps.append(channel_layer_norm(hidden_states))
        return feature_maps[-1] if feature_maps else channel_layer_norm(hidden_states), feature_maps


@auto_docstring
class EchoCarePreTrainedModel(SelfContainedSaveMixin, PreTrainedModel):  # type: ignore[misc]
    config: EchoCareConfig
    base_model_prefix = "echocare"
    main_input_name = "pixel_values"
    input_modalities = ("image",)  # type: ignore[assignment]
    supports_gradient_checkpointing = True
    _no_split_modules = ["EchoCareStage"]
    _supports_sdpa = True
    _supports_flash_attn = False
    _supports_flex_attn = False
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"attentions": OutputRecorder(EchoCareWindowAttention, index=1)}
    _input_embed_layer = "patch_embeddings"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EchoCareEmbeddings) and module.mask_token is not None:
            init.trunc_normal_(module.mask_token, std=self.config.initializer_range)
        elif isinstance(module, EchoCareWindowAttention):
            init.trunc_normal_(module.relative_position_bias_table, std=self.config.initializer_range)
        elif isinstance(module, EchoCareForPreTraining):
            # Buffers that are not saved hold garbage after `from_pretrained`, which builds models without memory.
            init.copy_(module.anatomy_ancestors, ancestor_matrix(self.config.anatomy_tree))

    def _auto_map_holder(self) -> EchoCareConfig:
        return self.config

    def _auto_map(self) -> dict[str, str]:
        return dict(AUTO_MAP)


@auto_docstring(custom_intro="The EchoCare encoder: a Swin transformer with residual convolutional blocks.")
class EchoCareModel(EchoCarePreTrainedModel):
    def __init__(self, config: EchoCareConfig, add_pooling_layer: bool = True, use_mask_token: bool = True):
        r"""
        add_pooling_layer (`bool`, *optional*, defaults to `True`):
            Whether to return `pooler_output`, the average of the last feature map.
        use_mask_token (`bool`, *optional*, defaults to `True`):
            Whether the model has a mask token and takes `bool_masked_pos`.
        """
        super().__init__(config)
        self.embeddings = EchoCareEmbeddings(config, use_mask_token)
        self.encoder = EchoCareEncoder(config)
        self.add_pooling_layer = add_pooling_layer
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embeddings

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EchoCareModelOutput:
        r"""
        bool_masked_pos (`torch.BoolTensor`, *optional*):
            True where the image is masked: `(batch_size, rows, columns)` or flat, of units of `config.mask_unit_size` pixels or
            of patches of `config.patch_size` (counts rounded up for sizes that do not divide).

        Examples:

        ```python
        >>> import torch
        >>> from echocare_hf import EchoCareConfig, EchoCareModel

        >>> model = EchoCareModel(EchoCareConfig.preset("tiny")).eval()
        >>> outputs = model(torch.rand(1, 3, 128, 128), output_hidden_states=True)
        >>> [tuple(feature_map.shape[1:]) for feature_map in outputs.reshaped_hidden_states]
        [(24, 32, 32), (48, 16, 16), (96, 8, 8), (192, 4, 4), (384, 2, 2)]
        ```"""
        output_hidden_states = kwargs.pop("output_hidden_states", None)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        embeddings = self.embeddings(pixel_values, bool_masked_pos)
        last_map, feature_maps = self.encoder(embeddings, bool(output_hidden_states), **kwargs)
        return EchoCareModelOutput(
            last_hidden_state=last_map.flatten(1, 2),
            pooler_output=last_map.mean((1, 2)) if self.add_pooling_layer else None,
            hidden_states=tuple(feature_map.flatten(1, 2) for feature_map in feature_maps) or None,
            reshaped_hidden_states=tuple(feature_map.permute(0, 3, 1, 2) for feature_map in feature_maps) or None,
        )


@auto_docstring(custom_intro="The EchoCare encoder as a backbone for detection and segmentation frameworks.")
class EchoCareBackbone(BackboneMixin, EchoCarePreTrainedModel):  # type: ignore[misc]
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.mask_token$"]

    def __init__(self, config: EchoCareConfig):
        super().__init__(config)
        self.num_features = config.stage_channels
        self.echocare = EchoCareModel(config, add_pooling_layer=False, use_mask_token=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.echocare.get_input_embeddings()

    @can_return_tuple
    @filter_output_hidden_states
    @auto_docstring
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        r"""
        Examples:

        ```python
        >>> import torch
        >>> from echocare_hf import EchoCareBackbone, EchoCareConfig

        >>> config = EchoCareConfig.preset("tiny", out_features=["stage1", "stage4"])
        >>> backbone = EchoCareBackbone(config).eval()
        >>> [tuple(feature_map.shape[1:]) for feature_map in backbone(torch.rand(1, 3, 128, 128)).feature_maps]
        [(48, 16, 16), (384, 2, 2)]
        ```"""
        outputs = self.echocare(pixel_values, **kwargs)
        maps = dict(zip(self.stage_names, outputs.reshaped_hidden_states, strict=True))
        return BackboneOutput(
            feature_maps=tuple(maps[stage] for stage in self.out_features),
            hidden_states=outputs.reshaped_hidden_states,
            attentions=outputs.attentions,
        )


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

    def forward(self, feature_map: Tensor) -> Tensor:
        """(batch, hidden_size, height, width) to (batch, num_channels, stride * height, stride * width)."""
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

    def forward(self, feature_map: Tensor) -> Tensor:
        """(batch, hidden_size, height, width) to (batch, num_channels, stride * height, stride * width)."""
        return F.pixel_shuffle(self.output(feature_map), self.stride)


IMAGE_DECODERS = {"conv_upsample": EchoCareConvUpsampleDecoder, "pixel_shuffle": EchoCarePixelShuffleDecoder}


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
        outputs = self.echocare(pixel_values, bool_masked_pos=bool_masked_pos, **kwargs)
        assert pixel_values is not None  # the encoder has checked
        height, width = pixel_values.shape[-2:]
        stride = self.config.output_stride
        last_map = outputs.last_hidden_state.transpose(1, 2)
        last_map = last_map.unflatten(
            2, (-(-height // stride), -(-width // stride))
        )  # (batch, channels, height, width)
        reconstruction = self.image_decoder(last_map)[..., :height, :width]
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


__all__ = [
    "EchoCareBackbone",
    "EchoCareConfig",
    "EchoCareForPreTraining",
    "EchoCareModel",
    "EchoCarePreTrainedModel",
]
