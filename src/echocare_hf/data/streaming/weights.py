"""How often each image is wanted in an epoch, and how often it comes.

A weight is an expected number: 0 never, 0.5 in every second epoch, 2 twice in each. An image of weight w comes floor(w + u) times, where u
is its place in [0, 1) in this epoch. It starts from a hash of seed and id and moves on by the golden ratio each epoch, so u is uniform
over the images of an epoch, and over E epochs an image comes w E times up to a few: none is left out for long.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from echocare_hf.anatomy import AnatomyTree

from .table import CorpusTable

MOST_REPEATS = 10.0
"""No image is wanted more often in an epoch than this by "balanced" weights."""

LARGEST_WEIGHT = 1000.0

_GOLDEN = (math.sqrt(5) - 1) / 2


def balanced(counts: np.ndarray, power: float = 0.5, most: float = MOST_REPEATS) -> np.ndarray:
    """Weights by frequency: a class of n images gets n^-power, scaled so that an epoch stays as long as the corpus.

    The square root lies between showing classes as often as they come (0) and all equally often (1); Mahajan et al., ECCV 2018, use it
    for pretraining.

    Args:
        counts: (classes,), images of each class, 0 or more.
        power: 0 to 1.
        most: weights above it are cut, so a class of few images is not learnt by heart; the epoch is then a little shorter.

    Returns:
        float64 (classes,).
    """
    counts = np.asarray(counts, float)
    raw = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0.0)
    return np.minimum(raw * counts.sum() / max(float((raw * counts).sum()), 1e-300), most)


def image_weights(
    table: CorpusTable,
    nodes: Mapping[str | None, float] | Literal["balanced"] | None,
    sources: Mapping[str, float] | Literal["balanced"] | None,
    tree: AnatomyTree | None = None,
) -> np.ndarray:
    """The weight of each row.

    Args:
        table: of the corpus, with the columns `node` and `source` where they are weighted by.
        nodes: `weights` of `stream`.
        sources: `source_weights` of `stream`.
        tree: of the nodes.

    Returns:
        float64 (rows,).

    Raises:
        ValueError: for an unknown node or source, a weight that is no number of 0 or more, or if all are 0.
    """
    weights = np.ones(len(table))
    given: Mapping | str | None
    for column, given in (("node", nodes), ("source", sources)):
        if given is None:
            continue
        texts, codes = table.texts[column], table.codes[column]
        if isinstance(given, str):
            if given != "balanced":
                raise ValueError(f"weights by {column} are a mapping or 'balanced', not {given!r}")
            values = balanced(np.bincount(codes, minlength=len(texts)))
        else:
            _check(given, column)
            values = _by_node(texts, given, tree) if column == "node" else _by_source(texts, given)
        weights *= values[codes]
    if len(weights) and not weights.any():
        raise ValueError("all images have weight 0; give at least one node and source that the corpus has a weight")
    return weights


def repeats(weights: np.ndarray, keys: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """How often each image comes in an epoch, int64 (images,): `weights` on average, floor or ceiling of it each time."""
    place = (_mix(keys ^ _mix(np.array([seed], np.uint64))) >> np.uint64(11)) * 2.0**-53
    return np.floor(weights + (place + epoch * _GOLDEN) % 1.0).astype(np.int64)


def _check(given: Mapping, column: str) -> None:
    for key, value in given.items():
        if not isinstance(value, (int, float)) or not 0 <= value <= LARGEST_WEIGHT:
            raise ValueError(f"the weight of {column} {key!r} must be 0 to {LARGEST_WEIGHT:g}, not {value!r}")


def _by_source(texts: Sequence[str], given: Mapping[Any, float]) -> np.ndarray:
    if unknown := [name for name in given if name not in texts]:
        raise ValueError(f"the corpus has no source {unknown[0]!r} to be weighted; it has {', '.join(sorted(texts))}")
    return np.array([given.get(text, 1.0) for text in texts], float)


def _by_node(texts: Sequence[str], given: Mapping[Any, float], tree: AnatomyTree | None) -> np.ndarray:
    tree = tree or AnatomyTree.default()
    by_index: dict[int, float] = {}
    for name, value in given.items():
        if not name:
            continue
        index = tree.index(name)
        if index in by_index:
            raise ValueError(f"the node {tree.ids[index]!r} is given two weights, one of them as {name!r}")
        by_index[index] = float(value)
    without = given.get(None, given.get("", 1.0))
    values = []
    for text in texts:
        path = tree.path_nodes(text) if text else []
        values.append(next((by_index[node] for node in reversed(path) if node in by_index), 1.0) if path else without)
    return np.array(values, float)


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: uint64 to uint64, each bit depends on all."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
