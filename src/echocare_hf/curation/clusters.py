"""What must stay in one split, and which split that is."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .chunks import Copies
from .inventory import key_numbers, key_texts
from .near_duplicates import join
from .options import CurateOptions, digest, word_number
from .rows import Rows

_NONE = 2**64 - 1
_AT_A_TIME = 65536


@dataclass(frozen=True)
class Clusters:
    """Images that must stay in one split.

    Attributes:
        members: int `(images,)`, the smallest place in the cluster of each image.
        names: uint64 `(images, 2)`, at that place the smallest id in the cluster, as numbers.
    """

    members: np.ndarray
    names: np.ndarray

    def named(self, places: np.ndarray) -> list[str]:
        """The name of the cluster of some images: the smallest id in it."""
        return key_texts(self.names[self.members[places]])


@dataclass(frozen=True)
class Files:
    """What files say of their images.

    Attributes:
        members: int `(images,)`, the smallest place among the images of the same file.
        originals: int `(copies,)`, an image of the file that was kept for each exact copy that was dropped.
        groups: uint64 `(copies,)`, groups of these copies (`options.word_number`).
    """

    members: np.ndarray
    originals: np.ndarray
    groups: np.ndarray


def join_files(keys: np.ndarray, order: np.ndarray, copies: Copies) -> Files:
    """Put the images of each file together.

    Args:
        keys: S16 `(images,)`, of their files.
        order: int `(images,)`, places in the order of keys.
        copies: exact copies that were dropped.
    """
    members = np.arange(len(keys), dtype=order.dtype)
    ordered = keys[order]
    again = np.flatnonzero(ordered[1:] == ordered[:-1])
    join(members, order[again], order[again + 1])
    positions = np.searchsorted(ordered, copies.keys)
    is_there = positions < len(order)
    is_there[is_there] = ordered[positions[is_there]] == copies.keys[is_there]
    return Files(members, order[positions[is_there]], copies.groups[is_there])


def find_clusters(rows: Rows, files: Files, near: np.ndarray) -> Clusters:
    """Clusters of frames of one file, images of one group or patient, and near-copies.

    To the images of a group belong the originals of its exact copies too.

    Args:
        rows: all images.
        files: of `join_files`.
        near: int `(pairs, 2)`, places of near-copies.
    """
    members = files.members.copy()
    join(members, near[:, 0], near[:, 1])
    own = np.arange(len(rows), dtype=members.dtype)
    groups = np.concatenate([_words(rows, "group"), files.groups])
    _join_equal(members, groups, np.concatenate([own, files.originals]))
    del groups
    _join_equal(members, _words(rows, "patient"), own)
    return Clusters(members, _smallest_ids(rows, members))


def _words(rows: Rows, column: str) -> np.ndarray:
    """A number that stands for the text of each image, 0 for none: uint64 `(images,)`."""
    numbers = np.zeros(len(rows), np.uint64)
    start = 0
    for batch in rows.scan([column]):
        words = batch[column].dictionary_encode()
        table = np.array([*map(word_number, words.dictionary.to_pylist()), 0], np.uint64)
        numbers[start : start + len(batch)] = table[words.indices.fill_null(len(table) - 1).to_numpy()]
        start += len(batch)
    return numbers


def _join_equal(members: np.ndarray, numbers: np.ndarray, places: np.ndarray) -> None:
    """Put the images at `places` whose numbers are equal, and not 0, into one component."""
    order = np.argsort(numbers)
    ordered = numbers[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] > 0))
    del ordered
    join(members, places[order[same]], places[order[same + 1]])


def _smallest_ids(rows: Rows, members: np.ndarray) -> np.ndarray:
    """At the smallest place of each component, the smallest id in it: uint64 `(images, 2)`."""
    smallest = np.full((len(rows), 2), _NONE, np.uint64)
    for place, ids in _ids(rows):
        np.minimum.at(smallest[:, 0], members[place : place + len(ids)], ids[:, 0])
    for place, ids in _ids(rows):
        roots = members[place : place + len(ids)]
        first = ids[:, 0] == smallest[roots, 0]
        np.minimum.at(smallest[:, 1], roots[first], ids[first, 1])
    return smallest


def _ids(rows: Rows) -> Iterator[tuple[int, np.ndarray]]:
    start = 0
    for batch in rows.scan(["id"]):
        yield start, key_numbers(batch["id"])
        start += len(batch)


def split_clusters(clusters: Clusters, kept: np.ndarray, options: CurateOptions) -> tuple[np.ndarray, dict[str, int]]:
    """Which clusters go to validation: by chance, but the same for a cluster in every run, whatever else is in the corpus.

    In a corpus so small that chance has left a split without a cluster, the one that comes nearest to it is moved.

    Args:
        clusters: of all images.
        kept: bool `(images,)`, which of them enter the corpus.
        options: `seed` and `validation` count.

    Returns:
        Bool `(images,)`, at the smallest place of each cluster: whether it is of the validation split; and the number of clusters that
        enter the corpus by split.
    """
    entering = np.zeros(len(kept), bool)
    entering[clusters.members[kept]] = True
    roots = np.flatnonzero(entering)
    chances = np.empty(len(roots), np.uint64)
    for start in range(0, len(roots), _AT_A_TIME):
        names = clusters.named(roots[start : start + _AT_A_TIME])
        chances[start : start + len(names)] = [
            int(digest("split", str(options.seed), name, size=8), 16) for name in names
        ]
    goes = chances / 2.0**64 < options.validation
    if options.validation > 0 and len(roots) > 1 and (goes.all() or not goes.any()):
        moved = chances.argmax() if goes.all() else chances.argmin()
        goes[moved] = not goes[moved]
    validation = np.zeros(len(kept), bool)
    validation[roots[goes]] = True
    numbers = {"train": int((~goes).sum()), "validation": int(goes.sum())}
    return validation, {split: number for split, number in numbers.items() if number}
