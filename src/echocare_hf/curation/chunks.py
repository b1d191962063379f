"""Content hashes of all files, and files in chunks that stay the same when other sources are added."""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import features

from echocare_hf.data.reading_volume import first_bytes, header_value

from .drops import Drops
from .engine import run_jobs
from .inventory import Bucket, Inventory, key_bytes, read_files, read_rows
from .measure import chunk_job, run_chunk
from .options import CurateOptions, Progress, digest, word_number
from .record import Drop
from .tables import write_parquet

_BLOCK = 1024**2
_FILES_AT_A_TIME = 32768  # that share their hash with another
_READERS = ("SimpleITK", "av", "gdcm", "jpeg_ls", "libjpeg", "openjpeg", "pylibjpeg", "rle")
"""Modules of optional packages that decide which files can be read."""

_CODECS = ("avif", "jpg_2000", "webp")
"""Decoders that Pillow may have been built without."""


def hash_contents(inventory: Inventory, work: Path, workers: int, progress: Progress) -> list[Path]:
    """The content hash of every file, null for one that cannot be read. The hash of a MetaImage header covers its
    data file. Files hashed by an earlier run are not read again, unless one of their bucket could not be read then.

    Returns:
        A parquet file for each of `inventory.buckets`, with the column `digest` (32 bytes).
    """
    jobs, places = [], []
    for bucket in inventory.buckets():
        rows = range(bucket.start, bucket.stop)
        files = read_files(inventory.path(bucket.source), rows)
        state = [(file.path, file.size, _modified(file.path), *_data_state(file.path)) for file in files]
        place = work / "contents" / f"{bucket.source}-{bucket.number}-{digest(json.dumps(state))}.parquet"
        places.append(place)
        if not _is_hashed(place):
            source = str(inventory.path(bucket.source))
            jobs.append(json.dumps({"files": source, "rows": [rows.start, rows.stop], "target": str(place)}))
    for done, _ in enumerate(run_jobs(run_hashes, jobs, workers), 1):
        progress("hash", done, len(jobs))
    return places


def run_hashes(job: str) -> str:
    """Hash the files of a job (256-bit BLAKE2b of all bytes and those of a MetaImage's data file) and write a parquet file."""
    given = json.loads(job)
    rows: list[dict[str, bytes | None]] = []
    for file in read_files(Path(given["files"]), range(*given["rows"])):
        hasher = hashlib.blake2b(digest_size=32)
        try:
            for path in (Path(file.path), *_data_files(file.path)):
                with path.open("rb") as content:
                    while block := content.read(_BLOCK):
                        hasher.update(block)
            rows.append({"digest": hasher.digest()})
        except OSError:
            rows.append({"digest": None})  # reading it will say why
    write_parquet(rows, {"digest": pa.binary(32)}, Path(given["target"]))
    return given["target"]


def _is_hashed(place: Path) -> bool:
    """Whether an earlier run could read all files of a bucket."""
    return place.is_file() and _digests(place).null_count == 0


def _digests(place: Path) -> pa.ChunkedArray:
    with pq.ParquetFile(place) as file:
        return file.read()["digest"]


def _data_files(path: str) -> list[Path]:
    """The file beside a MetaImage header that holds its pixels; empty for all other files and where it is missing."""
    if Path(path).suffix.lower() not in (".mhd", ".mha"):
        return []
    name = header_value(first_bytes(Path(path)), b"ElementDataFile") or ""
    data = Path(path).parent / name
    is_inside = name != "" and not Path(name).is_absolute() and ".." not in Path(name).parts  # as the reader demands
    return [data] if is_inside and data.is_file() else []


def _data_state(path: str) -> list[tuple[int, int]]:
    """Size and time of change of `_data_files`."""
    try:
        return [(data.stat().st_size, data.stat().st_mtime_ns) for data in _data_files(path)]
    except OSError:
        return []


def installed_readers() -> list[str]:
    """The optional readers that can be imported and the optional decoders of Pillow, sorted.

    A file that none could read is measured anew once there is another.
    """
    supported = features.get_supported()
    optional = [name for name in _READERS if importlib.util.find_spec(name) is not None]
    return sorted([*optional, *(codec for codec in _CODECS if codec in supported)])


