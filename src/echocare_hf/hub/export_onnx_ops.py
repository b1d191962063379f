"""The parts of the encoder whose shapes depend on the map's size, as operators of their own with a hand-written ONNX form.

`torch.export` would follow every index of the windows symbolically, which takes minutes and refuses branches on the size. Here it
sees one operator for each, of which only the shape of the result matters; the ONNX form below computes windows, shifts and masks from
the size of the map that comes in, so one graph serves every size. There is no torch implementation: the operators exist in graphs alone.
"""

from typing import Any

import onnxscript
import torch
from onnxscript import opset20
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..model.kernels_echocare import MASK_VALUE

op: Any = opset20  # the first with Gelu; its types are too narrow for what its functions return

_library = torch.library.Library("echocare_onnx", "DEF")
_library.define(
    "window_attention(Tensor normed, Tensor qkv_weight, Tensor qkv_bias, Tensor bias_table, int heads, int window, int shift) -> Tensor"
)
_library.define("neighbours(Tensor feature_map) -> Tensor")
_library.define("instance_norm(Tensor feature_map, float eps) -> Tensor")
_library.define("upsample(Tensor feature_map, int factor) -> Tensor")
_library.define("pool(Tensor feature_map, int factor) -> Tensor")
_library.define("crop(Tensor tensor, int dim, SymInt size) -> Tensor")


