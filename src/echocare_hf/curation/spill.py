"""Rows in order without holding them in memory: sorted pieces on disk, merged while they are read.

Source: external merge sort (Knuth, The Art of Computer Programming, volume 3, section 5.4).
"""

import heapq
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .tables import whole_file

PIECE = 8192
"""Rows that are sorted in memory."""

MOST_PIECES = 32
"""Pieces that are merged at a time; so many become one larger piece."""

_ROWS_PER_BATCH = 256  # of each piece, that are in memory while pieces are merged


class SortedRows:
    """A growing number of rows; iterating gives them in order, as often as wanted.

    rows = SortedRows(folder, schema)
    rows.add(("a", 1))
    for row in rows: ...

    Args:
        folder: for the pieces; what is in it is removed.
        schema: Arrow types of the cells.
        key (optional): of a row, by which rows are ordered; the row itself by default. Rows with equal keys stay in the order in which
            they came.
    """

    def __init__(self, folder: Path, schema: pa.Schema, key: Callable[[tuple], Any] | None = None) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        self._schema = schema
        self._key = key
        self._levels: list[
            list[Path]
        ] = []  # the pieces of each level are `MOST_PIECES` times as long as of the one before
        self._waiting: list[tuple] = []
        self._stored = 0
        self._written = 0

    def __len__(self) -> int:
        return self._stored + len(self._waiting)

    def add(self, row: tuple) -> None:
        """Add a row."""
        self._waiting.append(row)
        if len(self._waiting) >= PIECE:
            self._store()

    def __iter__(self) -> Iterator[tuple]:
        self._store()
        return self._merged([path for level in reversed(self._levels) for path in level])

    def batches(self, rows: int) -> Iterator[pa.Table]:
        """Arrow tables of `rows` rows in order, the last one with what is left."""
        return (_table(part, self._schema) for part in batched(self, rows))

    def _store(self) -> None:
        if self._waiting:
            self._waiting.sort(key=self._key)
            self._put(0, self._waiting)
            self._stored += len(self._waiting)
            self._waiting = []

    def _put(self, level: int, rows: Iterable[tuple]) -> None:
        path = self._folder / f"{self._written}.arrow"
        self._written += 1
        write_batches(path, self._schema, (_table(part, self._schema) for part in batched(rows, _ROWS_PER_BATCH)))
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(path)
        if len(self._levels[level]) == MOST_PIECES:
            full, self._levels[level] = self._levels[level], []
            self._put(level + 1, self._merged(full))
            for path in full:
                path.unlink()

    def _merged(self, paths: Iterable[Path]) -> Iterator[tuple]:
        return heapq.merge(*map(_rows, paths), key=self._key)


def batched(rows: Iterable[tuple], size: int) -> Iterator[list[tuple]]:
    """Lists of `size` rows, the last one with what is left."""
    remaining = iter(rows)
    while part := list(islice(remaining, size)):
        yield part


def _table(rows: Iterable[tuple], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def _rows(path: Path) -> Iterator[tuple]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            yield from zip(*(column.to_pylist() for column in reader.get_batch(number).columns), strict=True)


def write_batches(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write an Arrow file with a record batch for each table, beside and then renamed."""
    with whole_file(path) as partial, pa.ipc.new_file(str(partial), schema) as writer:
        for table in tables:
            writer.write_table(table.combine_chunks())


def take_rows(
    path: Path, starts: np.ndarray, places: np.ndarray, schema: pa.Schema, columns: Sequence[str]
) -> pa.Table:
    """Some columns of some rows of an Arrow file. One of its record batches is in memory at a time, and what was asked for.

    Args:
        path: the file.
        starts: int64 `(batches + 1,)`, the number of the first row of each record batch, and of the row after the last one.
        places: int `(rows,)`, numbers of rows; the table has their order.
        schema: of the file.
        columns: names.
    """
    order = np.argsort(places, kind="stable")
    ordered = places[order]
    numbers = np.searchsorted(starts, ordered, "right") - 1
    wanted, firsts = np.unique(numbers, return_index=True)
    parts = [pa.schema([schema.field(name) for name in columns]).empty_table()]
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file, options=only(schema, columns)) as reader:
        for number, (first, last) in zip(wanted.tolist(), pairwise([*firsts, len(ordered)]), strict=True):
            batch = pa.Table.from_batches([reader.get_batch(number)]).select(list(columns))
            parts.append(batch.take(pa.array(ordered[first:last] - starts[number])))
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pa.concat_tables(parts).take(pa.array(back))


def only(schema: pa.Schema, columns: Sequence[str]) -> pa.ipc.IpcReadOptions:
    """How an Arrow file is read if only some columns are wanted."""
    return pa.ipc.IpcReadOptions(included_fields=sorted(schema.get_field_index(name) for name in columns))
