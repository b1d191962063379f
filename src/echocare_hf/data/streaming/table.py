"""What is known of a corpus before its images are read: row groups, and for weights the id, node and source of each row."""

import hashlib
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
from tqdm import tqdm

from .files import SHARD_ERRORS, ShardAccess

READERS = 16
"""Shards whose footers are read at once."""


@dataclass(frozen=True, eq=False)
class CorpusTable:
    """The row groups of a corpus, shard by shard.

    Attributes:
        shards: paths or URLs.
        group_shard: int64 (groups,), the shard of each row group.
        group_number: int64 (groups,), its number within the shard.
        group_rows: int64 (groups,), how many rows it has.
        columns: of a sample.
        missing: for each shard the wanted columns that it lacks.
        keys: uint64 (rows,), a hash of each row's id; empty if no column was asked for.
        texts: for each column asked for its distinct texts, "" for none.
        codes: for each column asked for, int32 (rows,), the place of each row's text in `texts`.
        skipped: shards that could not be read, with the reason.
        fingerprint: 32 hexadecimal digits: the same for the same shards, wherever they lie.
    """

    shards: tuple[str, ...]
    group_shard: np.ndarray
    group_number: np.ndarray
    group_rows: np.ndarray
    columns: tuple[str, ...]
    missing: tuple[tuple[str, ...], ...]
    keys: np.ndarray
    texts: dict[str, list[str]]
    codes: dict[str, np.ndarray]
    skipped: dict[str, str]
    fingerprint: str

    def __len__(self) -> int:
        return int(self.group_rows.sum())


@dataclass(frozen=True)
class _Shard:
    sizes: list[tuple[int, int]]  # rows and bytes of each row group
    present: list[str]
    keys: np.ndarray
    texts: dict[str, list[str]]
    codes: dict[str, np.ndarray]


def read_table(
    shards: Sequence[str],
    access: ShardAccess,
    columns: Sequence[str] | None = None,
    by: Sequence[str] = (),
    *,
    skip: bool = False,
) -> CorpusTable:
    """Read the footers of all shards, and the columns that weights need.

    Args:
        shards: paths or URLs.
        access: how to open them.
        columns: of a sample; None for all of the first shard.
        by: columns of texts to be weighted by.
        skip: leave out shards that cannot be read, with one warning.

    Raises:
        ValueError: if a shard cannot be read, none can, or a column is in none.
    """

    def read(url: str) -> _Shard | str:
        try:
            with access.open(url) as shard:
                return _read_shard(url, shard, by)
        except SHARD_ERRORS as error:
            return (str(error).splitlines() or [type(error).__name__])[0]

    with ThreadPoolExecutor(READERS) as pool:
        found = list(tqdm(pool.map(read, shards), "footers", len(shards), unit=" shards", delay=2, leave=False))
    bad = {url: facts for url, facts in zip(shards, found, strict=True) if isinstance(facts, str)}
    good = {url: facts for url, facts in zip(shards, found, strict=True) if not isinstance(facts, str)}
    if bad:
        first = next(iter(bad))
        if not skip or not good:
            raise ValueError(
                f"{first}: the shard cannot be read ({bad[first]}); {len(bad)} of {len(shards)} are so; copy it again"
                + ("" if skip else ', or leave such shards out with bad_shards="skip"')
            )
        warnings.warn(
            f"{len(bad)} of {len(shards)} shards cannot be read and are left out, such as {first}", stacklevel=3
        )
    return _join(good, columns, by, bad)


def _read_shard(url: str, shard: parquet.ParquetFile, by: Sequence[str]) -> _Shard:
    facts, present = shard.metadata, shard.schema_arrow.names
    groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
    sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    keys, texts, codes = np.empty(0, np.uint64), {}, {}
    if by:
        wanted = [name for name in (*by, "id") if name in present]
        read = shard.read(columns=wanted, use_threads=False) if wanted else None
        rows = facts.num_rows
        ids = read["id"].to_pylist() if read and "id" in wanted else [None] * rows
        file = url.rpartition("/")[2]
        names = (f"{file}#{row}" if own in (None, "") else str(own) for row, own in enumerate(ids))
        keys = np.fromiter(map(key_of, names), np.uint64, rows)
        for name in by:
            if read and name in wanted:
                encoded = read[name].cast(pyarrow.string()).combine_chunks().fill_null("").dictionary_encode()
                texts[name] = encoded.dictionary.to_pylist()
                codes[name] = encoded.indices.to_numpy().astype(np.int32)
            else:
                texts[name], codes[name] = [""], np.zeros(rows, np.int32)
    return _Shard(sizes, present, keys, texts, codes)


def key_of(identifier: str) -> int:
    """64 bits that an image is sampled by."""
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest(), "little")


def _join(
    good: dict[str, _Shard], columns: Sequence[str] | None, by: Sequence[str], bad: dict[str, str]
) -> CorpusTable:
    facts = list(good.values())
    known = dict.fromkeys(name for shard in facts for name in shard.present)
    chosen = tuple(facts[0].present if columns is None else columns)
    wanted = tuple(dict.fromkeys((*chosen, *by)))
    if absent := [name for name in wanted if name not in known]:
        raise ValueError(
            f"{next(iter(good))}: has no column {absent[0]!r}, nor has another shard; columns are {', '.join(known)}"
        )
    texts: dict[str, list[str]] = {}
    codes: dict[str, np.ndarray] = {}
    for name in by:
        places: dict[str, int] = {}
        parts = [
            np.array([places.setdefault(text, len(places)) for text in shard.texts[name]], np.int32)[shard.codes[name]]
            for shard in facts
        ]
        texts[name], codes[name] = list(places), np.concatenate(parts)
    hasher = hashlib.blake2b(digest_size=16)
    for url, shard in good.items():
        hasher.update(f"{url.rpartition('/')[2]}{shard.sizes}".encode())
    groups = [(place, number, rows) for place, s in enumerate(facts) for number, (rows, _) in enumerate(s.sizes)]
    numbers = np.array(groups, np.int64).reshape(-1, 3)
    return CorpusTable(
        shards=tuple(good),
        group_shard=numbers[:, 0],
        group_number=numbers[:, 1],
        group_rows=numbers[:, 2],
        columns=chosen,
        missing=tuple(tuple(name for name in wanted if name not in shard.present) for shard in facts),
        keys=np.concatenate([shard.keys for shard in facts]),
        texts=texts,
        codes=codes,
        skipped=bad,
        fingerprint=hasher.hexdigest(),
    )
