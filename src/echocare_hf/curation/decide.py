"""Everything that needs to see all images at once: exclusion, marks, near-copies, labels, splits.

What is known of each image lies on disk (`rows`, `kept`); in memory are numbers, about a hundred bytes an image at the most.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from .chunks import Chunk, Copies
from .clusters import find_clusters, join_files, split_clusters
from .drops import Drops
from .exclude import ExcludeList
from .inventory import Inventory
from .kept import Kept, write_kept
from .mapping import LabelMapper
from .near_duplicates import components, keep_apart, near_any, near_images
from .options import CurateOptions
from .record import Drop
from .rows import MARKED, SAME_PIXELS, Compared, Rows, gather

_FREE, _SAME_PIXELS, _LOOKS_THE_SAME, _MARKED, _NEAR_MARKED, _NEAR_COPY = range(6)
_REASONS = {
    _SAME_PIXELS: ("excluded", "same_pixels"),
    _LOOKS_THE_SAME: ("excluded", "looks_the_same"),
    _MARKED: ("marked", "marked_by_a_person"),
    _NEAR_MARKED: ("marked", "looks_like_a_marked_one"),
    _NEAR_COPY: ("near_copy", "looks_the_same"),
}
_AT_A_TIME = 8192


@dataclass(frozen=True)
class Decisions:
    """What becomes of all images.

    Attributes:
        kept: the images that enter the corpus.
        near_groups: groups of near-copies with more than one image.
        marks_found: marked images that are there.
    """

    kept: Kept
    near_groups: int
    marks_found: int


def decide(
    chunks: Sequence[Chunk],
    inventory: Inventory,
    copies: Copies,
    mapper: LabelMapper,
    exclude: ExcludeList,
    marks: Mapping[str, str],
    options: CurateOptions,
    folder: Path,
    drops: Drops,
) -> Decisions:
    """Decide over all images that were measured.

    Args:
        chunks: of `measure_all`.
        inventory: what is known of the files.
        copies: groups of the exact copies that were dropped, of `drop_exact_copies`.
        mapper: from texts to nodes; it counts what it maps.
        exclude: images that must not enter the corpus.
        marks: id of an image that a person has marked as wrong, to the note.
        options: the settings.
        folder: for what is known of the images.
        drops: gets a record of each image that is not kept.

    Returns:
        The decisions; they depend on the contents of the chunks, not on their order.
    """
    rows, compared = gather(chunks, inventory, folder, exclude.pixel_digests, marks, drops)
    reasons = _listed(compared, exclude, options.near_distance)
    marks_found = int(np.count_nonzero(compared.listed & MARKED))
    nodes = _nodes(rows, reasons, mapper)
    order = np.lexsort((compared.frames, compared.keys)).astype(np.int32 if len(rows) < 2**31 else np.int64)
    files = join_files(compared.keys, order, copies)
    compared.keys = np.empty(0, "S16")
    near = _near_copies(compared, order, nodes, reasons, options.near_distance)
    clusters = find_clusters(rows, files, near.pairs)
    validation, numbers = split_clusters(clusters, reasons == _FREE, options)
    drops.extend(_dropped(rows, reasons, near, marks))
    node_column = pa.DictionaryArray.from_arrays(pa.array(nodes, mask=nodes < 0), pa.array(mapper.tree.ids))
    places = order[reasons[order] == _FREE]
    kept = write_kept(folder, rows, places, node_column, clusters, validation, numbers, options)
    return Decisions(kept, near.groups, marks_found)


def _listed(compared: Compared, exclude: ExcludeList, near_distance: int) -> np.ndarray:
    """Why images are dropped that stand on a list: int8 `(images,)`. A near-copy of a marked image is as wrong as that one."""
    reasons = np.zeros(len(compared.listed), np.int8)
    if len(exclude.hashes):
        for hashes in (compared.raw_hashes, compared.hashes):
            reasons[near_any(hashes, exclude.hashes, exclude.distance)] = _LOOKS_THE_SAME
    reasons[compared.listed & SAME_PIXELS > 0] = _SAME_PIXELS
    marked = compared.listed & MARKED > 0
    reasons[marked & (reasons == _FREE)] = _MARKED
    if marked.any() and near_distance >= 0:
        for hashes in (compared.raw_hashes, compared.hashes):
            near = near_any(hashes, np.unique(hashes[marked]), near_distance)
            reasons[near & (reasons == _FREE)] = _NEAR_MARKED
    return reasons


def _nodes(rows: Rows, reasons: np.ndarray, mapper: LabelMapper) -> np.ndarray:
    """The number of the node of each image that is still free, -1 for the others and where there is none: int16 `(images,)`."""
    numbers = {node: number for number, node in enumerate(mapper.tree.ids)} | {None: -1}
    found = np.full(len(rows), -1, np.int16)
    place = 0
    for batch in rows.scan(["texts"]):
        parsed: dict[str, list[tuple[str, str]]] = {}
        for texts in batch["texts"].to_pylist():
            if reasons[place] == _FREE:
                if texts not in parsed:
                    parsed[texts] = [(where, text) for where, text in json.loads(texts)]
                found[place] = numbers[mapper.map(parsed[texts])]
            place += 1
    return found


@dataclass(frozen=True)
class _Near:
    """Near-copies: pairs of places, how many groups of more than one image they make, and the places dropped with that kept for each."""

    pairs: np.ndarray
    groups: int
    dropped: np.ndarray
    originals: np.ndarray


def _near_copies(
    compared: Compared, order: np.ndarray, nodes: np.ndarray, reasons: np.ndarray, distance: int
) -> _Near:
    """Find near-copies among the images that are still free, and mark in `reasons` the ones to drop; empties the hashes of `compared`."""
    free = order[reasons[order] == _FREE] if distance >= 0 else order[:0]
    hashes, compared.hashes = compared.hashes[free], np.empty(0, np.uint64)
    raw_hashes, compared.raw_hashes = compared.raw_hashes[free], np.empty(0, np.uint64)
    sizes = 2 * compared.areas[free] + (nodes[free] >= 0)
    if distance < 0:
        return _Near(np.empty((0, 2), order.dtype), 0, free, free)
    pairs = near_images(hashes, raw_hashes, distance)
    kept_for = keep_apart(hashes, raw_hashes, sizes, distance, pairs)
    members, compact = np.unique(pairs, return_inverse=True)
    groups = len(np.unique(components(len(members), compact.reshape(-1, 2))))
    lost = np.flatnonzero(kept_for != np.arange(len(free)))
    reasons[free[lost]] = _NEAR_COPY
    return _Near(free[pairs], groups, free[lost], free[kept_for[lost]])


def _dropped(rows: Rows, reasons: np.ndarray, near: _Near, marks: Mapping[str, str]) -> Iterator[Drop]:
    """A record of each image that is dropped."""
    by_place = np.argsort(near.dropped)
    lost = np.flatnonzero(reasons)
    for start in range(0, len(lost), _AT_A_TIME):
        some = lost[start : start + _AT_A_TIME]
        is_near = reasons[some] == _NEAR_COPY
        details = np.full(len(some), "on the list of --exclude", object)
        details[reasons[some] == _NEAR_MARKED] = "a near-copy of an image that a person has marked"
        found = np.searchsorted(near.dropped, some[is_near], sorter=by_place)
        others = near.originals[by_place[found]]
        details[is_near] = [_of(**row) for row in rows.take(others, ["source", "name", "frame"]).to_pylist()]
        table = rows.take(some, ["source", "name", "frame", "id"])
        for row, reason, detail in zip(table.to_pylist(), reasons[some].tolist(), details, strict=True):
            said = marks[row["id"]] if reason == _MARKED else detail
            yield Drop(row["source"], row["name"], row["frame"], *_REASONS[reason], said)


def _of(source: str, name: str, frame: int) -> str:
    return f"of {source}/{name} frame {frame}" if frame else f"of {source}/{name}"
