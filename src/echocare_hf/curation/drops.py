"""The index of what was dropped, in columns: a few bytes a record, where a list of tuples takes hundreds."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import pyarrow as pa

from .record import Drop, readable
from .tables import sort_table

_BATCH = 8192  # records that wait as tuples
_WORD = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    {"source": _WORD, "name": pa.string(), "frame": pa.int32(), "step": _WORD, "reason": _WORD, "detail": pa.string()}
)


class Drops(Sequence[Drop]):
    """A growing list of `Drop`, which `in_order` puts in order.

    drops = Drops([drop])
    drops.extend(more)
    for drop in drops.in_order(): ...
    """

    def __init__(self, records: Iterable[Drop] = ()) -> None:
        self._tables: list[pa.Table] = []
        self._waiting: list[Drop] = []
        self._stored = 0
        self.extend(records)

    def append(self, record: Drop) -> None:
        """Add a record at the end."""
        self._waiting.append(record._replace(name=readable(record.name), detail=readable(record.detail)))
        if len(self._waiting) >= _BATCH:
            self._store()

    def extend(self, records: Iterable[Drop]) -> None:
        """Add records at the end."""
        for record in records:
            self.append(record)

    def extend_table(self, table: pa.Table) -> None:
        """Add the rows of an Arrow table with the columns of `Drop`; a missing detail becomes empty."""
        self._store()
        columns = [table[name].cast(SCHEMA.field(name).type) for name in SCHEMA.names[:-1]]
        self._tables.append(pa.table([*columns, table["detail"].fill_null("")], schema=SCHEMA))
        self._stored += len(table)

    def in_order(self) -> "Drops":
        """The same records by source, name, frame, step, reason and detail."""
        self._store()
        ordered = Drops()
        if self._tables:
            together = pa.concat_tables(self._tables)
            ordered._tables = [sort_table(together, SCHEMA.names)]
            ordered._stored = len(together)
        return ordered

    def table(self) -> pa.Table:
        """All records as a table with the columns of `Drop`, in their order."""
        self._store()
        return pa.concat_tables([SCHEMA.empty_table(), *self._tables])

    def _store(self) -> None:
        if self._waiting:
            columns = [
                pa.array(cells, field.type)
                for cells, field in zip(zip(*self._waiting, strict=True), SCHEMA, strict=True)
            ]
            self._tables.append(pa.table(columns, schema=SCHEMA))
            self._stored += len(self._waiting)
            self._waiting = []

    def __len__(self) -> int:
        return self._stored + len(self._waiting)

    def __iter__(self) -> Iterator[Drop]:
        for table in self._tables:
            for batch in table.to_batches(max_chunksize=_BATCH):
                yield from map(Drop, *(batch[name].to_pylist() for name in SCHEMA.names))
        yield from self._waiting

    @overload
    def __getitem__(self, index: int) -> Drop: ...
    @overload
    def __getitem__(self, index: slice) -> list[Drop]: ...
    def __getitem__(self, index: int | slice) -> Drop | list[Drop]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        for table in self._tables:
            if place < len(table):
                return Drop(**table.slice(place, 1).to_pylist()[0])
            place -= len(table)
        return self._waiting[place]
