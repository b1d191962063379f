"""What makes labelled data unfit for training, found before it starts."""

from collections import defaultdict
from dataclasses import replace

import numpy as np

from .findings import contradict
from .fingerprint import NEAR_DISTANCE, near_pairs
from .record import LabelledData, Sample

# How far outside its image the centre of a box or a landmark may lie, as a share of the image's side.
_OUTSIDE = 0.25


def check_consistency(data: LabelledData) -> LabelledData:
    """Refuse data that contradicts itself, and note what looks wrong.

    Returns:
        The data with further problems: images with equal pixels (or, where there are no groups, of equal looks) that have different
        labels, images with equal pixels in different splits, and images of which nothing says what patient they are of.

    Raises:
        ValueError: if there is one example only, one class only, a class without examples, a group in two splits, or a box or
            landmark far outside its image.
    """
    if len(data.samples) < 2:
        raise ValueError(
            f"{data.source}: {len(data.samples)} example is too few for {data.task}; give images to train on and others to test on"
        )
    _check_classes(data)
    _check_splits(data)
    for sample in data.samples:
        _check_places(sample)
    return replace(data, problems=(*data.problems, *_same_pixels(data), *_same_looks(data), *_without_groups(data)))


def _check_classes(data: LabelledData) -> None:
    if data.problem_type not in ("single_label_classification", "multi_label_classification"):
        return
    counts = data.class_counts()
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise ValueError(
            f"{data.source}: no image of class {', '.join(empty)} can be used; add images of it, or remove it"
        )
    if len(counts) < 2 and not data.multi_label:
        raise ValueError(
            f"{data.source}: all {len(data.samples)} examples are of one class, {data.class_names[0]}; a classifier needs two"
        )


def _check_splits(data: LabelledData) -> None:
    splits: dict[str, dict[str, str]] = defaultdict(dict)
    for sample in data.samples:
        if sample.group is not None and sample.split is not None:
            splits[sample.group].setdefault(sample.split, sample.name)
    torn = {group: where for group, where in splits.items() if len(where) > 1}
    if torn:
        group, where = next(iter(torn.items()))
        examples = " and ".join(f"{split} ({name})" for split, name in where.items())
        raise ValueError(
            f"{data.source}: the group {group} stands in {examples}, as do {len(torn) - 1} others; correct the split column, or "
            "split anew: --split ignore"
        )


def _check_places(sample: Sample) -> None:
    if sample.size is None:
        return
    height, width = sample.size
    points = [(box.cx, box.cy) for box in sample.boxes or ()]
    points += [point for point in sample.keypoints or () if point[0] == point[0]]
    for x, y in points:
        if not (-_OUTSIDE <= x / width <= 1 + _OUTSIDE and -_OUTSIDE <= y / height <= 1 + _OUTSIDE):
            raise ValueError(
                f"{sample.name}: the place ({x:g}, {y:g}) lies far outside its {width} x {height} pixels; give coordinates in pixels of "
                "the stored image"
            )
    if len(points) > 1 and max(max(point) for point in points) <= 2:
        raise ValueError(f"{sample.name}: its coordinates look like shares of the image; give them in pixels")


def _same_pixels(data: LabelledData) -> list[str]:
    """Notes on equal images that are labelled differently, or stand in different splits."""
    same: dict[str, dict[str, Sample]] = defaultdict(dict)
    for sample in data.samples:
        for digest in sample.digests:
            same[digest].setdefault(sample.name, sample)
    notes = []
    for samples in same.values():
        first, *others = samples.values()
        for other in others:
            if contradict(first.label, other.label) and len(first.images) == len(other.images) == 1:
                names = [
                    data.class_names[sample.label] if isinstance(sample.label, int) else str(sample.label)
                    for sample in (first, other)
                ]
                notes.append(
                    f"{first.name} ({names[0]}) and {other.name} ({names[1]}) have the same pixels but not the same label; correct one"
                )
            if first.split != other.split:
                notes.append(
                    f"{first.name} ({first.split}) and {other.name} ({other.split}) have the same pixels; remove one of them"
                )
    return notes


def _same_looks(data: LabelledData) -> list[str]:
    """A note on images that look the same, but not to whoever labelled them; frames of one group often do, so only without groups."""
    hashed = [sample for sample in data.samples if sample.perceptual_hash is not None]
    if data.problem_type != "single_label_classification" or any(sample.group is not None for sample in hashed):
        return []
    pairs = near_pairs(np.array([sample.perceptual_hash for sample in hashed], np.uint64), NEAR_DISTANCE)
    torn = [
        (hashed[one], hashed[other])
        for one, other in pairs
        if hashed[one].label != hashed[other].label and hashed[one].digests != hashed[other].digests
    ]
    if not torn:
        return []
    first = " and ".join(f"{sample.name} ({data.class_names[int(sample.label)]})" for sample in torn[0])  # type: ignore[arg-type]
    return [
        f"{data.source}: {len(torn)} pairs of images look the same but have different labels, first {first}; look at them"
    ]


def _without_groups(data: LabelledData) -> list[str]:
    """A note on samples that a split deals out one by one, since neither a group nor the data's own split keeps them together."""
    alone = [sample for sample in data.samples if sample.group is None and sample.split is None]
    if not alone:
        return []
    what = "clips" if data.task == "video" else "images"
    some = f"no patients found: {what}"
    if len(alone) < len(data.samples):
        some = f"{len(alone)} of {len(data.samples)} {what} have no group (first {alone[0].name}) and"
    return [
        f"{data.source}: {some} are split one by one, and figures are too good where a patient has several; name the column with "
        "--group, or the part of file names with --group_pattern '(P\\d+)_'"
    ]
