"""Splits: nothing leaks, the shares come out, and the order of the files does not matter."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_helpers import picture, save

from echocare_hf.data.labelled import read_labelled
from echocare_hf.data.labelled.fingerprint import NEAR_DISTANCE
from echocare_hf.data.labelled.record import Box, Sample
from echocare_hf.data.splits import share_of, split_by_group


def samples(groups, labels=None, **fields):
    """One sample a group entry."""
    labels = labels if labels is not None else [None] * len(groups)
    return [
        Sample(name=f"{index:05d}.png", images=(f"{index:05d}.png",), group=group, label=label, **fields)
        for index, (group, label) in enumerate(zip(groups, labels, strict=True))
    ]


def parts_of(split):
    return split.train, split.validation, split.test


@st.composite
def cohorts(draw):
    """Samples of 12 to 40 patients with up to 6 images each, two classes, some images twice in the data."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    sizes = rng.integers(1, 7, draw(st.integers(12, 40)))
    groups = [f"p{patient}" for patient, size in enumerate(sizes) for _ in range(size)]
    found = samples(groups, [int(rng.random() < 0.4) for _ in groups])
    if draw(st.booleans()):
        found = [replace(sample, group=None) if rng.random() < 0.3 else sample for sample in found]
    digests = [str(index) if rng.random() < 0.95 else "twice" for index in range(len(found))]
    return [replace(sample, digests=(digest,)) for sample, digest in zip(found, digests, strict=True)]


@given(cohort=cohorts(), seed=st.integers(0, 5), near=st.sampled_from([None, False, True]))
@settings(max_examples=80, deadline=None)
def test_nothing_leaks_and_nothing_is_lost(cohort, seed, near):
    split = split_by_group(cohort, seed=seed, near_duplicates=near)
    assert sorted(index for part in parts_of(split) for index in part) == list(range(len(cohort)))
    assert all(parts_of(split))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        one, other = ([cohort[index] for index in parts_of(split)[part]] for part in (first, second))
        assert not {sample.group for sample in one if sample.group} & {
            sample.group for sample in other if sample.group
        }
        assert not {sample.digests for sample in one} & {sample.digests for sample in other}


@given(cohort=cohorts(), seed=st.integers(0, 5), share=st.sampled_from([0.1, 0.4, 0.8, 1.0]))
@settings(max_examples=40, deadline=None)
def test_a_share_has_whole_groups_and_about_its_size(cohort, seed, share):
    stated = [replace(sample, split="train") for sample in cohort]  # as parts of a data set that states its split
    chosen = share_of(stated, share, seed)
    names = {sample.name for sample in chosen}
    assert chosen == [sample for sample in stated if sample.name in names] == share_of(stated, share, seed)
    left = [sample for sample in stated if sample.name not in names]
    assert not {sample.group for sample in chosen if sample.group} & {sample.group for sample in left if sample.group}
    links = Counter(sample.group or sample.name for sample in cohort)
    twice = {sample.group or sample.name for sample in cohort if sample.digests == ("twice",)}
    largest = max(max(links.values()), sum(links[name] for name in twice))
    assert chosen and abs(len(chosen) - share * len(cohort)) <= largest / 2 + 1


