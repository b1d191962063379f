"""Writing the corpus: parquet shards that `datasets` streams, rows in random order, the same bytes in every run.

A shard takes a range of keys, so it draws on one or two chunks of every source and needs no shuffle over the whole corpus; keys are
hashes, so a shard is a random sample of the files. Frames of one cine loop lie in one shard, spread over it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from echocare_hf.anatomy import AnatomyTree

from .chunks import Chunk
from .engine import run_jobs
from .kept import Kept
from .options import CurateOptions, Progress, digest
from .tables import write_table, write_tables

SPLITS = ("train", "validation")
ROWS_PER_GROUP = 128
"""Rows that a reader takes at a time."""

LEAST_SHARDS = 8
"""Shards of a split that is large enough (`ROWS_PER_GROUP` rows each), so that several workers can read it."""

_META = ["id", "node", "label", "group", "cluster", "source", "licence", "split", "modality", "width", "height"]
_META += ["spacing_row_mm", "spacing_column_mm", "source_path", "frame"]
COLUMNS = ["image", "id", "node", "labels", *_META[2:]]
"""Columns of the corpus, in order."""


@cache
def corpus_schema() -> pa.Schema:
    """The Arrow schema of a shard, with the features of `datasets` in its metadata."""
    from datasets import Features, Image, List, Value

    kinds = {"width": "int32", "height": "int32", "frame": "int32"}
    kinds |= {"spacing_row_mm": "float32", "spacing_column_mm": "float32"}
    features = {name: Value(kinds.get(name, "string")) for name in COLUMNS}
    features["image"] = Image()
    features["labels"] = List(Value("int8"), length=len(AnatomyTree.default()))
    return Features(features).arrow_schema


def write_shards(
    kept: Kept, chunks: Sequence[Chunk], work: Path, options: CurateOptions, progress: Progress
) -> dict[str, list[Path]]:
    """Write all shards; those that an earlier run has finished are used again.

    Args:
        kept: of `Decisions`.
        chunks: where the images are.
        work: the work folder; shards lie in `shards` below it, under names that tell their contents.
        options: the settings.
        progress: called after each shard.

    Returns:
        For each split that is not empty, its shards in order.
    """
    counts = {
        split: shard_count(kept.image_bytes[split], kept.images[split], options)
        for split in SPLITS
        if split in kept.images
    }
    jobs: list[str] = []
    shards: dict[str, list[Path]] = {split: [] for split in counts}
    wanted: set[str] = set()
    for split, part in _parts(kept, counts):
        name = _name(part, chunks)
        path = work / "shards" / f"{name}.parquet"
        shards[split].append(path)
        wanted.add(path.name)
        if not path.is_file():
            plan = work / "plans" / f"{name}.parquet"
            write_table(part, plan)
            used = {number: str(chunks[number].path) for number in pc.unique(part["chunk"]).to_pylist()}
            jobs.append(json.dumps({"plan": str(plan), "chunks": used, "target": str(path)}))
    for done, _ in enumerate(run_jobs(run_shard, jobs, options.workers), 1):
        progress("write", done, len(jobs))
    for path in [*(work / "shards").glob("*.parquet")]:
        if path.name not in wanted:
            path.unlink()  # of an earlier corpus; made anew if it is ever wanted again
    return shards


def _parts(kept: Kept, counts: Mapping[str, int]) -> Iterator[tuple[str, pa.Table]]:
    """The split and the rows of each shard, in their order; of a split in the order of its shards."""
    open_parts: dict[str, list[pa.Table]] = {split: [] for split in counts}
    open_numbers = dict.fromkeys(counts, 0)
    for table in kept.tables():
        for split, count in counts.items():
            rows = table.filter(pc.equal(table["split"], split))
            numbers = shard_numbers(rows["key"], count)
            for number in np.unique(numbers).tolist():
                if number != open_numbers[split]:
                    yield from _ordered(split, open_parts[split])
                    open_parts[split], open_numbers[split] = [], number
                open_parts[split].append(rows.filter(pa.array(numbers == number)))
    for split, parts in open_parts.items():
        yield from _ordered(split, parts)


def _ordered(split: str, parts: Sequence[pa.Table]) -> Iterator[tuple[str, pa.Table]]:
    if parts:
        table = pa.concat_tables(parts)
        yield split, table.sort_by([("order", "ascending"), ("id", "ascending")]).combine_chunks()


def shard_count(image_bytes: int, rows: int, options: CurateOptions) -> int:
    """How many shards a split has: about `options.shard_megabytes` each, and `LEAST_SHARDS` if there are rows enough."""
    by_size = -(-image_bytes // (options.shard_megabytes * 1024**2))
    return max(1, by_size, min(LEAST_SHARDS, rows // ROWS_PER_GROUP))


def shard_numbers(keys: pa.ChunkedArray, count: int) -> np.ndarray:
    """The shard of each row, int64: ranges of keys of equal width."""
    values = np.fromiter((int(key.as_py()[:8], 16) for key in keys), np.int64, len(keys))
    return values * count >> 32


def _name(part: pa.Table, chunks: Sequence[Chunk]) -> str:
    """A name that two shards share only if they hold the same."""
    used = sorted(chunks[number].path.name for number in pc.unique(part["chunk"]).to_pylist())
    hasher = hashlib.blake2b(
        json.dumps([COLUMNS, ROWS_PER_GROUP, used, list(AnatomyTree.default().ids)]).encode(), digest_size=16
    )
    plain = part.drop_columns(["chunk"]).combine_chunks()
    for column in plain.columns:
        hasher.update(json.dumps(column.to_pylist()).encode())
    return digest(hasher.hexdigest())


def run_shard(job: str) -> str:
    """Write the shard that a job's plan lists, and remove the plan. Its images are in memory once, and a row group at a time again."""
    given = json.loads(job)
    plan_path = Path(given["plan"])
    plan = pq.read_table(plan_path)
    images, places = _images_of(plan, given["chunks"])
    tree = AnatomyTree.default()
    labels = {node: tree.labels(node).tolist() for node in set(plan["node"].to_pylist())}
    schema = corpus_schema()

    def groups() -> Iterator[pa.Table]:
        for start in range(0, len(plan), ROWS_PER_GROUP):
            part = plan.slice(start, ROWS_PER_GROUP)
            here = images.take(pa.array(places[start : start + ROWS_PER_GROUP])).combine_chunks()
            columns = {name: part[name].combine_chunks() for name in _META}
            columns["image"] = pa.StructArray.from_arrays(
                [here, pa.nulls(len(here), pa.string())], fields=list(schema.field("image").type)
            )
            columns["labels"] = pa.array([labels[node] for node in part["node"].to_pylist()])
            yield pa.table([columns[name].cast(schema.field(name).type) for name in COLUMNS], schema=schema)

    write_tables(groups(), schema, Path(given["target"]), ROWS_PER_GROUP)
    plan_path.unlink()
    return given["target"]


