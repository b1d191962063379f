"""The encoder's inner loops on a CPU: the same maths as `layers_echocare.py`, with less memory traffic.

What makes them faster than the written-out form, in the order of gain (measured by eval/speed/encoder.py):

- tokens go to window order and back with one precomputed index each, instead of roll, partition, reverse and roll;
- windows are sorted by the kind of shift mask they need (inner, right edge, bottom edge, corner), so a mask is one small
  (tokens, tokens) matrix a kind, never a (windows, heads, tokens, tokens) tensor;
- the MLP runs over chunks of tokens, so that its four times wider hidden layer stays in the cache;
- for training, layer norm + linear, window attention and the MLP are autograd functions that keep their inputs and compute
  normalised values, attention probabilities and activations anew in the backward pass.

All of it is for eager mode on a CPU. Compiled, exported and GPU runs take the written-out form.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Tokens an MLP chunk holds: 1,024 tokens of 4 x 512 channels in fp32 are 8 MB, about the caches of two cores.
MLP_CHUNK_TOKENS = 1024

# What the shift mask adds to the score of a pair of tokens that are no neighbours in the image (Swin's own value).
MASK_VALUE = -100.0


# Slope of the leaky ReLU in the convolutional blocks (MONAI's default).
LEAKY_SLOPE = 0.01


def runs_on_cpu_kernels(hidden_states: Tensor) -> bool:
    """Whether the functions of this file may serve `hidden_states`: a plain CPU tensor in eager mode."""
    return (
        type(hidden_states) is Tensor
        and hidden_states.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def is_plain_linear(*modules: nn.Module) -> bool:
    """Whether the modules are linear layers as `torch.nn` makes them: no adapter, no quantisation, no hooks.

    The training functions below read weights and skip `module(x)`, so they may serve no module that does more than that.
    """
    return all(
        type(module) is nn.Linear
        and "forward" not in module.__dict__
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
        for module in modules
    )


@dataclass(frozen=True)
class WindowGroup:
    """Windows `start` to `stop` (of one image, in window order) that share one shift mask.

    `mask` is (tokens, tokens), 0 or `MASK_VALUE`, or None for windows that the shift leaves whole.
    """

    start: int
    stop: int
    mask: Tensor | None


@dataclass(frozen=True)
class WindowLayout:
    """Where each token of a (height, width) map stands in window order.

    `gather` (windows * tokens,) names for each place in window order the token of the map, `height * width` standing for
    padding; `scatter` (height * width,) is its inverse.
    """

    window: tuple[int, int]
    shift: tuple[int, int]
    num_windows: int
    padded: bool
    gather: Tensor
    scatter: Tensor
    groups: tuple[WindowGroup, ...]


def window_and_shift(
    height: int, width: int, window_size: int, shifted: bool
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The window and shift for a map: along a side that is no longer than a window, the window shrinks to it, unshifted."""
    window = (min(height, window_size), min(width, window_size))
    shift = window_size // 2 if shifted else 0
    return window, (shift if height > window_size else 0, shift if width > window_size else 0)


