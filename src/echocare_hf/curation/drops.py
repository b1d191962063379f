"""The index of what was dropped, on disk: the greater part of what was found may stand in it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from .record import Drop, readable
from .spill import SortedRows

SCHEMA = pa.schema(
    {
        "source": pa.string(),
        "name": pa.string(),
        "frame": pa.int32(),
        "step": pa.string(),
        "reason": pa.string(),
        "detail": pa.string(),
    }
)


class Drops:
    """A growing number of `Drop`, in the order of their fields.

    drops = Drops(folder)
    drops.append(drop)
    for drop in drops: ...

    Args:
        folder: for the records; what is in it is removed.
    """

    def __init__(self, folder: Path) -> None:
        self._rows = SortedRows(folder, SCHEMA)
        self.counts: Counter[tuple[str, str]] = Counter()
        """How many were dropped, by step and reason."""

    def append(self, record: Drop) -> None:
        """Add a record."""
        self._rows.add(tuple(record._replace(name=readable(record.name), detail=readable(record.detail))))
        self.counts[record.step, record.reason] += 1

    def extend(self, records: Iterable[Drop]) -> None:
        """Add records."""
        for record in records:
            self.append(record)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Drop]:
        return (Drop(*row) for row in self._rows)

    def tables(self, rows: int) -> Iterator[pa.Table]:
        """The records as tables of `rows` rows, in order."""
        return self._rows.batches(rows)
