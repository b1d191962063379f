"""The banded join finds every near pair, checked against comparing all with all."""

from itertools import combinations

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echocare_hf.curation import near_duplicates
from echocare_hf.curation.near_duplicates import (
    ALIKE,
    choose_blocks,
    components,
    keep_apart,
    keep_largest,
    near_any,
    near_hashes,
    near_images,
)


def planted(count: int, copies: int, most_bits: int, seed: int = 0) -> np.ndarray:
    """Random hashes, some of them copies of others with up to `most_bits` bits turned."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**64, count - copies, dtype=np.uint64)
    near = base[rng.integers(0, len(base), copies)].copy()
    for index in range(copies):
        for bit in rng.choice(64, rng.integers(0, most_bits + 1), replace=False):
            near[index] ^= np.uint64(1) << np.uint64(bit)
    return np.concatenate([base, near])


def all_pairs(hashes: np.ndarray, distance: int) -> set[tuple[int, int]]:
    """The oracle: popcount of the difference of every pair, in plain Python."""
    values = [int(value) for value in hashes]
    return {(i, j) for i, j in combinations(range(len(values)), 2) if (values[i] ^ values[j]).bit_count() <= distance}


def same_groups(count: int, pairs) -> list[set[int]]:
    """The oracle for components: merge sets until nothing changes."""
    groups = [{index} for index in range(count)]
    for one, other in pairs:
        first = next(group for group in groups if one in group)
        second = next(group for group in groups if other in group)
        if first is not second:
            groups.remove(second)
            first |= second
    return sorted(groups, key=min)


@pytest.mark.parametrize("distance", [0, 1, 3, 5])
def test_finds_every_pair_and_no_other(distance):
    hashes = np.unique(planted(600, 300, distance + 2))  # distinct: equal ones are reported as a star, see below
    assert set(map(tuple, near_hashes(hashes, distance).tolist())) == all_pairs(hashes, distance)


@pytest.mark.parametrize("blocks", [4, 5, 6, 7])
def test_the_number_of_blocks_changes_nothing(blocks):
    hashes = planted(500, 250, 5, seed=blocks)
    assert near_hashes(hashes, 3, blocks).tolist() == near_hashes(hashes, 3, 4).tolist()


def test_recall_is_one_on_20000_hashes():
    hashes = np.unique(planted(20_000, 4_000, 4))
    found = near_hashes(hashes, 3)
    expected = []
    for index in range(len(hashes) - 1):  # every pair, a row of the matrix at a time
        close = np.flatnonzero(np.bitwise_count(hashes[index] ^ hashes[index + 1 :]) <= 3)
        expected += [(index, index + 1 + int(other)) for other in close]
    assert len(expected) > 1_000
    assert list(map(tuple, found.tolist())) == expected


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 31), max_size=40), st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_groups_are_those_of_brute_force(values, distance):
    hashes = np.array(values, np.uint64)
    found = components(len(values), near_hashes(hashes, distance))
    expected = same_groups(len(values), all_pairs(hashes, distance))
    assert [set(np.flatnonzero(found == root).tolist()) for root in np.unique(found)] == expected


def test_equal_hashes_do_not_blow_up():
    hashes = np.zeros(50_000, np.uint64)  # as many black frames have: all pairs would be more than a thousand million
    pairs = near_hashes(hashes, 3)
    assert len(pairs) == 49_999 and (components(len(hashes), pairs) == 0).all()


def test_larger_corpora_take_longer_keys():
    assert choose_blocks(10_000, 3) == 4  # the four 16-bit bands
    assert choose_blocks(100_000_000, 3) > 4


@pytest.mark.parametrize("distance", [0, 3, 8])
def test_near_any_is_brute_force(distance):
    hashes, targets = planted(300, 100, 4), planted(300, 100, 4)[::7] ^ np.uint64(1)
    expected = [any((int(one) ^ int(other)).bit_count() <= distance for other in targets) for one in hashes]
    assert near_any(hashes, targets, distance).tolist() == expected
    assert any(expected) == (distance > 0)


def test_keeps_the_largest_and_the_first_of_equals():
    component = np.array([0, 1, 0, 0, 1, 5])
    kept = keep_largest(component, np.array([10, 7, 30, 30, 7, 1]))
    assert kept.tolist() == [2, 1, 2, 2, 1, 5]


@pytest.mark.parametrize("distance", [-1, 9])
def test_refuses_a_distance_it_cannot_search(distance):
    with pytest.raises(ValueError, match="0 to 8"):
        near_hashes(np.zeros(3, np.uint64), distance)


def two_hashes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of 500 stored images and of the raw ones: copies are near in both, in one, or share a screen and nothing else."""
    rng = np.random.default_rng(seed)
    stored, raw = planted(500, 300, 4, seed), planted(500, 300, 4, seed + 1)
    stored[100:160] = stored[:60] ^ (np.uint64(2**9 - 1) << rng.integers(0, 55, 60).astype(np.uint64))  # 9 bits
    raw[100:160] = raw[:60] ^ (np.uint64(1) << rng.integers(0, 64, 60).astype(np.uint64))
    raw[160:190] = raw[:30]
    return stored, raw


