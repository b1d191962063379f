"""Weights: each image comes as often as its anatomy node and its source say, whoever reads it, in an epoch that is told beforehand."""

import math
from collections import Counter

import numpy as np
import pytest
from streaming_helpers import enlarged, ids, reshard

from echocare_hf.data import stream
from echocare_hf.data.streaming.weights import balanced

TABLE_TIMES = 40


@pytest.fixture(scope="module")
def table():
    return enlarged(TABLE_TIMES)


@pytest.fixture(scope="module")
def folder(table, tmp_path_factory):
    return reshard(table, tmp_path_factory.mktemp("corpus"), shards=3, rows_per_group=64)


def by_node(names, table):
    node = dict(zip(table["id"].to_pylist(), table["node"].to_pylist(), strict=True))
    return Counter(node[name] or "" for name in names)


def within(found: int, weight: float, images: int) -> bool:
    """Whether a count is within five standard deviations: each image comes floor(weight) times, and once more with the rest's chance."""
    rest = weight % 1
    return abs(found - weight * images) <= 5 * math.sqrt(images * rest * (1 - rest)) + 1e-9


def test_a_weight_counts_for_what_lies_below(folder, table):
    """The apical view takes the weight of its organ until it is given its own; without a node there is a weight of its own."""
    counts = by_node(table["id"].to_pylist(), table)
    assert set(counts) == {"heart", "heart_a4c", "liver", ""}
    for weights, expected in (
        ({"Heart": 2.25, "liver": 0.3}, {"heart": 2.25, "heart_a4c": 2.25, "liver": 0.3, "": 1}),
        ({"heart": 0.5, "Apical 4 chamber": 3, None: 0}, {"heart": 0.5, "heart_a4c": 3, "liver": 1, "": 0}),
        ({"thorax": 0, "A4C": 0.7}, {"heart": 0, "heart_a4c": 0.7, "liver": 1, "": 1}),
    ):
        images = stream(folder, columns=["id"], weights=weights, seed=5)
        names = ids(images)
        assert len(names) == len(images)
        found = by_node(names, table)
        for node, weight in expected.items():
            assert within(found[node], weight, counts[node]), (weights, node, found[node])
            assert images.expected_counts()[node] == (counts[node], pytest.approx(weight * counts[node]))
        each = Counter(names)
        node_of = dict(zip(table["id"].to_pylist(), table["node"].to_pylist(), strict=True))
        for name in table["id"].to_pylist():
            weight = expected[node_of[name] or ""]
            assert each[name] in (math.floor(weight), math.ceil(weight))


def test_balanced_is_the_square_root(folder, table):
    counts = by_node(table["id"].to_pylist(), table)
    total, roots = sum(counts.values()), sum(math.sqrt(count) for count in counts.values())
    images = stream(folder, columns=["id"], weights="balanced")
    shown = images.expected_counts()
    for node, count in counts.items():
        assert shown[node] == (count, pytest.approx(total * math.sqrt(count) / roots))
    assert sum(expected for _, expected in shown.values()) == pytest.approx(total)
    assert balanced(np.array([1, 10**6])).tolist() == [10, pytest.approx((10**6 + 1) / 1001 / 1000)]
    assert balanced(np.array([3, 0, 5]), power=0).tolist() == [1, 0, 1]


def test_weights_of_sources_multiply(folder, table):
    images = stream(folder, columns=["id"], weights={"liver": 0.5}, source_weights={"archive": 3})
    sources = Counter(
        zip(table["source"].to_pylist(), (node or "" for node in table["node"].to_pylist()), strict=True)
    )
    expected = {
        source: sum(
            count * (3 if source == "archive" else 1) * (0.5 if node == "liver" else 1)
            for (own, node), count in sources.items()
            if own == source
        )
        for source in ("clinic", "archive")
    }
    assert {name: shown for name, (_, shown) in images.expected_counts("source").items()} == pytest.approx(expected)
    alone = stream(folder, columns=["id"], source_weights={"clinic": 0})
    of = dict(zip(table["id"].to_pylist(), table["source"].to_pylist(), strict=True))
    assert {of[name] for name in ids(alone)} == {"archive"}


def test_over_many_epochs_no_image_is_left_out(folder, table):
    """Independent draws would leave out (1 - 0.3)^30 of images at some time; here each comes 9 times in 30 epochs, up to a few."""
    images = stream(folder, columns=["id"], weights=dict.fromkeys(["heart", "liver"], 0.3) | {None: 0.3})
    seen: Counter[str] = Counter()
    sizes = []
    for epoch in range(30):
        images.set_epoch(epoch)
        sizes.append(len(images))
        seen.update(ids(images))
    assert set(seen) == set(table["id"].to_pylist())
    assert min(seen.values()) >= 7 and max(seen.values()) <= 11
    assert all(within(size, 0.3, len(table)) for size in sizes) and len(set(sizes)) > 1


def test_epochs_are_uncorrelated_with_the_seed_before(folder):
    first, second = (
        set(ids(stream(folder, columns=["id"], weights={None: 0.5, "heart": 0.5, "liver": 0.5}, seed=seed)))
        for seed in (0, 1)
    )
    share = len(first & second) / len(first)
    assert abs(share - 0.5) < 5 * math.sqrt(0.25 / len(first))


@pytest.mark.parametrize(("world_size", "workers"), [(1, 4), (3, 2)])
def test_the_draw_does_not_depend_on_who_reads(folder, monkeypatch, world_size, workers):
    options = {"columns": ["id"], "weights": {"heart": 2.6, "liver": 0.4}, "equal": None}
    alone = stream(folder, **options)
    found = []
    for rank in range(world_size):
        own = stream(folder, **options, rank=rank, world_size=world_size)
        for worker in range(workers):
            monkeypatch.setattr(type(own), "worker", lambda self, worker=worker: (worker, workers))
            found += ids(own)
    monkeypatch.undo()
    assert found == ids(alone), "ranks and workers take one stretch after another"


def test_copies_of_an_image_are_spread(folder):
    names = ids(stream(folder, columns=["id"], weights={"heart": 2, "liver": 2, None: 2}))
    last: dict[str, int] = {}
    gaps = []
    for place, name in enumerate(names):
        if name in last:
            gaps.append(place - last[name])
        last[name] = place
    assert len(gaps) == len(last) and np.mean(gaps) > 100


def test_wrong_weights(folder):
    for options, message in (
        ({"weights": {"hart": 1}}, "hart"),
        ({"weights": {"heart": -1}}, "must be 0 to 1000, not -1"),
        ({"weights": {"heart": float("nan")}}, "must be 0 to 1000, not nan"),
        ({"weights": {"heart": 1, "Heart": 2}}, "two weights"),
        ({"weights": "equal"}, "a mapping or 'balanced', not 'equal'"),
        ({"source_weights": {"clinc": 1}}, "no source 'clinc' to be weighted; it has archive, clinic"),
        ({"source_weights": {"clinic": 0, "archive": 0}}, "all images have weight 0"),
    ):
        with pytest.raises(ValueError, match=message):
            stream(folder, **options)
    with pytest.raises(ValueError, match="not weighted by source"):
        stream(folder, weights="balanced").expected_counts("source")
