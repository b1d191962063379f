"""Everything that needs to see all images at once: exclusion, marks, near-copies, labels, splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from echocare_hf.data.reading_record import Spacing

from .encode import rescaled
from .exclude import ExcludeList
from .facts import Facts
from .mapping import LabelMapper
from .measure import CHUNK_COLUMNS
from .modality import modality_from_text
from .near_duplicates import components, keep_apart, near_any, near_hashes
from .options import CurateOptions, digest
from .record import Drop

_NO_FACTS = Facts(dataset="")
_LIGHT_COLUMNS = [name for name in CHUNK_COLUMNS if name != "image"]


@dataclass(frozen=True)
class Decisions:
    """What becomes of all images.

    Attributes:
        kept: Arrow table, a row an image that enters the corpus, with the columns of the corpus but the image itself, and `chunk`,
            `key`, `image_bytes`, `order`.
        drops: everything else that was measured, one record each.
        near_groups: groups of near-copies with more than one image.
    """

    kept: pa.Table
    drops: list[Drop]
    near_groups: int


def decide(
    chunks: Sequence[Path],
    facts: Mapping[tuple[str, str], Facts],
    mapper: LabelMapper,
    exclude: ExcludeList,
    marks: Mapping[str, str],
    options: CurateOptions,
) -> Decisions:
    """Decide over all images that were measured.

    Args:
        chunks: parquet files of `measure_all`.
        facts: by source and name of the file.
        mapper: from texts to nodes; it counts what it maps.
        exclude: images that must not enter the corpus.
        marks: id of an image that a person has marked as wrong, to the note.
        options: the settings.

    Returns:
        The decisions; they depend on the contents of the chunks, not on their order.
    """
    rows = _read(chunks)
    drops = [
        Drop(row["source"], row["name"], row["frame"], row["step"], row["reason"], row["detail"] or "")
        for row in rows.filter(pc.is_valid(rows["step"])).to_pylist()
    ]
    rows = rows.filter(pc.is_null(rows["step"]))
    own = [facts.get(place, _NO_FACTS) for place in zip(*_lists(rows, "source", "name"), strict=True)]
    ids = [digest(key, str(frame)) for key, frame in zip(*_lists(rows, "key", "frame"), strict=True)]
    reasons: list[tuple[str, str, str] | None] = [None] * len(rows)
    _exclude(rows, exclude, reasons)
    for index, name in enumerate(ids):
        if reasons[index] is None and name in marks:
            reasons[index] = ("marked", "marked_by_a_person", marks[name])
    nodes = [mapper.map(fact.texts) if reasons[index] is None else None for index, fact in enumerate(own)]
    near = _near_copies(rows, nodes, reasons, options.near_distance)
    clusters = _clusters(ids, [fact.group for fact in own], near)
    kept = np.array([index for index, reason in enumerate(reasons) if reason is None], np.int64)
    sources, names, frames = _lists(rows, "source", "name", "frame")
    for index, reason in enumerate(reasons):
        if reason is not None:
            drops.append(Drop(sources[index], names[index], frames[index], *reason))
    columns = _columns(rows, own, nodes, ids, clusters, options)
    table = pa.table(columns).take(pa.array(kept)).sort_by([("key", "ascending"), ("frame", "ascending")])
    _, sizes = np.unique(near, return_counts=True)
    return Decisions(_fill_validation(table, options), sorted(drops), int((sizes > 1).sum()))


def _read(chunks: Sequence[Path]) -> pa.Table:
    """The rows of all chunks without the images, with the number of their chunk, in the order of keys and frames."""
    tables = []
    for number, path in enumerate(chunks):
        table = pq.read_table(path, columns=_LIGHT_COLUMNS)
        tables.append(table.append_column("chunk", pa.array(np.full(len(table), number, np.int32))))
    if not tables:
        return pa.schema(
            [*((name, pa.type_for_alias(CHUNK_COLUMNS[name])) for name in _LIGHT_COLUMNS), ("chunk", pa.int32())]
        ).empty_table()
    return pa.concat_tables(tables).sort_by([("key", "ascending"), ("frame", "ascending")]).combine_chunks()


def _lists(rows: pa.Table, *names: str) -> list[list[Any]]:
    return [rows[name].to_pylist() for name in names]


def _exclude(rows: pa.Table, exclude: ExcludeList, reasons: list[tuple[str, str, str] | None]) -> None:
    if not exclude:
        return
    same = np.array([value in exclude.pixel_digests for value in rows["pixel_digest"].to_pylist()], bool)
    near = np.zeros(len(rows), bool)
    if len(exclude.hashes):
        for name in ("raw_hash", "hash"):
            near |= near_any(rows[name].to_numpy(), exclude.hashes, exclude.distance)
    for index in np.flatnonzero(same | near).tolist():
        reasons[index] = ("excluded", "same_pixels" if same[index] else "looks_the_same", "on the list of --exclude")


def _near_copies(
    rows: pa.Table, nodes: Sequence[str | None], reasons: list[tuple[str, str, str] | None], distance: int
) -> np.ndarray:
    """Mark near-copies in `reasons`; returns the component of each row, int64 `(rows,)`."""
    component = np.arange(len(rows), dtype=np.int64)
    if distance < 0:
        return component
    free = np.array([index for index, reason in enumerate(reasons) if reason is None], np.int64)
    hashes = rows["hash"].to_numpy()[free]
    found = components(len(free), near_hashes(hashes, distance))
    area = rows["region_width"].to_numpy()[free].astype(np.int64) * rows["region_height"].to_numpy()[free]
    labelled = np.array([nodes[index] is not None for index in free], bool)
    kept = keep_apart(hashes, 2 * area + labelled, distance)
    sources, names, frames = _lists(rows, "source", "name", "frame")
    for place, index in enumerate(free.tolist()):
        if kept[place] != place:
            other = int(free[kept[place]])
            detail = f"of {sources[other]}/{names[other]}" + (f" frame {frames[other]}" if frames[other] else "")
            reasons[index] = ("near_copy", "looks_the_same", detail)
    component[free] = free[found]
    return component


def _clusters(ids: Sequence[str], groups: Sequence[str | None], component: np.ndarray) -> list[str]:
    """What must stay in one split: images of one group, and near-copies. Named by the smallest id in it."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(group, index), index) for index, group in enumerate(groups) if group is not None]
    pairs += [(int(other), index) for index, other in enumerate(component) if other != index]
    together = components(len(ids), np.array(pairs, np.int64).reshape(-1, 2))
    names: dict[int, str] = {}
    for index, cluster in enumerate(together.tolist()):
        names[cluster] = min(names.get(cluster, ids[index]), ids[index])
    return [names[cluster] for cluster in together.tolist()]


