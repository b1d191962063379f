"""What a user may say about a data set, where its column names and file names do not say it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from .record import IGNORE_INDEX

MaskValues = Mapping[int | str, str | None] | Sequence[str] | Literal["threshold"]
IGNORED = "ignore"
BACKGROUND = "background"


@dataclass(frozen=True)
class Options:
    """The keyword arguments of `read_labelled`, which documents them."""

    label: str | Sequence[str] | None = None
    classes: Sequence[str] | None = None
    one_class: str | None = None
    group: str | None = None
    group_pattern: str | None = None
    split: str | None = None
    image: str | None = None
    mask: str | None = None
    mask_values: MaskValues | None = None
    target: str | Sequence[str] | None = None
    keypoints: Sequence[str] | None = None
    keypoint_pairs: Sequence[tuple[str, str] | str] | None = None
    first_pixel: Literal["centre", "edge"] | None = None
    sequence: str | None = None
    clip_frames: int = 5
    min_frames: int = 2
    frame_rate: float | None = None
    metadata: str | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if self.clip_frames < 1 or self.min_frames < 1:
            raise ValueError(
                f"--clip_frames and --min_frames must be at least 1, not {self.clip_frames} and {self.min_frames}"
            )
        if self.frame_rate is not None and not self.frame_rate > 0:
            raise ValueError(f"--frame_rate is in frames a second, above 0, not {self.frame_rate}")
        if self.first_pixel not in (None, "centre", "edge"):
            raise ValueError(f"--first_pixel is 'centre' or 'edge', not {self.first_pixel!r}")
        if self.group_pattern is not None:
            try:
                pattern = re.compile(self.group_pattern)
            except re.error as error:
                raise ValueError(
                    f"--group_pattern {self.group_pattern!r} is no regular expression ({error})"
                ) from error
            if pattern.groups < 1:
                raise ValueError(
                    f"--group_pattern {self.group_pattern!r} needs parentheses around what names the group, as in '(P\\d+)_'"
                )
        if len(set(self.classes or ())) != len(self.classes or ()):
            raise ValueError(f"--classes names one of them twice: {', '.join(self.classes or ())}")

        if self.keypoint_pairs is not None:
            parse_keypoint_pairs(self.keypoint_pairs)

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns named by `label`."""
        return (self.label,) if isinstance(self.label, str) else tuple(self.label or ())

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns named by `target`."""
        return (self.target,) if isinstance(self.target, str) else tuple(self.target or ())


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts "2" before "10", "4A" before "4B" before "5"; "A" before "a", so that no two names are equal."""
    parts = re.findall(r"\d+|\D+", name.lower())
    return [*((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts), (-1, 0, name)]


def ordered_by_number(names: Sequence[str]) -> bool:
    """Whether numbers in names tell that the names stand in ascending order, as in "BI-RADS 3", "BI-RADS 4a", "BI-RADS 4b", "BI-RADS 5".

    Each name has a number, after the same words if any; one letter after equal numbers may tell names apart.
    """
    found = [re.fullmatch(r"(\D*)(\d+(?:\.\d+)?)(.*)", name.strip().lower()) for name in names]
    matches = [match for match in found if match is not None]
    words = {match[1].strip() for match in matches}
    if (
        len(matches) < len(found) or len(words) > 1 or words == {"-"}
    ):  # negative numbers were sorted without their sign
        return False
    keys = [(float(match[2]), match[3].strip()) for match in matches]
    return all(
        low[0] < high[0] or (low < high and len(low[1]) <= 1 and len(high[1]) == 1) for low, high in pairwise(keys)
    )


def parse_keypoint_pairs(keypoint_pairs: Sequence[tuple[str, str] | str]) -> tuple[tuple[str, str], ...]:
    """Pairs of names of landmarks, `[("left", "right")]` or the same as `["left=right"]`.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(keypoint_pairs, str):
        raise ValueError(f"--keypoint_pairs is a list of pairs such as left=right, not {keypoint_pairs!r}")
    pairs = []
    for pair in keypoint_pairs:
        names = [name.strip() for name in (pair.split("=") if isinstance(pair, str) else pair)]
        if len(names) != 2 or not all(names) or names[0] == names[1]:
            raise ValueError(f"--keypoint_pairs are pairs of two names such as left=right, not {pair!r}")
        pairs.append((names[0], names[1]))
    return tuple(pairs)


def parse_mask_values(mask_values: MaskValues) -> dict[int, str]:
    """What the user says about mask values, as raw value to class name.

    Args:
        mask_values: `{0: "background", 1: "nerve", "#ff0000": "vessel", 255: "ignore"}`, or the same as `["0=background", "1=nerve"]`;
            None for a name is "ignore". "threshold", alone or as the only one of a list, makes everything above 127 the class
            "foreground".

    Raises:
        ValueError: for anything else.
    """
    if mask_values == "threshold" or (not isinstance(mask_values, Mapping) and list(mask_values) == ["threshold"]):
        return {value: "foreground" if value > 127 else BACKGROUND for value in range(256)}
    if isinstance(mask_values, str):
        raise ValueError(f"--mask_values is 'threshold' or pairs such as 1=nerve, not {mask_values!r}")
    if isinstance(mask_values, Mapping):
        pairs = [(str(value), name) for value, name in mask_values.items()]
    else:
        split = [item.partition("=") for item in mask_values]
        if any(not separator or not name for _, separator, name in split):
            raise ValueError(
                f"--mask_values are pairs of a value and a name such as 1=nerve, or threshold alone, not {' '.join(mask_values)}"
            )
        pairs = [(value, name) for value, _, name in split]
    parsed = {}
    for value, name in pairs:
        try:
            raw = int(value.strip()[1:], 16) if value.strip().startswith("#") else int(value)
        except ValueError as error:
            raise ValueError(
                f"--mask_values: {value!r} is neither a whole number nor a colour such as #ff0000"
            ) from error
        parsed[raw] = IGNORED if name is None else str(name).strip()
    if not parsed:
        raise ValueError("--mask_values is empty; name the values, such as 0=background 1=nerve")
    return parsed


def mask_classes(names: Mapping[int, str]) -> tuple[dict[int, int], tuple[str, ...]]:
    """Raw value to class name, turned into raw value to class index, and the names of the classes with background first."""
    classes = [BACKGROUND]
    for value in sorted(names):
        if names[value] not in (IGNORED, *classes):
            classes.append(names[value])
    indices = {value: IGNORE_INDEX if name == IGNORED else classes.index(name) for value, name in names.items()}
    return indices, tuple(classes)