@torch.library.register_fake("echocare_onnx::window_attention", lib=_library)
def _window_attention_shape(normed: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(normed)


@torch.library.register_fake("echocare_onnx::neighbours", lib=_library)
def _neighbours_shape(feature_map: Tensor) -> Tensor:
    batch, height, width, channels = feature_map.shape
    return feature_map.new_empty(batch, (height + 1) // 2, (width + 1) // 2, 4 * channels)


@torch.library.register_fake("echocare_onnx::instance_norm", lib=_library)
def _instance_norm_shape(feature_map: Tensor, eps: float) -> Tensor:
    return torch.empty_like(feature_map)


@torch.library.register_fake("echocare_onnx::upsample", lib=_library)
def _upsample_shape(feature_map: Tensor, factor: int) -> Tensor:
    batch, channels, height, width = feature_map.shape
    return feature_map.new_empty(batch, channels, height * factor, width * factor)


@torch.library.register_fake("echocare_onnx::pool", lib=_library)
def _pool_shape(feature_map: Tensor, factor: int) -> Tensor:
    batch, channels, height, width = feature_map.shape
    return feature_map.new_empty(batch, channels, (height + factor - 1) // factor, (width + factor - 1) // factor)


@torch.library.register_fake("echocare_onnx::crop", lib=_library)
def _crop_shape(tensor: Tensor, dim: int, size: int) -> Tensor:
    shape = list(tensor.shape)
    shape[dim] = size
    return tensor.new_empty(shape)


class SizeOperators(TorchFunctionMode):
    """While it is active, what the models do to fit one map to another's size becomes the operators of this file.

    `torch.export` would compare the sizes symbolically (is 2 * ceil(h / 2) at least h?), which takes it minutes for every level.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.interpolate and kwargs.get("scale_factor") and kwargs.get("mode") == "bilinear":
            return torch.ops.echocare_onnx.upsample(args[0], int(kwargs["scale_factor"]))
        if func is F.group_norm and args[1] == args[0].shape[1] and kwargs.get("weight") is None:
            return torch.ops.echocare_onnx.instance_norm(args[0], kwargs.get("eps", 1e-5))
        if func is F.avg_pool2d and kwargs.get("ceil_mode"):
            return torch.ops.echocare_onnx.pool(args[0], args[1])
        if func is Tensor.__getitem__:
            return self._crop(*args)
        return func(*args, **kwargs)

    @staticmethod
    def _crop(tensor: Tensor, key: Any) -> Tensor:
        """`tensor[key]`; from the start to a size that is not known yet is a crop."""
        entries = list(key) if isinstance(key, tuple) else [key]
        if not any(isinstance(entry, slice) and isinstance(entry.stop, torch.SymInt) for entry in entries):
            return tensor[key]
        if Ellipsis in entries:
            place = entries.index(Ellipsis)
            entries[place : place + 1] = [slice(None)] * (tensor.ndim - len(entries) + 1)
        for dim, entry in enumerate(entries):
            assert isinstance(entry, slice) and entry.start is None and entry.step is None
            if entry.stop is not None:
                tensor = torch.ops.echocare_onnx.crop(tensor, dim, entry.stop)
        return tensor


def _whole(*values: int) -> Any:
    return op.Constant(value_ints=list(values))


def _scalar(value: Any) -> Any:
    """A tensor of one element as a scalar, which Range wants."""
    return op.Squeeze(value, _whole(0))


def _range(stop: Any) -> Any:
    """0 to stop - 1, of a tensor (1,)."""
    return op.Range(op.Constant(value_int=0), _scalar(stop), op.Constant(value_int=1))


def _axis(length: Any, window_size: int, shift_size: int) -> tuple[Any, Any, Any, Any, Any]:
    """One side of a map cut into windows, as `window_and_shift` and `window_layout` have it.

    Returns:
        Side of a window and number of windows, each (1,); for each place in window order the place of the map, `length` standing for
        padding; the inverse; and the region of each place, which the shift mask compares.
    """
    window = op.Min(length, _whole(window_size))
    count = op.Div(op.Sub(op.Add(length, window), _whole(1)), window)
    padded = op.Mul(count, window)
    places, inverse = _range(padded), _range(length)
    regions = None
    if shift_size:
        shift = op.Mul(op.Cast(op.Greater(length, _whole(window_size)), to=onnxscript.INT64.dtype), _whole(shift_size))
        at_edge = op.GreaterOrEqual(places, op.Sub(padded, window))
        came_round = op.GreaterOrEqual(places, op.Sub(padded, shift))
        regions = op.Add(*(op.Cast(each, to=onnxscript.INT64.dtype) for each in (at_edge, came_round)))
        # Unshifted along a side that fits into one window: all one region.
        regions = op.Mul(regions, op.Cast(op.Greater(shift, _whole(0)), to=onnxscript.INT64.dtype))
        places = op.Mod(op.Add(places, shift), padded)
        inverse = op.Mod(op.Add(op.Sub(inverse, shift), padded), padded)
    return window, count, op.Min(places, length), inverse, regions


def _side(feature_map: Any, axis: int) -> Any:
    return op.Shape(feature_map, start=axis, end=axis + 1)


def _reshape(tensor: Any, *sides: Any) -> Any:
    return op.Reshape(tensor, op.Concat(*sides, axis=0))


def _padded_by_one(feature_map: Any) -> Any:
    """A row and a column of zeros more, for indices that stand for padding."""
    return op.Pad(feature_map, _whole(0, 0, 0, 0, 0, 1, 1, 0))


def window_attention(
    normed: Any, qkv_weight: Any, qkv_bias: Any, bias_table: Any, heads: int, window: int, shift: int
) -> Any:
    """ONNX form of `EchoCareWindowAttention` between its norm and its projection.

    Args:
        normed: (batch, height, width, channels).
        qkv_weight: (channels, 3 * channels), transposed and with the queries already scaled; qkv_bias: (3 * channels,).
        bias_table: ((2 window - 1)^2, heads).
    """
    batch, height, width, channels = (_side(normed, axis) for axis in range(4))
    window_h, rows, places_h, inverse_h, regions_h = _axis(height, window, shift)
    window_w, columns, places_w, inverse_w, regions_w = _axis(width, window, shift)
    tokens, windows = op.Mul(window_h, window_w), op.Mul(rows, columns)
    one, split = _whole(1), _whole(heads)

    cut = op.Gather(op.Gather(_padded_by_one(normed), places_h, axis=1), places_w, axis=2)
    cut = op.Transpose(_reshape(cut, batch, rows, window_h, columns, window_w, channels), perm=[0, 1, 3, 2, 4, 5])
    cut = _reshape(cut, batch, windows, tokens, channels)
    qkv = op.Add(op.MatMul(cut, qkv_weight), qkv_bias)
    head_channels = op.Div(channels, split)
    qkv = op.Transpose(_reshape(qkv, batch, windows, tokens, _whole(3), split, head_channels), perm=[3, 0, 1, 4, 2, 5])
    query, key, value = (op.Squeeze(part, _whole(0)) for part in op.Split(qkv, num_outputs=3, axis=0))

    # Relative position bias: (heads, tokens, tokens)
    token = _range(tokens)
    row, column = op.Div(token, window_w), op.Mod(token, window_w)
    difference_h = op.Sub(op.Unsqueeze(row, one), op.Unsqueeze(row, _whole(0)))
    difference_w = op.Sub(op.Unsqueeze(column, one), op.Unsqueeze(column, _whole(0)))
    index = op.Mul(op.Add(difference_h, _whole(window - 1)), _whole(2 * window - 1))
    index = op.Add(op.Add(index, difference_w), _whole(window - 1))
    mask = op.Transpose(op.Gather(bias_table, index, axis=0), perm=[2, 0, 1])
    if shift:
        region_h = _reshape(op.Mul(regions_h, _whole(3)), rows, one, window_h, one)
        region_w = _reshape(regions_w, one, columns, one, window_w)
        region = _reshape(op.Add(region_h, region_w), windows, one, tokens)
        same = op.Equal(op.Transpose(region, perm=[0, 2, 1]), region)  # (windows, tokens, tokens)
        apart = op.Where(same, op.Constant(value_float=0.0), op.Constant(value_float=MASK_VALUE))
        mask = op.Add(mask, op.Unsqueeze(apart, one))  # (windows, heads, tokens, tokens)

    scores = op.Add(op.MatMul(query, op.Transpose(key, perm=[0, 1, 2, 4, 3])), mask)
    attended = op.Transpose(op.MatMul(op.Softmax(scores, axis=-1), value), perm=[0, 1, 3, 2, 4])
    attended = _reshape(attended, batch, rows, columns, window_h, window_w, channels)
    attended = op.Transpose(attended, perm=[0, 1, 3, 2, 4, 5])
    attended = _reshape(attended, batch, op.Mul(rows, window_h), op.Mul(columns, window_w), channels)
    return op.Gather(op.Gather(attended, inverse_h, axis=1), inverse_w, axis=2)


def neighbours(feature_map: Any) -> Any:
    """ONNX form of what `EchoCarePatchMerging` does before its norm: (batch, height / 2, width / 2, 4 * channels), rounded up."""
    batch, height, width, channels = (_side(feature_map, axis) for axis in range(4))
    two, one = _whole(2), _whole(1)
    halves = [op.Div(op.Add(side, one), two) for side in (height, width)]
    cut = _padded_by_one(feature_map)
    for axis, half in enumerate(halves, start=1):
        cut = op.Gather(cut, _range(op.Mul(half, two)), axis=axis)
    # (batch, height / 2, row in pair, width / 2, column in pair, channels): column outside, row inside
    cut = op.Transpose(_reshape(cut, batch, halves[0], two, halves[1], two, channels), perm=[0, 1, 3, 4, 2, 5])
    return _reshape(cut, batch, *halves, op.Mul(channels, _whole(4)))


def instance_norm(feature_map: Any, eps: float) -> Any:
    """ONNX form of group norm with a channel a group, without parameters.

    Means are taken row by row, then over the rows: ONNX Runtime's InstanceNormalization loses digits of maps that are constant over large
    parts, as where an image is black (1.2e-4 of base at 256x256, against 1e-5 so).
    """
    last, above = _whole(3), _whole(2)
    centred = op.Sub(feature_map, op.ReduceMean(op.ReduceMean(feature_map, last), above))
    variance = op.ReduceMean(op.ReduceMean(op.Mul(centred, centred), last), above)
    return op.Div(centred, op.Sqrt(op.Add(variance, op.Constant(value_float=eps))))


def upsample(feature_map: Any, factor: int) -> Any:
    """ONNX form of bilinear interpolation by a whole factor, corners not aligned."""
    scales = op.Constant(value_floats=[1.0, 1.0, float(factor), float(factor)])
    return op.Resize(feature_map, None, scales, mode="linear", coordinate_transformation_mode="half_pixel")


def pool(feature_map: Any, factor: int) -> Any:
    """ONNX form of the mean over blocks; those that hang over the edge count what is inside."""
    sides = [factor, factor]
    return op.AveragePool(feature_map, kernel_shape=sides, strides=sides, ceil_mode=1, count_include_pad=0)


def crop(tensor: Any, dim: int, size: Any) -> Any:
    """ONNX form of `tensor[..., :size]` along one dimension."""
    return op.Slice(tensor, _whole(0), op.Reshape(size, _whole(1)), _whole(dim))


def hypot(first: Any, second: Any) -> Any:
    """ONNX form of `torch.hypot`, which the exporter lacks."""
    return op.Sqrt(op.Add(op.Mul(first, first), op.Mul(second, second)))


TRANSLATIONS: dict[Any, Any] = {
    torch.ops.prims.hypot.default: hypot,
    torch.ops.echocare_onnx.window_attention.default: window_attention,
    torch.ops.echocare_onnx.neighbours.default: neighbours,
    torch.ops.echocare_onnx.instance_norm.default: instance_norm,
    torch.ops.echocare_onnx.upsample.default: upsample,
    torch.ops.echocare_onnx.pool.default: pool,
    torch.ops.echocare_onnx.crop.default: crop,
}
"""What `torch.onnx.export(custom_translation_table=...)` needs for these operators."""
