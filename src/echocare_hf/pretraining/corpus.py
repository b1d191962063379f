"""What is learnt from: every image's name, anatomy node, group, licence and part, from whichever form a corpus comes in.

    corpus = read_corpus(["curated"], AnatomyTree.default())
    corpus = corpus.select(corpus.licensed(["CC BY", "CC0"]))

Four forms: the parquet shards of `echocare curate`; a folder with index.csv or metadata.csv; a folder of images, whose subfolders may
be named after nodes of the tree; and `phantoms:COUNT`, synthetic images for trials.
"""

import csv
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.data.labelled.pixels import STILL_FORMATS
from echocare_hf.data.phantom import phantom_corpus

from .images import ChosenImages, FileImages, Images, MemoryImages, ShardImages

TABLES = ("index.csv", "metadata.csv")
PATH_COLUMNS = ("path", "file_name")
SUFFIXES = (*STILL_FORMATS, ".gif", ".webp", ".avif", ".dcm", ".dicom")
PHANTOM_SIDE = 192


@dataclass(frozen=True, eq=False)
class Corpus:
    """Images and what is known of them; all of one length, in one order.

    Attributes:
        tree: the anatomy tree that `nodes` counts in.
        names: path within the corpus, with its source before it; unique.
        nodes: int64, index of the deepest node that an image is labelled with, -1 for none.
        groups: patient or clip, "" if unknown.
        clusters: what a split must not tear apart, "" if the corpus does not say.
        licences: as stated, "" if not.
        splits: "train" or "validation", "" if the corpus does not say.
        images: the pixels.
    """

    tree: AnatomyTree
    names: np.ndarray
    nodes: np.ndarray
    groups: np.ndarray
    clusters: np.ndarray
    licences: np.ndarray
    splits: np.ndarray
    images: Images = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def fingerprint(self) -> str:
        """32 hexadecimal digits of the names, in their order: the same images have the same ones, wherever the corpus lies."""
        return hashlib.sha256("\n".join(self.names.tolist()).encode()).hexdigest()[:32]

    def select(self, rows: np.ndarray) -> "Corpus":
        """Some rows: a mask of booleans, or ascending indices."""
        indices = np.flatnonzero(rows) if rows.dtype == bool else rows
        columns = {name: getattr(self, name)[indices] for name in COLUMNS}
        return Corpus(self.tree, **columns, images=ChosenImages([self.images], [(0, int(index)) for index in indices]))

    def with_images(self, images: Images) -> "Corpus":
        return Corpus(self.tree, **{name: getattr(self, name) for name in COLUMNS}, images=images)

    def node_labels(self) -> np.ndarray:
        """int8 (nodes + 1, nodes): the labels of an image of each node, the last row for one without a label."""
        rows = [self.tree.labels(node) for node in range(len(self.tree))]
        return np.stack([*rows, self.tree.labels(None)])

    def level_labels(self) -> np.ndarray:
        """int64 (images, levels): the node of each image at each level of the tree, coarse first; -1 where it is not known."""
        paths = np.full((len(self.tree) + 1, len(self.tree.level_names)), -1)
        for node in range(len(self.tree)):
            path = self.tree.path_nodes(node)
            paths[node, : len(path)] = path
        return paths[self.nodes]

    def licensed(self, allowed: Sequence[str]) -> np.ndarray:
        """bool (images,): whose licence is one of `allowed`; a version counts only if `allowed` names one. All if it names none."""
        if not any(text.strip() for text in allowed):
            return np.ones(len(self), bool)
        kinds = {licence: is_allowed(licence, allowed) for licence in set(self.licences.tolist())}
        return np.array([kinds[licence] for licence in self.licences.tolist()], bool)


COLUMNS = ("names", "nodes", "groups", "clusters", "licences", "splits")


def is_allowed(licence: str, allowed: Iterable[str]) -> bool:
    """Whether a licence is one of those allowed: "CC BY" allows "CC-BY 4.0", but neither "CC BY-NC 4.0" nor none."""
    words = _licence_words(licence)
    return bool(words) and any(
        words == rule or _without_version(words) == rule for rule in map(_licence_words, allowed)
    )


def _licence_words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9]+", text.lower().replace("public domain", "cc0")))


def _without_version(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for place, word in enumerate(words) if place == 0 or not word.isdigit())


def read_corpus(sources: Sequence[str], tree: AnatomyTree, seed: int = 0) -> Corpus:
    """Reads one or several corpora as one; no pixels yet, but for phantoms.

    Args:
        sources: folders, or `phantoms:COUNT`.
        tree: what the labels are nodes of.
        seed: of the phantoms.

    Raises:
        ValueError: if there is nothing to read, a column is missing, or a label is no node of the tree.
    """
    parts = [_read_one(source, tree, seed) for source in sources]
    if len(parts) == 1:
        return parts[0]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    # Names and groups of different sources may be equal: the place of the source tells them apart.
    for name in ("names", "groups", "clusters"):
        texts = [(place, text) for place, part in enumerate(parts) for text in getattr(part, name)]
        columns[name] = np.array([f"{place}:{text}" if text else "" for place, text in texts], object)
    chosen = [(place, row) for place, part in enumerate(parts) for row in range(len(part))]
    return Corpus(tree, **columns, images=ChosenImages([part.images for part in parts], chosen))


