"""The encoder's inner loops on a CPU: the same maths as `layers_echocare.py`, with less memory traffic.

What makes them faster than the written-out form, in the order of gain (measured by eval/speed/encoder.py):

- tokens go to window order and back with one precomputed index each, instead of roll, partition, reverse and roll;
- windows are sorted by the kind of shift mask they need (inner, right edge, bottom edge, corner), so a mask is one small
  (tokens, tokens) matrix a kind, never a (windows, heads, tokens, tokens) tensor;
- the MLP runs over chunks of tokens, so that its four times wider hidden layer stays in the cache;
- convolutions on small maps, whose weights outweigh the map, are one matrix product that reads the weights as they are stored;
- for training, layer norm + linear, window attention and the MLP are autograd functions. Where layers are wide they keep few values and
  compute attention probabilities and activations anew in the backward pass; where they are narrow, products are cheap beside
  passes over memory, and they keep them (`keeps_activations`).

All of it is for eager mode on a CPU. Compiled, exported and GPU runs take the written-out form.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# What an MLP chunk holds: 1,024 tokens (of 4 x 512 channels in fp32 8 MB, about the caches of two cores), or more where the hidden layer
# is narrow, up to half a million values.
MLP_CHUNK_TOKENS = 1024
MLP_CHUNK_VALUES = 1 << 19

# Attention scores that a piece of a pass holds: half a million in fp32 are 2 MB, the cache of one core.
ATTENTION_CHUNK_SCORES = 1 << 19

# What the backward pass needs again is kept where layers have fewer channels than this and it takes no more bytes than that, or where it
# is next to nothing. Attention probabilities of 16 MB cost more to write and read than to compute anew, those of 8 MB less.
KEPT_CHANNELS = 128
KEPT_BYTES = 1 << 23
ALWAYS_KEPT_BYTES = 1 << 21

# Below this many channels PyTorch's layer norm is several times slower in bf16 than in fp32: a row does not fill its vectors.
_BF16_NORM_CHANNELS = 32

# What the shift mask adds to the score of a pair of tokens that are no neighbours in the image: Swin's own value, and that of this file.
# exp(-100) is a denormal number, on which a CPU's softmax and matrix products are several times slower than on the 0 that exp(-1000) is.
MASK_VALUE = -100.0
_FAST_MASK_VALUE = -1000.0


# Maps with fewer channels are scaled row by row instead of pixel by pixel, see `_add_scaled`.
_FEW_CHANNELS = 64

# Rows of a bf16 sum's first pass, see `_sum_rows`.
_SHORT_SUM = 64

# Slope of the leaky ReLU in the convolutional blocks (MONAI's default).
LEAKY_SLOPE = 0.01


def runs_on_cpu_kernels(hidden_states: Tensor) -> bool:
    """Whether the functions of this file may serve `hidden_states`: a plain CPU tensor in eager mode."""
    return (
        type(hidden_states) is Tensor
        and hidden_states.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and torch._C._functorch.peek_interpreter_stack() is None  # torch.func transforms need the written-out form
    )


def is_plain(*modules: nn.Module) -> bool:
    """Whether the modules are layers as `torch.nn` makes them: no adapter, no quantisation, no hooks.

    The functions below read weights and skip `module(x)`, so they may serve no module that does more than that.
    """
    return all(
        type(module) in (nn.Linear, nn.LayerNorm, nn.Conv2d)
        and "forward" not in module.__dict__
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
        for module in modules
    )


def keeps_activations(values: int, channels: int, dtype: torch.dtype) -> bool:
    """Whether a training function keeps so many values for its backward pass, or computes them anew there.

    Args:
        values: of what would be kept.
        channels: of the layer's input.
        dtype: of the values.
    """
    size = values * dtype.itemsize
    return size < ALWAYS_KEPT_BYTES or (channels < KEPT_CHANNELS and size <= KEPT_BYTES)


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`rows @ weight.T + bias` for 2-D `rows`, through oneDNN where it serves: it adds the bias on the way, not in a pass before."""
    if rows.dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return nn.functional.linear(rows, weight, bias)


