"""What all benchmarks share: the description of a benchmark, and the comparison of what was read with the paper's table."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from echocare_hf.data.catalogue import DatasetEntry, read_catalogue
from echocare_hf.data.labelled import LabelledData, Sample
from echocare_hf.data.labelled.check import check
from echocare_hf.data.labelled.labels import Labels
from echocare_hf.data.labelled.samples import Draft
from echocare_hf.data.splits import split_by_group

SPLIT_SEED = 0
"""Seed of the splits of data sets that come without one."""

TaskType = Literal[
    "classification", "segmentation", "detection", "keypoints", "video", "regression", "enhancement", "report"
]


@dataclass(frozen=True)
class Counts:
    """How many examples the EchoCare paper trains and tests on (arXiv 2509.11752, Table 1 and "External validation tasks").

    Attributes:
        train, test: as the paper counts them.
        unit: what it counts.
        by: whether one of them is a sample of ours, or a group (a patient with several samples).
        patients: training and test patients (cases, people), where the paper says so.
        classes: training and test examples of each class (or organ), where it says so.
        note: what the paper's figures leave open or contradict.
    """

    train: int
    test: int
    unit: str
    by: Literal["sample", "group"] = "sample"
    patients: tuple[int, int] | None = None
    classes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class BenchmarkTask:
    """One benchmark: where its data are, how they are read and split, what is measured, and what the paper says.

    Attributes:
        key: name on the command line.
        task: the task of fine-tuning that trains on it, or "report".
        metrics: names of the folders in eval/metrics that measure it.
        paper: the paper's counts; None for uses that the press texts name without any.
        figures: what EchoCare reaches, as the paper or the press texts state it, by name.
        split: how training and test parts come about, in a sentence.
        reader: reads the native layout; see `read`.
        data_set: key in the catalogue of data sets; None where no public data set is behind it.
    """

    key: str
    task: TaskType
    metrics: tuple[str, ...]
    split: str
    reader: Callable[..., LabelledData] = field(repr=False)
    data_set: str | None
    paper: Counts | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def entry(self) -> DatasetEntry | None:
        """Licence, home page, paper and access of the data set, from the catalogue."""
        return None if self.data_set is None else _catalogue()[self.data_set]

    def read(self, folder: str | os.PathLike[str], *, strict: bool = True, **options: Any) -> LabelledData:
        """Read a data set as its authors publish it.

        Args:
            folder: what unpacking it made, or the folder around that.
            strict: whether an image or mask that cannot be read is an error; else it is left out and named in `problems`.
            options: of the benchmark's own reader, such as `fold` or `views`.

        Returns:
            `LabelledData`. Its samples state "train" and "test", and "validation" where the data set has such a part; where it has none,
            `split_by_group` deals one out of the training part, by group.

        Raises:
            ValueError: for another layout or a damaged file, in one line that says which file was expected where.
            ImportError: if a package that reads the format is not installed.
        """
        root = Path(folder)
        if root.is_file():
            raise ValueError(f"{root}: is a file; unpack it, and give the folder that holds {self.key} as published")
        if not root.is_dir():
            raise ValueError(
                f"{root}: there is no such folder; --data is the folder that holds {self.key} as published"
            )
        data = self.reader(root, strict=strict, **options)
        licence = None if self.entry is None else self.entry.licence
        samples = tuple(replace(sample, licence=sample.licence or licence) for sample in data.samples)
        return replace(data, samples=samples)

    def check(self, data: LabelledData) -> tuple[str, ...]:
        """What differs from the paper's table, one plain sentence each; empty if nothing does."""
        return () if self.paper is None else compare_counts(data, self.paper)


@cache
def _catalogue() -> dict[str, DatasetEntry]:
    return {entry.key: entry for entry in read_catalogue()}


def count_parts(samples: Sequence[Sample], by: Literal["sample", "group"] = "sample") -> tuple[int, int]:
    """Number of samples or groups of the training part (validation with it) and of the test part.

    Raises:
        ValueError: for a sample that states no part.
    """
    parts: dict[str, set[str]] = {"train": set(), "test": set()}
    for sample in samples:
        if sample.split is None:
            raise ValueError(f"{sample.name}: states no part; deal the samples out first")
        name = sample.name if by == "sample" else sample.group or sample.name
        parts["test" if sample.split == "test" else "train"].add(name)
    return len(parts["train"]), len(parts["test"])


def compare_counts(data: LabelledData, paper: Counts) -> tuple[str, ...]:
    """What differs from the paper's counts, in sentences. Of parts that were chosen (one organ of several), only these are compared."""
    of_class = {name: _of_class(data, name) for name in paper.classes}
    expected = (paper.train, paper.test)
    if not data.class_names and any(of_class.values()):
        chosen = [paper.classes[name] for name, samples in of_class.items() if samples]
        expected = (sum(train for train, _ in chosen), sum(test for _, test in chosen))
        of_class = {name: samples for name, samples in of_class.items() if samples}
    comparisons = [(paper.unit, expected, count_parts(data.samples, paper.by))]
    if paper.patients is not None and all(sample.group is not None for sample in data.samples):
        comparisons.append(("patients", paper.patients, count_parts(data.samples, "group")))
    for name, samples in of_class.items():
        comparisons.append((f"{paper.unit} of {name}", paper.classes[name], count_parts(samples, paper.by)))
    lines = [_differs(what, wanted, found) for what, wanted, found in comparisons if wanted != found]
    return (*lines, paper.note) if lines and paper.note else tuple(lines)


def _of_class(data: LabelledData, name: str) -> list[Sample]:
    """The samples of a class by their label; where there are no classes, those in the folder of that name."""
    if data.class_names:
        index = data.class_names.index(name) if name in data.class_names else None
        return [sample for sample in data.samples if index is not None and sample.label == index]
    return [sample for sample in data.samples if sample.name.startswith(f"{name}/")]


def _differs(what: str, expected: tuple[int, int], found: tuple[int, int]) -> str:
    missing = sum(expected) - sum(found)
    if missing == 0:
        reason = "the same total, split otherwise"
    else:
        reason = f"{abs(missing):,} {'fewer' if missing > 0 else 'more'} in all"
    return f"{what}: the paper has {expected[0]:,} to train and {expected[1]:,} to test, here are {found[0]:,} and {found[1]:,} ({reason})"


def complete(
    data: LabelledData,
    strict: bool,
    mask_names: Mapping[int, str] | None = None,
) -> LabelledData:
    """Look at every file once, as `read_labelled` does: sizes, fingerprints, mask values, contradictions.

    Args:
        data: samples whose pixels nobody has looked at.
        strict: whether an unreadable file is an error.
        mask_names: for segmentation, raw mask value to class, 0 for the background.

    Raises:
        ValueError: for what `read_labelled` refuses, in one line that names the file.
    """
    if not data.samples:
        raise ValueError(f"{data.source}: holds no labelled example; unpack the data set again")
    labels = Labels([], mask_names=None if mask_names is None else dict(mask_names))
    return check(Draft(data, labels, looked_for={}, nearest={}), strict)


def deal(data: LabelledData, train: int, test: int, seed: int = SPLIT_SEED) -> LabelledData:
    """State the parts of a data set that comes without a split: whole groups, classes in like shares.

    Args:
        data: checked samples.
        train, test: shares, such as the paper's counts.
        seed: of the random order.

    Raises:
        ValueError: if there are fewer than two groups.
    """
    chosen = set(split_by_group(data.samples, (train, 0, test), seed).test)
    samples = tuple(
        replace(sample, split="test" if index in chosen else "train") for index, sample in enumerate(data.samples)
    )
    return replace(data, samples=samples)
