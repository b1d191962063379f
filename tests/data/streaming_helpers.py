"""A corpus of `echocare curate` for the tests of streaming, and the same rows in any number of shards and row groups."""

import atexit
import csv
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "curation"))
from curation_helpers import phantom, save

IMAGES = 32
ORGANS = ("heart", "heart", "A4C", "liver")


@cache
def curated() -> Path:
    """A corpus folder, made of phantoms by the real `curate`, with two sources. Made once."""
    pytest.importorskip("daft", reason="Daft (extra `curate`) is not installed")
    from echocare_hf.curation import CurateOptions, curate

    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for source, numbers in (("clinic", range(24)), ("archive", range(24, IMAGES))):
        rows = []
        for number in numbers:
            save(root / source / f"images/{number:03d}.png", phantom(number, 96))
            organ = "" if number % 8 == 7 else ORGANS[number % 4]
            rows.append({"file_name": f"images/{number:03d}.png", "view": organ, "patient": f"patient{number}"})
        with (root / source / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    options = CurateOptions(validation=0.2, contact_images=0, check_ultrasound=False, near_distance=-1)
    curate([str(root / "clinic"), str(root / "archive")], root / "corpus", options)
    return root / "corpus"


@cache
def rows() -> pa.Table:
    """All rows of the corpus, both splits."""
    return pa.concat_tables(pq.read_table(path) for path in sorted((curated() / "data").glob("*.parquet")))


def enlarged(times: int) -> pa.Table:
    """The rows several times over, with ids of their own."""
    table = pa.concat_tables([rows()] * times)
    return with_column(table, "id", pa.array([f"{place:032x}" for place in range(len(table))]))


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """The table with other values in a column."""
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(name), values.cast(table.schema.field(name).type))


def reshard(table: pa.Table, folder: Path, shards: int, rows_per_group: int) -> Path:
    """Write rows as the given number of shards, of unequal sizes, as `data/train-*.parquet`."""
    (folder / "data").mkdir(parents=True)
    weights = [1 + place % 3 for place in range(shards)]
    start = 0
    for place in range(shards):
        stop = len(table) * sum(weights[: place + 1]) // sum(weights)
        path = folder / f"data/train-{place:05d}-of-{shards:05d}.parquet"
        pq.write_table(table.slice(start, stop - start), path, row_group_size=rows_per_group)
        start = stop
    return folder


def ids(samples) -> list[str]:
    """The ids of samples, or of batches of them."""
    found: list[str] = []
    for sample in samples:
        found += [sample["id"]] if isinstance(sample["id"], str) else sample["id"]
    return found
