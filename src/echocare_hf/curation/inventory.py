"""All images of all sources with what is known of them, in columns on disk: the corpus may be larger than the memory.

Each source is one Arrow file, memory-mapped, its rows sorted by key. Keys are hashes, so a range of them is a random sample of the
files; ranges of about `FILES_PER_BUCKET` files are the pieces that the work is cut into.
"""

import json
import math
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from .facts import Facts
from .record import FoundFile
from .tables import sort_table, whole_file

FILES_PER_BUCKET = 256
_BATCH = 8192  # files that wait as tuples
_ROWS_PER_BATCH = 65536
_WORD = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "source": _WORD,
        "name": pa.string(),
        "path": pa.binary(),  # as the file system has it
        "size": pa.int64(),
        "dataset": _WORD,
        "texts": _WORD,  # JSON of `Facts.texts`
        "label": _WORD,
        "group": _WORD,
        "licence": _WORD,
        "modality": _WORD,
        "spacing_row_mm": pa.float64(),
        "spacing_column_mm": pa.float64(),
    }
)


class Bucket(NamedTuple):
    """A range of rows of one source: its name, the number of the range, first row, and the row after the last."""

    source: str
    number: int
    start: int
    stop: int


@dataclass(frozen=True)
class Inventory:
    """The images of all sources.

    Attributes:
        folder: where the file of each source lies.
        sources: names, in the order in which they were given; `table` has the same order.
    """

    folder: Path
    sources: tuple[str, ...]

    def path(self, source: str) -> Path:
        """The Arrow file of a source."""
        return self.folder / f"{source}.arrow"

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of all images, one source after the other, each sorted by key."""
        return pa.concat_tables([_mapped(self.path(source)).select(list(columns)) for source in self.sources])

    def buckets(self) -> Iterator[Bucket]:
        """The pieces of all sources, in the order of `table`. Their number, a power of two a source, depends on that source alone."""
        for source in self.sources:
            keys = _mapped(self.path(source))["key"]
            bits = max(0, math.ceil(math.log2(len(keys) / FILES_PER_BUCKET))) if len(keys) else 0
            start = 0
            for number in range(2**bits):
                edge = format((number + 1) << (64 - bits), "016x") if number + 1 < 2**bits else "g"
                stop = bisect_left(range(len(keys)), edge, lo=start, key=lambda row: keys[row].as_py())
                if stop > start:
                    yield Bucket(source, number, start, stop)
                start = stop


def write_inventory(folder: Path, source: str, entries: Iterable[tuple[FoundFile, Facts]]) -> int:
    """Write the file of one source, beside and then renamed.

    Args:
        folder: of the inventory.
        source: name of the source.
        entries: its images in any order.

    Returns:
        The number of images.
    """
    tables: list[pa.Table] = []
    waiting: list[tuple] = []

    def store() -> None:
        cells = zip(*waiting, strict=True) if waiting else [()] * len(SCHEMA)
        columns = [pa.array(column, field.type) for column, field in zip(cells, SCHEMA, strict=True)]
        tables.append(pa.table(columns, schema=SCHEMA))
        waiting.clear()

    for file, facts in entries:
        waiting.append(_row(file, facts))
        if len(waiting) >= _BATCH:
            store()
    store()
    table = sort_table(pa.concat_tables(tables), ["key"]).unify_dictionaries()
    with whole_file(folder / f"{source}.arrow") as partial, pa.ipc.new_file(str(partial), SCHEMA) as writer:
        writer.write_table(table, max_chunksize=_ROWS_PER_BATCH)
    return len(table)


def read_files(path: Path, rows: Sequence[int]) -> list[FoundFile]:
    """Some files of one source.

    Args:
        path: the Arrow file of the source.
        rows: numbers of rows in it.
    """
    table = _mapped(path).select(["source", "name", "path", "size"]).take(pa.array(rows, pa.int64()))
    return [FoundFile(**row | {"path": os.fsdecode(row["path"])}) for row in table.to_pylist()]


def _row(file: FoundFile, facts: Facts) -> tuple:
    spacing = facts.spacing or (None, None)
    said = (facts.label, facts.group, facts.licence, facts.modality)
    return (
        file.key,
        file.source,
        file.name,
        os.fsencode(file.path),
        file.size,
        facts.dataset,
        json.dumps(facts.texts),
        *said,
        *spacing,
    )


def _mapped(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()
