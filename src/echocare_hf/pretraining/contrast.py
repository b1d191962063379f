"""Structured contrast: images with the same path in the anatomy tree are drawn together, level by level.

Source: the paper has no formula. Ours is supervised contrast for each level of the tree (Khosla et al., NeurIPS 2020, eq. 2), weighted
and constrained as in Zhang et al., "Use All The Labels: A Hierarchical Multi-Label Contrastive Learning Framework", CVPR 2022 (HiMulConE).
"""

import math

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn import functional as F


class ContrastProjection(nn.Module):
    """Two linear layers on the pooled feature, to numbers of length 1 together."""

    def __init__(self, hidden_size: int, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, size)

    def forward(self, pooled: Tensor) -> Tensor:
        """(batch, hidden_size) to float32 (batch, size)."""
        return F.normalize(self.output(F.gelu(self.dense(pooled))).float(), dim=-1)


def structured_contrast_loss(projections: Tensor, levels: Tensor, temperature: float = 0.07) -> Tensor:
    """Sum over the levels of weight x loss, divided by the sum of the weights; a finer level costs at least what a coarser one does.

    The loss of a level is the mean over its anchors, images that are labelled there and share the label with another image, of
    the mean over these others of -log (exp(similarity / temperature) / sum over all other images of the same). Of L levels, level l
    (0 for the coarsest) weighs exp(1 / (L - l)). With several processes the images of all are contrasted.

    Args:
        projections: (batch, size), of length 1.
        levels: (batch, levels), the node at each level, coarse first; -1 where unknown. A node has one parent, so equal nodes mean
            equal paths.
        temperature: above 0.

    Returns:
        A scalar in float32; 0 if no two images share a label. Its mean over processes is the loss of all images.
    """
    keys, key_levels, offset = _from_all_processes(projections, levels)
    with torch.autocast(projections.device.type, enabled=False):
        similarity = projections @ keys.t() / temperature  # (anchors, images)
    itself = torch.zeros_like(similarity, dtype=torch.bool)
    rows = torch.arange(len(projections), device=similarity.device)
    itself[rows, rows + offset] = True
    log_share = similarity - similarity.masked_fill(itself, float("-inf")).logsumexp(1, keepdim=True)
    depth = levels.shape[1]
    processes = len(keys) // max(len(projections), 1)
    total = coarser = projections.sum() * 0
    weights = [math.exp(1 / (depth - level)) for level in range(depth)]
    for level, weight in enumerate(weights):
        same = (levels[:, level, None] == key_levels[None, :, level]) & (levels[:, level, None] >= 0) & ~itself
        positives = same.sum(1)
        anchors = positives > 0
        losses = -(log_share.masked_fill(~same, 0.0).sum(1) / positives.clamp(min=1))[anchors]
        count = _sum_over_processes(anchors.sum())
        # Each process divides by its share of all anchors: the mean over processes is then the mean over anchors.
        loss = losses.sum() * processes / count.clamp(min=1)
        if _mean_over_processes(coarser) > _mean_over_processes(loss):
            loss = coarser
        coarser = loss
        total = total + weight * loss
    return total / sum(weights)


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _from_all_processes(projections: Tensor, levels: Tensor) -> tuple[Tensor, Tensor, int]:
    """Projections and levels of all processes, in their order, and where the own ones start; gradients reach those of others."""
    if not _several():
        return projections, levels, 0
    from torch.distributed.nn.functional import all_gather

    # Gradients of other processes' losses come back summed, and are averaged with the others afterwards, like all gradients.
    keys = torch.cat(list(all_gather(projections)))
    parts = [torch.empty_like(levels) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, levels.contiguous())
    return keys, torch.cat(parts), distributed.get_rank() * len(projections)


def _sum_over_processes(value: Tensor) -> Tensor:
    if _several():
        value = value.clone()
        distributed.all_reduce(value)
    return value


def _mean_over_processes(value: Tensor) -> Tensor:
    mean = _sum_over_processes(value.detach())
    return mean / distributed.get_world_size() if _several() else mean