def _read_one(source: str, tree: AnatomyTree, seed: int) -> Corpus:
    if re.fullmatch(r"phantoms:\d+", source):
        return _phantoms(int(source.partition(":")[2]), tree, seed)
    folder = Path(source)
    if not folder.is_dir():
        raise ValueError(f"{source}: there is no such folder; give one with images, or phantoms:COUNT")
    shards = sorted((folder / "data").glob("*.parquet")) or sorted(folder.glob("*.parquet"))
    if shards:
        return _read_shards(shards, tree)
    for name in TABLES:
        if (folder / name).is_file():
            return _read_table(folder / name, tree)
    return _read_folder(folder, tree)


def _make(
    tree: AnatomyTree, images: Images, where: str, names: Sequence[str], labels: Sequence[Any], **columns: Any
) -> Corpus:
    """A corpus from columns that may hold None."""
    if not names:
        raise ValueError(f"{where}: holds no images")
    nodes = {label: _node(tree, label, where) for label in dict.fromkeys(labels)}
    empty = [""] * len(names)
    texts = {
        name: np.array([text or "" for text in columns.get(name, empty)], object)
        for name in ("groups", "clusters", "licences", "splits")
    }
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"{where}: names {twice} twice; leave one of them out")
    return Corpus(
        tree, np.array(names, object), np.array([nodes[label] for label in labels], int), images=images, **texts
    )


def _node(tree: AnatomyTree, label: str | None, where: str) -> int:
    if not label:
        return -1
    try:
        return tree.index(label)
    except ValueError as error:
        raise ValueError(f"{where}: {error}; the labels must be nodes of the model's anatomy tree") from error


def _read_shards(shards: Sequence[Path], tree: AnatomyTree) -> Corpus:
    import pyarrow
    import pyarrow.parquet as parquet

    wanted = ["id", "node", "group", "cluster", "licence", "split", "source", "source_path", "frame"]
    tables = []
    for shard in shards:
        try:
            present = parquet.read_schema(shard).names
            if "image" not in present:
                raise ValueError(f"{shard}: has no column `image`; a corpus is what `echocare curate` writes")
            tables.append(parquet.read_table(shard, columns=[name for name in wanted if name in present]))
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(
                f"{shard}: cannot be read as parquet ({str(error).splitlines()[0]}); copy it again"
            ) from error
    table = pyarrow.concat_tables(tables, promote_options="default")
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    rows = table.num_rows
    empty: list[None] = [None] * rows
    if "source_path" in columns:
        parts = zip(columns.get("source", empty), columns["source_path"], columns.get("frame", empty), strict=True)
        names = [f"{source or ''}/{path}#{frame or 0}".lstrip("/") for source, path, frame in parts]
        if len(set(names)) < rows and "id" in columns:  # several pictures of one frame
            names = [f"{name}@{identifier}" for name, identifier in zip(names, columns["id"], strict=True)]
    else:
        names = [str(name) for name in columns.get("id", range(rows))]
    return _make(
        tree,
        ShardImages(shards),
        str(shards[0].parent),
        names,
        columns.get("node", empty),
        groups=columns.get("group", empty),
        clusters=columns.get("cluster", empty),
        licences=columns.get("licence", empty),
        splits=columns.get("split", empty),
    )


def _read_table(path: Path, tree: AnatomyTree) -> Corpus:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as a table ({error})") from error
    column = next((name for name in PATH_COLUMNS if rows and name in rows[0]), None)
    if column is None:
        raise ValueError(f"{path}: needs rows, and a column {' or '.join(PATH_COLUMNS)} with the image files")
    names = [row[column] for row in rows]
    paths = [path.parent / name for name in names]
    if missing := [name for name, file in zip(names, paths, strict=True) if not file.is_file()]:
        raise ValueError(f"{path}: {len(missing)} of its files are missing, such as {missing[0]}")
    labels, *texts = ([row.get(name) for row in rows] for name in ("node", "group", "cluster", "licence", "split"))
    groups, clusters, licences, splits = texts
    if unknown := sorted({text for text in splits if text} - {"train", "validation"}):
        raise ValueError(f"{path}: split is train or validation, not {unknown[0]!r}")
    return _make(
        tree,
        FileImages(paths),
        str(path),
        names,
        labels,
        groups=groups,
        clusters=clusters,
        licences=licences,
        splits=splits,
    )


def _read_folder(folder: Path, tree: AnatomyTree) -> Corpus:
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not paths:
        raise ValueError(f"{folder}: holds no images, no index.csv or metadata.csv, and no parquet shards")
    names = [path.relative_to(folder).as_posix() for path in paths]
    labels = [path.parent.name if path.parent != folder and path.parent.name in tree else None for path in paths]
    return _make(tree, FileImages(paths), str(folder), names, labels)


def _phantoms(count: int, tree: AnatomyTree, seed: int) -> Corpus:
    if count < 2:
        raise ValueError(f"phantoms:{count}: at least 2 are needed")
    phantoms = list(phantom_corpus(count, seed, PHANTOM_SIDE))
    return _make(
        tree,
        MemoryImages([phantom.image[..., None] for phantom in phantoms]),
        "phantoms",
        [f"{phantom.kind}_{phantom.seed}" for phantom in phantoms],
        [phantom.labels[0] if phantom.labels else None for phantom in phantoms],
        licences=["CC0-1.0"] * count,
    )
