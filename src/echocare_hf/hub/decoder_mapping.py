"""Finds the image decoder and the anatomy head in what is left of a pretraining checkpoint once its encoder is known.

Their names in the authors' files are not documented, so they are known by their shapes: the decoder if its
convolutions have, in order, the shapes of one of ours; the head if it is two linear layers from the encoder's
width on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..model.configuration_echocare import EchoCareConfig
from ..model.pretraining_echocare import IMAGE_DECODERS
from .monai_mapping import ARCHITECTURE, decoder_shapes


@dataclass(frozen=True)
class DecoderMatch:
    """The decoder found in a file: its type, and name in the file to name here (empty if there is none)."""

    decoder_type: str | None = None
    names: dict[str, str] = field(default_factory=dict)


def match_decoder(rest: Mapping[str, Tensor], config: EchoCareConfig) -> DecoderMatch:
    """The image decoder, if exactly one set of convolutions has our decoder's shapes in order.

    Args:
        rest: the tensors that are no part of the encoder, in the order of the file.
        config: the encoder's configuration.
    """
    found: dict[frozenset[str], DecoderMatch] = {}
    for decoder_type in IMAGE_DECODERS:
        wanted = decoder_shapes(EchoCareConfig(**{**config_values(config), "decoder_type": decoder_type}))
        for module in _modules(rest):
            inside = {name: tensor for name, tensor in rest.items() if name.startswith(module)}
            weights = [name for name, tensor in inside.items() if tensor.ndim == 4 and name.endswith("weight")]
            names = [part for weight in weights for part in (weight, _bias(weight)) if part in inside]
            linear = [name for name, tensor in inside.items() if tensor.ndim == 2 and name.endswith("weight")]
            others = set(inside) - set(names) - set(linear) - {_bias(weight) for weight in linear}
            if not others and [tuple(inside[name].shape) for name in names] == list(wanted.values()):
                found.setdefault(frozenset(names), DecoderMatch(decoder_type, dict(zip(names, wanted, strict=True))))
    return next(iter(found.values())) if len(found) == 1 else DecoderMatch()


def match_head(rest: Mapping[str, Tensor], hidden_size: int) -> tuple[list[str], int]:
    """The anatomy head: its tensors' names and its number of nodes, or `([], 0)`.

    Args:
        rest: the tensors that are part of neither encoder nor decoder.
        hidden_size: width of the encoder's last map.
    """
    for module in _modules(rest):
        inside = {name: tensor for name, tensor in rest.items() if name.startswith(module)}
        linear = [name for name, tensor in inside.items() if tensor.ndim == 2 and name.endswith("weight")]
        names = [part for weight in linear for part in (weight, _bias(weight)) if part in inside]
        if len(linear) == 2 and len(names) == len(inside):
            first, second = (inside[name] for name in linear)
            if first.shape[1] == hidden_size and first.shape[0] == second.shape[1]:
                return names, second.shape[0]
    return [], 0


def config_values(config: EchoCareConfig) -> dict[str, Any]:
    """The values of a configuration that decide the shapes of encoder and decoder."""
    return {name: getattr(config, name) for name in (*ARCHITECTURE, "mask_unit_size", "decoder_type")}


def _modules(names: Mapping[str, Tensor]) -> list[str]:
    """Every prefix, up to a dot, under which a tensor stands; the shortest first."""
    parts = [name.split(".") for name in names]
    return sorted({".".join((*path[:depth], "")) for path in parts for depth in range(len(path))}, key=len)


def _bias(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"
