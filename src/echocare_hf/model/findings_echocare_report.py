"""What the findings head tells, as tokens that the decoder attends to beside those of the images."""

import torch
from torch import Tensor, nn
from transformers import initialization as init

UNKNOWN_FINDING = -1  # as in the anatomy labels
IGNORED_FINDING = -100  # what torch's cross-entropy leaves out

# Initial deviation of a token, about that of a token of the images.
DEVIATION = 1.0


class EchoCareFindingTokens(nn.Module):
    """One token a finding, on the line between the one for "absent" and the one for "present".

    Args:
        findings (`int`): how many.
        width (`int`): of the decoder.
    """

    def __init__(self, findings: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(findings, 2, width))
        self.reset()

    def reset(self) -> None:
        """Random tokens. For `_init_weights`."""
        init.normal_(self.weight, std=DEVIATION)

    def forward(self, probabilities: Tensor) -> Tensor:
        """(batch, findings), 0 to 1, to (batch, findings, width)."""
        absent, present = self.weight.unbind(1)
        return torch.lerp(absent, present, probabilities[..., None].to(self.weight.dtype))


def known_findings(findings: Tensor) -> Tensor:
    """True where a finding (batch, findings) is stated: 1 present, 0 absent, between for a soft label; not -1, -100 or NaN."""
    return ~(findings.isnan() | (findings == IGNORED_FINDING) | (findings == UNKNOWN_FINDING))


__all__ = ["EchoCareFindingTokens", "known_findings"]
