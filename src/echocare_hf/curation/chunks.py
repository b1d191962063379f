"""Files in chunks that stay the same when other sources are added, and content hashes of all files."""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from .engine import run_jobs
from .measure import chunk_job, run_chunk
from .options import CurateOptions, digest
from .record import Drop, FoundFile, drop_file
from .tables import write_parquet

FILES_PER_CHUNK = 256
_BLOCK = 1024**2

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, jobs done and jobs in all."""


def buckets(files: Iterable[FoundFile]) -> dict[tuple[str, int], list[FoundFile]]:
    """Files by source and by the leading bits of their keys, about `FILES_PER_CHUNK` each; so each bucket is a random sample.

    The number of buckets of a source is a power of two that depends on that source alone.
    """
    by_source: dict[str, list[FoundFile]] = defaultdict(list)
    for file in files:
        by_source[file.source].append(file)
    found: dict[tuple[str, int], list[FoundFile]] = defaultdict(list)
    for source, members in by_source.items():
        bits = max(0, math.ceil(math.log2(len(members) / FILES_PER_CHUNK))) if members else 0
        for file in members:
            found[source, int(file.key[:16], 16) >> (64 - bits)].append(file)
    return {place: sorted(found[place], key=lambda file: file.key) for place in sorted(found)}


def hash_contents(files: Sequence[FoundFile], work: Path, workers: int, progress: Progress) -> dict[FoundFile, str]:
    """The content hash of every file; empty for a file that cannot be read. Files hashed by an earlier run are not read again."""
    jobs, places = [], []
    for (source, bucket), members in buckets(files).items():
        state = [(file.path, file.size, _modified(file.path)) for file in members]
        place = work / "hashes" / f"{source}-{bucket}-{digest(json.dumps(state))}.parquet"
        places.append((place, members))
        if not place.is_file():
            jobs.append(json.dumps({"paths": [file.path for file in members], "target": str(place)}))
    for done, _ in enumerate(run_jobs(run_hashes, jobs, workers), 1):
        progress("hash", done, len(jobs))
    hashes: dict[FoundFile, str] = {}
    for place, members in places:
        found = pq.read_table(place, columns=["digest"])["digest"].to_pylist()
        hashes.update(zip(members, found, strict=True))
    return hashes


def run_hashes(job: str) -> str:
    """Hash the files of a job (256-bit BLAKE2b of all bytes) and write the hashes to a parquet file."""
    given = json.loads(job)
    rows = []
    for path in given["paths"]:
        hasher = hashlib.blake2b(digest_size=32)
        try:
            with Path(path).open("rb") as file:
                while block := file.read(_BLOCK):
                    hasher.update(block)
            rows.append({"digest": hasher.hexdigest()})
        except OSError:
            rows.append({"digest": ""})  # reading it will say why
    write_parquet(rows, {"digest": "string"}, Path(given["target"]))
    return given["target"]


def _modified(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


def drop_exact_copies(
    files: Sequence[FoundFile], hashes: dict[FoundFile, str], rank: Callable[[FoundFile], tuple]
) -> tuple[list[FoundFile], list[Drop]]:
    """Keep one of all files with the same bytes.

    Args:
        files: in any order.
        hashes: content hash of each.
        rank: the file with the smallest rank is kept.

    Returns:
        The files that are kept, in their order, and the others, each with the one that was kept for it.
    """
    best: dict[str, FoundFile] = {}
    for file in sorted(files, key=rank):
        best.setdefault(hashes[file], file)
    kept, drops = [], []
    for file in files:
        first = best[hashes[file]]
        if not hashes[file] or first == file:
            kept.append(file)
        else:
            drops.append(drop_file(file, "exact_copy", "same_bytes", f"of {first.source}/{first.name}"))
    return kept, drops


def measure_all(
    files: Sequence[FoundFile], hashes: dict[FoundFile, str], work: Path, options: CurateOptions, progress: Progress
) -> tuple[list[Path], list[dict]]:
    """Measure all files, chunk by chunk; chunks that an earlier run has finished are used again.

    Returns:
        The parquet file of each chunk, and what `run_chunk` says of the chunks that were measured now.
    """
    jobs, targets = [], []
    for (source, bucket), members in buckets(files).items():
        contents = json.dumps([(file.source, file.name, hashes[file]) for file in members])
        target = work / "chunks" / f"{source}-{bucket}-{digest(options.measuring(), contents)}.parquet"
        targets.append(target)
        if not target.is_file():
            jobs.append(chunk_job(members, target, options))
    results = []
    for result in run_jobs(run_chunk, jobs, options.workers):
        results.append(json.loads(result))
        progress("measure", len(results), len(jobs))
    return targets, results
