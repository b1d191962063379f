"""The losses of EchoCare's pretraining: masked reconstruction (L_MIM) and the anatomy hierarchy (L_HIE)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_reconstruction_loss(reconstruction: Tensor, pixel_values: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error over the masked pixels and their channels, L_MIM.

    Args:
        reconstruction: (batch, channels, height, width), any range.
        pixel_values: the target, of the same shape.
        mask: True or 1 where masked, 0 elsewhere, at any resolution that divides the image: (batch, height, width) or
            (batch, 1, height, width) of pixels, or a coarser map (batch, units high, units wide).

    Returns:
        A scalar, at least 0, in fp32; 0 where nothing is masked.

    Raises:
        ValueError: if the shapes do not fit.

    Source: paper eq. 1. The released code forgets the channels in the divisor, so that its value is three times as large.
    """
    if reconstruction.shape != pixel_values.shape:
        raise ValueError(
            f"reconstruction {tuple(reconstruction.shape)} and image {tuple(pixel_values.shape)} differ in shape"
        )
    height, width = pixel_values.shape[-2:]
    mask = expand_mask(mask, height, width).unsqueeze(1)  # (batch, 1, height, width)
    error = (reconstruction.float() - pixel_values.float()).abs() * mask
    return error.sum() / (mask.sum() * pixel_values.shape[1]).clamp(min=1)


