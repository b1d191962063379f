"""All images that were measured, with what is known of their files, on disk; in memory is only what several of them are compared by."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .chunks import Chunk, rows_of
from .drops import SCHEMA as DROP_SCHEMA
from .drops import Drops
from .inventory import Inventory, key_bytes, read_rows
from .modality import modality_from_text
from .options import digest
from .record import Drop
from .spill import only, take_rows, write_batches

_FACTS = ("source", "dataset", "texts", "label", "group", "licence", "modality", "spacing_row_mm", "spacing_column_mm")
_MEASURED = (
    *("key", "name", "frame", "image_bytes", "width", "height", "text_removed", "text_suspected"),
    *("ultrasound_score", "patient"),
)
_RESOLVED = ("spacing_row_mm", "spacing_column_mm", "scale_row", "scale_column", "modality")
_COMPARED = ("hash", "raw_hash", "region_width", "region_height", "pixel_digest")
_ROWS_PER_BATCH = 1024
SCHEMA = pa.schema(
    {
        "chunk": pa.int32(),
        "id": pa.string(),
        "key": pa.string(),
        "name": pa.string(),
        "frame": pa.int32(),
        "image_bytes": pa.int32(),
        "width": pa.int32(),
        "height": pa.int32(),
        "text_removed": pa.int32(),
        "text_suspected": pa.int32(),
        "ultrasound_score": pa.float32(),
        "patient": pa.string(),
        "source": pa.string(),
        "dataset": pa.string(),
        "texts": pa.string(),
        "label": pa.string(),
        "group": pa.string(),
        "licence": pa.string(),
        "modality": pa.string(),
        "spacing_row_mm": pa.float32(),
        "spacing_column_mm": pa.float32(),
    }
)


@dataclass(frozen=True)
class Rows:
    """Images in the order of their chunks; the number of an image in it is its place.

    Attributes:
        path: Arrow file with the columns of `SCHEMA`.
        starts: int64, the place of the first image of each of its record batches, and the number of images.
    """

    path: Path
    starts: np.ndarray

    def __len__(self) -> int:
        return int(self.starts[-1])

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all images, a record batch at a time."""
        with pa.OSFile(str(self.path)) as file, pa.ipc.open_file(file, options=only(SCHEMA, columns)) as reader:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)

    def take(self, places: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Some columns of the images at some places, in that order."""
        return take_rows(self.path, self.starts, places, SCHEMA, columns)


@dataclass
class Compared:
    """What images are compared by, in the order of their places.

    Attributes:
        keys: S16 `(images,)`, of `inventory.key_bytes`: the file.
        frames: int32 `(images,)`.
        hashes: uint64 `(images,)`, perceptual, of what is stored.
        raw_hashes: uint64 `(images,)`, perceptual, of what was read.
        areas: int32 `(images,)`, pixels of the region in the file's own image.
        listed: int8 `(images,)`, the sum of `SAME_PIXELS` where the pixels are on a list and `MARKED` where the id is.
    """

    keys: np.ndarray
    frames: np.ndarray
    hashes: np.ndarray
    raw_hashes: np.ndarray
    areas: np.ndarray
    listed: np.ndarray


SAME_PIXELS, MARKED = 1, 2


def gather(
    chunks: Sequence[Chunk],
    inventory: Inventory,
    folder: Path,
    pixel_digests: frozenset[str],
    marks: Mapping[str, str],
    drops: Drops,
) -> tuple[Rows, Compared]:
    """Go through all chunks once.

    Args:
        chunks: of `measure_all`.
        inventory: what is known of the files.
        folder: for the file of rows.
        pixel_digests: images to find, by `pixel_digest`.
        marks: images to find, by id.
        drops: gets what was dropped while measuring.
    """
    compared = _space(rows_of(chunks))
    starts = [0]
    digests, marked = (pa.array(sorted(names), pa.string()) for names in (pixel_digests, marks))

    def tables() -> Iterator[pa.Table]:
        for number, chunk in enumerate(chunks):
            with pq.ParquetFile(chunk.path) as file:
                wanted = dict.fromkeys([*_MEASURED, *_RESOLVED, *_COMPARED, *DROP_SCHEMA.names])
                whole = file.read(columns=[name for name in wanted if name != "pixel_digest" or pixel_digests])
            lost = whole.filter(pc.is_valid(whole["step"])).select(DROP_SCHEMA.names)
            drops.extend(Drop(**row | {"detail": row["detail"] or ""}) for row in lost.to_pylist())
            measured = whole.filter(pc.is_null(whole["step"]))
            if not len(measured):
                continue
            table = _row_table(measured, _known(measured["key"], chunk, inventory), number)
            here = slice(starts[-1], starts[-1] + len(table))
            compared.keys[here] = key_bytes(measured["key"])
            compared.frames[here] = measured["frame"].to_numpy()
            compared.hashes[here] = measured["hash"].to_numpy()
            compared.raw_hashes[here] = measured["raw_hash"].to_numpy()
            compared.areas[here] = measured["region_width"].to_numpy() * measured["region_height"].to_numpy()
            if marks:
                compared.listed[here][pc.is_in(table["id"], value_set=marked).to_numpy()] |= MARKED
            if pixel_digests:
                compared.listed[here][pc.is_in(measured["pixel_digest"], value_set=digests).to_numpy()] |= SAME_PIXELS
            for start in range(0, len(table), _ROWS_PER_BATCH):
                part = table.slice(start, _ROWS_PER_BATCH)
                starts.append(starts[-1] + len(part))
                yield part

    path = folder / "rows.arrow"
    write_batches(path, SCHEMA, tables())
    return Rows(path, np.array(starts)), Compared(*(column[: starts[-1]] for column in vars(compared).values()))


def _space(images: int) -> Compared:
    return Compared(
        keys=np.empty(images, "S16"),
        frames=np.empty(images, np.int32),
        hashes=np.empty(images, np.uint64),
        raw_hashes=np.empty(images, np.uint64),
        areas=np.empty(images, np.int32),
        listed=np.zeros(images, np.int8),
    )


def _known(keys: pa.ChunkedArray, chunk: Chunk, inventory: Inventory) -> pa.Table:
    """The facts of the file of each row."""
    bucket = chunk.bucket
    facts = read_rows(inventory.path(bucket.source), range(bucket.start, bucket.stop), ["key", *_FACTS])
    return facts.take(pc.index_in(keys, value_set=facts["key"].combine_chunks()))


def _row_table(measured: pa.Table, known: pa.Table, chunk: int) -> pa.Table:
    names = zip(measured["key"].to_pylist(), measured["frame"].to_pylist(), strict=True)
    columns = {name: measured[name] for name in _MEASURED} | {name: known[name] for name in _FACTS}
    columns["chunk"] = pa.array(np.full(len(measured), chunk, np.int32))
    columns["id"] = pa.array([digest(key, str(frame)) for key, frame in names], pa.string())
    columns["modality"] = _modalities(known["modality"], measured["modality"])
    columns["spacing_row_mm"], columns["spacing_column_mm"] = _spacings(measured, known)
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _spacings(measured: pa.Table, known: pa.Table) -> list[pa.Array]:
    """The file's own spacing, else the table's, which is that of the file before it was reduced: down, and across."""
    names = ("spacing_row_mm", "spacing_column_mm")
    own, stated = ([table[name].to_numpy() for name in names] for table in (measured, known))
    scales = [measured[name].to_numpy().astype(np.float64) for name in ("scale_row", "scale_column")]
    has_own = ~np.isnan(own[0]) & ~np.isnan(own[1])
    chosen = [np.where(has_own, *both) for both in zip(own, np.multiply(stated, scales), strict=True)]
    return [pa.array(values.astype(np.float32), from_pandas=True) for values in chosen]


def _modalities(stated: pa.ChunkedArray, told: pa.ChunkedArray) -> pa.Array:
    """What the table states, else what the file or its colours tell."""
    both = zip(stated.to_pylist(), told.to_pylist(), strict=True)
    return pa.array([modality_from_text(said) or own for said, own in both], pa.string())
