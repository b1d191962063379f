"""Adaptive hard patch mining: a predictor says how hard each mask unit is to restore, and its EMA chooses what to hide.

Source: Wang et al., "Hard Patches Mining for Masked Image Modeling", CVPR 2023: relative loss (eq. 5), teacher and easy-to-hard share
(section 3.3).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echocare_hf.data.masking import masked_unit_count
from echocare_hf.model.configuration_echocare import EchoCareConfig


class PatchLossPredictor(nn.Module):
    """One score for each mask unit, from the last feature map: one 1x1 convolution to all units of a place, and pixel shuffle.

    Where a unit is larger than a place of the map, the scores of its places are averaged.
    """

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        self.units = max(config.output_stride // config.mask_unit_size, 1)  # across one place of the map
        self.score = nn.Conv2d(config.hidden_size, self.units**2, 1)

    def forward(self, feature_map: Tensor, rows: int, columns: int) -> Tensor:
        """(batch, hidden_size, height, width) to (batch, rows, columns)."""
        scores = F.pixel_shuffle(self.score(feature_map), self.units)[:, 0]
        if scores.shape[1] < rows or scores.shape[2] < columns or self.units == 1:
            return F.adaptive_avg_pool2d(scores, (rows, columns))
        return scores[:, :rows, :columns]


def unit_losses(reconstruction: Tensor, pixel_values: Tensor, mask_unit_size: int) -> Tensor:
    """Mean absolute error of each mask unit, float32 (batch, rows, columns); units that hang over the edge count what they have."""
    error = (reconstruction.float() - pixel_values.float()).abs().mean(1, keepdim=True)  # (batch, 1, height, width)
    return F.avg_pool2d(error, mask_unit_size, mask_unit_size, ceil_mode=True)[:, 0]


def relative_loss(scores: Tensor, losses: Tensor, mask: Tensor) -> Tensor:
    """-log sigmoid(score_j - score_i) wherever loss_j > loss_i, both hidden; the mean over the pairs of an image, then over the images.

    Args:
        scores: (batch, rows, columns), what the predictor says.
        losses: of the same shape, the true losses; no gradient flows into them.
        mask: bool, of the same shape, True where hidden.

    Returns:
        A scalar in float32; log 2 if the scores say nothing. Images without unequal pairs add 0.
    """
    scores, losses, hidden = scores.float().flatten(1), losses.detach().float().flatten(1), mask.flatten(1)
    harder = (
        (losses[:, :, None] > losses[:, None, :]) & hidden[:, :, None] & hidden[:, None, :]
    )  # (batch, units j, units i)
    pairs = F.softplus(scores[:, None, :] - scores[:, :, None])  # -log sigmoid(s_j - s_i)
    return ((pairs * harder).sum((1, 2)) / harder.sum((1, 2)).clamp(min=1)).mean()


def draw_mask(noise: Tensor, mask_ratio: float, scores: Tensor | None = None, hard_share: float = 0.0) -> Tensor:
    """Which units are hidden: the hardest by the scores, as many as `hard_share` says, the rest those of lowest noise.

    Args:
        noise: (batch, rows, columns), random numbers.
        mask_ratio: share of the units to hide, 0 to 1; the number is that of `masked_unit_count`.
        scores: of the same shape, higher for harder; None for none.
        hard_share: share of the hidden units that the scores choose, 0 to 1, rounded down.

    Returns:
        bool, of the same shape.
    """
    batch, rows, columns = noise.shape
    hidden = masked_unit_count(rows * columns, mask_ratio)
    hardest = int(hidden * hard_share + 1e-9) if scores is not None else 0
    # Noise lies between 0 and 1: what the scores have chosen sorts before it.
    ranks = noise.flatten(1).clone()
    if scores is not None and hardest:
        ranks.scatter_(1, scores.float().flatten(1).argsort(dim=1, descending=True, stable=True)[:, :hardest], -1.0)
    mask = torch.zeros_like(ranks, dtype=torch.bool)
    mask.scatter_(1, ranks.argsort(dim=1, stable=True)[:, :hidden], True)
    return mask.view(batch, rows, columns)