def _columns(
    rows: pa.Table,
    own: Sequence[Facts],
    nodes: Sequence[str | None],
    ids: Sequence[str],
    clusters: Sequence[str],
    options: CurateOptions,
) -> dict[str, pa.Array]:
    spacings = [
        _spacing(fact, *values)
        for fact, *values in zip(
            own, *_lists(rows, "spacing_row_mm", "spacing_column_mm", "scale_row", "scale_column"), strict=True
        )
    ]
    modalities = [
        modality_from_text(fact.modality) or told for fact, told in zip(own, rows["modality"].to_pylist(), strict=True)
    ]
    keys = np.array([int(key[:16], 16) for key in rows["key"].to_pylist()], np.uint64)
    orders = _mix(_mix(keys ^ np.uint64(options.seed)) + rows["frame"].to_numpy().astype(np.uint64))
    return {
        "chunk": rows["chunk"],
        "key": rows["key"],
        "image_bytes": rows["image_bytes"],
        "order": pa.array(orders),
        "id": pa.array(ids, pa.string()),
        "node": pa.array(nodes, pa.string()),
        "label": pa.array([fact.label for fact in own], pa.string()),
        "group": pa.array([fact.group for fact in own], pa.string()),
        "cluster": pa.array(clusters, pa.string()),
        "source": pa.array(
            [fact.dataset or source for fact, source in zip(own, rows["source"].to_pylist(), strict=True)], pa.string()
        ),
        "licence": pa.array([fact.licence for fact in own], pa.string()),
        "split": pa.array([_split(cluster, options) for cluster in clusters], pa.string()),
        "modality": pa.array(modalities, pa.string()),
        "width": rows["width"],
        "height": rows["height"],
        "spacing_row_mm": pa.array([None if spacing is None else spacing[0] for spacing in spacings], pa.float32()),
        "spacing_column_mm": pa.array([None if spacing is None else spacing[1] for spacing in spacings], pa.float32()),
        "source_path": rows["name"],
        "frame": rows["frame"],
        "text_suspected": rows["text_suspected"],
        "text_removed": rows["text_removed"],
    }


def _spacing(fact: Facts, row: float | None, column: float | None, down: float, across: float) -> Spacing | None:
    """The file's own spacing, else the table's, which is that of the file before it was reduced."""
    return (row, column) if row is not None and column is not None else rescaled(fact.spacing, down, across)


def _split(cluster: str, options: CurateOptions) -> str:
    """By chance, but the same for a cluster in every run, whatever else is in the corpus."""
    chance = int(digest("split", str(options.seed), cluster, size=8), 16) / 2**64
    return "validation" if chance < options.validation else "train"


def _fill_validation(table: pa.Table, options: CurateOptions) -> pa.Table:
    """In a corpus so small that chance has left a split without a cluster, move the one that comes nearest to it."""
    clusters = sorted(
        set(table["cluster"].to_pylist()), key=lambda name: digest("split", str(options.seed), name, size=8)
    )
    splits = set(table["split"].to_pylist())
    if options.validation == 0 or len(clusters) < 2 or len(splits) == 2:
        return table
    moved, target = (clusters[0], "validation") if splits == {"train"} else (clusters[-1], "train")
    changed = [
        target if cluster == moved else split
        for cluster, split in zip(table["cluster"].to_pylist(), table["split"].to_pylist(), strict=True)
    ]
    return table.set_column(table.column_names.index("split"), "split", pa.array(changed, pa.string()))


def _mix(values: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers that looks random (splitmix64, Steele et al. 2014): uint64, any shape."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