@lru_cache(maxsize=256)
def window_layout(height: int, width: int, window_size: int, shifted: bool) -> WindowLayout:
    """The layout of a map's windows, unshifted or shifted by half a window. Cached: it depends on sizes alone."""
    # Made under inference mode, a cached tensor could never be saved for a backward pass later.
    with torch.inference_mode(False), torch.no_grad():
        (window_h, window_w), (shift_h, shift_w) = window_and_shift(height, width, window_size, shifted)
        rows, columns = -(-height // window_h), -(-width // window_w)
        tokens = torch.full((rows * window_h, columns * window_w), height * width)
        tokens[:height, :width] = torch.arange(height * width).view(height, width)
        tokens = tokens.roll((-shift_h, -shift_w), (0, 1))
        tokens = tokens.view(rows, window_h, columns, window_w).transpose(1, 2).reshape(rows * columns, -1)

        # Windows of one kind next to each other: 0 inner, 1 right edge, 2 bottom edge, 3 corner.
        bottom = (torch.arange(rows) == rows - 1) & (shift_h > 0)
        right = (torch.arange(columns) == columns - 1) & (shift_w > 0)
        kinds = (bottom[:, None] * 2 + right[None, :] * 1).flatten()
        order = torch.argsort(kinds, stable=True)
        gather = tokens[order].flatten()

        scatter = torch.empty(height * width + 1, dtype=torch.long)
        scatter[gather] = torch.arange(gather.numel())

        groups = []
        start = 0
        for kind, count in enumerate(torch.bincount(kinds, minlength=4).tolist()):
            if count:
                mask = _shift_mask(window_h, window_w, shift_h * (kind >> 1), shift_w * (kind & 1)) if kind else None
                groups.append(WindowGroup(start, start + count, mask))
                start += count
        return WindowLayout(
            window=(window_h, window_w),
            shift=(shift_h, shift_w),
            num_windows=rows * columns,
            padded=rows * window_h != height or columns * window_w != width,
            gather=gather,
            scatter=scatter[:-1].contiguous(),
            groups=tuple(groups),
        )


def _shift_mask(window_h: int, window_w: int, shift_h: int, shift_w: int) -> Tensor:
    """(tokens, tokens) mask of a window whose last `shift_h` rows and `shift_w` columns came round from the other side."""
    region = (torch.arange(window_h) >= window_h - shift_h)[:, None] * 2 + (
        torch.arange(window_w) >= window_w - shift_w
    )
    region = region.flatten()
    return torch.where(region[:, None] == region[None, :], 0.0, MASK_VALUE)


def to_windows(hidden_states: Tensor, layout: WindowLayout) -> Tensor:
    """(batch, height * width, channels) to window order (batch, windows * tokens, channels), zeros as padding."""
    if layout.padded:
        hidden_states = torch.cat(
            (hidden_states, hidden_states.new_zeros(hidden_states.shape[0], 1, hidden_states.shape[2])), 1
        )
    return hidden_states.index_select(1, layout.gather)


def from_windows(windows: Tensor, layout: WindowLayout) -> Tensor:
    """The inverse of `to_windows`; what stands in the padding is dropped."""
    return windows.index_select(1, layout.scatter)


def _group_views(tensor: Tensor, group: WindowGroup, layout: WindowLayout) -> list[Tensor]:
    """Views of (batch, windows, ...) that hold the group's windows: one in all where it has every window, else one an image."""
    if group.stop - group.start == layout.num_windows:
        return [tensor.flatten(0, 1)]
    return [image[group.start : group.stop] for image in tensor]


def _split_heads(qkv: Tensor, num_heads: int, layout: WindowLayout) -> Tensor:
    """(batch, windows * tokens, 3 * channels) to (batch, windows, 3, heads, tokens, head channels), a view."""
    batch, length, width = qkv.shape
    split = qkv.view(batch, layout.num_windows, length // layout.num_windows, 3, num_heads, width // 3 // num_heads)
    return split.permute(0, 1, 3, 4, 2, 5)


def attend_windows(qkv: Tensor, bias: Tensor, num_heads: int, scale: float, layout: WindowLayout) -> Tensor:
    """Scaled dot-product attention inside each window, with relative position bias and shift mask.

    Args:
        qkv: (batch, windows * tokens, 3 * channels), in window order.
        bias: (heads, tokens, tokens).

    Returns:
        (batch, height * width, channels), in the order of the map.
    """
    batch, length, width = qkv.shape
    output = qkv.new_empty(batch, layout.num_windows, length // layout.num_windows, num_heads, width // 3 // num_heads)
    heads = _split_heads(qkv, num_heads, layout)
    for group in layout.groups:
        group_bias = (bias if group.mask is None else bias + group.mask)[None].to(qkv.dtype)
        for part, target in zip(_group_views(heads, group, layout), _group_views(output, group, layout), strict=True):
            query, key, value = part.unbind(1)  # each (windows, heads, tokens, head channels)
            attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=group_bias, scale=scale)
            target.copy_(attended.transpose(1, 2))
    return from_windows(output.view(batch, length, width // 3), layout)


class _AttendWindows(torch.autograd.Function):
    """`attend_windows`, keeping queries, keys and values alone and computing the probabilities anew in the backward pass."""

    @staticmethod
    def forward(ctx, qkv, bias, num_heads, scale, layout):
        ctx.save_for_backward(qkv, bias)
        ctx.num_heads, ctx.scale, ctx.layout = num_heads, scale, layout
        return attend_windows(qkv, bias, num_heads, scale, layout)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        qkv, bias = ctx.saved_tensors
        num_heads, layout = ctx.num_heads, ctx.layout
        batch, width = qkv.shape[0], qkv.shape[2]
        heads = _split_heads(qkv, num_heads, layout)
        grad_output = to_windows(grad_output, layout)
        grad_output = grad_output.view(batch, layout.num_windows, -1, num_heads, width // 3 // num_heads).transpose(
            2, 3
        )
        grad_qkv = torch.empty_like(qkv)
        grad_heads = _split_heads(grad_qkv, num_heads, layout)
        grad_bias = torch.zeros_like(bias, dtype=_accumulator_dtype(bias.dtype))
        for group in layout.groups:
            group_bias = (bias if group.mask is None else bias + group.mask).to(qkv.dtype)
            parts = zip(
                _group_views(heads, group, layout),
                _group_views(grad_output, group, layout),
                _group_views(grad_heads, group, layout),
                strict=True,
            )
            for part, grad, target in parts:
                query, key, value = part.unbind(1)
                probabilities = torch.matmul(query * ctx.scale, key.transpose(-1, -2)).add_(group_bias).softmax(-1)
                target[:, 2] = torch.matmul(probabilities.transpose(-1, -2), grad)
                grad_probabilities = torch.matmul(grad, value.transpose(-1, -2))
                grad_scores = torch._softmax_backward_data(grad_probabilities, probabilities, -1, qkv.dtype)
                grad_bias += grad_scores.sum(0, dtype=grad_bias.dtype)
                target[:, 0] = torch.matmul(grad_scores, key).mul_(ctx.scale)
                target[:, 1] = torch.matmul(grad_scores.transpose(-1, -2), query).mul_(ctx.scale)
        return grad_qkv, grad_bias.to(bias.dtype), None, None, None


def window_attention(qkv: Tensor, bias: Tensor, num_heads: int, scale: float, layout: WindowLayout) -> Tensor:
    """`attend_windows`, with gradients for `qkv` and `bias` where they are wanted."""
    if torch.is_grad_enabled() and (qkv.requires_grad or bias.requires_grad):
        return _AttendWindows.apply(qkv, bias, num_heads, scale, layout)
    return attend_windows(qkv, bias, num_heads, scale, layout)


def _compute_dtype(hidden_states: Tensor) -> torch.dtype:
    """What linear layers compute in: the autocast dtype inside `torch.autocast("cpu")`, else that of the input."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden_states.dtype


def _cast(tensor: Any, dtype: torch.dtype) -> Any:
    return tensor if tensor is None else tensor.to(dtype)


class _NormLinear(torch.autograd.Function):
    """Layer norm, window order, linear layer; keeps the input of the norm alone."""

    @staticmethod
    def forward(ctx, hidden_states, norm_weight, norm_bias, weight, bias, eps, layout):
        normed, mean, rstd = torch.native_layer_norm(
            hidden_states, hidden_states.shape[-1:], norm_weight, norm_bias, eps
        )
        if layout is not None:
            normed = to_windows(normed, layout)
        ctx.save_for_backward(hidden_states, mean, rstd, norm_weight, norm_bias, weight)
        ctx.eps, ctx.layout, ctx.has_bias = eps, layout, bias is not None
        return nn.functional.linear(normed.to(weight.dtype), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        hidden_states, mean, rstd, norm_weight, norm_bias, weight = ctx.saved_tensors
        shape = hidden_states.shape[-1:]
        normed = torch.native_layer_norm(hidden_states, shape, norm_weight, norm_bias, ctx.eps)[0]
        if ctx.layout is not None:
            normed = to_windows(normed, ctx.layout)
        grad_rows = grad_output.reshape(-1, grad_output.shape[-1])
        grad_weight = grad_rows.t() @ normed.reshape(-1, shape[0]).to(weight.dtype)
        grad_bias = grad_rows.sum(0) if ctx.has_bias else None
        grad_normed = grad_output @ weight
        if ctx.layout is not None:
            grad_normed = from_windows(grad_normed, ctx.layout)
        grad_hidden, grad_norm_weight, grad_norm_bias = torch.ops.aten.native_layer_norm_backward(
            grad_normed.to(hidden_states.dtype), hidden_states, shape, mean, rstd, norm_weight, norm_bias, [True] * 3
        )
        return grad_hidden, grad_norm_weight, grad_norm_bias, grad_weight, grad_bias, None, None


def norm_linear(
    hidden_states: Tensor, norm: nn.LayerNorm, linear: nn.Module, layout: WindowLayout | None = None
) -> Tensor:
    """`linear(norm(x))`, with the tokens brought to window order in between where a layout is given.

    Args:
        hidden_states: (batch, length, channels).

    Returns:
        (batch, length or windows * tokens, output channels).
    """
    if torch.is_grad_enabled() and is_plain_linear(linear):
        dtype = _compute_dtype(hidden_states)
        weight, bias = _cast(linear.weight, dtype), _cast(linear.bias, dtype)
        return _NormLinear.apply(hidden_states, norm.weight, norm.bias, weight, bias, norm.eps, layout)
    normed = norm(hidden_states)
    return linear(normed if layout is None else to_windows(normed, layout))


class _NormMlp(torch.autograd.Function):
    """Layer norm, linear, GELU, linear, chunk by chunk; keeps the input and the values before the GELU."""

    @staticmethod
    def forward(ctx, hidden_states, norm_weight, norm_bias, weight1, bias1, weight2, bias2, eps):
        rows = hidden_states.reshape(-1, hidden_states.shape[-1])
        hidden = rows.new_empty(rows.shape[0], weight1.shape[0], dtype=weight1.dtype)
        output = rows.new_empty(rows.shape[0], weight2.shape[0], dtype=weight2.dtype)
        means, rstds = [], []
        for chunk, pre, out in zip(
            rows.split(MLP_CHUNK_TOKENS), hidden.split(MLP_CHUNK_TOKENS), output.split(MLP_CHUNK_TOKENS), strict=True
        ):
            normed, mean, rstd = torch.native_layer_norm(chunk, rows.shape[-1:], norm_weight, norm_bias, eps)
            means.append(mean)
            rstds.append(rstd)
            torch.addmm(bias1, normed.to(weight1.dtype), weight1.t(), out=pre)
            torch.addmm(bias2, nn.functional.gelu(pre), weight2.t(), out=out)
        ctx.save_for_backward(
            hidden_states, torch.cat(means), torch.cat(rstds), hidden, norm_weight, norm_bias, weight1, weight2
        )
        ctx.eps = eps
        return output.view(*hidden_states.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        hidden_states, mean, rstd, hidden, norm_weight, norm_bias, weight1, weight2 = ctx.saved_tensors
        shape = hidden_states.shape[-1:]
        rows = hidden_states.reshape(-1, shape[0])
        grad_output = grad_output.reshape(-1, grad_output.shape[-1])
        grad_hidden_states = torch.empty_like(rows)
        grad_weight1: Any = None
        grad_weight2: Any = None
        grad_bias1: Any = None
        grad_norm_weight: Any = None
        grad_norm_bias: Any = None
        chunks = (
            tensor.split(MLP_CHUNK_TOKENS) for tensor in (rows, mean, rstd, hidden, grad_output, grad_hidden_states)
        )
        for chunk, chunk_mean, chunk_rstd, pre, grad, target in zip(*chunks, strict=True):
            normed = torch.native_layer_norm(chunk, shape, norm_weight, norm_bias, ctx.eps)[0].to(weight1.dtype)
            grad_weight2 = _accumulate(grad_weight2, grad.t() @ nn.functional.gelu(pre))
            grad_pre = torch.ops.aten.gelu_backward(grad @ weight2, pre)
            grad_weight1 = _accumulate(grad_weight1, grad_pre.t() @ normed)
            grad_bias1 = _accumulate(grad_bias1, grad_pre.sum(0, dtype=_accumulator_dtype(grad_pre.dtype)))
            grad_chunk, grad_w, grad_b = torch.ops.aten.native_layer_norm_backward(
                (grad_pre @ weight1).to(rows.dtype),
                chunk,
                shape,
                chunk_mean,
                chunk_rstd,
                norm_weight,
                norm_bias,
                [True] * 3,
            )
            target.copy_(grad_chunk)
            grad_norm_weight = _accumulate(grad_norm_weight, grad_w)
            grad_norm_bias = _accumulate(grad_norm_bias, grad_b)
        grad_bias2 = grad_output.sum(0)
        return (
            grad_hidden_states.view_as(hidden_states),
            grad_norm_weight,
            grad_norm_bias,
            grad_weight1.to(weight1.dtype),
            grad_bias1.to(weight1.dtype),
            grad_weight2.to(weight2.dtype),
            grad_bias2,
            None,
        )


def _accumulate(total: Tensor | None, part: Tensor) -> Tensor:
    """The running sum over chunks, in fp32 at least."""
    return part.to(_accumulator_dtype(part.dtype)) if total is None else total.add_(part)


def _accumulator_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums run in: fp32, or fp64 for fp64."""
    return torch.promote_types(dtype, torch.float32)


def norm_mlp(
    hidden_states: Tensor, norm: nn.LayerNorm, fc1: nn.Module, activation: nn.Module, fc2: nn.Module, exact_gelu: bool
) -> Tensor:
    """`fc2(activation(fc1(norm(x))))` over chunks of tokens.

    Args:
        hidden_states: (batch, length, channels).
        exact_gelu: whether the activation is GELU in its exact (erf) form, which the training function is written for.
    """
    if torch.is_grad_enabled():
        if exact_gelu and is_plain_linear(fc1, fc2):
            dtype = _compute_dtype(hidden_states)
            parameters = (fc1.weight, fc1.bias, fc2.weight, fc2.bias)
            return _NormMlp.apply(
                hidden_states, norm.weight, norm.bias, *(_cast(p, dtype) for p in parameters), norm.eps
            )
        return fc2(activation(fc1(norm(hidden_states))))
    chunks = hidden_states.reshape(-1, hidden_states.shape[-1]).split(MLP_CHUNK_TOKENS)
    output = torch.cat([fc2(activation(fc1(norm(chunk)))) for chunk in chunks])
    return output.view(*hidden_states.shape[:-1], -1)


def _map_mean(feature_map: Tensor) -> Tensor:
    """Mean of (batch, height, width, channels) over the map, in fp32 at least: (batch, 1, 1, channels).

    Two sums, columns first: both run over the slow axis, which PyTorch vectorises, and pairwise, which keeps them accurate.
    """
    total = feature_map.sum(1).sum(1, dtype=_accumulator_dtype(feature_map.dtype))
    return (total / (feature_map.shape[1] * feature_map.shape[2]))[:, None, None, :]


class _InstanceNormActivation(torch.autograd.Function):
    """Instance norm, plus a residual where there is one, leaky ReLU; keeps its input and its output."""

    @staticmethod
    def forward(ctx, feature_map, residual, eps):
        mean = _map_mean(feature_map)
        variance = (_map_mean(feature_map.square()) - mean.square()).clamp_(min=0)
        rstd = (variance + eps).rsqrt()
        dtype = feature_map.dtype
        output = torch.addcmul((-mean * rstd).to(dtype), feature_map, rstd.to(dtype))
        if residual is not None:
            output += residual
        nn.functional.leaky_relu_(output, LEAKY_SLOPE)
        ctx.save_for_backward(feature_map, output, mean, rstd)
        ctx.has_residual = residual is not None
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        feature_map, output, mean, rstd = ctx.saved_tensors
        grad = torch.ops.aten.leaky_relu_backward(grad_output, output, LEAKY_SLOPE, True)
        # With n = (x - mean) * rstd the gradient of x is rstd * (grad - mean(grad) - n * mean(grad * n)): linear in grad and x.
        grad_mean = _map_mean(grad)
        grad_normed = (_map_mean(grad * feature_map) - mean * grad_mean) * rstd
        slope = -grad_normed * rstd.square()
        offset = -rstd * grad_mean - slope * mean
        dtype = grad.dtype
        grad_map = torch.addcmul(offset.to(dtype), feature_map, slope.to(dtype)).addcmul_(grad, rstd.to(dtype))
        return grad_map, grad if ctx.has_residual else None, None


def instance_norm_activation(feature_map: Tensor, residual: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """`leaky_relu(instance_norm(x) + residual)` on maps that are channels-last in memory.

    PyTorch's own instance norm has no kernel for such maps, and its group norm and batch norm sum one after the other, which costs
    two digits of accuracy over a large map.

    Args:
        feature_map: (batch, height, width, channels).
    """
    return _InstanceNormActivation.apply(feature_map, residual, eps)