@dataclass(frozen=True)
class WindowGroup:
    """Windows `start` to `stop` (of all images, in window order) that share one shift mask.

    `mask` is (tokens, tokens), 0 or `_FAST_MASK_VALUE`, or None for windows that the shift leaves whole.
    """

    start: int
    stop: int
    mask: Tensor | None


@dataclass(frozen=True)
class WindowLayout:
    """Where each token of `batch` maps of (height, width) stands in window order: windows of one kind next to each other, over all images.

    `gather` (batch * windows * tokens,) names for each place in window order the token of the maps, `batch * height * width` standing
    for padding; `scatter` (batch * height * width,) is its inverse.
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
def window_layout(batch: int, height: int, width: int, window_size: int, shifted: bool) -> WindowLayout:
    """The layout of the windows of `batch` maps, unshifted or shifted by half a window. Cached: it depends on sizes alone."""
    # Made under inference mode, a cached tensor could never be saved for a backward pass later.
    with torch.inference_mode(False), torch.no_grad():
        (window_h, window_w), (shift_h, shift_w) = window_and_shift(height, width, window_size, shifted)
        rows, columns = -(-height // window_h), -(-width // window_w)
        length = height * width
        tokens = torch.full((batch, rows * window_h, columns * window_w), batch * length)
        tokens[:, :height, :width] = torch.arange(batch * length).view(batch, height, width)
        tokens = tokens.roll((-shift_h, -shift_w), (1, 2))
        tokens = tokens.view(batch, rows, window_h, columns, window_w).transpose(2, 3).flatten(0, 2).flatten(1)

        # Windows of one kind next to each other: 0 inner, 1 right edge, 2 bottom edge, 3 corner.
        bottom = (torch.arange(rows) == rows - 1) & (shift_h > 0)
        right = (torch.arange(columns) == columns - 1) & (shift_w > 0)
        kinds = (bottom[:, None] * 2 + right[None, :] * 1).flatten().repeat(batch)
        order = torch.argsort(kinds, stable=True)
        gather = tokens[order].flatten()

        scatter = torch.empty(batch * length + 1, dtype=torch.long)
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
            num_windows=batch * rows * columns,
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
    return torch.where(region[:, None] == region[None, :], 0.0, _FAST_MASK_VALUE)


def to_windows(hidden_states: Tensor, layout: WindowLayout) -> Tensor:
    """(batch, height * width, channels) to window order (windows * tokens, channels), zeros as padding."""
    tokens = hidden_states.flatten(0, 1)
    if layout.padded:
        tokens = nn.functional.pad(tokens, (0, 0, 0, 1))
    # An embedding look-up runs on all cores, `index_select` on one.
    return nn.functional.embedding(layout.gather, tokens)


def from_windows(windows: Tensor, layout: WindowLayout, batch: int) -> Tensor:
    """The inverse of `to_windows`; what stands in the padding is dropped."""
    return nn.functional.embedding(layout.scatter, windows).view(batch, -1, windows.shape[-1])


def _split_heads(qkv: Tensor, num_heads: int, layout: WindowLayout) -> Tensor:
    """(windows * tokens, 3 * channels) to (windows, 3, heads, tokens, head channels), a view."""
    length, width = qkv.shape
    split = qkv.view(layout.num_windows, length // layout.num_windows, 3, num_heads, width // 3 // num_heads)
    return split.permute(0, 2, 3, 1, 4)


def attend_windows(
    qkv: Tensor, bias: Tensor, num_heads: int, scale: float, layout: WindowLayout, batch: int
) -> Tensor:
    """Scaled dot-product attention inside each window, with relative position bias and shift mask.

    Args:
        qkv: (windows * tokens, 3 * channels), in window order.
        bias: (heads, tokens, tokens).
        batch: number of maps that the windows are of.

    Returns:
        (batch, height * width, channels), in the order of the maps.
    """
    length, width = qkv.shape
    output = qkv.new_empty(layout.num_windows, length // layout.num_windows, num_heads, width // 3 // num_heads)
    heads = _split_heads(qkv, num_heads, layout)
    bias = bias.detach()  # a bias that asks for gradients keeps PyTorch from its fused kernel
    for group in layout.groups:
        group_bias = (bias if group.mask is None else bias + group.mask)[None].to(qkv.dtype)
        query, key, value = heads[group.start : group.stop].unbind(1)  # each (windows, heads, tokens, head channels)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=group_bias, scale=scale)
        output[group.start : group.stop].copy_(attended.transpose(1, 2))
    return from_windows(output.view(length, width // 3), layout, batch)


class _AttendWindows(torch.autograd.Function):
    """`attend_windows`, keeping queries, keys and values alone and computing the probabilities anew in the backward pass."""

    @staticmethod
    def forward(ctx, qkv, bias, num_heads, scale, layout, batch):
        ctx.save_for_backward(qkv, bias)
        ctx.num_heads, ctx.scale, ctx.layout = num_heads, scale, layout
        return attend_windows(qkv, bias, num_heads, scale, layout, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        qkv, bias = ctx.saved_tensors
        num_heads, layout = ctx.num_heads, ctx.layout
        heads = _split_heads(qkv, num_heads, layout)
        grad_output = to_windows(grad_output, layout)
        grad_output = grad_output.view(layout.num_windows, -1, num_heads, qkv.shape[1] // 3 // num_heads)
        grad_output = grad_output.transpose(1, 2)
        grad_qkv = torch.empty_like(qkv)
        grad_heads = _split_heads(grad_qkv, num_heads, layout)
        grad_bias = torch.zeros_like(bias, dtype=_accumulator_dtype(bias.dtype))
        for windows, group_bias in _attention_chunks(bias, layout, qkv.dtype):
            parts = _batched_heads(heads[windows])
            probabilities = _attention_probabilities(parts, group_bias, ctx.scale)
            grad = grad_output[windows].reshape(parts.shape[1:])
            grads = torch.empty_like(parts)
            grad_bias += _attention_backward(parts, probabilities, grad, grads, ctx.scale, num_heads).view_as(bias)
            grad_heads[windows].copy_(grads.view(3, -1, *heads.shape[2:]).transpose(0, 1))
        return grad_qkv, grad_bias.to(bias.dtype), None, None, None, None


class _AttendWindowsKept(torch.autograd.Function):
    """`attend_windows`, keeping the probabilities too."""

    @staticmethod
    def forward(ctx, qkv, bias, num_heads, scale, layout, batch):
        heads = _split_heads(qkv, num_heads, layout)
        tokens, channels = heads.shape[3:]
        parts = _batched_heads(heads)
        probabilities = qkv.new_empty(parts.shape[1], tokens, tokens)
        output = torch.empty_like(parts[2])
        for windows, group_bias in _attention_chunks(bias, layout, qkv.dtype):
            rows = slice(windows.start * num_heads, windows.stop * num_heads)
            _attention_probabilities(parts[:, rows], group_bias, scale, probabilities[rows])
            torch.bmm(probabilities[rows], parts[2, rows], out=output[rows])
        ctx.save_for_backward(parts, probabilities)
        ctx.scale, ctx.layout, ctx.bias_shape, ctx.bias_dtype = scale, layout, bias.shape, bias.dtype
        output = output.view(-1, num_heads, tokens, channels).transpose(1, 2).reshape(len(qkv), -1)
        return from_windows(output, layout, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        parts, probabilities = ctx.saved_tensors
        layout, (num_heads, tokens, _) = ctx.layout, ctx.bias_shape
        grad_output = to_windows(grad_output, layout).view(layout.num_windows, tokens, num_heads, -1)
        grad_output = grad_output.transpose(1, 2).reshape(parts.shape[1:])
        grads = torch.empty_like(parts)
        grad_bias = torch.zeros(ctx.bias_shape, dtype=_accumulator_dtype(ctx.bias_dtype))
        chunk = _attention_chunk(ctx.bias_shape) * num_heads
        for start in range(0, len(probabilities), chunk):
            rows = slice(start, start + chunk)
            part = _attention_backward(
                parts[:, rows], probabilities[rows], grad_output[rows], grads[:, rows], ctx.scale, num_heads
            )
            grad_bias += part.view(ctx.bias_shape)
        grad_qkv = grads.new_empty(layout.num_windows * tokens, 3 * num_heads * parts.shape[-1])
        grad_heads = _split_heads(grad_qkv, num_heads, layout)
        grad_heads.copy_(grads.view(3, -1, *grad_heads.shape[2:]).transpose(0, 1))
        return grad_qkv, grad_bias.to(ctx.bias_dtype), None, None, None, None


def _attention_chunk(bias_shape: torch.Size) -> int:
    """Windows that a piece of a pass holds."""
    return max(ATTENTION_CHUNK_SCORES // bias_shape.numel(), 1)


def _attention_chunks(bias: Tensor, layout: WindowLayout, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Pieces of the windows that share a shift mask: which windows, and their bias (windows, heads, tokens, tokens)."""
    chunk = _attention_chunk(bias.shape)
    for group in layout.groups:
        group_bias = (bias if group.mask is None else bias + group.mask).to(dtype)
        # Spread over the windows of a chunk beforehand: adding a tensor of equal shape is several times faster in bf16.
        group_bias = group_bias.expand(min(chunk, group.stop - group.start), -1, -1, -1).contiguous()
        for start in range(group.start, group.stop, chunk):
            stop = min(start + chunk, group.stop)
            yield slice(start, stop), group_bias[: stop - start]


