"""Who is measured: EchoCare from a checkpoint or from random weights, another backbone, or a floor that learns nothing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from echocare_hf.checkpoints import find_checkpoint
from echocare_hf.finetuning.models import PRESETS, is_hub_id

from . import backbones
from .backbones_sources import short_source
from .provenance import weights_hash

FLOORS = ("pixels", "mean", "filters", "retrieval", "frequent", "frequent_organ")
Kind = Literal["echocare", "scratch", "backbone", "floor"]


@dataclass(frozen=True)
class Contender:
    """A model as it stands in tables.

    Attributes:
        name: what tables and records call it.
        source: what was named on the command line.
        kind: "echocare" for a checkpoint, "scratch" for a preset with random weights, "backbone" for a network of timm, transformers or
            another model type, "floor" for a method without a network.
        train_share: share of the training labels that it learns from.
    """

    name: str
    source: str
    kind: Kind
    train_share: float = 1.0

    @property
    def slug(self) -> str:
        """Its folder: letters, digits, points and hyphens; the share of the labels in per cent after `@`."""
        base = re.sub(r"[^\w.-]+", "-", self.name.replace("/", "--")).strip("-.")
        return base if self.train_share == 1 else f"{base}@{100 * self.train_share:g}"

    @property
    def label(self) -> str:
        return self.name if self.train_share == 1 else f"{self.name}, {100 * self.train_share:g} % of the labels"

    @property
    def model(self) -> str:
        """What fine-tuning starts its configuration and image processor from: another backbone takes those of the preset tiny."""
        return self.source if self.kind in ("echocare", "scratch") else "tiny"

    def is_random(self, pretrained: bool) -> bool:
        """Whether its weights are random.

        Args:
            pretrained: as in `contender`.
        """
        return self.kind == "scratch" or (
            self.kind == "backbone" and self.source.startswith("timm:") and not pretrained
        )

    def describe(self, pretrained: bool) -> dict[str, Any]:
        """What a record says of where its weights come from: source, whether they are random, and their sha256."""
        facts: dict[str, Any] = {"source": short_source(self.source), "kind": self.kind}
        if self.kind == "floor":
            return facts
        random = self.is_random(pretrained)
        facts |= {"random_weights": random}
        if self.kind == "backbone":
            return _described(self.source, not random) | facts
        return facts | {"weights_sha256": None if random else weights_hash(find_checkpoint(self.source))}


@cache
def _described(source: str, pretrained: bool) -> dict[str, Any]:
    """`backbones.describe`, which builds the network, once."""
    return backbones.describe(source, pretrained)


def contender(text: str, train_share: float = 1.0, pretrained: bool = False) -> Contender:
    """A contender from the command line: `NAME=SOURCE`, or a source that names itself.

    Args:
        text: what was given.
        train_share: share of the training labels; a floor has all of them.
        pretrained: whether timm is asked for its weights.

    Raises:
        ValueError: for a name without a source, or a source that there is not.
    """
    name, equals, source = text.partition("=")
    if not equals:
        name, source = "", text
    if not source or (equals and not name):
        raise ValueError(f"--model {text}: write a model, or NAME=MODEL")
    kind = _kind(source)
    default = short_source(source.removeprefix("hf:"))
    if kind == "scratch" or (source.startswith("timm:") and not pretrained):
        default += " (random weights)"
    found = Contender(name or default, source, kind, 1.0 if kind == "floor" else train_share)
    if not found.slug:
        raise ValueError(f"--model {text}: a name has at least one letter or digit; write NAME=MODEL")
    return found


def _kind(source: str) -> Kind:
    if source in FLOORS:
        return "floor"
    if source in PRESETS and not Path(source).is_dir():
        return "scratch"
    found = find_checkpoint(source)
    if not source.startswith(("timm:", "hf:")) and not Path(found).is_dir() and not is_hub_id(found):
        raise ValueError(
            f"--model {source}: there is no such folder; a model is a folder, a Hub id, echocare-tiny, tiny, base or large for random "
            f"weights, timm:NAME, hf:ID, or a floor ({', '.join(FLOORS)})"
        )
    return "backbone" if backbones.is_foreign(source) else "echocare"


def contenders(texts: Sequence[str], shares: Sequence[float] = (1.0,), pretrained: bool = False) -> list[Contender]:
    """All contenders of a command, each with each share of the labels, see `contender`.

    Raises:
        ValueError: for two of one name, and for what `contender` refuses.
    """
    found = list(dict.fromkeys(contender(text, share, pretrained) for share in shares for text in texts))
    slugs: dict[str, Contender] = {}
    for one in found:
        other = slugs.setdefault(one.slug.lower(), one)
        if other is not one:
            raise ValueError(
                f"--model {other.source} and {one.source}: both would be called {one.name}; give one another name with NAME=MODEL"
            )
    return found