def _images_of(plan: pa.Table, chunks: Mapping[str, str]) -> tuple[pa.ChunkedArray, np.ndarray]:
    """The encoded images of a plan in the order of the chunks, and the place among them of each of its rows."""
    found: list[pa.ChunkedArray] = []
    place_of: dict[tuple[str, int], int] = {}
    for number in sorted(set(plan["chunk"].to_pylist())):
        wanted = plan.filter(pc.equal(plan["chunk"], number))
        low, high = pc.min(wanted["key"]).as_py(), pc.max(wanted["key"]).as_py()
        table = pq.read_table(
            chunks[str(number)],
            columns=["key", "frame", "image"],
            filters=[("key", ">=", low), ("key", "<=", high)],
        )
        chosen = set(zip(wanted["key"].to_pylist(), wanted["frame"].to_pylist(), strict=True))
        names = list(zip(table["key"].to_pylist(), table["frame"].to_pylist(), strict=True))
        rows = [row for row, name in enumerate(names) if name in chosen]
        for row in rows:
            place_of[names[row]] = len(place_of)
        found.append(table["image"].take(pa.array(rows, pa.int64())))
    places = zip(plan["key"].to_pylist(), plan["frame"].to_pylist(), strict=True)
    return pa.chunked_array([chunk for column in found for chunk in column.chunks], pa.binary()), np.array(
        [place_of[place] for place in places], np.int64
    )