def near_by_either(stored: np.ndarray, raw: np.ndarray, distance: int) -> np.ndarray:
    """The oracle: all with all."""
    apart, raw_apart = (np.bitwise_count(values[:, None] ^ values[None]) for values in (stored, raw))
    return (apart <= distance) | ((raw_apart <= distance) & (apart <= ALIKE))


@pytest.mark.parametrize("distance", [0, 3])
def test_near_images_are_near_in_either_hash(distance):
    stored, raw = two_hashes(11)
    stored, first = np.unique(stored, return_index=True)
    raw = raw[first]
    near = near_by_either(stored, raw, distance)
    expected = {(one, other) for one, other in zip(*np.nonzero(near), strict=True) if one < other}
    assert set(map(tuple, near_images(stored, raw, distance).tolist())) == expected
    assert expected - all_pairs(stored, distance), "the raw hashes find some"
    assert all_pairs(raw, distance) - expected, "a screen in common is not enough"


def test_copies_are_joined_whatever_hash_is_equal():
    stored, raw = two_hashes(13)
    stored[200:260], raw[230:290] = stored[199], raw[229]
    graph = networkx.Graph(np.argwhere(near_by_either(stored, raw, 3)).tolist())
    found = components(len(stored), near_images(stored, raw, 3))
    assert {frozenset(np.flatnonzero(found == root).tolist()) for root in np.unique(found)} == {
        frozenset(group) for group in networkx.connected_components(graph)
    }


@pytest.mark.parametrize("distance", [1, 3])
def test_what_is_kept_is_apart_and_what_is_dropped_is_near_it(distance):
    stored, raw = two_hashes(5)
    sizes = np.random.default_rng(6).integers(1, 50, len(stored))
    kept_for = keep_apart(stored, raw, sizes, distance, near_images(stored, raw, distance))
    near = near_by_either(stored, raw, distance)
    kept = np.flatnonzero(kept_for == np.arange(len(stored)))
    assert near[kept][:, kept].sum() == len(kept), "no two kept ones are near"
    leader = keep_largest(np.unique(stored, return_inverse=True)[1], sizes)  # stands for all with its stored hash
    assert near[leader, kept_for].all()
    assert len(kept) < len(stored)


def visited_one_by_one(stored: np.ndarray, raw: np.ndarray, sizes: np.ndarray, distance: int) -> list[int]:
    """The oracle for what is kept: the largest of each stored hash, then all from the largest to the smallest."""
    near = near_by_either(stored, raw, distance)
    leader = keep_largest(np.unique(stored, return_inverse=True)[1], sizes)
    kept_for: dict[int, int] = {}
    for index in sorted(set(leader.tolist()), key=lambda place: (-sizes[place], place)):
        kept_for[index] = next((other for other in kept_for if kept_for[other] == other and near[index, other]), index)
    return [kept_for[index] for index in leader.tolist()]


@given(
    st.lists(
        st.tuples(st.integers(0, 255), st.integers(0, 1023) | st.just(0), st.integers(1, 3)), min_size=1, max_size=40
    ),
    st.integers(0, 4),
)
@settings(max_examples=100, deadline=None)
def test_one_list_of_pairs_tells_what_is_kept(images, distance):
    stored, raw, sizes = (np.array(column, np.uint64) for column in zip(*images, strict=True))
    stored = stored * np.uint64(0x0101010101)  # five times as many bits apart, so that some are not alike
    sizes = sizes.astype(np.int64)
    pairs = near_images(stored, raw, distance)
    kept_for = keep_apart(stored, raw, sizes, distance, pairs)
    assert kept_for.tolist() == visited_one_by_one(stored, raw, sizes, distance)


def test_clusters_are_those_of_union_find():
    hashes = planted(500, 300, 3, seed=9)
    graph = networkx.Graph(all_pairs(hashes, 3))
    graph.add_nodes_from(range(len(hashes)))
    found = components(len(hashes), near_hashes(hashes, 3))
    assert {frozenset(np.flatnonzero(found == root).tolist()) for root in np.unique(found)} == {
        frozenset(group) for group in networkx.connected_components(graph)
    }


def test_a_raw_hash_that_very_many_images_share_joins_none_of_them(monkeypatch):
    monkeypatch.setattr(near_duplicates, "COMMON", 3)
    stored = np.array([0b0, 0b1111, 0b11111111, 0b111100000000, 0xFF << 40, (0xFF << 40) + 0b1111], np.uint64)
    raw = np.array([7, 7, 7, 7, 9, 9], np.uint64)
    assert near_images(stored, raw, 3).tolist() == [[4, 5]]
    assert near_images(stored[:3], raw[:3], 3).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_a_screen_that_all_images_share_does_not_blow_up():
    stored = np.random.default_rng(0).integers(0, 2**64, 50_000, dtype=np.uint64)
    assert len(near_images(stored, np.zeros_like(stored), 3)) == 0