@given(cohort=cohorts(), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_a_larger_share_holds_the_smaller_ones(cohort, seed):
    smaller: set[str] = set()
    for share in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
        names = {sample.name for sample in share_of(cohort, share, seed)}
        assert smaller <= names
        smaller = names
    assert len(smaller) == len(cohort)


def test_a_share_of_a_tenth_has_its_share_of_a_rare_class():
    labels = [0] * 700 + [1] * 200 + [2] * 100
    cohort = [replace(sample, label=label) for sample, label in zip(samples([None] * 1000), labels, strict=True)]
    chosen = [share_of(cohort, 0.1, seed) for seed in range(5)]
    assert [len(part) for part in chosen] == [100] * 5
    assert len({tuple(sample.name for sample in part) for part in chosen}) == 5
    for part in chosen:
        counts = Counter(sample.label for sample in part)
        assert all(abs(counts[label] - wanted) <= 3 for label, wanted in ((0, 70), (1, 20), (2, 10))), counts


@given(cohort=cohorts(), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_shares_come_near_what_was_asked_for(cohort, seed):
    """No part is further off than the largest cluster, and one image more for what strata pull."""
    split = split_by_group(cohort, (0.6, 0.2, 0.2), seed)
    links = Counter(sample.group or sample.name for sample in cohort)
    twice = {sample.group or sample.name for sample in cohort if sample.digests == ("twice",)}
    largest = max(max(links.values()), sum(links[name] for name in twice))
    for part, share in zip(parts_of(split), (0.6, 0.2, 0.2), strict=True):
        assert abs(len(part) - share * len(cohort)) <= largest + 1


@given(cohort=cohorts(), seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_files_does_not_matter(cohort, seed, order):
    shuffled = list(cohort)
    order.shuffle(shuffled)
    first = [{cohort[index].name for index in part} for part in parts_of(split_by_group(cohort, seed=seed))]
    second = [{shuffled[index].name for index in part} for part in parts_of(split_by_group(shuffled, seed=seed))]
    assert first == second


def test_the_seed_decides():
    cohort = samples([f"p{index // 2}" for index in range(60)])
    assert split_by_group(cohort, seed=1) == split_by_group(cohort, seed=1)
    assert len({split_by_group(cohort, seed=seed).test for seed in range(5)}) == 5


def test_every_part_has_its_share_of_a_rare_class():
    labels = [0] * 170 + [1] * 20 + [2] * 10
    split = split_by_group(samples([None] * 200, labels), (0.6, 0.2, 0.2))
    assert [Counter(labels[index] for index in part) for part in parts_of(split)] == [
        {0: 102, 1: 12, 2: 6},
        {0: 34, 1: 4, 2: 2},
        {0: 34, 1: 4, 2: 2},
    ]


@pytest.mark.parametrize(
    "fields",
    [
        lambda value: {"targets": {"ef": float(value)}},
        lambda value: {"label": (int(value < 20), 1)},
        lambda value: {"mask_classes": (0, 1) if value < 20 else (0,)},
        lambda value: {"boxes": (Box(0, 1, 1, 1, 1, 0),) if value < 20 else ()},
    ],
)
def test_values_findings_masks_and_boxes_are_balanced(fields):
    cohort = [replace(sample, **fields(index)) for index, sample in enumerate(samples([None] * 80))]
    split = split_by_group(cohort, (0.5, 0.25, 0.25))
    assert [sum(index < 20 for index in part) for part in parts_of(split)] == [10, 5, 5]


def test_without_stratification_only_the_sizes_count():
    labels = [0] * 90 + [1] * 10
    counts = {
        sum(labels[index] for index in split_by_group(samples([None] * 100, labels), seed=seed, stratify=False).test)
        for seed in range(10)
    }
    assert len(counts) > 1


def test_images_that_look_alike_stay_together_where_there_are_no_groups():
    spread = [
        replace(sample, perceptual_hash=0xFFFF << (4 * index)) for index, sample in enumerate(samples([None] * 12))
    ]
    spread[7] = replace(spread[7], perceptual_hash=spread[3].perceptual_hash ^ 0b111)  # as far off as counts as alike
    spread[9] = replace(spread[9], perceptual_hash=spread[5].perceptual_hash ^ 0b1111)  # one bit too far
    assert NEAR_DISTANCE == 3
    for seed in range(10):
        split = split_by_group(spread, seed=seed)
        assert split.look_alike == 1
        assert split.num_clusters == 11
        assert sum({3, 7} <= set(part) for part in parts_of(split)) == 1
    grouped = [replace(sample, group=sample.name) for sample in spread]
    assert split_by_group(grouped).look_alike == 0
    assert split_by_group(grouped, near_duplicates=True).look_alike == 1
    assert "1 by looks" in split_by_group(spread).report()


def test_copies_in_another_format_stay_together(tmp_path):
    for index in range(10):
        save(tmp_path / f"{'ab'[index % 2]}/{index}.png", picture(index))
    save(tmp_path / "a/copy.bmp", picture(0))
    data = read_labelled(tmp_path, "classification")
    names = [sample.name for sample in data.samples]
    for seed in range(5):
        split = split_by_group(data.samples, seed=seed)
        assert split.same_pixels == 1
        assert sum({names.index("a/0.png"), names.index("a/copy.bmp")} <= set(part) for part in parts_of(split)) == 1


def test_a_stated_split_is_kept():
    stated = ["test", "train", "validation", "train", None, "test"]
    cohort = [replace(sample, split=split) for sample, split in zip(samples(list("abcdef")), stated, strict=True)]
    split = split_by_group(cohort)
    assert parts_of(split) == ((1, 3, 4), (2,), (0, 5))
    assert split.from_data
    assert "as the data states" in split.report()


def test_validation_is_dealt_out_of_a_stated_train():
    cohort = [
        replace(sample, split="test" if index < 20 else "train")
        for index, sample in enumerate(samples([f"p{index // 2}" for index in range(100)]))
    ]
    split = split_by_group(cohort, (0.6, 0.2, 0.2))
    assert split.test == tuple(range(20))
    assert len(split.validation) == 20
    assert not {cohort[index].group for index in split.validation} & {cohort[index].group for index in split.train}
    assert split_by_group(cohort, (0.8, 0.0, 0.2)).validation == ()


def test_a_share_of_nothing_leaves_a_part_empty():
    split = split_by_group(samples([None] * 10), (3, 1, 0))
    assert [len(part) for part in parts_of(split)] in ([7, 3, 0], [8, 2, 0])


@pytest.mark.parametrize(
    ("cohort", "options", "match"),
    [
        (samples(["p", "p", "q", "q"]), {}, "4 samples of 2 groups cannot be split into 3 parts"),
        (samples(["p", "p", "q", "q"], split="test"), {}, "nothing to train on"),
        (samples(["p", "q", "r"]), {"fractions": (0.5, 0.5)}, "three shares"),
        (samples(["p", "q", "r"]), {"fractions": (0, 0.5, 0.5)}, "three shares"),
        (samples(["p", "q", "r"]), {"fractions": (1, -0.5, 0.5)}, "three shares"),
        ([samples(["p"])[0]] * 2, {}, "two samples have the same name"),
        (
            [
                replace(sample, split=split)
                for sample, split in zip(samples(["p", "p"]), ("train", "test"), strict=True)
            ],
            {},
            "the group p stands in train and in test",
        ),
    ],
)
def test_what_cannot_be_split(cohort, options, match):
    with pytest.raises(ValueError, match=match) as caught:
        split_by_group(cohort, **options)
    assert "\n" not in str(caught.value)