def _modified(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


class Copies(NamedTuple):
    """Exact copies that were dropped and have a group of their own: it is one with that of the file that was kept, which shows the same.

    Attributes:
        keys: S16 `(copies,)`, keys of the files that were kept (`key_bytes`).
        groups: uint64 `(copies,)`, groups of the copies (`options.word_number`).
    """

    keys: np.ndarray
    groups: np.ndarray


def drop_exact_copies(
    inventory: Inventory, hashes: Sequence[Path], labelled: Callable[[str], bool], drops: Drops
) -> tuple[np.ndarray, Copies]:
    """Keep one of all files with the same bytes: a labelled one before others, then by the order of sources, then by name.

    Eight bytes of each hash are in memory; the rest of it, and what is known of the file, only for some files at a time of those that
    share them with another.

    Args:
        inventory: all files.
        hashes: of `hash_contents`.
        labelled: whether texts (JSON of `Facts.texts`) name an anatomy node.
        drops: gets a record of each file that is not kept, with the one that was kept for it.

    Returns:
        Bool, in the order of `inventory.buckets`: what is kept; and the groups of dropped copies.
    """
    buckets = list(inventory.buckets())
    starts = np.cumsum([0, *(bucket.stop - bucket.start for bucket in buckets)])
    begins = np.concatenate([np.empty(0, np.uint64), *map(_beginnings, hashes)])
    suspects, edges = _sharing(begins)
    del begins
    kept = np.ones(starts[-1], bool)
    keys, groups = [np.empty(0, "S16")], [np.empty(0, np.uint64)]
    while len(edges) > 1:
        some = max(1, int(np.searchsorted(edges, edges[0] + _FILES_AT_A_TIME, "right")) - 1)
        places = np.sort(suspects[edges[0] : edges[some]])
        edges = edges[some:]
        files = _with_digests(inventory, buckets, starts, hashes, places)
        lost, originals = _rank_copies(files, inventory.sources, labelled, drops)
        kept[places[lost]] = False
        grouped = pc.is_valid(files["group"]).to_numpy()[lost]
        keys.append(key_bytes(files["key"].take(pa.array(originals[grouped]))))
        groups.append(
            np.array(
                [word_number(group) for group in files["group"].take(pa.array(lost[grouped])).to_pylist()], np.uint64
            )
        )
    return kept, Copies(np.concatenate(keys), np.concatenate(groups))


def _beginnings(place: Path) -> np.ndarray:
    """The first eight bytes of each hash as a number, 0 for null: uint64 `(files,)`."""
    column = _digests(place)
    whole = b"".join(value[:8] if value else bytes(8) for value in column.to_pylist())
    return np.frombuffer(whole, ">u8").astype(np.uint64)


def _sharing(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places of numbers above 0 that are there more than once, equal ones side by side, and where each number begins and the last
    one ends.
    """
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    same = (ordered[1:] == ordered[:-1]) & (ordered[1:] > 0)
    shared = np.r_[same, False] | np.r_[False, same] if len(order) else np.zeros(0, bool)
    begins = shared & ~np.r_[False, same] if len(order) else shared
    return order[shared], np.r_[np.flatnonzero(begins[shared]), shared.sum()]


def _with_digests(
    inventory: Inventory, buckets: Sequence[Bucket], starts: np.ndarray, hashes: Sequence[Path], places: np.ndarray
) -> pa.Table:
    """What is known of the files at some places, ascending, with the hash of each."""
    columns = ["key", "source", "name", "texts", "group"]
    numbers = np.searchsorted(starts, places, "right") - 1
    tables = []
    for source in inventory.sources:
        of_source = [number for number in np.unique(numbers).tolist() if buckets[number].source == source]
        here = np.isin(numbers, of_source)
        rows = [buckets[n].start + p - starts[n] for n, p in zip(numbers[here], places[here], strict=True)]
        if not rows:
            continue
        found = [_digests(hashes[n]).take(pa.array(places[numbers == n] - starts[n])) for n in of_source]
        whole = pa.chunked_array([chunk for column in found for chunk in column.chunks], pa.binary(32))
        tables.append(read_rows(inventory.path(source), rows, columns).append_column("digest", whole))
    return pa.concat_tables(tables)


def _rank_copies(
    files: pa.Table, order: Sequence[str], labelled: Callable[[str], bool], drops: Drops
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of files that are copies of another one that is kept, and the row of that one for each; the copies go to `drops`."""
    sources, names, texts, digests = (files[name].to_pylist() for name in ("source", "name", "texts", "digest"))
    place_of = {source: place for place, source in enumerate(order)}
    known = {text: labelled(text) for text in set(texts)}
    ranked = sorted(range(len(files)), key=lambda i: (digests[i], not known[texts[i]], place_of[sources[i]], names[i]))
    lost, originals = [], []
    first = -1
    for i in ranked:
        if first < 0 or digests[i] != digests[first]:
            first = i
        else:
            lost.append(i)
            originals.append(first)
            detail = f"of {sources[first]}/{names[first]}"
            drops.append(Drop(sources[i], names[i], -1, "exact_copy", "same_bytes", detail))
    return np.array(lost, np.int64), np.array(originals, np.int64)


class Chunk(NamedTuple):
    """What was measured of the files of a bucket: a parquet file of `measure.run_chunk`."""

    path: Path
    bucket: Bucket


def measure_all(
    inventory: Inventory,
    hashes: Sequence[Path],
    kept: np.ndarray,
    work: Path,
    options: CurateOptions,
    progress: Progress,
) -> tuple[list[Chunk], list[dict]]:
    """Measure all files that are kept, chunk by chunk; chunks that an earlier run has finished are used again.

    Returns:
        The chunks, and what `run_chunk` says of those that were measured now.
    """
    jobs, chunks = [], []
    done = 0
    readers = json.dumps(installed_readers())
    for bucket, place in zip(inventory.buckets(), hashes, strict=True):
        chosen = np.flatnonzero(kept[done : done + bucket.stop - bucket.start])
        done += bucket.stop - bucket.start
        if not len(chosen):
            continue
        rows = (chosen + bucket.start).tolist()
        files = read_files(inventory.path(bucket.source), rows)
        contents = [value.hex() if value else "" for value in _digests(place).take(pa.array(chosen)).to_pylist()]
        state = [(file.source, file.name, content) for file, content in zip(files, contents, strict=True)]
        name = f"{bucket.source}-{bucket.number}-{digest(options.measuring(), readers, json.dumps(state))}.parquet"
        target = work / "chunks" / name
        chunks.append(Chunk(target, bucket))
        if not target.is_file():
            jobs.append(chunk_job(inventory.path(bucket.source), rows, target, options))
    results = []
    for result in run_jobs(run_chunk, jobs, options.workers):
        results.append(json.loads(result))
        progress("measure", len(results), len(jobs))
    return chunks, results


def rows_of(chunks: Sequence[Chunk]) -> int:
    """The number of rows of some chunks: images, and what was dropped while measuring."""
    return sum(pq.read_metadata(chunk.path).num_rows for chunk in chunks)