def _batched_heads(heads: Tensor) -> Tensor:
    """(windows, 3, heads, tokens, head channels) to (3, windows * heads, tokens, head channels), which batched products read as it is."""
    return heads.transpose(0, 1).reshape(3, -1, *heads.shape[3:])


def _attention_probabilities(parts: Tensor, bias: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """Attention probabilities (windows * heads, tokens, tokens) of some windows.

    Args:
        parts: queries, keys and values, (3, windows * heads, tokens, head channels).
        bias: (windows, heads, tokens, tokens), with the shift mask.
        out: where to write them.
    """
    scores = torch.bmm(parts[0], parts[1].transpose(1, 2))
    torch.add(bias.view_as(scores), scores, alpha=scale, out=scores)
    return torch.softmax(scores, -1) if out is None else torch.softmax(scores, -1, out=out)


def _attention_backward(
    parts: Tensor, probabilities: Tensor, grad: Tensor, grads: Tensor, scale: float, num_heads: int
) -> Tensor:
    """Gradients of attention in some windows.

    Args:
        parts: queries, keys and values, (3, windows * heads, tokens, head channels).
        probabilities: (windows * heads, tokens, tokens).
        grad: gradient of the output, (windows * heads, tokens, head channels).
        grads: of the shape of `parts`; their gradients are written there.

    Returns:
        The gradient of the bias of one window, (heads * tokens * tokens,), in fp32 at least.
    """
    query, key, value = parts.unbind(0)
    torch.bmm(probabilities.transpose(1, 2), grad, out=grads[2])
    grad_scores = torch.bmm(grad, value.transpose(1, 2))
    grad_scores = torch._softmax_backward_data(grad_scores, probabilities, -1, grad.dtype)
    torch.bmm(grad_scores, key, out=grads[0])
    torch.bmm(grad_scores.transpose(1, 2), query, out=grads[1])
    grads[:2] *= scale
    return _sum_rows(grad_scores.view(len(grad_scores) // num_heads, -1))


def window_attention(
    qkv: Tensor, bias: Tensor, num_heads: int, scale: float, layout: WindowLayout, batch: int
) -> Tensor:
    """`attend_windows`, with gradients for `qkv` and `bias` where they are wanted."""
    if torch.is_grad_enabled() and (qkv.requires_grad or bias.requires_grad):
        scores = layout.num_windows * bias.numel()
        kept = keeps_activations(scores, qkv.shape[-1] // 3, qkv.dtype)
        return (_AttendWindowsKept if kept else _AttendWindows).apply(qkv, bias, num_heads, scale, layout, batch)
    return attend_windows(qkv, bias, num_heads, scale, layout, batch)


def _compute_dtype(hidden_states: Tensor) -> torch.dtype:
    """What linear layers compute in: the autocast dtype inside `torch.autocast("cpu")`, else that of the input."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden_states.dtype


def _cast(tensor: Any, dtype: torch.dtype) -> Any:
    return tensor if tensor is None else tensor.to(dtype)


def is_slow_bf16_norm(rows: Tensor) -> bool:
    """Whether a layer norm of these rows is faster through fp32."""
    return rows.dtype == torch.bfloat16 and rows.shape[-1] < _BF16_NORM_CHANNELS


def _layer_norm(rows: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm over the last axis, in the dtype of `rows`; mean and 1 / standard deviation of each row."""
    shape = rows.shape[-1:]
    if is_slow_bf16_norm(rows):
        normed, mean, rstd = torch.native_layer_norm(rows.float(), shape, weight.float(), bias.float(), eps)
        return normed.to(rows.dtype), mean, rstd
    return torch.native_layer_norm(rows, shape, weight, bias, eps)


def _layer_norm_backward(
    grad: Tensor, rows: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the input, the weight and the bias of `_layer_norm`."""
    shape, dtype = rows.shape[-1:], rows.dtype
    if is_slow_bf16_norm(rows):
        grad, rows, weight, bias = grad.float(), rows.float(), weight.float(), bias.float()
    grads = torch.ops.aten.native_layer_norm_backward(
        grad.to(rows.dtype), rows, shape, mean, rstd, weight, bias, [True] * 3
    )
    return grads[0].to(dtype), grads[1], grads[2]


class _NormLinear(torch.autograd.Function):
    """Layer norm, window order, linear layer; keeps the input of the norm, and its output where it is small.

    Weights come as they are stored and are cast to `dtype` in each pass, so that no cast copy waits for the backward pass.
    """

    @staticmethod
    def forward(ctx, hidden_states, norm_weight, norm_bias, weight, bias, eps, layout, dtype):
        normed, mean, rstd = _layer_norm(hidden_states, norm_weight, norm_bias, eps)
        if layout is not None:
            normed = to_windows(normed, layout)
        normed = normed.to(dtype)
        kept = normed if keeps_activations(normed.numel(), normed.shape[-1], dtype) else None
        ctx.save_for_backward(hidden_states, mean, rstd, norm_weight, norm_bias, weight, kept)
        ctx.eps, ctx.layout, ctx.dtype, ctx.has_bias = eps, layout, dtype, bias is not None
        output = _linear(normed.flatten(0, -2), weight.to(dtype), _cast(bias, dtype))
        return output.view(*normed.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        hidden_states, mean, rstd, norm_weight, norm_bias, weight, normed = ctx.saved_tensors
        if normed is None:
            normed = _layer_norm(hidden_states, norm_weight, norm_bias, ctx.eps)[0]
            if ctx.layout is not None:
                normed = to_windows(normed, ctx.layout)
        grad_rows = grad_output.flatten(0, -2)
        grad_weight = grad_rows.t() @ normed.flatten(0, -2).to(ctx.dtype)
        grad_bias = _sum_rows(grad_rows) if ctx.has_bias else None
        grad_normed = grad_output @ weight.to(ctx.dtype)
        if ctx.layout is not None:
            grad_normed = from_windows(grad_normed, ctx.layout, hidden_states.shape[0])
        grads = _layer_norm_backward(grad_normed, hidden_states, mean, rstd, norm_weight, norm_bias)
        return *grads, grad_weight, grad_bias, None, None, None


def norm_linear(
    hidden_states: Tensor, norm: nn.Module, linear: nn.Module, layout: WindowLayout | None = None
) -> Tensor:
    """`linear(norm(x))`, with the tokens brought to window order in between where a layout is given.

    Args:
        hidden_states: (..., channels); (batch, height * width, channels) where a layout is given.

    Returns:
        (..., output channels); (windows * tokens, output channels) where a layout is given.
    """
    if torch.is_grad_enabled() and is_plain(norm, linear):
        return _NormLinear.apply(
            hidden_states,
            norm.weight,
            norm.bias,
            linear.weight,
            linear.bias,
            norm.eps,
            layout,
            _compute_dtype(hidden_states),
        )
    normed = norm(hidden_states)
    return apply_linear(linear, normed if layout is None else to_windows(normed, layout))


def apply_linear(linear: nn.Module, inputs: Tensor) -> Tensor:
    """`linear(inputs)`; without gradients, a plain linear layer goes through oneDNN."""
    if torch.is_grad_enabled() or not is_plain(linear):
        return linear(inputs)
    dtype = _compute_dtype(inputs)
    output = _linear(inputs.flatten(0, -2).to(dtype), _cast(linear.weight, dtype), _cast(linear.bias, dtype))
    return output.view(*inputs.shape[:-1], -1)


class _NormMlp(torch.autograd.Function):
    """Layer norm, linear, GELU, linear, chunk by chunk.

    Keeps the input and the values before the GELU, and those that the linear layers read where they are few.
    """

    @staticmethod
    def forward(ctx, hidden_states, norm_weight, norm_bias, weight1, bias1, weight2, bias2, eps, dtype):
        rows = hidden_states.flatten(0, -2)
        cast1, cast2 = (weight1.to(dtype), bias1.to(dtype)), (weight2.to(dtype), bias2.to(dtype))
        keeps = keeps_activations(len(rows) * len(weight1), rows.shape[1], dtype)
        means, rstds, hidden, kept, output = [], [], [], [], []
        for chunk in rows.split(_mlp_chunk(len(weight1))):
            normed, mean, rstd = _layer_norm(chunk, norm_weight, norm_bias, eps)
            normed = normed.to(dtype)
            means.append(mean)
            rstds.append(rstd)
            hidden.append(_linear(normed, *cast1))
            activated = nn.functional.gelu(hidden[-1])
            output.append(_linear(activated, *cast2))
            if keeps:
                kept += [normed, activated]
        ctx.save_for_backward(hidden_states, norm_weight, norm_bias, weight1, weight2, *means, *rstds, *hidden, *kept)
        ctx.eps, ctx.dtype, ctx.count = eps, dtype, len(hidden)
        return torch.cat(output).view(*hidden_states.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        hidden_states, norm_weight, norm_bias, weight1, weight2, *saved = ctx.saved_tensors
        rows = hidden_states.flatten(0, -2)
        grad_rows = grad_output.flatten(0, -2)
        cast1, cast2 = weight1.to(ctx.dtype), weight2.to(ctx.dtype)
        means, rstds, hiddens = (saved[place * ctx.count : (place + 1) * ctx.count] for place in range(3))
        kept = saved[3 * ctx.count :]  # input of the first and of the second layer, chunk by chunk
        grads: list[Any] = [None] * 3  # weight1, bias1, weight2
        grad_normed = torch.empty_like(rows)
        chunks = zip(
            *(tensor.split(_mlp_chunk(len(weight1))) for tensor in (rows, grad_rows, grad_normed)),
            hiddens,
            strict=True,
        )
        for number, (chunk, grad, target, hidden) in enumerate(chunks):
            if kept:
                normed, activated = kept[2 * number : 2 * number + 2]
            else:
                normed = _layer_norm(chunk, norm_weight, norm_bias, ctx.eps)[0].to(ctx.dtype)
                activated = nn.functional.gelu(hidden)
            grads[2] = _accumulate_product(grads[2], grad, activated)
            grad_hidden = torch.ops.aten.gelu_backward(grad @ cast2, hidden)
            grads[0] = _accumulate_product(grads[0], grad_hidden, normed)
            part = _sum_rows(grad_hidden)
            grads[1] = part if grads[1] is None else grads[1].add_(part)
            if target.dtype == ctx.dtype:
                torch.mm(grad_hidden, cast1, out=target)
            else:
                target.copy_(grad_hidden @ cast1)
        grad_hidden_states, *grad_norm = _layer_norm_backward(
            grad_normed, rows, torch.cat(means), torch.cat(rstds), norm_weight, norm_bias
        )
        return (
            *(grad_hidden_states.view_as(hidden_states), *grad_norm),
            *(*grads, _sum_rows(grad_rows), None, None),
        )


def _mlp_chunk(hidden_channels: int) -> int:
    """Tokens a chunk of an MLP holds."""
    return max(MLP_CHUNK_TOKENS, MLP_CHUNK_VALUES // hidden_channels)


def _accumulate_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """`total + left.T @ right`, the running sum over chunks, in fp32 at least."""
    dtype = _accumulator_dtype(left.dtype)
    if total is None:
        return (left.t() @ right).to(dtype)
    return total.addmm_(left.t(), right) if left.dtype == dtype else total.add_(left.t() @ right)


def _sum_rows(rows: Tensor) -> Tensor:
    """`rows.sum(0)`, in fp32 at least.

    In fp32 a product with ones is twice as fast as PyTorch's sum over the slow axis. In bf16, where PyTorch would first cast all rows,
    short sums (summed up in fp32, rounded once) come before the long one.
    """
    if rows.dtype == torch.float32:
        return (rows.new_ones(1, len(rows)) @ rows)[0]
    if rows.dtype == torch.bfloat16 and len(rows) % _SHORT_SUM == 0:
        rows = rows.view(-1, _SHORT_SUM, rows.shape[1]).sum(1)
    return rows.sum(0, dtype=_accumulator_dtype(rows.dtype))


def _accumulator_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums run in: fp32, or fp64 for fp64."""
    return torch.promote_types(dtype, torch.float32)


def norm_mlp(
    hidden_states: Tensor, norm: nn.Module, fc1: nn.Module, activation: nn.Module, fc2: nn.Module, exact_gelu: bool
) -> Tensor:
    """`fc2(activation(fc1(norm(x))))` over chunks of tokens.

    Args:
        hidden_states: (..., channels).
        exact_gelu: whether the activation is GELU in its exact (erf) form, which the training function is written for.
    """
    if torch.is_grad_enabled():
        if exact_gelu and is_plain(norm, fc1, fc2):
            weights = (norm.weight, norm.bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias)
            return _NormMlp.apply(hidden_states, *weights, norm.eps, _compute_dtype(hidden_states))
        return fc2(activation(fc1(norm(hidden_states))))
    hidden_channels = getattr(fc1, "out_features", 4 * hidden_states.shape[-1])  # an adapter may have none
    chunks = hidden_states.flatten(0, -2).split(_mlp_chunk(hidden_channels))
    output = torch.cat([apply_linear(fc2, activation(apply_linear(fc1, norm(chunk)))) for chunk in chunks])
    return output.view(*hidden_states.shape[:-1], -1)


def _map_mean(feature_map: Tensor) -> Tensor:
    """Mean of (batch, height, width, channels) over the map, in fp32 at least: (batch, 1, 1, channels).

    Two sums, columns first: both run over the slow axis, which PyTorch vectorises, and pairwise, which keeps them accurate.
    """
    total = feature_map.sum(1).sum(1, dtype=_accumulator_dtype(feature_map.dtype))
    return (total / (feature_map.shape[1] * feature_map.shape[2]))[:, None, None, :]


def _add_scaled(base: Tensor, feature_map: Tensor, factor: Tensor) -> Tensor:
    """`base + feature_map * factor`, with one factor an image and channel; a base of the map's size is overwritten.

    PyTorch's inner loop runs over what is the same in all operands, the channels. Where they are few, what is given for each channel is
    repeated along a row of the map, so that it runs over the row: twice as fast in bf16, no faster in fp32.

    Args:
        base: (batch, 1, 1, channels), or a map.
        feature_map: (batch, height, width, channels).
        factor: (batch, 1, 1, channels).
    """
    base, factor, shape = base.to(feature_map.dtype), factor.to(feature_map.dtype), feature_map.shape
    out = base if base.shape == shape else torch.empty_like(feature_map, memory_format=torch.contiguous_format)
    if shape[-1] < _FEW_CHANNELS and feature_map.dtype == torch.bfloat16:
        batch, height, width, _ = shape
        base, factor = (
            one.expand(batch, -1, width, -1).reshape(batch, -1, width * shape[-1]) for one in (base, factor)
        )
        torch.addcmul(base, feature_map.reshape(batch, height, -1), factor, out=out.view(batch, height, -1))
    else:
        torch.addcmul(base, feature_map, factor, out=out)
    return out


class _InstanceNormActivation(torch.autograd.Function):
    """Instance norm, plus a residual where there is one, leaky ReLU; keeps its input and its output."""

    @staticmethod
    def forward(ctx, feature_map, residual, eps):
        mean = _map_mean(feature_map)
        variance = (_map_mean(feature_map.square()) - mean.square()).clamp_(min=0)
        rstd = (variance + eps).rsqrt()
        output = _add_scaled(-mean * rstd, feature_map, rstd)
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
        grad_map = _add_scaled(_add_scaled(offset, feature_map, slope), grad, rstd)
        return grad_map, grad if ctx.has_residual else None, None


def instance_norm_activation(feature_map: Tensor, residual: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """`leaky_relu(instance_norm(x) + residual)` on maps that are channels-last in memory.

    PyTorch's own instance norm has no kernel for such maps, and its group norm and batch norm sum one after the other, which costs
    two digits of accuracy over a large map.

    Args:
        feature_map: (batch, height, width, channels).
    """
    return _InstanceNormActivation.apply(feature_map, residual, eps)


def suits_small_map_conv(feature_map: Tensor, conv: nn.Module) -> bool:
    """Whether `small_map_conv` serves: a plain 3x3 convolution that keeps the size, of a map small beside the weights."""
    return (
        is_plain(conv)
        and isinstance(conv, nn.Conv2d)
        and (conv.kernel_size, conv.padding, conv.stride, conv.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and (conv.groups, conv.padding_mode) == (1, "zeros")
        and feature_map.shape[:-1].numel() <= conv.out_channels * _map_over_weights(feature_map)
    )


def _map_over_weights(feature_map: Tensor) -> float:
    """How many pixels an output channel a map may have for `small_map_conv`: in bf16 the library's gradients of weights are slow there."""
    return 3.0 if torch.is_grad_enabled() and _compute_dtype(feature_map) == torch.bfloat16 else 0.5


def _neighbourhoods(feature_map: Tensor) -> Tensor:
    """(batch, height, width, channels) to (batch * height * width, channels * 9): each pixel's 3x3 neighbours, zeros outside."""
    height, width, channels = feature_map.shape[1:]
    padded = nn.functional.pad(feature_map, (0, 0, 1, 1, 1, 1))
    # Whole rows of channels first, then one transposition: PyTorch copies the 3x3 windows themselves at a third of the speed.
    places = [padded[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
    return torch.stack(places, 3).transpose(3, 4).reshape(-1, channels * 9)


class _SmallMapConv(torch.autograd.Function):
    """A 3x3 convolution as one matrix product; keeps the neighbourhoods, which are smaller than the weights."""

    @staticmethod
    def forward(ctx, feature_map, weight, bias, dtype):
        columns = _neighbourhoods(feature_map.to(dtype))
        ctx.save_for_backward(columns, weight)
        ctx.map_dtype, ctx.shape, ctx.has_bias = feature_map.dtype, feature_map.shape, bias is not None
        output = _linear(columns, weight.flatten(1).to(dtype), _cast(bias, dtype))
        return output.view(*feature_map.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        columns, weight = ctx.saved_tensors
        batch, height, width, channels = ctx.shape
        rows = grad_output.flatten(0, -2)
        grad_weight = (rows.t() @ columns).view_as(weight)
        grad_columns = (rows @ weight.flatten(1).to(columns.dtype)).view(batch, height, width, channels, 3, 3)
        grad_map = grad_columns.new_zeros(
            batch, height + 2, width + 2, channels, dtype=_accumulator_dtype(grad_columns.dtype)
        )
        for row in range(3):
            for column in range(3):
                grad_map[:, row : row + height, column : column + width] += grad_columns[..., row, column]
        grad_map = grad_map[:, 1:-1, 1:-1].to(ctx.map_dtype)
        return grad_map, grad_weight, _sum_rows(rows) if ctx.has_bias else None, None


def small_map_conv(feature_map: Tensor, conv: nn.Conv2d) -> Tensor:
    """`conv` of (batch, height, width, channels), to the same layout.

    PyTorch re-orders the weights of a convolution in every pass, which on the last maps costs more than the convolution.
    """
    return _SmallMapConv.apply(feature_map, conv.weight, conv.bias, _compute_dtype(feature_map))
