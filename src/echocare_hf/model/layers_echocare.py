"""The building blocks of EchoCare's encoder: patch embedding, convolutional block, window attention, stage.

Feature maps stay (batch, height, width, channels) from the patch embedding to the end. The maths is that of MONAI's 2-D
`SwinTransformer` with `use_v2=True`, which the released encoder is; on a CPU in eager mode the same maths runs through
`kernels_echocare.py`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_echocare import EchoCareConfig
from .kernels_echocare import (
    LEAKY_SLOPE,
    MASK_VALUE,
    apply_linear,
    instance_norm_activation,
    is_slow_bf16_norm,
    norm_linear,
    norm_mlp,
    runs_on_cpu_kernels,
    small_map_conv,
    suits_small_map_conv,
    window_and_shift,
    window_attention,
    window_layout,
)


def channel_layer_norm(feature_map: Tensor) -> Tensor:
    """Layer norm over channels without parameters, which every output map passes.

    Args:
        feature_map: (batch, height, width, channels).

    Source: MONAI `SwinTransformer.proj_out`.
    """
    if runs_on_cpu_kernels(feature_map) and is_slow_bf16_norm(feature_map):
        return F.layer_norm(feature_map.float(), feature_map.shape[-1:]).to(feature_map.dtype)
    return F.layer_norm(feature_map, feature_map.shape[-1:])


def norm_activation(feature_map: Tensor, residual: Tensor | None = None) -> Tensor:
    """Instance norm without parameters, plus a residual where there is one, and leaky ReLU.

    Args:
        feature_map, residual: (batch, height, width, channels).
    """
    if runs_on_cpu_kernels(feature_map):
        return instance_norm_activation(feature_map, residual)
    # Group norm with one channel a group: unlike instance norm it takes maps of a single pixel.
    normed = F.group_norm(feature_map.permute(0, 3, 1, 2), feature_map.shape[-1]).permute(0, 2, 3, 1)
    return F.leaky_relu(normed if residual is None else normed + residual, LEAKY_SLOPE)


def conv_channels_last(conv: nn.Conv2d, feature_map: Tensor) -> Tensor:
    """A convolution on (batch, height, width, channels), to the same layout."""
    if runs_on_cpu_kernels(feature_map) and suits_small_map_conv(feature_map, conv):
        return small_map_conv(feature_map, conv)
    return conv(feature_map.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


def keep_variance(module: nn.Module) -> None:
    """Marks the linear and convolutional layers in `module` for initial weights that keep the variance of their inputs.

    Their standard deviation becomes 1 / sqrt(inputs of one output), not `initializer_range`, which is made for widths of about 1,000: with
    0.02 a layer of 24 channels hands on a tenth of its input, and tiny learns slowly (docs/results.md).

    Source: LeCun et al. 1998, Efficient BackProp; torch's own default, which MONAI's Swin uses, is the same up to a factor of 0.58.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.initializer_std = layer.weight[0].numel() ** -0.5
        elif isinstance(
            layer, nn.ConvTranspose2d
        ):  # (inputs, outputs, rows, columns); each output pixel has one kernel place
            layer.initializer_std = layer.in_channels**-0.5


class EchoCareDropPath(nn.Module):
    """Stochastic depth: in training, drops a sample's whole residual branch with probability `drop_prob`.

    Source: Huang et al., Deep Networks with Stochastic Depth; kept samples are scaled by 1 / (1 - drop_prob).
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, hidden_states: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return hidden_states
        keep_prob = 1 - self.drop_prob
        shape = (hidden_states.shape[0],) + (1,) * (hidden_states.ndim - 1)
        keep = torch.empty(shape, dtype=hidden_states.dtype, device=hidden_states.device).bernoulli_(keep_prob)
        return hidden_states * (keep / keep_prob if keep_prob > 0 else keep)

    def extra_repr(self) -> str:
        return f"p={self.drop_prob}"


class EchoCarePatchEmbeddings(nn.Module):
    """Cuts the image into patches and projects each to `embed_dim` channels. Pads right and bottom to whole patches."""

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.num_channels = config.num_channels
        self.projection = nn.Conv2d(config.num_channels, config.embed_dim, config.patch_size, config.patch_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(batch, num_channels, height, width) to (batch, height / patch_size, width / patch_size, embed_dim)."""
        height, width = pixel_values.shape[-2:]
        pixel_values = F.pad(pixel_values, (0, -width % self.patch_size, 0, -height % self.patch_size))
        pixel_values = pixel_values.to(self.projection.weight.dtype, memory_format=torch.channels_last)
        return self.projection(pixel_values).permute(0, 2, 3, 1).contiguous()


