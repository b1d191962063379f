"""Everything that needs to see all images at once: exclusion, marks, near-copies, labels, splits.

Columns are kept as Arrow and numpy arrays, some hundred bytes an image.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .drops import Drops
from .exclude import ExcludeList
from .inventory import Inventory
from .mapping import LabelMapper
from .measure import CHUNK_COLUMNS
from .modality import modality_from_text
from .near_duplicates import components, keep_apart, near_any, near_images
from .options import CurateOptions, digest
from .record import Drop
from .tables import sort_table

_FACTS = ("source", "dataset", "texts", "label", "group", "licence", "modality", "spacing_row_mm", "spacing_column_mm")
_DROP_COLUMNS = ("source", "name", "frame", "step", "reason", "detail")
_DIGEST = "pixel_digest"  # only a list of images to exclude asks for it
_MEASURED = [name for name in CHUNK_COLUMNS if name not in ("image", "shape", "source", "reason", "detail", _DIGEST)]
_REASONS = (
    None,
    ("excluded", "same_pixels"),
    ("excluded", "looks_the_same"),
    ("marked", "marked_by_a_person"),
    ("near_copy", "looks_the_same"),
)
_SAME_PIXELS, _LOOKS_THE_SAME, _MARKED, _NEAR_COPY = range(1, 5)
_REPEATED = ("modality", "patient")  # few different texts
_BATCH = 65536
_WORD = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class Decisions:
    """What becomes of all images.

    Attributes:
        kept: Arrow table, a row an image that enters the corpus, with the columns of the corpus but the image itself, and `chunk`,
            `key`, `image_bytes`, `order`.
        drops: everything else that was measured, one record each, in no order.
        near_groups: groups of near-copies with more than one image.
    """

    kept: pa.Table
    drops: Drops
    near_groups: int


def decide(
    chunks: Sequence[Path],
    inventory: Inventory,
    copies: pa.Table,
    mapper: LabelMapper,
    exclude: ExcludeList,
    marks: Mapping[str, str],
    options: CurateOptions,
) -> Decisions:
    """Decide over all images that were measured.

    Args:
        chunks: parquet files of `measure_all`.
        inventory: what is known of the files.
        copies: groups of the exact copies that were dropped, of `drop_exact_copies`.
        mapper: from texts to nodes; it counts what it maps.
        exclude: images that must not enter the corpus.
        marks: id of an image that a person has marked as wrong, to the note.
        options: the settings.

    Returns:
        The decisions; they depend on the contents of the chunks, not on their order.
    """
    drops = Drops()
    rows = _read(chunks, [*_MEASURED, *([_DIGEST] if exclude else [])], drops)
    facts = _facts(rows["key"], inventory)
    ids = _strings(digest, rows["key"], rows["frame"].cast(pa.string()))
    reasons = np.zeros(len(rows), np.int8)
    details: dict[int, str] = {}
    _exclude(rows, exclude, reasons, details)
    if marks:
        for index in np.flatnonzero(
            (reasons == 0) & np.asarray(pc.is_in(ids, value_set=pa.array(list(marks))))
        ).tolist():
            reasons[index], details[index] = _MARKED, marks[ids[index].as_py()]
    nodes = _nodes(facts["texts"], reasons, mapper)
    near = _near_copies(rows, facts["source"], nodes, reasons, details, options.near_distance)
    clusters = _clusters(ids, rows["key"], facts["group"], rows["patient"], copies, near)
    for index in np.flatnonzero(reasons).tolist():
        step, reason = _REASONS[reasons[index]] or ("", "")
        place = (facts["source"][index].as_py(), rows["name"][index].as_py(), rows["frame"][index].as_py())
        drops.append(Drop(*place, step, reason, details[index]))
    kept = pa.array(np.flatnonzero(reasons == 0))
    columns = _columns(
        rows.take(kept), facts.take(kept), nodes.take(kept), ids.take(kept), clusters.take(kept), options
    )
    _, sizes = np.unique(near, return_counts=True)
    return Decisions(_fill_validation(pa.table(columns), options), drops, int((sizes > 1).sum()))


def _read(chunks: Sequence[Path], columns: Sequence[str], drops: Drops) -> pa.Table:
    """What was measured and kept, without the images, with the number of the chunk, by key and frame; the rest goes to `drops`."""
    types = {name: pa.type_for_alias(CHUNK_COLUMNS[name]) for name in columns}
    types |= dict.fromkeys(_REPEATED, _WORD)
    tables = [pa.schema([*types.items(), ("chunk", pa.int32())]).empty_table()]
    for number, path in enumerate(chunks):
        whole = pq.read_table(path, columns=list(dict.fromkeys([*columns, *_DROP_COLUMNS])))
        drops.extend_table(whole.filter(pc.is_valid(whole["step"])))
        table = whole.filter(pc.is_null(whole["step"])).select(list(columns))
        for name in _REPEATED:
            table = table.set_column(table.column_names.index(name), name, table[name].cast(_WORD))
        tables.append(table.append_column("chunk", pa.array(np.full(len(table), number, np.int32))))
    together = pa.concat_tables(tables).drop_columns(["step"])
    return sort_table(together, ["key", "frame"]).combine_chunks()


def _facts(keys: pa.ChunkedArray, inventory: Inventory) -> pa.Table:
    """The facts of the file of each row."""
    known = inventory.table(["key", *_FACTS]).unify_dictionaries()
    places = pc.index_in(keys, value_set=known["key"].combine_chunks())
    return known.drop_columns(["key"]).take(places).combine_chunks()


def _strings(function: Callable[..., str], *columns: pa.ChunkedArray) -> pa.Array:
    """A string for each row, made batch by batch."""
    parts = [pa.array([], pa.string())]
    for start in range(0, len(columns[0]), _BATCH):
        cells = (column.slice(start, _BATCH).to_pylist() for column in columns)
        parts.append(pa.array([function(*row) for row in zip(*cells, strict=True)], pa.string()))
    return pa.concat_arrays(parts)


def _words(column: pa.ChunkedArray) -> tuple[np.ndarray, list[Any]]:
    """The codes of a dictionary-encoded column, -1 for null, and its words."""
    whole = column.unify_dictionaries().combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pc.fill_null(whole.indices, -1).to_numpy(), whole.dictionary.to_pylist()


def _encoded(codes: np.ndarray, words: Sequence[str]) -> pa.Array:
    """The opposite of `_words`."""
    indices = pa.array(codes, pa.int32(), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.string()))


def _exclude(rows: pa.Table, exclude: ExcludeList, reasons: np.ndarray, details: dict[int, str]) -> None:
    if not exclude:
        return
    if len(exclude.hashes):
        for name in ("raw_hash", "hash"):
            reasons[near_any(rows[name].to_numpy(), exclude.hashes, exclude.distance)] = _LOOKS_THE_SAME
    listed = pa.array(sorted(exclude.pixel_digests), pa.string())
    reasons[pc.is_in(rows["pixel_digest"], value_set=listed).to_numpy()] = _SAME_PIXELS
    details.update(dict.fromkeys(np.flatnonzero(reasons).tolist(), "on the list of --exclude"))


def _nodes(texts: pa.ChunkedArray, reasons: np.ndarray, mapper: LabelMapper) -> pa.Array:
    """The node of each row that is still free, null for the others and where there is none."""
    codes, words = _words(texts)
    parsed = [[(where, text) for where, text in json.loads(word)] for word in words]
    numbers = {node: number for number, node in enumerate(mapper.tree.ids)}
    found = np.full(len(codes), -1, np.int32)
    for index in np.flatnonzero(reasons == 0).tolist():
        node = mapper.map(parsed[codes[index]])
        if node is not None:
            found[index] = numbers[node]
    return _encoded(found, mapper.tree.ids)


def _near_copies(
    rows: pa.Table,
    sources: pa.ChunkedArray,
    nodes: pa.Array,
    reasons: np.ndarray,
    details: dict[int, str],
    distance: int,
) -> np.ndarray:
    """Mark near-copies in `reasons`; returns the component of each row, int64 `(rows,)`."""
    component = np.arange(len(rows), dtype=np.int64)
    if distance < 0:
        return component
    free = np.flatnonzero(reasons == 0)
    hashes, raw_hashes = (rows[name].to_numpy()[free] for name in ("hash", "raw_hash"))
    found = components(len(free), near_images(hashes, raw_hashes, distance))
    area = rows["region_width"].to_numpy()[free].astype(np.int64) * rows["region_height"].to_numpy()[free]
    labelled = nodes.is_valid().to_numpy(zero_copy_only=False)[free]
    kept = keep_apart(hashes, raw_hashes, 2 * area + labelled, distance)
    for number in np.flatnonzero(kept != np.arange(len(free))).tolist():
        index, other = int(free[number]), int(free[kept[number]])
        frame = rows["frame"][other].as_py()
        place = f"{sources[other].as_py()}/{rows['name'][other].as_py()}"
        detail = f"of {place} frame {frame}" if frame else f"of {place}"
        reasons[index], details[index] = _NEAR_COPY, detail
    component[free] = free[found]
    return component


def _clusters(
    ids: pa.Array,
    keys: pa.ChunkedArray,
    groups: pa.ChunkedArray,
    patients: pa.ChunkedArray,
    copies: pa.Table,
    component: np.ndarray,
) -> pa.Array:
    """What must stay in one split: frames of one file (rows are in the order of `keys`), images of one group or patient, and near-copies.

    Each group and patient is a point of its own, to which its images are joined, and to a group the originals of its exact copies too.
    Named by the smallest id in it.
    """
    whole = keys.combine_chunks()
    later = np.flatnonzero(pc.equal(whole[1:], whole[:-1]).to_numpy(zero_copy_only=False)) + 1
    moved = np.flatnonzero(component != np.arange(len(component)))
    pairs = [np.stack([later - 1, later], 1), np.stack([component[moved], moved], 1)]
    images = np.arange(len(ids))
    originals = pc.fill_null(pc.index_in(copies["key"], value_set=whole), -1).to_numpy()
    all_groups = pa.chunked_array([*groups.chunks, *copies["group"].chunks], _WORD)
    points = len(ids)
    for column, members in ((all_groups, np.concatenate([images, originals])), (patients, images)):
        codes, words = _words(column)
        stated = np.flatnonzero((codes >= 0) & (members >= 0))
        pairs.append(np.stack([points + codes[stated], members[stated]], 1))
        points += len(words)
    together = components(points, np.concatenate(pairs))[: len(ids)]
    by_id = pc.sort_indices(ids).to_numpy()
    rank = np.empty(len(ids), np.int64)
    rank[by_id] = np.arange(len(ids))
    smallest = np.full(len(ids), len(ids), np.int64)
    np.minimum.at(smallest, together, rank)
    return ids.take(pa.array(by_id[smallest[together]] if len(ids) else by_id))


def _columns(
    rows: pa.Table, facts: pa.Table, nodes: pa.Array, ids: pa.Array, clusters: pa.Array, options: CurateOptions
) -> dict[str, pa.Array]:
    spacing_row, spacing_column = _spacings(rows, facts)
    keys = np.fromiter((int(key.as_py()[:16], 16) for key in rows["key"]), np.uint64, len(rows))
    orders = _mix(_mix(keys ^ np.uint64(options.seed)) + rows["frame"].to_numpy().astype(np.uint64))
    return {
        "chunk": rows["chunk"],
        "key": rows["key"],
        "image_bytes": rows["image_bytes"],
        "order": pa.array(orders),
        "id": ids,
        "node": nodes,
        "label": facts["label"],
        "group": facts["group"],
        "cluster": clusters,
        "source": facts["dataset"],
        "licence": facts["licence"],
        "split": _strings(lambda cluster: _split(cluster, options), pa.chunked_array([clusters])).dictionary_encode(),
        "modality": _modalities(facts["modality"], rows["modality"]),
        "width": rows["width"],
        "height": rows["height"],
        "spacing_row_mm": spacing_row,
        "spacing_column_mm": spacing_column,
        "source_path": rows["name"],
        "frame": rows["frame"],
        "text_suspected": rows["text_suspected"],
        "text_removed": rows["text_removed"],
    }


def _spacings(rows: pa.Table, facts: pa.Table) -> Iterable[pa.Array]:
    """The file's own spacing, else the table's, which is that of the file before it was reduced: down, and across."""
    own = [rows[name].to_numpy() for name in ("spacing_row_mm", "spacing_column_mm")]
    stated = [facts[name].to_numpy() for name in ("spacing_row_mm", "spacing_column_mm")]
    scales = [rows[name].to_numpy().astype(np.float64) for name in ("scale_row", "scale_column")]
    measured = ~np.isnan(own[0]) & ~np.isnan(own[1])
    for mine, theirs, scale in zip(own, stated, scales, strict=True):
        yield pa.array(np.where(measured, mine, theirs * scale).astype(np.float32), from_pandas=True)


def _modalities(stated: pa.ChunkedArray, told: pa.ChunkedArray) -> pa.Array:
    """What the table states, else what the file or its colours tell."""
    codes, words = _words(stated)
    told_codes, told_words = _words(told)
    modes = [modality_from_text(word) for word in words]
    places = {word: number for number, word in enumerate(dict.fromkeys([*told_words, *filter(None, modes)]))}
    own = np.array([places[word] for word in told_words], np.int32)[told_codes] if len(told_words) else told_codes
    table = np.array([places[mode] if mode else -1 for mode in [*modes, None]], np.int32)[codes]  # -1 is the last one
    return _encoded(np.where(table >= 0, table, own), list(places))


def _split(cluster: str, options: CurateOptions) -> str:
    """By chance, but the same for a cluster in every run, whatever else is in the corpus."""
    chance = int(digest("split", str(options.seed), cluster, size=8), 16) / 2**64
    return "validation" if chance < options.validation else "train"


def _fill_validation(table: pa.Table, options: CurateOptions) -> pa.Table:
    """In a corpus so small that chance has left a split without a cluster, move the one that comes nearest to it."""
    splits = pc.unique(table["split"]).to_pylist()
    if options.validation == 0 or len(splits) != 1:
        return table
    clusters = sorted(
        pc.unique(table["cluster"]).to_pylist(), key=lambda name: digest("split", str(options.seed), name, size=8)
    )
    if len(clusters) < 2:
        return table
    moved, target = (clusters[0], "validation") if splits == ["train"] else (clusters[-1], "train")
    changed = pc.if_else(pc.equal(table["cluster"], moved), target, splits[0])
    return table.set_column(table.column_names.index("split"), "split", changed)


def _mix(values: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers that looks random (splitmix64, Steele et al. 2014): uint64, any shape."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
