"""AdamW as masked image modelling uses it, and the exponential moving average of the weights."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


def adamw(
    network: nn.Module,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.95),
    epsilon: float = 1e-8,
) -> torch.optim.AdamW:
    """AdamW; norms, biases, bias tables and tokens do not decay."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        plain = parameter.ndim < 2 or "bias" in name or "token" in name
        (others if plain else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=epsilon, fused=True)


class MovingAverage:
    """The exponential moving average of a network's weights: teacher of the hard patches, and what is evaluated and published.

    Args:
        network: the network before it is wrapped for several processes.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float) -> None:
        """average = decay x average + (1 - decay) x weight, for every parameter; sharded ones are gathered."""
        new = [parameter.detach() for parameter in network.parameters()]
        new = [parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter for parameter in new]
        averages: list[Tensor] = [parameter.data for parameter in self.network.parameters()]
        torch._foreach_lerp_(averages, new, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return self.network.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state)
