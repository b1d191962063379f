"""Content hashes of all files, and files in chunks that stay the same when other sources are added."""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from echocare_hf.data.reading_volume import first_bytes, header_value

from .drops import Drops
from .engine import run_jobs
from .inventory import Inventory, read_files
from .measure import chunk_job, run_chunk
from .options import CurateOptions, Progress, digest
from .record import Drop
from .tables import write_parquet

_BLOCK = 1024**2
_READERS = ("SimpleITK", "av", "gdcm", "jpeg_ls", "libjpeg", "openjpeg", "pylibjpeg", "rle")
"""Modules of optional packages that decide which files can be read."""


def hash_contents(inventory: Inventory, work: Path, workers: int, progress: Progress) -> pa.ChunkedArray:
    """The content hash of every file, null for one that cannot be read. The hash of a MetaImage header covers its
    data file. Files hashed by an earlier run are not read again, unless one of their bucket could not be read then.

    Returns:
        Binary of 32 bytes, in the order of `inventory.table`.
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
    columns = [pq.read_table(place)["digest"] for place in places]
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.binary(32))


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
    return place.is_file() and pq.read_table(place)["digest"].null_count == 0


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
    """The optional readers that can be imported, sorted: a file that none could read is measured anew once there is another."""
    return [name for name in _READERS if importlib.util.find_spec(name) is not None]


def _modified(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


def drop_exact_copies(
    inventory: Inventory, hashes: pa.ChunkedArray, labelled: Callable[[str], bool], drops: Drops
) -> tuple[np.ndarray, pa.Table]:
    """Keep one of all files with the same bytes: a labelled one before others, then by the order of sources, then by name.

    Args:
        inventory: all files.
        hashes: of `hash_contents`.
        labelled: whether texts (JSON of `Facts.texts`) name an anatomy node.
        drops: gets a record of each file that is not kept, with the one that was kept for it.

    Returns:
        Bool, in the order of `inventory.table`: what is kept; and a table of dropped copies, with the `key` of the file kept for each and
        its own `group`, since both show the same person.
    """
    codes = pc.fill_null(hashes.combine_chunks().dictionary_encode().indices, -1).to_numpy()
    kept = np.ones(len(codes), bool)
    counts = np.bincount(codes + 1, minlength=1)
    shared = np.flatnonzero((codes >= 0) & (counts[codes + 1] > 1))
    files = inventory.table(["key", "source", "name", "texts", "group"]).take(pa.array(shared))
    sources, names, texts = (files[name].to_pylist() for name in ("source", "name", "texts"))
    order = {source: place for place, source in enumerate(inventory.sources)}
    known = {text: labelled(text) for text in set(texts)}
    ranked = sorted(
        range(len(shared)), key=lambda i: (codes[shared[i]], not known[texts[i]], order[sources[i]], names[i])
    )
    first, copies, originals = -1, [], []
    for i in ranked:
        if first < 0 or codes[shared[i]] != codes[shared[first]]:
            first = i
            continue
        kept[shared[i]] = False
        copies.append(i)
        originals.append(first)
        detail = f"of {sources[first]}/{names[first]}"
        drops.append(Drop(sources[i], names[i], -1, "exact_copy", "same_bytes", detail))
    keys, groups = (
        files[name].take(pa.array(rows, pa.int64())) for name, rows in (("key", originals), ("group", copies))
    )
    grouped = pa.table({"key": keys, "group": groups})
    return kept, grouped.filter(pc.is_valid(grouped["group"]))


def measure_all(
    inventory: Inventory,
    hashes: pa.ChunkedArray,
    kept: np.ndarray,
    work: Path,
    options: CurateOptions,
    progress: Progress,
) -> tuple[list[Path], list[dict]]:
    """Measure all files that are kept, chunk by chunk; chunks that an earlier run has finished are used again.

    Returns:
        The parquet file of each chunk, and what `run_chunk` says of the chunks that were measured now.
    """
    jobs, targets = [], []
    done = 0
    readers = json.dumps(installed_readers())
    for bucket in inventory.buckets():
        places = done + np.flatnonzero(kept[done : done + bucket.stop - bucket.start])
        rows = (places - done + bucket.start).tolist()
        done += bucket.stop - bucket.start
        if not rows:
            continue
        files = read_files(inventory.path(bucket.source), rows)
        contents = [value.hex() if value else "" for value in hashes.take(pa.array(places)).to_pylist()]
        state = [(file.source, file.name, content) for file, content in zip(files, contents, strict=True)]
        name = f"{bucket.source}-{bucket.number}-{digest(options.measuring(), readers, json.dumps(state))}.parquet"
        target = work / "chunks" / name
        targets.append(target)
        if not target.is_file():
            jobs.append(chunk_job(inventory.path(bucket.source), rows, target, options))
    results = []
    for result in run_jobs(run_chunk, jobs, options.workers):
        results.append(json.loads(result))
        progress("measure", len(results), len(jobs))
    return targets, results


def rows_of(tables: Sequence[Path]) -> int:
    """The number of rows of some parquet files."""
    return sum(pq.read_metadata(path).num_rows for path in tables)
