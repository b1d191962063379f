"""Train, validation and test: no patient in two of them, no picture in two of them, every class in each as far as possible.

    parts = split_by_group(data.samples, seed=0)
    train = [data.samples[index] for index in parts.train]
    print(parts.report())

Images are first joined to clusters that must stay together: those of one group (patient, sequence), those with the same pixels, and,
where the data names no groups, those that look the same. The clusters are then dealt out.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from .labelled.fingerprint import NEAR_DISTANCE, near_pairs
from .labelled.record import SPLIT_NAMES, Sample, SplitName

TARGET_BINS = 4
"""A measured value is stratified by this many bins of equal size."""


@dataclass(frozen=True)
class Split:
    """Indices of samples, each in exactly one part, in ascending order.

    Attributes:
        train: indices to train on.
        validation: indices to choose a checkpoint by.
        test: indices to measure on, once.
        num_clusters: number of clusters that were dealt out.
        same_pixels: samples that joined a cluster of another group because an image in it has the same pixels.
        look_alike: samples that did because an image in it looks the same.
        from_data: whether the parts are those that the data states.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    num_clusters: int
    same_pixels: int = 0
    look_alike: int = 0
    from_data: bool = False

    def report(self) -> str:
        """One line for people."""
        line = f"{len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
        line += " as the data states them" if self.from_data else f", dealt out in {self.num_clusters} clusters"
        if self.same_pixels or self.look_alike:
            line += f" ({self.same_pixels} joined by equal pixels, {self.look_alike} by looks)"
        return line


def split_by_group(
    samples: Sequence[Sample],
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    *,
    stratify: bool = True,
    near_duplicates: bool | None = None,
) -> Split:
    """Deal samples out to train, validation and test.

    Clusters are dealt from large to small, at random among those of like size, each to the part that lacks most of what it brings; so
    the shares of samples and of each class come out near `fractions` as far as the clusters allow. The result depends on names, labels
    and the seed, not on the order of `samples`.

    If samples carry a `split`, it is kept. Samples without one then go to train, and where the data has no validation part, one is dealt
    out of train (test likewise), with its share of `fractions`.

    Args:
        samples: the samples of a `LabelledData`, with distinct names.
        fractions: shares of train, validation and test; they are scaled to add up to 1. A share of 0 leaves the part empty.
        seed: of the random order.
        stratify: whether classes (findings, mask classes, bins of the first measured value) are balanced over the parts.
        near_duplicates: whether images that look the same are joined; None joins them if no sample has a group.

    Returns:
        A `Split`.

    Raises:
        ValueError: if there are fewer clusters than parts, a group stands in two stated splits, or the fractions make no sense.
    """
    shares = _check_fractions(fractions)
    order = sorted(range(len(samples)), key=lambda index: samples[index].name)  # names, not places, decide
    ordered = [samples[index] for index in order]
    cluster_of, same_pixels, look_alike = join_clusters(ordered, near_duplicates)
    strata = _strata(ordered) if stratify else [() for _ in ordered]
    parts: list[int] = [-1] * len(ordered)
    stated = {sample.split for sample in ordered if sample.split is not None}
    if stated:
        _keep_stated(ordered, parts)
        if 0 not in parts:
            raise ValueError(
                f"the data states {' and '.join(sorted(stated))}, but nothing to train on; ignore its split column"
            )
        missing = [
            part for part, name in enumerate(SPLIT_NAMES) if name not in stated and shares[part] > 0 and part > 0
        ]
        pool = [index for index, part in enumerate(parts) if part == 0]
        wanted = np.array([shares[part] if part == 0 or part in missing else 0.0 for part in range(3)])
        if missing:
            _deal(pool, cluster_of, strata, wanted / wanted.sum(), seed, parts)
    else:
        _deal(list(range(len(ordered))), cluster_of, strata, shares, seed, parts)
    train, validation, test = (
        tuple(sorted(order[index] for index, found in enumerate(parts) if found == part)) for part in range(3)
    )
    return Split(
        train,
        validation,
        test,
        num_clusters=len(set(cluster_of)),
        same_pixels=same_pixels,
        look_alike=look_alike,
        from_data=bool(stated),
    )


