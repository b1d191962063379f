"""Which tensor of MONAI's 2-D `SwinTransformer` is which of `EchoCareModel`, and what a state dict says of its model.

One table, `monai_names`, serves both directions. The values are the same; only the mask token has its axes moved, and
the relative position indices, which MONAI stores, follow from the window size here.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from ..model.configuration_echocare import PRESETS, EchoCareConfig
from ..model.modeling_echocare import EchoCareForPreTraining, EchoCareModel

# What the tensors tell about an encoder; the rest of a configuration is none of a checkpoint's business.
ARCHITECTURE = (
    "num_channels",
    "patch_size",
    "embed_dim",
    "depths",
    "num_heads",
    "window_size",
    "mlp_ratio",
    "qkv_bias",
    "use_conv_blocks",
)

MASK_TOKEN = "mask_token"
MASK_TOKEN_HERE = "embeddings.mask_token"
PATCH_WEIGHT = "patch_embed.proj.weight"

# MONAI's encoder names, after the prefix of whatever model the encoder sat in.
_ENCODER_NAME = re.compile(r"(patch_embed|layers\d+c?)\.")
_STAGE_NAME = re.compile(r"layers(\d+)\.0\.blocks\.(\d+)\.")


def monai_names(config: EchoCareConfig) -> dict[str, str]:
    """Every tensor of `EchoCareModel` but the mask token, to its name in MONAI, in MONAI's order.

    Args:
        config: the encoder's configuration.

    Returns:
        Name here to name there, e.g. `encoder.stages.0.blocks.0.mlp.fc1.weight` to
        `layers1.0.blocks.0.mlp.linear1.weight`.
    """
    names = {
        f"embeddings.patch_embeddings.projection.{kind}": f"patch_embed.proj.{kind}" for kind in ("weight", "bias")
    }
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            here, there = f"encoder.stages.{stage}.blocks.{block}", f"layers{stage + 1}.0.blocks.{block}"
            names |= {f"{here}.layernorm_before.{kind}": f"{there}.norm1.{kind}" for kind in ("weight", "bias")}
            table = "relative_position_bias_table"
            names[f"{here}.attention.{table}"] = f"{there}.attn.{table}"
            names[f"{here}.attention.qkv.weight"] = f"{there}.attn.qkv.weight"
            if config.qkv_bias:
                names[f"{here}.attention.qkv.bias"] = f"{there}.attn.qkv.bias"
            for ours, theirs in (
                ("attention.projection", "attn.proj"),
                ("layernorm_after", "norm2"),
                ("mlp.fc1", "mlp.linear1"),
                ("mlp.fc2", "mlp.linear2"),
            ):
                names |= {f"{here}.{ours}.{kind}": f"{there}.{theirs}.{kind}" for kind in ("weight", "bias")}
        for tensor in ("reduction.weight", "norm.weight", "norm.bias"):
            names[f"encoder.stages.{stage}.downsample.{tensor}"] = f"layers{stage + 1}.0.downsample.{tensor}"
    if config.use_conv_blocks:
        for stage in range(config.num_layers):
            for conv in ("conv1", "conv2"):
                here = f"encoder.stages.{stage}.conv_block.{conv}.weight"
                names[here] = f"layers{stage + 1}c.0.layer.{conv}.conv.weight"
    return names


def index_names(config: EchoCareConfig) -> list[str]:
    """MONAI's names of the relative position indices, one for each transformer block."""
    return [
        f"layers{stage + 1}.0.blocks.{block}.attn.relative_position_index"
        for stage, depth in enumerate(config.depths)
        for block in range(depth)
    ]


def relative_position_index(window_size: int) -> Tensor:
    """The row of the bias table for each pair of tokens in a square window: (tokens, tokens), int64.

    Source: Liu et al., Swin Transformer; MONAI `WindowAttention`. The last row stands for the pair in which the first
    token is farthest below and right of the second.
    """
    place = torch.arange(window_size)
    rows, columns = place.repeat_interleave(window_size), place.repeat(window_size)
    vertical = rows[:, None] - rows[None, :] + window_size - 1
    horizontal = columns[:, None] - columns[None, :] + window_size - 1
    return vertical * (2 * window_size - 1) + horizontal


def find_encoder(tensors: Mapping[str, Tensor], source: str) -> str:
    """The prefix that MONAI's encoder has in a file, e.g. `state_dict.module.encoder.` or nothing.

    Args:
        tensors: all tensors of the file.
        source: the file's name, for messages.

    Raises:
        ValueError: there is no such encoder, or more than one.
    """
    ends = [name.removesuffix(PATCH_WEIGHT) for name in tensors if name.endswith(PATCH_WEIGHT)]
    prefixes = [end for end in ends if not end or end.endswith(".")]
    found = [p for p in prefixes if any(_STAGE_NAME.match(name[len(p) :]) for name in tensors if name.startswith(p))]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{source} holds {len(found)} encoders, at {', '.join(repr(prefix) for prefix in found)}: "
            "re-save the one you want alone"
        )
    if any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in tensors):
        raise ValueError(f"{source} has this package's names already: load its folder with AutoModel.from_pretrained")
    first = ", ".join(list(tensors)[:3])
    raise ValueError(
        f"{source} holds no encoder with the names of MONAI's 2-D SwinTransformer ({PATCH_WEIGHT}, "
        f"layers1.0.blocks.0...); its tensors begin with {first}"
    )


