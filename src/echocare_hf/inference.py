"""A faster form of a model for inference on a CPU: weights packed once, for oneDNN, instead of at every call.

    model = optimize_for_inference(AutoModel.from_pretrained(folder), dtype=torch.bfloat16)

Convolutions gain most (PyTorch re-orders their weights at every call), linear layers on machines where PyTorch's own matrix product
is slower than oneDNN's; the GELU of the MLP runs inside its linear layer. `eval/speed/encoder.py` measures it.
"""

from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from .model.layers_echocare import EchoCareMlp

Model = TypeVar("Model", bound=nn.Module)

# Tokens or pixels at a time that weights are packed for: the layout depends little on it.
_TYPICAL_ROWS = 1024
_SMALL_SIDE = 16  # maps of fewer pixels than this squared are small


def bfloat16_is_fast() -> bool:
    """Whether networks run faster in bf16 than in fp32 on this CPU: with AMX, or with AVX-512 BF16 on a processor of AMD.

    Intel's cores without AMX, virtual ones for instance, multiply in bf16 too, but no faster: base took 1.5 times as long there as in
    fp32.
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    return bool(torch.cpu._is_avx512_bf16_supported()) and _cpu_vendor() == "AuthenticAMD"


def _cpu_vendor() -> str:
    """What the processor calls its maker, as Linux tells it; "" elsewhere."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


class _Packed(nn.Module):
    """What packed layers share: they neither learn nor save."""

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        raise RuntimeError("a model optimised for inference cannot be saved: save it before optimising")

    @staticmethod
    def _refuse_gradients(inputs: Tensor) -> None:
        if torch.is_grad_enabled() and inputs.requires_grad:
            raise RuntimeError("a model optimised for inference has no gradients: optimise a copy, or load it again")


class PackedLinear(_Packed):
    """A linear layer with its weight packed for oneDNN, and optionally GELU after it."""

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _TYPICAL_ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach().clone()
        self.dtype = linear.weight.dtype
        self.activation = "gelu" if gelu else "none"

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        self._refuse_gradients(inputs)
        rows = inputs.reshape(-1, self.in_features).to(self.dtype)
        outputs = torch.ops.mkldnn._linear_pointwise(rows, self.packed, self.bias, self.activation, [], "none")
        return outputs.view(*inputs.shape[:-1], self.out_features)


class PackedConv2d(_Packed):
    """A 2-D convolution with its weight packed for oneDNN.

    What is packed for large maps can be forty times slower on small ones, and the other way round, so the weight is packed anew when
    the maps change from one kind to the other.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.geometry = ([*conv.padding], [*conv.stride], [*conv.dilation], conv.groups)
        self.in_channels, self.kernel_size = conv.in_channels, conv.kernel_size
        self.for_small_maps = False
        self.packed = self._pack(conv.weight.detach().to(memory_format=torch.channels_last))
        self.bias = None if conv.bias is None else conv.bias.detach().clone()
        self.dtype = conv.weight.dtype

    def _pack(self, weight: Tensor) -> Tensor:
        side = max(_SMALL_SIDE // 2 if self.for_small_maps else int(_TYPICAL_ROWS**0.5), *self.kernel_size)
        size = [1, self.in_channels, side, side]
        return torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry, size)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, in_channels, height, width) to (batch, out_channels, height, width)."""
        self._refuse_gradients(inputs)
        small = inputs.shape[-2] * inputs.shape[-1] < _SMALL_SIDE**2
        if small != self.for_small_maps:
            self.for_small_maps = small
            self.packed = self._pack(self.packed.to_dense().to(memory_format=torch.channels_last))
        inputs = inputs.to(self.dtype, memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise(
            inputs, self.packed, self.bias, *self.geometry, "none", [], "none"
        )


def optimize_for_inference(model: Model, dtype: torch.dtype | None = None) -> Model:
    """Packs the weights of every linear layer and convolution of a model on a CPU, in place.

    The outputs stay those of the model in `dtype` (in fp32 within 1e-4). The model is set to evaluation mode; afterwards it can be
    neither trained nor saved, nor moved to another device.

    Args:
        model: any EchoCare model.
        dtype: `torch.float32` or `torch.bfloat16` to convert the model to first; default: as it is. bf16 pays where
            `bfloat16_is_fast()`.

    Returns:
        The same model.

    Raises:
        RuntimeError: if the model is not on a CPU, or this PyTorch has no oneDNN.
        ValueError: for another dtype.
    """
    if not torch.backends.mkldnn.is_available():
        raise RuntimeError("this build of PyTorch has no oneDNN, so there is nothing to optimise with")
    if dtype is not None:
        model = model.to(dtype)
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu":
            raise RuntimeError(f"optimize_for_inference is for CPUs, but {name} is on {parameter.device}")
        if parameter.dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"optimize_for_inference packs fp32 and bf16 weights, but {name} is {parameter.dtype}")
    model.eval().requires_grad_(False)
    with torch.no_grad():
        for module in list(model.modules()):
            if isinstance(module, EchoCareMlp) and type(module.fc1) is nn.Linear and module.exact_gelu:
                module.fc1 = PackedLinear(module.fc1, gelu=True)  # type: ignore[assignment]
                module.activation = nn.Identity()
            for name, child in module.named_children():
                if type(child) is nn.Linear:
                    setattr(module, name, PackedLinear(child))
                elif type(child) is nn.Conv2d and child.kernel_size != child.stride:
                    # Not the patch embedding: it is cheap, and the model reads its dtype.
                    setattr(module, name, PackedConv2d(child))
    return model