def share_of(samples: Sequence[Sample], share: float, seed: int = 0) -> list[Sample]:
    """A part of some samples, whole clusters, every class in it as far as possible: for curves over the number of labels.

    Of one seed a larger share holds every smaller one: the samples are halved again and again, balanced as `split_by_group` does, and a
    share takes whole halves from one end, that where the largest cluster seldom goes.

    Args:
        samples: with distinct names; the parts that they state do not matter.
        share: above 0 and at most 1.
        seed: of the random order.

    Returns:
        About `share` of the samples, at least one cluster, in their order.
    """
    order = sorted(range(len(samples)), key=lambda index: samples[index].name)
    ordered = [samples[index] for index in order]
    cluster_of, _, _ = join_clusters(ordered, None)
    strata = _strata(ordered)
    pool, taken, wanted = list(range(len(ordered))), [], share * len(ordered)
    halves = [-1] * len(ordered)
    while len({cluster_of[index] for index in pool}) > 1:
        _deal(pool, cluster_of, strata, np.array([0.5, 0.5]), seed, halves)
        first, second = ([index for index in pool if halves[index] == half] for half in (1, 0))
        if wanted <= len(first):
            pool = first
        else:
            pool = second
            taken += first
            wanted -= len(first)
    if not taken or wanted >= len(pool) / 2:
        taken += pool
    return [samples[index] for index in sorted(order[index] for index in taken)]


def _check_fractions(fractions: Sequence[float]) -> np.ndarray:
    shares = np.asarray(fractions, np.float64)
    if shares.shape != (3,) or not np.isfinite(shares).all() or (shares < 0).any() or shares[0] <= 0:
        raise ValueError(
            f"fractions are three shares, for train above 0, for validation and test at least 0, not {fractions}"
        )
    return shares / shares.sum()


