"""Cross-attention for decoders that have none of their own, such as Llama, OPT and Qwen2: in front of each of their blocks.

Source: Alayrac et al. 2022, Flamingo, section 2.2, whose gated layers stand in front of the blocks of a language model; here without the
gate, since the decoder learns with them.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class EchoCareCrossAttention(nn.Module):
    """Multi-head attention of a decoder's tokens to those of the images, added to them.

    Args:
        width (`int`): channels of both.
        heads (`int`): that divide the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, tokens, width), (batch, memory, width) and True in (batch, memory) where it counts, to (batch, tokens, width)."""
        queries = self._split(self.query(self.norm(tokens.to(self.norm.weight.dtype))))
        keys, values = map(self._split, self.key_value(memory.to(self.norm.weight.dtype)).chunk(2, -1))
        allowed = None if mask is None else mask[:, None, None, :].bool()
        found = F.scaled_dot_product_attention(queries, keys, values, allowed)  # (batch, heads, tokens, width / heads)
        return tokens + self.output(found.transpose(1, 2).flatten(2)).to(tokens.dtype)

    def _split(self, values: Tensor) -> Tensor:
        """(batch, tokens, width) to (batch, heads, tokens, width / heads)."""
        return values.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class EchoCareImageAttention(nn.Module):
    """One cross-attention in front of each block of a decoder. The decoder itself, and the names of its weights, stay as they are.

    Args:
        decoder: a causal language model without cross-attention.

    Raises:
        ValueError: for a decoder whose blocks are not to be found.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        config = decoder.config
        heads = getattr(config, "num_attention_heads", None) or 1
        width = config.hidden_size
        self.layers = nn.ModuleList(
            EchoCareCrossAttention(width, heads if width % heads == 0 else 1) for _ in decoder_blocks(decoder)
        )
        self._shown: tuple[Tensor, Tensor | None] | None = None
        self.attach(decoder)

    def attach(self, decoder: Any) -> None:
        """Puts the attentions in front of a decoder's blocks."""
        for layer, block in zip(self.layers, decoder_blocks(decoder), strict=True):
            block.register_forward_pre_hook(partial(self._look, layer), with_kwargs=True)

    def decode(self, decoder: Any, memory: Tensor, mask: Tensor | None, **inputs: Any) -> Any:
        """What the decoder returns for its inputs, while it sees a memory (batch, tokens, width) and its mask (batch, tokens)."""
        self._shown = (memory, mask)
        try:
            return decoder(**inputs)
        finally:
            # Blocks that run again in the backward pass look again.
            if not (torch.is_grad_enabled() and getattr(decoder, "is_gradient_checkpointing", False)):
                self._shown = None

    def _look(self, layer: nn.Module, block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        if self._shown is None:
            return args, kwargs
        if args:
            return (layer(args[0], *self._shown), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": layer(kwargs["hidden_states"], *self._shown)}


def decoder_blocks(decoder: Any) -> nn.ModuleList:
    """The blocks of a causal language model: its list of as many modules as the configuration has hidden layers.

    Raises:
        ValueError: if it has none.
    """
    count = getattr(decoder.config, "num_hidden_layers", None)
    for module in decoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(
        f"{type(decoder).__name__} has neither cross-attention nor blocks to put it in front of, so it cannot see the images: "
        "choose another decoder, such as GPT-2, BERT, Llama or Qwen2"
    )


__all__ = ["EchoCareCrossAttention", "EchoCareImageAttention", "decoder_blocks"]
