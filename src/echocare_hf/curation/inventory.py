"""All images of all sources with what is known of them, in columns on disk: the corpus may be larger than the memory.

Each source is one Arrow file, its rows sorted by key. Keys are hashes, so a range of them is a random sample of the
files; ranges of about `FILES_PER_BUCKET` files are the pieces that the work is cut into.
"""

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from .facts import Facts
from .record import FoundFile
from .spill import SortedRows, take_rows, write_batches

FILES_PER_BUCKET = 256
_ROWS_PER_BATCH = 4096  # of the files; readers take whole batches
SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "source": pa.string(),
        "name": pa.string(),
        "path": pa.binary(),  # as the file system has it
        "size": pa.int64(),
        "dataset": pa.string(),
        "texts": pa.string(),  # JSON of `Facts.texts`
        "label": pa.string(),
        "group": pa.string(),
        "licence": pa.string(),
        "modality": pa.string(),
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
        sources: names, in the order in which they were given.
    """

    folder: Path
    sources: tuple[str, ...]

    def path(self, source: str) -> Path:
        """The Arrow file of a source."""
        return self.folder / f"{source}.arrow"

    def buckets(self) -> Iterator[Bucket]:
        """The pieces of all sources, one source after the other. Their number, a power of two a source, depends on that source alone."""
        for source in self.sources:
            count = count_rows(self.path(source))
            bits = max(0, math.ceil(math.log2(count / FILES_PER_BUCKET))) if count else 0
            current, start = 0, 0
            for first in range(0, count, _ROWS_PER_BATCH):
                keys = read_rows(self.path(source), range(first, min(first + _ROWS_PER_BATCH, count)), ["key"])["key"]
                numbers = key_numbers(keys)[:, 0] >> np.uint64(64 - bits) if bits else np.zeros(len(keys), np.uint64)
                for place in np.flatnonzero(np.diff(numbers, prepend=np.uint64(current))).tolist():
                    if first + place > start:
                        yield Bucket(source, current, start, first + place)
                    current, start = int(numbers[place]), first + place
            if count > start:
                yield Bucket(source, current, start, count)


def write_inventory(folder: Path, source: str, entries: Iterable[tuple[FoundFile, Facts]]) -> int:
    """Write the file of one source, beside and then renamed.

    Args:
        folder: of the inventory.
        source: name of the source.
        entries: its images in any order.

    Returns:
        The number of images.
    """
    pieces = folder / f"{source}.pieces"
    rows = SortedRows(pieces, SCHEMA, itemgetter(0))
    for file, facts in entries:
        rows.add(_row(file, facts))
    write_batches(folder / f"{source}.arrow", SCHEMA, rows.batches(_ROWS_PER_BATCH))
    shutil.rmtree(pieces, ignore_errors=True)
    return len(rows)


def key_bytes(keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Hexadecimal texts of 128 bits as bytes, in the order of the texts: S16 `(keys,)`, of which numpy shows no zeros at the end."""
    return np.frombuffer(bytes.fromhex("".join(keys.to_pylist())), "S16")


def key_numbers(keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Hexadecimal texts of 128 bits as numbers: uint64 `(keys, 2)`, in the order of the texts."""
    return np.frombuffer(bytes.fromhex("".join(keys.to_pylist())), ">u8").astype(np.uint64).reshape(-1, 2)


def key_texts(numbers: np.ndarray) -> list[str]:
    """The opposite of `key_numbers`."""
    return [f"{high:016x}{low:016x}" for high, low in numbers.tolist()]


def count_rows(path: Path) -> int:
    """The number of images of one source."""
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        last = reader.num_record_batches - 1
        return last * _ROWS_PER_BATCH + len(reader.get_batch(last)) if last >= 0 else 0


def read_rows(path: Path, rows: Sequence[int] | np.ndarray, columns: Sequence[str]) -> pa.Table:
    """Some columns of some images of one source.

    Args:
        path: the Arrow file of the source.
        rows: their numbers.
        columns: names of `SCHEMA`.
    """
    places = np.asarray(rows, np.int64)
    last = int(places.max(initial=0)) // _ROWS_PER_BATCH
    return take_rows(path, _ROWS_PER_BATCH * np.arange(last + 2), places, SCHEMA, columns)


def read_files(path: Path, rows: Sequence[int] | np.ndarray) -> list[FoundFile]:
    """Some files of one source.

    Args:
        path: the Arrow file of the source.
        rows: numbers of rows in it.
    """
    table = read_rows(path, rows, ["source", "name", "path", "size"])
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