def is_encoder_name(name: str) -> bool:
    """Whether a name, without prefix, lies in one of the encoder's own modules."""
    return bool(_ENCODER_NAME.match(name))


def infer_config(encoder: Mapping[str, Tensor], source: str) -> EchoCareConfig:
    """The configuration that the tensors of an encoder imply.

    Args:
        encoder: tensors by MONAI's names, without prefix.
        source: the file's name, for messages.

    Raises:
        ValueError: the shapes are not those of a 2-D Swin transformer with square windows and patches.
    """

    def need(name: str, dimensions: int) -> tuple[int, ...]:
        if name not in encoder:
            raise ValueError(f"{source}: the encoder lacks the tensor {name}")
        shape = tuple(encoder[name].shape)
        if len(shape) != dimensions:
            hint = " (a 3-D model? EchoCare's is 2-D)" if name == PATCH_WEIGHT and len(shape) == 5 else ""
            raise ValueError(f"{source}: {name} has shape {shape}, expected {dimensions} dimensions{hint}")
        return shape

    embed_dim, num_channels, patch_height, patch_width = need(PATCH_WEIGHT, 4)
    if patch_height != patch_width:
        raise ValueError(f"{source}: patches of {patch_height}x{patch_width} pixels; EchoCare has square ones")
    places = [(int(match[1]), int(match[2])) for match in map(_STAGE_NAME.match, encoder) if match]
    stages = max(stage for stage, _ in places)
    depths = [max((block for at, block in places if at == stage), default=-1) + 1 for stage in range(1, stages + 1)]
    heads, windows = [], []
    for stage in range(1, stages + 1):
        name = f"layers{stage}.0.blocks.0.attn.relative_position_bias_table"
        rows, stage_heads = need(name, 2)
        span = round(rows**0.5)
        if span * span != rows or span % 2 == 0:
            raise ValueError(
                f"{source}: {name} has {rows} rows, which no square window gives ((2 x side - 1) squared)"
            )
        heads.append(stage_heads)
        windows.append((span + 1) // 2)
    if len(set(windows)) > 1:
        raise ValueError(f"{source}: the stages have different windows, {windows}; EchoCare has one for all")
    hidden, channels = need("layers1.0.blocks.0.mlp.linear1.weight", 2)
    values: dict[str, Any] = {
        "num_channels": num_channels,
        "patch_size": patch_height,
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": heads,
        "window_size": windows[0],
        "mlp_ratio": hidden / channels,
        "qkv_bias": "layers1.0.blocks.0.attn.qkv.bias" in encoder,
        "use_conv_blocks": any(name.startswith("layers1c.") for name in encoder),
        "mask_unit_size": -(-16 // patch_height) * patch_height,
    }
    try:
        return EchoCareConfig(**values)
    except (StrictDataclassError, ValueError) as error:
        raise ValueError(f"{source}: its tensors fit no EchoCare model: {error.__cause__ or error}") from None


def differences(config: EchoCareConfig, preset: str) -> list[str]:
    """In which values of the architecture a configuration differs from a preset, e.g. `embed_dim 128, not 24`.

    Raises:
        ValueError: there is no such preset.
    """
    wanted = EchoCareConfig.preset(preset)
    return [
        f"{name} {getattr(config, name)}, not {getattr(wanted, name)}"
        for name in ARCHITECTURE
        if getattr(config, name) != getattr(wanted, name)
    ]


def matching_preset(config: EchoCareConfig) -> str | None:
    """The preset of this very architecture, if there is one."""
    return next((preset for preset in PRESETS if not differences(config, preset)), None)


def expected_shapes(config: EchoCareConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of `EchoCareModel(config)`, without allocating any."""
    with torch.device("meta"):
        state = EchoCareModel(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def decoder_shapes(config: EchoCareConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the decoder that `config.decoder_type` names, under the prefix `image_decoder.`."""
    with torch.device("meta"):
        state = EchoCareForPreTraining(config).image_decoder.state_dict()
    return {f"image_decoder.{name}": tuple(tensor.shape) for name, tensor in state.items()}


def to_monai_state(state: Mapping[str, Tensor], config: EchoCareConfig) -> dict[str, Tensor]:
    """The tensors of `EchoCareModel` as MONAI's `SwinTransformer` names them, with index buffers and mask token.

    Args:
        state: `EchoCareModel.state_dict()`.
        config: its configuration.

    Returns:
        What `SwinTransformer.state_dict()` holds, plus `mask_token` of shape (1, embed_dim, 1, 1) if there is one, as
        in the released file.
    """
    result: dict[str, Tensor] = {}
    for here, there in monai_names(config).items():
        result[there] = state[here].contiguous()
        if there.endswith("relative_position_bias_table"):
            index = there.replace("bias_table", "index")
            result[index] = relative_position_index(config.window_size)
    if MASK_TOKEN_HERE in state:
        result[MASK_TOKEN] = state[MASK_TOKEN_HERE].permute(0, 3, 1, 2).contiguous()
    return result
