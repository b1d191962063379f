"""The order of an epoch, as a function of seed and epoch, and which stretch of it a reader takes.

Shards are put in random order, row groups within each too; every few of them make a window, whose rows are shuffled. Rows that come
more than once are spread over their window. Any stretch of positions can be read without what lies before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .table import CorpusTable


class EpochOrder:
    """All positions of one epoch.

    Args:
        table: of the corpus.
        counts: int64 (rows,), how often each row comes; None for once.
        shuffle: whether to shuffle; else rows stand as in the files, and a window is one row group.
        mixed_groups: row groups a window.
        seed: 0 or more.
        epoch: 0 or more.
    """

    def __init__(
        self, table: CorpusTable, counts: np.ndarray | None, shuffle: bool, mixed_groups: int, seed: int, epoch: int
    ) -> None:
        self.counts, self.shuffle, self.seed, self.epoch = counts, shuffle, seed, epoch
        self.rows = table.group_rows
        self.first_row = np.cumsum(self.rows) - self.rows
        groups = len(self.rows)
        self.groups = np.arange(groups)
        self.mixed = mixed_groups if shuffle else 1
        if shuffle:
            random = np.random.default_rng([seed, epoch, 0])
            shard_place = random.permutation(len(table.shards))
            self.groups = np.lexsort((random.random(groups), shard_place[table.group_shard]))
        if counts is None:
            sizes = self.rows
        else:
            sums = np.concatenate([[0], np.cumsum(counts)])
            sizes = sums[self.first_row + self.rows] - sums[self.first_row]
        ends = np.cumsum(sizes[self.groups])
        self.ends = np.append(ends[self.mixed - 1 : groups - 1 : self.mixed], ends[-1:])

    def __len__(self) -> int:
        """Number of positions."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def windows(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """The positions `start` to `stop`, window by window: int64 (positions, 2), row group of the table and row in it."""
        number = int(np.searchsorted(self.ends, start, side="right"))
        while start < stop:
            first = int(self.ends[number - 1]) if number else 0
            last = min(int(self.ends[number]), stop)
            if last > start:
                yield self._window(number)[start - first : last - first]
            start, number = max(start, last), number + 1

    def _window(self, number: int) -> np.ndarray:
        parts = []
        for group in self.groups[number * self.mixed : (number + 1) * self.mixed]:
            rows = np.arange(self.rows[group])
            if self.counts is not None:
                rows = np.repeat(rows, self.counts[self.first_row[group] + rows])
            parts.append(np.stack([np.full(len(rows), group), rows], axis=1))
        places = np.concatenate(parts)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch, number + 1]).shuffle(places)
        return places


@dataclass(frozen=True)
class Stretch:
    """Positions `start` to `start + size` of an epoch, going on at its beginning after its end."""

    start: int
    size: int

    def worker(self, worker: int, workers: int, multiple: int = 1) -> "Stretch":
        """The part of one of several workers; all but the last positions are dealt in multiples of `multiple`."""
        units = -(-self.size // multiple)
        first, last = (min(units * place // workers * multiple, self.size) for place in (worker, worker + 1))
        return Stretch(self.start + first, last - first)


def rank_stretch(positions: int, rank: int, world_size: int, equal: Literal["repeat", "drop"] | None) -> Stretch:
    """What one rank takes of an epoch; see `equal` of `stream`.

    Raises:
        ValueError: if there are fewer positions than ranks, and they are to be dropped.
    """
    if equal is None:
        first, last = (positions * place // world_size for place in (rank, rank + 1))
        return Stretch(first, last - first)
    size = positions // world_size if equal == "drop" else -(-positions // world_size)
    if positions and not size:
        raise ValueError(f'{positions} images cannot be shared out to {world_size} ranks; use equal="repeat"')
    return Stretch(rank * size, size)