def join_clusters(samples: Sequence[Sample], near_duplicates: bool | None) -> tuple[list[int], int, int]:
    """The cluster of each sample, and how many samples were joined to another group by equal pixels and by looks."""
    parents = list(range(len(samples)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    def join(first: int, second: int) -> bool:
        low, high = sorted((root(first), root(second)))
        parents[high] = low
        return low != high

    def join_equal(keys: Sequence[Sequence[Hashable]]) -> int:
        seen: dict[Hashable, int] = {}
        return sum(join(seen.setdefault(key, index), index) for index, found in enumerate(keys) for key in found)

    if len({sample.name for sample in samples}) < len(samples):
        raise ValueError("two samples have the same name; names must differ so that a split can be repeated")
    join_equal([() if sample.group is None else (sample.group,) for sample in samples])
    same_pixels = join_equal([sample.digests for sample in samples])
    look_alike = 0
    if near_duplicates or (near_duplicates is None and all(sample.group is None for sample in samples)):
        hashed = [index for index, sample in enumerate(samples) if sample.perceptual_hash is not None]
        hashes = np.array([samples[index].perceptual_hash for index in hashed], np.uint64)
        look_alike = sum(join(hashed[one], hashed[other]) for one, other in near_pairs(hashes, NEAR_DISTANCE))
    return [root(index) for index in range(len(samples))], same_pixels, look_alike


def _strata(samples: Sequence[Sample]) -> list[tuple[Hashable, ...]]:
    """What each sample brings that shall be balanced."""
    target = next((name for sample in samples for name in sample.targets), None)
    values = [sample.targets[target] for sample in samples if target in sample.targets] if target is not None else []
    edges = np.quantile(values, np.arange(1, TARGET_BINS) / TARGET_BINS) if values else np.empty(0)
    strata: list[tuple[Hashable, ...]] = []
    for sample in samples:
        found: list[Hashable] = [("class", index) for index in sample.mask_classes if index > 0]
        if isinstance(sample.label, int):
            found.append(("label", sample.label))
        elif sample.label is not None:
            found += [("finding", index, present) for index, present in enumerate(sample.label)]
        if sample.quality is not None:
            found.append(("quality", sample.quality))
        if sample.boxes is not None:
            found += [("box", index) for index in sorted({box.class_index for box in sample.boxes})] or ["no box"]
        if target is not None and target in sample.targets:
            found.append(("bin", int(np.searchsorted(edges, sample.targets[target]))))
        strata.append(tuple(found))
    return strata


def _keep_stated(samples: Sequence[Sample], parts: list[int]) -> None:
    """Put every sample into the part that it states, train if it states none."""
    of_group: dict[str, SplitName] = {}
    for index, sample in enumerate(samples):
        split = sample.split or "train"
        parts[index] = SPLIT_NAMES.index(split)
        if sample.group is not None and of_group.setdefault(sample.group, split) != split:
            raise ValueError(
                f"the group {sample.group} stands in {of_group[sample.group]} and in {split} ({sample.name}); correct the split "
                "column, or ignore it"
            )


def _deal(
    pool: Sequence[int],
    cluster_of: Sequence[int],
    strata: Sequence[tuple[Hashable, ...]],
    shares: np.ndarray,
    seed: int,
    parts: list[int],
) -> None:
    """Assign the clusters of a pool of samples to parts, in place."""
    clusters: dict[int, list[int]] = defaultdict(list)
    for index in pool:
        clusters[cluster_of[index]].append(index)
    members = list(clusters.values())
    wanted = np.flatnonzero(shares > 0)
    if len(members) < len(wanted):
        raise ValueError(
            f"{len(pool)} samples of {len(members)} groups cannot be split into {len(wanted)} parts; add patients, or set the share of "
            "validation or test to 0"
        )
    kinds = {
        kind: column
        for column, kind in enumerate(sorted({kind for index in pool for kind in strata[index]}, key=repr), 1)
    }
    counts = np.zeros((len(members), len(kinds) + 1))  # (clusters, 1 + strata): samples, and those of each stratum
    for row, indices in enumerate(members):
        counts[row, 0] = len(indices)
        for index in indices:
            for kind in strata[index]:
                counts[row, kinds[kind]] += 1
    desired = np.outer(shares, counts.sum(0))  # (parts, 1 + strata)
    chosen = _greedy(counts, desired, wanted, np.random.default_rng(seed))
    for row, indices in enumerate(members):
        for index in indices:
            parts[index] = int(chosen[row])


def _greedy(counts: np.ndarray, desired: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The part of each cluster.

    Args:
        counts: `(clusters, columns)`, what each cluster brings.
        desired: `(parts, columns)`, what each part shall have.
        wanted: the parts that shall not stay empty.
        rng: of the order in which clusters are dealt.

    Returns:
        int `(clusters,)`.
    """
    order = np.argsort(-counts[:, 0] * rng.uniform(0.5, 1, len(counts)))
    held = np.zeros_like(desired)
    chosen = np.full(len(counts), -1)
    # Chi-square distance from what is desired; each stratum weighs the same, and the sizes of the parts as much as all strata.
    weights = 1 / np.maximum(desired.sum(0), 1)
    weights[0] *= max(1, len(weights) - 1)
    for place, row in enumerate(order):
        empty = [part for part in wanted if not (chosen == part).any()]
        candidates = empty if len(order) - place <= len(empty) else list(wanted)
        gap = desired[candidates] - held[candidates]  # (candidates, columns)
        change = ((gap - counts[row]) ** 2 - gap**2) / np.maximum(desired[candidates], 1e-9)
        part = candidates[int(np.argmin(change @ weights))]
        chosen[row] = part
        held[part] += counts[row]
    return chosen
