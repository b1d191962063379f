"""The catalogue of public ultrasound data sets: which exist, what they show, what may be done with them, what reads them.

    entries = read_catalogue()
    livers = filter_catalogue(entries, node="liver", task="segmentation", commercial=True)

The facts stand in `catalogue.yaml` beside this file, each as the pages under its `sources` state it. What none of them says is
blank there and None here. What was known on a date may have changed since: the data set's own page decides.
"""

import datetime
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from ..anatomy import AnatomyTree
from ..anatomy.tree import NodeLike

CATALOGUE_FILE = Path(__file__).with_name("catalogue.yaml")

FINETUNE_TASKS = ("classification", "segmentation", "detection", "keypoints", "video", "regression", "enhancement")
TASKS = (*FINETUNE_TASKS, "report", "pretraining")
"""The eight tasks that a model is fine-tuned for, and pretraining for sets without labels for any of them."""

MODALITIES = ("B-mode", "CEUS", "Doppler", "M-mode", "elastography", "RF", "3D")
ACCESS = ("download", "registration", "request")
UNITS = ("images", "videos", "volumes", "studies", "reports", "lesions", "patients")

COMMERCIAL_USE = MappingProxyType(
    {
        "CC0-1.0": True,
        "CC-BY-4.0": True,
        "CC-BY-SA-4.0": True,
        "Apache-2.0": True,
        "MIT": True,
        "CC-BY-NC-4.0": False,
        "CC-BY-NC-SA-3.0": False,
        "CC-BY-NC-SA-4.0": False,
        "CC-BY-NC-ND-4.0": False,
    }
)
"""SPDX ids of the licences that data sets commonly have, and whether they allow commercial use."""

_KEY = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*")
_ADDRESS = re.compile(r"https?://\S+")
_LISTS = ("nodes", "tasks", "modality", "readers", "sources")
_REQUIRED = ("key", "name", "tasks", "sources", "checked")