def expand_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask of units (batch, rows, columns) as a mask of a finer grid (batch, height, width), float 0 or 1.

    Raises:
        ValueError: if the units do not divide the grid: how far units that hang over the edge reach, only their maker knows.
    """
    if mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if mask.ndim != 3:
        raise ValueError(f"a mask is (batch, rows, columns), got {tuple(mask.shape)}")
    rows, columns = mask.shape[1:]
    if not rows or not columns or height % rows or width % columns:
        raise ValueError(
            f"a mask of {rows}x{columns} units does not divide {height}x{width}: expand it to pixels first"
        )
    return mask.float().repeat_interleave(height // rows, 1).repeat_interleave(width // columns, 2)


def tree_parents(tree: Any) -> list[int]:
    """The parent of each node of a tree, -1 for a root.

    Args:
        tree: an `AnatomyTree`, the `anatomy_tree` of a configuration, or the sequence of parents itself.
    """
    if isinstance(tree, Mapping):
        parents = tree["parents"]
    else:
        parents = getattr(tree, "parents", tree)
    if not isinstance(parents, Sequence):
        parents = parents.tolist()
    return [int(parent) for parent in parents]


def ancestor_matrix(tree: Any) -> Tensor:
    """Bool (nodes, nodes): [v, u] is True where u is v itself or an ancestor of v. Its transpose tells the descendants.

    Raises:
        ValueError: if the parents do not form a forest.
    """
    parents = tree_parents(tree)
    matrix = torch.eye(len(parents), dtype=torch.bool)
    for node in range(len(parents)):
        ancestor, steps = parents[node], 0
        while ancestor != -1:
            if not 0 <= ancestor < len(parents) or steps == len(parents):
                raise ValueError(f"the parents of node {node} do not lead to a root")
            matrix[node, ancestor] = True
            ancestor, steps = parents[ancestor], steps + 1
    return matrix


@lru_cache(maxsize=16)
def _relatives(parents: tuple[int, ...]) -> tuple[list[list[int]], list[list[int]]]:
    """For each node itself and its ancestors, and itself and its descendants; shorter rows are filled with the number of nodes."""
    matrix = ancestor_matrix(parents)
    tables = []
    for related in (matrix, matrix.t()):
        rows = [row.nonzero()[:, 0].tolist() for row in related]
        longest = max(map(len, rows), default=0)
        tables.append([row + [len(parents)] * (longest - len(row)) for row in rows])
    return tables[0], tables[1]


def _extreme_of_relatives(values: Tensor, relatives: list[list[int]], largest: bool) -> Tensor:
    """For each node the largest or smallest of `values` (batch, nodes) over its row of `_relatives`."""
    if not relatives:
        return values
    index = torch.tensor(relatives, device=values.device)
    # What a row is filled with is one more node that is never the extreme.
    values = F.pad(values, (0, 1), value=float("-inf") if largest else float("inf"))
    spread = values.index_select(1, index.flatten()).unflatten(1, index.shape)  # (batch, nodes, relatives)
    return spread.amax(-1) if largest else spread.amin(-1)


def coherent_anatomy_scores(logits: Tensor, ancestors: Tensor) -> Tensor:
    """Scores in which no node stands above its parent: the smallest sigmoid of a node and its ancestors.

    Args:
        logits: (batch, nodes).
        ancestors: bool (nodes, nodes), as `ancestor_matrix` returns.

    Returns:
        (batch, nodes), 0 to 1; p_v of the paper's hierarchy loss.
    """
    spread = logits.sigmoid()[:, None, :].masked_fill(~ancestors, float("inf"))  # (batch, nodes, nodes)
    return spread.amin(-1)


def anatomy_hierarchy_loss(logits: Tensor, labels: Tensor, tree: Any) -> Tensor:
    r"""The hierarchical anatomy loss, L_HIE.

    With s = sigmoid(logits), p_v = min of s over v and its ancestors, q_v = max of s over v and its descendants:

        L_HIE = sum over levels of the mean over the level's nodes of  -y_v log p_v - (1 - y_v) log(1 - q_v)

    The sigmoid being monotone, -log p_v is softplus(-min logit) and -log(1 - q_v) is softplus(max logit), which is how
    it is computed: finite for every finite logit, in any precision.

    Args:
        logits: (batch, nodes).
        labels: (batch, nodes), 1 present, 0 absent, -1 unknown. Taken as they are: a node's ancestors are expected to be
            labelled present with it (`AnatomyTree.labels` does so). An unknown node takes part in no term: the
            mean of a level is over its known nodes, and a level of which nothing is known adds 0.
        tree: an `AnatomyTree`, the `anatomy_tree` of a configuration, or the parent of each node (-1 for a root), of any depth.

    Returns:
        A scalar, at least 0, in fp32: the mean over the batch.

    Raises:
        ValueError: if logits, labels and tree differ in size, or a label is not 1, 0 or -1.

    Source: `docs/method.md`, section 2. The released code never finds an ancestor, so one sample stalls near 0.957.
    """
    parents = tree_parents(tree)
    if logits.ndim != 2 or logits.shape != labels.shape or logits.shape[1] != len(parents):
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} must both be (batch, {len(parents)} nodes)"
        )
    present, absent = labels == 1, labels == 0
    if not torch.compiler.is_compiling() and not bool((present | absent | (labels == -1)).all()):
        raise ValueError("anatomy labels are 1 (present), 0 (absent) or -1 (unknown)")

    logits = logits.float()
    ancestors, descendants = _relatives(tuple(parents))
    positive = F.softplus(-_extreme_of_relatives(logits, ancestors, largest=False))
    negative = F.softplus(_extreme_of_relatives(logits, descendants, largest=True))
    zero = torch.zeros((), device=logits.device)
    terms = torch.where(present, positive, torch.where(absent, negative, zero))  # (batch, nodes)

    depths = torch.tensor([sum(other < len(parents) for other in row) - 1 for row in ancestors], device=logits.device)
    levels = F.one_hot(depths).to(terms.dtype) if parents else terms.new_zeros(0, 0)
    with torch.autocast(logits.device.type, enabled=False):  # a product in bf16 would round the loss to two digits
        known = (present | absent).to(terms.dtype) @ levels  # (batch, levels)
        return (terms @ levels / known.clamp(min=1)).sum(1).mean()


__all__ = [
    "anatomy_hierarchy_loss",
    "ancestor_matrix",
    "coherent_anatomy_scores",
    "expand_mask",
    "masked_reconstruction_loss",
    "tree_parents",
]
