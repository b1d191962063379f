"""Prompts of different length in one batch: padding moved to the left, and positions that do not count it."""

import torch
from torch import Tensor


def position_ids(mask: Tensor) -> Tensor:
    """The place of each token in its text (batch, tokens), from a mask (batch, tokens) that is 0 for padding; 0 for padding."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def left_padded(ids: Tensor, mask: Tensor | None, pad: int, start: int) -> tuple[Tensor, Tensor]:
    """Prompts as generation needs them: padding at the left, and no more of it than the longest prompt leaves.

    Args:
        ids: (batch, tokens), padded at either side.
        mask: (batch, tokens), 0 for padding; read off the pad tokens when None, where these cannot be start tokens.
        pad: id of the padding.
        start: id that prompts begin with.

    Returns:
        ids and mask, both (batch, length of the longest prompt), int64.

    Raises:
        ValueError: for a mask of another shape, or a prompt without a token.
    """
    if mask is None:
        mask = torch.ones_like(ids) if pad == start else (ids != pad).long()
    if mask.shape != ids.shape:
        raise ValueError(
            f"`decoder_attention_mask` must be {tuple(ids.shape)} as the prompts, got {tuple(mask.shape)}"
        )
    lengths = mask.long().sum(1)
    if bool((lengths == 0).any()):
        raise ValueError(
            f"prompt {int((lengths == 0).nonzero()[0])} has no token: it begins with the start token {start}"
        )
    order = mask.long().argsort(dim=1, stable=True)  # padding first, tokens in their order
    longest = int(lengths.max())
    return ids.gather(1, order)[:, -longest:], mask.long().gather(1, order)[:, -longest:]


__all__ = ["left_padded", "position_ids"]
