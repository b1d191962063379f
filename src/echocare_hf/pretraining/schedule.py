"""What changes over a pretraining run, in one object: learning rate, image size, mask ratio, share of hard patches, decay of the EMA.

    schedule = Schedule(steps=1000, learning_rate=1e-3, warmup_steps=100, image_size="0:128 0.5:192", mask_ratio="0:0.4 1:0.6")
    schedule.at(500).image_size          # 192

A value that changes is written as knots `progress:value`, progress from 0 to 1. Numbers run straight from knot to knot; the image size
jumps at each. One number alone holds for the whole run.
"""

import math
from bisect import bisect_right
from dataclasses import asdict, dataclass
from itertools import pairwise

Knots = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Moment:
    """The values of one step.

    Attributes:
        progress: share of the run that is done, 0 to below 1.
        learning_rate: of AdamW.
        image_size: side of the square input in pixels.
        mask_ratio: share of the mask units that are hidden, 0 to 1.
        hard_share: share of the hidden units that the teacher chooses, 0 to 1.
        ema_decay: share of its old value that the EMA keeps, 0 to 1.
    """

    progress: float
    learning_rate: float
    image_size: int
    mask_ratio: float
    hard_share: float
    ema_decay: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def read_knots(text: str, what: str) -> Knots:
    """`"0.5"` or `"0:128 0.5:192 0.8:256"` as pairs (progress, value), in ascending order.

    Raises:
        ValueError: if it cannot be read so, or does not start at 0 and stay within 0 to 1.
    """
    try:
        pairs = [part.split(":") for part in str(text).replace(",", " ").split()]
        knots = tuple((float(pair[0]), float(pair[1])) if len(pair) == 2 else (0.0, float(*pair)) for pair in pairs)
    except (TypeError, ValueError):
        knots = ()
    places = [place for place, _ in knots]
    fits = (
        bool(knots)
        and places[0] == 0
        and places[-1] <= 1
        and all(one < next_one for one, next_one in pairwise(places))
    )
    if not fits or not all(math.isfinite(value) for _, value in knots):
        raise ValueError(
            f"{what}: {text!r} is neither a number nor knots such as '0:128 0.5:192' (progress from 0 to 1, ascending, the first 0)"
        )
    return knots


def jump(knots: Knots, progress: float) -> float:
    """The value of the last knot that is reached."""
    return knots[bisect_right([place for place, _ in knots], progress) - 1][1]


def glide(knots: Knots, progress: float) -> float:
    """Straight from knot to knot, the last value after the last one."""
    index = bisect_right([place for place, _ in knots], progress)
    if index == len(knots):
        return knots[-1][1]
    (start, low), (end, high) = knots[index - 1], knots[index]
    return low + (high - low) * (progress - start) / (end - start)


def warmup_cosine(step: float, steps: float, warmup_steps: float, floor: float = 0.0) -> float:
    """Factor of the learning rate: straight up to 1 over `warmup_steps` (the first step is not 0), then a cosine down to `floor`.

    Source: paper section 4.2 (10,000 warm-up steps, cosine decay).
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    share = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


class Schedule:
    """All that changes over a run (progressive training), as a function of the step alone.

    Args:
        steps: length of the run.
        learning_rate: highest.
        warmup_steps: steps in which it rises.
        learning_rate_floor: share of the highest at which the cosine ends.
        image_size: side in pixels, knots; jumps.
        mask_ratio: 0 to 1, knots.
        hard_share: 0 to 1, knots.
        ema_decay: 0 to below 1, knots. At the start it is held down to (1 + step) / (10 + step), so that the random weights fade.

    Raises:
        ValueError: for knots that cannot be read, or values out of range.
    """

    def __init__(
        self,
        steps: int,
        learning_rate: float,
        warmup_steps: int = 0,
        learning_rate_floor: float = 0.0,
        image_size: str = "256",
        mask_ratio: str = "0.5",
        hard_share: str = "0",
        ema_decay: str = "0:0.999 1:0.9999",
    ) -> None:
        if steps < 1 or not 0 <= warmup_steps <= steps or not learning_rate > 0:
            raise ValueError(
                f"steps ({steps}) and learning_rate ({learning_rate}) are above 0, warmup_steps ({warmup_steps}) at most steps"
            )
        self.steps, self.learning_rate, self.warmup_steps, self.floor = (
            steps,
            learning_rate,
            warmup_steps,
            learning_rate_floor,
        )
        self.image_sizes = read_knots(image_size, "image_size")
        self.mask_ratios = read_knots(mask_ratio, "mask_ratio")
        self.hard_shares = read_knots(hard_share, "hard_share")
        self.ema_decays = read_knots(ema_decay, "ema_decay")
        for name, knots in (
            ("mask_ratio", self.mask_ratios),
            ("hard_share", self.hard_shares),
            ("ema_decay", self.ema_decays),
        ):
            if not all(0 <= value <= 1 for _, value in knots):
                raise ValueError(f"{name} lies between 0 and 1, got {knots}")
        if not all(value >= 32 and value == int(value) for _, value in self.image_sizes):
            raise ValueError(f"image_size is a whole number of at least 32 pixels, got {image_size!r}")

    @property
    def largest_image(self) -> int:
        return int(max(value for _, value in self.image_sizes))

    def at(self, step: int) -> Moment:
        """The values of step `step`, counted from 0."""
        progress = step / self.steps
        return Moment(
            progress=progress,
            learning_rate=self.learning_rate * warmup_cosine(step, self.steps, self.warmup_steps, self.floor),
            image_size=int(jump(self.image_sizes, progress)),
            mask_ratio=glide(self.mask_ratios, progress),
            hard_share=glide(self.hard_shares, progress),
            ema_decay=min(glide(self.ema_decays, progress), (1 + step) / (10 + step)),
        )
