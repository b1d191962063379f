"""Which values the numbers of a fine-tuning run may have."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Allowed values of a number.

    Attributes:
        low, high: the limits; infinite values are never allowed.
        above: whether `low` itself is too low.
        below: whether `high` itself is too high.
        whole: whether it is a whole number.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False

    def allows(self, value: Any) -> bool:
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            return False
        return (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        )

    def __str__(self) -> str:
        parts = [f"{'above' if self.above else 'of at least'} {self.low:g}"]
        if math.isfinite(self.high):
            parts.append(f"below {self.high:g}" if self.below else f"at most {self.high:.0f}")
        return f"a {'whole ' if self.whole else ''}number {' and '.join(parts)}"


COUNT, POSITIVE, NOT_NEGATIVE = Range(1, whole=True), Range(0, above=True), Range(0)
SHARE = Range(0, 1, below=True)

RANGES = {
    "seed": Range(0, 2**32 - 1, whole=True),  # what numpy takes
    "split_seed": Range(0, 2**32 - 1, whole=True),
    "train_share": Range(0, 1, above=True),
    "epochs": COUNT,
    "minutes": POSITIVE,
    "cpu_minutes": POSITIVE,
    "batch_size": COUNT,
    "accumulation": COUNT,
    "learning_rate": POSITIVE,
    "layer_decay": Range(0, 1, above=True),
    "weight_decay": NOT_NEGATIVE,
    "warmup": SHARE,
    "patience": Range(0, whole=True),
    "max_grad_norm": NOT_NEGATIVE,  # 0 clips nothing
    "image_size": Range(8, whole=True),  # the smallest that the encoder takes
    "drop_path": SHARE,
    "head_first": Range(0, 1),  # at 1 the encoder never learns
    "lora_rank": Range(0, whole=True),
    "augmentation": NOT_NEGATIVE,
    "deep_supervision": NOT_NEGATIVE,
    "num_frames": COUNT,
    "degradation": NOT_NEGATIVE,
    "adversarial_weight": NOT_NEGATIVE,
}
CHOICES = {"resize_mode": ("squash", "pad")}


def check_values(values: Mapping[str, Any], optional: frozenset[str]) -> None:
    """Checks each value by itself, then those that do not go together.

    Args:
        values: name to value, of `FinetuneArguments`.
        optional: names whose value may be None.

    Raises:
        ValueError: for the first that is not allowed, with its flag, its value and what is.
    """
    for name, allowed in RANGES.items():
        if not (values[name] is None and name in optional) and not allowed.allows(values[name]):
            raise ValueError(f"--{name} is {values[name]}: give {allowed}")
    for name, choices in CHOICES.items():
        if values[name] not in choices:
            raise ValueError(f"--{name} is {values[name]}: give {' or '.join(choices)}")
    _check_fractions(values["fractions"])
    if values["minutes"] is not None and values["cpu_minutes"] is not None:
        raise ValueError(
            f"--minutes is {values['minutes']} and --cpu_minutes is {values['cpu_minutes']}: give one of them, not both"
        )
    if values["lora_rank"] and values["freeze_encoder"]:
        raise ValueError(
            f"--lora_rank is {values['lora_rank']} and --freeze_encoder is true: adapters are in the encoder, give one of them, not both"
        )


def _check_fractions(fractions: Any) -> None:
    shares = fractions if isinstance(fractions, list | tuple) else [fractions]
    if len(shares) != 3 or not all(NOT_NEGATIVE.allows(share) for share in shares) or shares[0] <= 0:
        shown = " ".join(str(share) for share in shares)
        raise ValueError(
            f"--fractions is {shown}: give three numbers, the shares of train (above 0), validation and test (of at least 0)"
        )


__all__ = ["CHOICES", "RANGES", "Range", "check_values"]
