"""The images that enter the corpus, all columns but the pixels, on disk in the order of their keys."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .clusters import Clusters
from .inventory import key_numbers
from .options import CurateOptions
from .rows import Rows
from .spill import only, write_batches

SCHEMA = pa.schema(
    {
        "chunk": pa.int32(),
        "key": pa.string(),
        "image_bytes": pa.int32(),
        "order": pa.uint64(),
        "id": pa.string(),
        "node": pa.string(),
        "label": pa.string(),
        "group": pa.string(),
        "cluster": pa.string(),
        "source": pa.string(),
        "licence": pa.string(),
        "split": pa.string(),
        "modality": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "spacing_row_mm": pa.float32(),
        "spacing_column_mm": pa.float32(),
        "source_path": pa.string(),
        "frame": pa.int32(),
        "text_suspected": pa.int32(),
        "ultrasound_score": pa.float32(),
        "text_removed": pa.int32(),
    }
)
_MADE = ("order", "node", "cluster", "split")
_TAKEN = {
    name: {"source": "dataset", "source_path": "name"}.get(name, name) for name in SCHEMA.names if name not in _MADE
}
_ROWS_PER_BATCH = 4096


@dataclass(frozen=True)
class Kept:
    """Images that enter the corpus.

    Attributes:
        path: Arrow file with the columns of `SCHEMA`; `order` is a random number, by which rows of a shard are sorted, and `chunk` tells
            where the image is.
        images: their number, by split.
        image_bytes: bytes of their encoded images, by split.
        clusters: number of clusters, by split.
    """

    path: Path
    images: dict[str, int]
    image_bytes: dict[str, int]
    clusters: dict[str, int]

    def __len__(self) -> int:
        return sum(self.images.values())

    def tables(self, columns: Sequence[str] = SCHEMA.names) -> Iterator[pa.Table]:
        """Some columns, some rows at a time."""
        with pa.OSFile(str(self.path)) as file, pa.ipc.open_file(file, options=only(SCHEMA, columns)) as reader:
            for number in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(number)]).select(list(columns))

    def counts(self, *columns: str) -> Counter[tuple[str, ...]]:
        """How many images have each combination of texts; a missing text is "not stated"."""
        found: Counter[tuple[str, ...]] = Counter()
        for table in self.tables(columns):
            texts = pa.table([pc.fill_null(table[name], "not stated") for name in columns], names=list(columns))
            grouped = texts.group_by(list(columns)).aggregate([([], "count_all")])
            keys = zip(*(grouped[name].to_pylist() for name in columns), strict=True)
            found.update(dict(zip(keys, grouped["count_all"].to_pylist(), strict=True)))
        return found


def write_kept(
    folder: Path,
    rows: Rows,
    places: np.ndarray,
    nodes: pa.Array,
    clusters: Clusters,
    validation: np.ndarray,
    numbers: dict[str, int],
    options: CurateOptions,
) -> Kept:
    """Write the file of what is kept.

    Args:
        folder: for the file.
        rows: all images.
        places: of those that are kept, in the order of their keys.
        nodes: the anatomy node of each image of `rows`, dictionary-encoded, null where there is none.
        clusters: of all images.
        validation: bool `(images,)`, at the smallest place of each cluster whether it is of the validation split.
        numbers: of clusters, by split.
        options: `seed` counts.
    """
    images: Counter[str] = Counter()
    image_bytes: Counter[str] = Counter()

    def tables() -> Iterator[pa.Table]:
        for start in range(0, len(places), _ROWS_PER_BATCH):
            some = places[start : start + _ROWS_PER_BATCH]
            found = rows.take(some, list(_TAKEN.values()))
            high = key_numbers(found["key"])[:, 0]
            order = _mix(_mix(high ^ np.uint64(options.seed)) + found["frame"].to_numpy().astype(np.uint64))
            splits = np.where(validation[clusters.members[some]], "validation", "train").tolist()
            made = {"order": pa.array(order), "node": nodes.take(pa.array(some)).cast(pa.string())}
            made |= {"cluster": pa.array(clusters.named(some)), "split": pa.array(splits, pa.string())}
            taken = {name: found[column] for name, column in _TAKEN.items()}
            table = pa.table([(taken | made)[name] for name in SCHEMA.names], schema=SCHEMA)
            images.update(splits)
            for split, size in zip(splits, table["image_bytes"].to_pylist(), strict=True):
                image_bytes[split] += size
            yield table

    path = folder / "kept.arrow"
    write_batches(path, SCHEMA, tables())
    return Kept(path, dict(images), dict(image_bytes), numbers)


def _mix(values: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers that looks random (splitmix64, Steele et al. 2014): uint64, any shape."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