@dataclass(frozen=True)
class DatasetEntry:
    """One data set. None, or an empty tuple or mapping, says that no source states it.

    Attributes:
        key: short name, unique in the catalogue; that of a benchmark is the name of its evaluation task.
        name: name as its authors or users write it.
        nodes: ids of anatomy nodes that it shows.
        tasks: what its labels serve, of `TASKS`.
        modality: of `MODALITIES`; plain two-dimensional scans count as B-mode, `RF` are signals before image formation.
        count: how many, by unit of `UNITS`. Frames count as images, people of any kind as patients.
        licence: SPDX id, or what the sources say.
        commercial: whether the licence allows commercial use; None if it does not say, or its statements contradict each other.
        home: address of the data or of its page.
        paper: address of the article about it.
        access: `download` for anyone, after `registration`, or on `request`.
        layout: the files as published, in a line.
        readers: what reads them: `curate`, `finetune:TASK`, `eval:NAME` of an evaluation task.
        sources: addresses where all this was read.
        checked: when.
        note: what else a user should know.
    """

    key: str
    name: str
    tasks: tuple[str, ...]
    sources: tuple[str, ...]
    checked: datetime.date
    nodes: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    count: Mapping[str, int] = field(default_factory=dict)
    licence: str | None = None
    commercial: bool | None = None
    home: str | None = None
    paper: str | None = None
    access: str | None = None
    layout: str | None = None
    readers: tuple[str, ...] = ()
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON takes them: lists for tuples, the date as text, None for what is unknown."""
        values = {**asdict(self), "checked": self.checked.isoformat()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


_FIELDS = tuple(each.name for each in fields(DatasetEntry))


def read_catalogue(path: str | os.PathLike[str] | None = None, tree: AnatomyTree | None = None) -> list[DatasetEntry]:
    """Read and check a catalogue.

    Args:
        path (optional): a YAML file with a list of entries; that of the package if left out.
        tree (optional): the tree whose nodes may be named; that of the package if left out.

    Returns:
        The entries in the order of the file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: in one line with the file, the data set and the cure, for an unknown node, task, unit or field, a missing field, a
            repeated key, a value of the wrong kind, or a licence and a `commercial` that contradict each other.
    """
    path = CATALOGUE_FILE if path is None else Path(path)
    tree = AnatomyTree.default() if tree is None else tree
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        rows = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no YAML text: {' '.join(str(error).split())}") from None
    if not isinstance(rows, list):
        raise ValueError(f"{path}: must be a list of data sets, each beginning with '- key: NAME'")
    entries: dict[str, DatasetEntry] = {}
    for number, row in enumerate(rows, start=1):
        try:
            entry = _entry(row, tree)
            if _plain(entry.key) in entries:
                raise ValueError("stands in the catalogue twice; keys must be unique, underscores aside")
        except ValueError as error:
            key = row.get("key") if isinstance(row, dict) else None
            raise ValueError(f"{path}: data set {key or number}: {error}") from None
        entries[_plain(entry.key)] = entry
    return list(entries.values())


def _entry(row: Any, tree: AnatomyTree) -> DatasetEntry:
    if not isinstance(row, dict):
        raise ValueError("must be fields with values, such as 'key: busi'")
    for name in row:
        _known("field", name, _FIELDS)
    given = {name: value for name, value in row.items() if value is not None}
    missing = [name for name in _REQUIRED if not given.get(name)]
    if missing:
        raise ValueError(f"the field {missing[0]} is missing or blank")
    for name, value in given.items():
        if name in _LISTS:
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                raise ValueError(f"{name} must be a list of texts, got {value!r}")
            if len(set(value)) < len(value):
                raise ValueError(f"{name} names something twice: {value}")
            given[name] = tuple(value)
        elif name == "commercial":
            if not isinstance(value, bool):
                raise ValueError(f"commercial must be true, false or blank, got {value!r}")
        elif name == "count":
            given[name] = _count(value)
        elif name == "checked":
            given[name] = _date(value)
        elif not isinstance(value, str) or not value.strip() or "\n" in value:
            raise ValueError(f"{name} must be text of one line or blank, got {value!r}")
    entry = DatasetEntry(**given)
    _check(entry, tree)
    return entry


def _count(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"count must be numbers by unit, such as {{images: 780}}, or blank, got {value!r}")
    for unit, number in value.items():
        _known("unit", unit, UNITS)
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"count must have whole numbers above 0, got {number!r} {unit}")
    return {unit: value[unit] for unit in UNITS if unit in value}


def _date(value: Any) -> datetime.date:
    try:
        return datetime.date.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"checked must be a date such as 2026-11-22, got {value!r}") from None


def _check(entry: DatasetEntry, tree: AnatomyTree) -> None:
    if not _KEY.fullmatch(entry.key):
        raise ValueError(f"a key has small letters, digits and single underscores, got {entry.key!r}")
    for node in entry.nodes:
        _known("anatomy node", node, tree.ids)
    for task in entry.tasks:
        _known("task", task, TASKS)
    for modality in entry.modality:
        _known("modality", modality, MODALITIES)
    if entry.access is not None:
        _known("access", entry.access, ACCESS)
    for name, addresses in (("home", (entry.home,)), ("paper", (entry.paper,)), ("sources", entry.sources)):
        for address in addresses:
            if address is not None and not _ADDRESS.fullmatch(address):
                raise ValueError(f"{name} must have addresses that begin with https://, got {address!r}")
    for reader in entry.readers:
        kind, _, of = reader.partition(":")
        fine = {
            "curate": not of,
            "finetune": of in entry.tasks and of in FINETUNE_TASKS,
            "eval": bool(_KEY.fullmatch(of)),
        }
        if not fine.get(kind):
            raise ValueError(
                f"the reader {reader!r} must be curate, finetune: with one of the tasks {', '.join(entry.tasks)}, "
                "or eval: with an evaluation task"
            )
    if entry.licence is None and entry.commercial is not None:
        raise ValueError("commercial is stated without a licence; leave it blank")
    allowed = COMMERCIAL_USE.get(entry.licence or "", entry.commercial)
    if entry.commercial is not allowed:
        raise ValueError(f"the licence {entry.licence} means commercial: {str(allowed).lower()}")


def _known(what: str, value: Any, names: Iterable[str]) -> None:
    if value not in names:
        raise ValueError(f"unknown {what} {value!r}; {closest(str(value), names)}")


def closest(text: str, names: Iterable[str]) -> str:
    """Up to four of the names that look most like a text, or all if there are few and none does, as the end of a message."""
    from difflib import get_close_matches

    names = list(names)
    near = get_close_matches(text.casefold(), names, n=4, cutoff=0.6)
    if not near:
        near = [name for name in names if text and text.casefold() in name.casefold()][:4]
    if near:
        return f"closest: {', '.join(near)}"
    return f"choose from {', '.join(names)}" if len(names) <= 20 else "nothing looks like it"


def find_dataset(entries: Iterable[DatasetEntry], key: str) -> DatasetEntry:
    """The entry with a key; capitals, hyphens, underscores and spaces do not matter.

    Raises:
        ValueError: if there is none, with the keys that look like it.
    """
    entries = list(entries)
    wanted = _plain(key)
    for entry in entries:
        if _plain(entry.key) == wanted:
            return entry
    raise ValueError(f"no data set {key!r} in the catalogue; {closest(key, [entry.key for entry in entries])}")


def _plain(key: str) -> str:
    return re.sub(r"[\W_]+", "", key.casefold())


def filter_catalogue(
    entries: Iterable[DatasetEntry],
    *,
    node: NodeLike | None = None,
    task: str | None = None,
    commercial: bool = False,
    licence: str | None = None,
    text: str | None = None,
    tree: AnatomyTree | None = None,
) -> list[DatasetEntry]:
    """The entries that meet all of the conditions given, in their order.

    Args:
        entries: what `read_catalogue` returns.
        node (optional): shows this anatomy node or one below it; any form that `AnatomyTree.index` takes.
        task (optional): has labels for it, of `TASKS`, in any case.
        commercial: only those whose licence allows commercial use. Unknown ones are left out.
        licence (optional): the licence has this text in it, in any case; hyphens count as spaces.
        text (optional): every word of it stands somewhere in the key, the name, the node ids, the tasks, the modality, the licence, the
            access, the layout or the note.
        tree (optional): the tree of `node`; that of the package if left out.

    Raises:
        ValueError: for a node or a task that does not exist, with the closest names.
    """
    tree = AnatomyTree.default() if tree is None else tree
    if task is not None:
        task = task.strip().casefold()
        _known("task", task, TASKS)
    below: set[str] | None = None
    if node is not None:
        index = tree.index(node)
        below = {tree.ids[each] for each in range(len(tree)) if tree.descendant_matrix[index, each]}
    words = (text or "").casefold().split()
    return [
        entry
        for entry in entries
        if (below is None or below.intersection(entry.nodes))
        and (task is None or task in entry.tasks)
        and (not commercial or entry.commercial is True)
        and (licence is None or _spaced(licence) in _spaced(entry.licence or ""))
        and all(word in _searchable(entry) for word in words)
    ]


def _spaced(licence: str) -> str:
    return " ".join(licence.replace("-", " ").casefold().split())


def _searchable(entry: DatasetEntry) -> str:
    lists = (*entry.nodes, *entry.tasks, *entry.modality)
    parts = (entry.key, entry.name, *lists, entry.licence, entry.access, entry.layout, entry.note)
    return " ".join(part for part in parts if part).casefold()
