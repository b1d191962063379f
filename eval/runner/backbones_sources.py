"""What a network of another library is known by, and what is asked of it: feature maps, shallow first."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

from echocare_hf.finetuning.record import short_name

from .backbones_pyramid import Plan


@dataclass(frozen=True)
class Recipe:
    """What it takes to build a network again, without its weights and the place they came from. JSON can hold it.

    Attributes:
        library: "timm" or "transformers".
        reference: what its weights are found by: a name in timm, a folder, or an id on the Hub.
        architecture: name in timm, or model type in transformers.
        config: of transformers; of timm what a checkpoint states beside its architecture.
        mean, std: of its input, one for each channel, of values from 0 to 1.
        drop_path: stochastic depth; None for the network's own.
    """

    library: str
    reference: str
    architecture: str
    config: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    drop_path: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


class Maps(nn.Module):
    """A network that returns feature maps: `forward` takes (batch, takes, height, width), normalised as it wants it.

    Attributes:
        plan: how the maps become a pyramid.
        takes: channels of its images.
    """

    plan: Plan
    takes: int = 3

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """The network's own maps, (batch, channels, rows, columns), shallow first."""
        raise NotImplementedError


def short_source(source: str) -> str:
    """A source as tables and records say it: what reads it and its name, without directories of this machine."""
    reader = re.match(r"(timm:)?(hf-hub:|local-dir:)|timm:|hf:|", source)[0]  # type: ignore[index]
    return reader + short_name(source.removeprefix(reader))


def one_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


__all__ = ["Maps", "Recipe", "one_line", "short_source"]