class EchoCareConvBlock(nn.Module):
    """Two 3x3 convolutions with instance norm and a residual connection, before the blocks of a stage.

    Source: MONAI `UnetrBasicBlock(norm_name="instance", res_block=True)`; what `use_v2` adds to SwinUNETR.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(batch, height, width, channels) to the same shape."""
        output = norm_activation(conv_channels_last(self.conv1, hidden_states))
        return norm_activation(conv_channels_last(self.conv2, output), hidden_states)


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """Attention written out, returning the probabilities too.

    Args:
        query, key, value: (windows, heads, tokens, head channels).
        attention_mask: additive, broadcast to (windows, heads, tokens, tokens).

    Returns:
        (windows, tokens, heads, head channels), and probabilities (windows, heads, tokens, tokens).
    """
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling + attention_mask
    probabilities = F.softmax(scores, dim=-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)
    probabilities = F.dropout(probabilities, p=dropout, training=module.training)
    return torch.matmul(probabilities, value).transpose(1, 2).contiguous(), probabilities


class EchoCareWindowAttention(nn.Module):
    """Self-attention inside windows of the map, shifted by half a window in every second block.

    Source: Liu et al., Swin Transformer; MONAI `WindowAttention` and `SwinTransformerBlock.forward_part1`. As there, maps are
    padded to whole windows with zeros after the norm, and padding takes part in attention. On a map smaller than the window,
    the bias is indexed by the true distances of the smaller window (MONAI slices the index of the full window there).
    """

    def __init__(self, config: EchoCareConfig, channels: int, num_heads: int, shifted: bool) -> None:
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.window_size = config.window_size
        self.shifted = shifted
        self.scaling = (channels // num_heads) ** -0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        self.qkv = nn.Linear(channels, 3 * channels, bias=config.qkv_bias)
        self.projection = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * config.window_size - 1) ** 2, num_heads))

    def relative_position_bias(self, window: tuple[int, int]) -> Tensor:
        """The learned bias for every pair of tokens of a window: (heads, tokens, tokens)."""
        device = self.relative_position_bias_table.device
        span = 2 * self.window_size - 1
        rows = torch.arange(window[0], device=device).repeat_interleave(window[1])
        columns = torch.arange(window[1], device=device).repeat(window[0])
        index = (rows[:, None] - rows[None, :] + self.window_size - 1) * span
        index = index + columns[:, None] - columns[None, :] + self.window_size - 1
        bias = F.embedding(index.flatten(), self.relative_position_bias_table)  # (tokens * tokens, heads)
        return bias.t().reshape(self.num_heads, *index.shape)

    def forward(self, hidden_states: Tensor, norm: nn.LayerNorm, **kwargs) -> tuple[Tensor, Tensor | None]:
        """Attention over `norm(hidden_states)`.

        Args:
            hidden_states: (batch, height, width, channels).
            norm: the layer norm that stands before; passed in, because on a CPU it is computed together with `qkv`.

        Returns:
            (batch, height, width, channels), and with eager attention the probabilities (batch * windows, heads, tokens,
            tokens), windows row by row over the shifted map; else None.
        """
        batch, height, width, channels = hidden_states.shape
        implementation = self.config._attn_implementation
        wants_probabilities = kwargs.get("output_attentions") or self.config.output_attentions
        dropout = self.attention_dropout if self.training else 0.0
        if implementation == "sdpa" and not wants_probabilities and not dropout and runs_on_cpu_kernels(hidden_states):
            layout = window_layout(batch, height, width, self.window_size, self.shifted)
            qkv = norm_linear(hidden_states.view(batch, height * width, channels), norm, self.qkv, layout)
            bias = self.relative_position_bias(layout.window)
            output = window_attention(qkv, bias, self.num_heads, self.scaling, layout, batch)
            return apply_linear(self.projection, output).view(batch, height, width, channels), None

        window, shift = window_and_shift(height, width, self.window_size, self.shifted)
        normed = F.pad(norm(hidden_states), (0, 0, 0, -width % window[1], 0, -height % window[0]))
        rows, columns = normed.shape[1] // window[0], normed.shape[2] // window[1]
        if any(shift):
            normed = normed.roll((-shift[0], -shift[1]), (1, 2))
        windows = normed.view(batch, rows, window[0], columns, window[1], channels).transpose(2, 3)
        windows = windows.reshape(batch * rows * columns, window[0] * window[1], channels)

        qkv = self.qkv(windows).view(*windows.shape[:2], 3, self.num_heads, channels // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (windows, heads, tokens, head channels)
        mask = self.relative_position_bias(window)[None]
        if any(shift):
            mask = (
                mask + shift_mask(rows, columns, window, shift, mask.device)[:, None]
            )  # (windows of an image, heads, ...)
            mask = mask.expand(batch, *mask.shape).flatten(0, 1) if batch > 1 else mask
        interface: Callable = eager_attention_forward
        if not wants_probabilities:
            interface = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        output, probabilities = interface(
            self, query, key, value, mask.to(query.dtype), dropout=dropout, scaling=self.scaling, **kwargs
        )
        output = self.projection(output.reshape(windows.shape))

        output = output.view(batch, rows, columns, window[0], window[1], channels).transpose(2, 3)
        output = output.reshape(batch, rows * window[0], columns * window[1], channels)
        if any(shift):
            output = output.roll(shift, (1, 2))
        return output[:, :height, :width].contiguous(), probabilities


def shift_mask(
    rows: int, columns: int, window: tuple[int, int], shift: tuple[int, int], device: torch.device
) -> Tensor:
    """Mask that keeps tokens apart which the cyclic shift brought together: (rows * columns, tokens, tokens), 0 or -100."""

    def regions(count: int, size: int, offset: int) -> Tensor:
        place = torch.arange(count * size, device=device)
        length = count * size
        return ((place >= length - size).long() + (place >= length - offset).long() if offset else place * 0).view(
            count, size
        )

    vertical = regions(rows, window[0], shift[0])[:, None, :, None]
    horizontal = regions(columns, window[1], shift[1])[None, :, None, :]
    region = (vertical * 3 + horizontal).reshape(rows * columns, window[0] * window[1])
    return torch.where(region[:, :, None] == region[:, None, :], 0.0, MASK_VALUE)


class EchoCareMlp(nn.Module):
    """Two linear layers with an activation in between, after a layer norm that is passed in."""

    def __init__(self, config: EchoCareConfig, channels: int) -> None:
        super().__init__()
        hidden = int(config.mlp_ratio * channels)
        self.fc1 = nn.Linear(channels, hidden)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(hidden, channels)
        self.exact_gelu = config.hidden_act == "gelu"

    def forward(self, hidden_states: Tensor, norm: nn.LayerNorm) -> Tensor:
        """(..., channels) to the same shape."""
        if runs_on_cpu_kernels(hidden_states):
            return norm_mlp(hidden_states, norm, self.fc1, self.activation, self.fc2, self.exact_gelu)
        return self.fc2(self.activation(self.fc1(norm(hidden_states))))


class EchoCareBlock(GradientCheckpointingLayer):
    """A transformer block: window attention and MLP, each after a layer norm and inside a residual connection."""

    def __init__(self, config: EchoCareConfig, channels: int, num_heads: int, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.layernorm_before = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.attention = EchoCareWindowAttention(config, channels, num_heads, shifted)
        self.layernorm_after = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.mlp = EchoCareMlp(config, channels)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = EchoCareDropPath(drop_path)

    def forward(self, hidden_states: Tensor, **kwargs) -> Tensor:
        """(batch, height, width, channels) to the same shape."""
        attended, _ = self.attention(hidden_states, self.layernorm_before, **kwargs)
        hidden_states = hidden_states + self.drop_path(self.dropout(attended))
        return hidden_states + self.drop_path(self.dropout(self.mlp(hidden_states, self.layernorm_after)))


class EchoCarePatchMerging(nn.Module):
    """Halves the map and doubles the channels. Odd sides are padded by one.

    The four neighbours are concatenated top-left, bottom-left, top-right, bottom-right (MONAI `PatchMergingV2` in 2-D).
    """

    def __init__(self, config: EchoCareConfig, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels, eps=config.layer_norm_eps)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(batch, height, width, channels) to (batch, height / 2, width / 2, 2 * channels), rounded up."""
        batch, height, width, channels = hidden_states.shape
        if height % 2 or width % 2:
            hidden_states = F.pad(hidden_states, (0, 0, 0, width % 2, 0, height % 2))
        # (batch, height / 2, row in pair, width / 2, column in pair, channels): column outside, row inside
        hidden_states = hidden_states.view(batch, (height + 1) // 2, 2, (width + 1) // 2, 2, channels)
        hidden_states = hidden_states.permute(0, 1, 3, 4, 2, 5).flatten(
            3
        )  # (batch, height / 2, width / 2, 4 * channels)
        if runs_on_cpu_kernels(hidden_states):
            return norm_linear(hidden_states, self.norm, self.reduction)
        return self.reduction(self.norm(hidden_states))


class EchoCareStage(nn.Module):
    """A convolutional block, `depth` transformer blocks, and a patch merging."""

    def __init__(self, config: EchoCareConfig, stage: int, drop_path: list[float]) -> None:
        super().__init__()
        channels = config.embed_dim * 2**stage
        self.conv_block = EchoCareConvBlock(channels) if config.use_conv_blocks else None
        self.blocks = nn.ModuleList(
            EchoCareBlock(config, channels, config.num_heads[stage], shifted=index % 2 == 1, drop_path=rate)
            for index, rate in enumerate(drop_path)
        )
        self.downsample = EchoCarePatchMerging(config, channels)

    def forward(self, hidden_states: Tensor, **kwargs) -> Tensor:
        """(batch, height, width, channels) to (batch, height / 2, width / 2, 2 * channels), rounded up."""
        if self.conv_block is not None:
            hidden_states = self.conv_block(hidden_states)
        for block in self.blocks:
            hidden_states = block(hidden_states, **kwargs)
        return self.downsample(hidden_states)
