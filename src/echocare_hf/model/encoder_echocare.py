"""The encoder of EchoCare, alone and as a backbone, and what all its models share."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
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
    keep_variance,
)
from .losses_echocare import expand_mask
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


# The `initializer_range` at which layers that `keep_variance` marks keep it.
USUAL_RANGE = 0.02

# Heads of the pretraining model, which no other model misses.
PRETRAINING_ONLY = (r"^image_decoder\.", r"^anatomy_classifier\.")


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
        elif (std := getattr(module, "initializer_std", None)) is not None:
            init.normal_(module.weight, std=std * self.config.initializer_range / USUAL_RANGE)  # type: ignore[arg-type]

    def _auto_map_holder(self) -> EchoCareConfig:
        return self.config

    def _auto_map(self) -> dict[str, str]:
        return dict(AUTO_MAP)


@auto_docstring(custom_intro="The EchoCare encoder: a Swin transformer with residual convolutional blocks.")
class EchoCareModel(EchoCarePreTrainedModel):
    _keys_to_ignore_on_load_unexpected = [*PRETRAINING_ONLY]

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
        keep_variance(self)
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


def encode_with_maps(
    encoder: EchoCareModel, pixel_values: Tensor | None, **kwargs
) -> tuple[EchoCareModelOutput, tuple[Tensor, ...]]:
    """Runs the encoder for a head that needs every feature map.

    Args:
        pixel_values: (batch, num_channels, height, width).
        kwargs: handed to the encoder.

    Returns:
        The encoder's output, with hidden states only where the caller or the configuration asks for them; and all feature maps
        `stem, stage1, ...`, each (batch, channels, height, width).
    """
    wanted = kwargs.pop("output_hidden_states", None)
    if wanted is None:
        wanted = encoder.config.output_hidden_states
    outputs = encoder(pixel_values, output_hidden_states=True, **kwargs)
    feature_maps = outputs.reshaped_hidden_states
    if not wanted:
        outputs = EchoCareModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=outputs.pooler_output,
            attentions=outputs.attentions,
        )
    return outputs, feature_maps


@auto_docstring(custom_intro="The EchoCare encoder as a backbone for detection and segmentation frameworks.")
class EchoCareBackbone(BackboneMixin, EchoCarePreTrainedModel):  # type: ignore[misc]
    _keys_to_ignore_on_load_unexpected = [*PRETRAINING_ONLY, r"embeddings\.mask_token$"]

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


__all__ = ["EchoCareBackbone", "EchoCareModel", "EchoCarePreTrainedModel", "encode_with_maps"]
