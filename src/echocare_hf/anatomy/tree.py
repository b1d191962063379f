"""The anatomy tree that every image of the corpus is hung on, and what is computed from it.

What: nodes in three levels (region, organ, structure), each with an id, a name and a parent. From these follow the
ancestor and descendant matrices of the hierarchical loss, the labels of an image ("Heart" says nothing of which view),
the closure of partial labels, and the readable path of a prediction.

Why a class of its own: a model stores the tree it was trained with in its config (`ids`, `names`, `parents`), so an
old checkpoint keeps its meaning when the package's tree grows. Codes and aliases are no part of that; they are looked
up by node id in the package's own `anatomy_tree.json`.

Source: EchoCare paper (arXiv 2509.11752) section 2.1 for the 9 / 52 / 56 nodes, DICOM PS3.16 for the codes. The list
of nodes was never published; this one is the project's own.

    >>> tree = AnatomyTree.default()
    >>> tree.path("A4C")
    'Thorax -> Heart -> Apical four-chamber view'
"""

import json
import operator
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

PATH_SEPARATOR = " -> "
LEVEL_NAMES = ("region", "organ", "structure")

# The scheme of a code that names the adult body site of a fetal node. In DICOM it is written with the scheme SCT and
# combined with the code of the fetus.
FETAL_SCHEME = "SCT*"
FETUS_CODE = "121026"  # DCM, "Fetus"

_TREE_FILE = Path(__file__).with_name("anatomy_tree.json")
_CODE_PATTERN = re.compile(r"(?:(SCT\*?|SNOMED(?:[ -]?CT)?|DCM)\s*:\s*)?(\d{6,18})", re.IGNORECASE)
_PATH_PATTERN = re.compile(r"\s*(?:->|→|>)\s*")
_NUMBER_WORDS = {"2": "two", "3": "three", "4": "four", "5": "five"}
_FILLER_WORDS = frozenset({"a", "and", "at", "of", "plane", "planes", "the", "view", "views"})


class UnknownAnatomyError(ValueError):
    """A label, code or level that the anatomy tree does not know; the message names the closest nodes."""


class Code(NamedTuple):
    """A coded concept as DICOM writes it.

    `scheme` is `"SCT"` (SNOMED CT), `"DCM"`, or `"SCT*"`: the adult body site of a fetal node, to be written with the
    scheme SCT beside (DCM, 121026, "Fetus").
    """

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class AnatomyNode:
    """One node of a tree, with everything that is known of it.

    `index` is its position and `parent` that of its parent (-1 for a root); `level` is its depth (0 for a root) and
    `level_name` the word for it; `code` is None for a node without one.
    """

    index: int
    id: str
    name: str
    parent: int
    level: int
    level_name: str
    code: Code | None
    aliases: tuple[str, ...]


class _Details(NamedTuple):
    code: Code | None
    aliases: tuple[str, ...]


NodeLike = str | SupportsIndex | AnatomyNode


@dataclass(frozen=True, repr=False)
class AnatomyTree:
    """An immutable forest of anatomy nodes, in an order that puts every parent before its children.

    Every method takes a node as its position, its id, or anything else that `index` understands, and gives positions
    back. Two trees are equal if their ids, names and parents are. Iterating yields `AnatomyNode`s.

    Args:
        ids (`tuple[str, ...]`): unique ids, one a node.
        names (`tuple[str, ...]`): readable names, one a node.
        parents (`tuple[int, ...]`): position of each node's parent, -1 for a root. A parent stands before its
            children.

    Raises:
        ValueError: if the three differ in length, an id repeats, or a parent does not stand before its child.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(str(value) for value in self.ids))
        object.__setattr__(self, "names", tuple(str(value) for value in self.names))
        object.__setattr__(self, "parents", tuple(operator.index(value) for value in self.parents))
        if not len(self.ids) == len(self.names) == len(self.parents):
            raise ValueError(
                f"an anatomy tree needs one id, name and parent a node, got {len(self.ids)} ids, "
                f"{len(self.names)} names and {len(self.parents)} parents"
            )
        seen: set[str] = set()
        for node, (identifier, parent) in enumerate(zip(self.ids, self.parents, strict=True)):
            if identifier in seen:
                raise ValueError(f"the ids of an anatomy tree must be unique, {identifier!r} repeats")
            seen.add(identifier)
            if not -1 <= parent < node:
                raise ValueError(
                    f"anatomy node {identifier!r} (position {node}) names parent {parent}: "
                    "a parent stands before its children, and a root has -1"
                )

    # Construction ----------------------------------------------------------------------------------

    @classmethod
    def default(cls) -> "AnatomyTree":
        """The tree of this package: 9 regions, 52 organs, 56 structures. Read once, then shared."""
        return _default_tree()

    @classmethod
    def from_config(cls, config: Any) -> "AnatomyTree":
        """The tree that a model was trained with.

        Args:
            config: an `EchoCareConfig` (anything with an `anatomy_tree`), its dictionary form, or the dictionary
                `{"ids": [...], "names": [...], "parents": [...]}` itself.

        Raises:
            ValueError: if there is no tree in it, or its lists do not make one.
        """
        tree = getattr(config, "anatomy_tree", config)
        if isinstance(tree, Mapping) and "anatomy_tree" in tree:
            tree = tree["anatomy_tree"]
        if not isinstance(tree, Mapping) or not {"ids", "names", "parents"} <= set(tree):
            raise ValueError("the config holds no anatomy tree: `anatomy_tree` needs the lists ids, names and parents")
        return cls(tuple(tree["ids"]), tuple(tree["names"]), tuple(tree["parents"]))

    @classmethod
    def from_parents(
        cls, parents: Iterable[int], names: Iterable[str] | None = None, ids: Iterable[str] | None = None
    ) -> "AnatomyTree":
        """Any tree, of any depth, from its parents.

        Args:
            parents: position of each node's parent, -1 for a root; a parent stands before its children.
            names (optional): readable names; default to `node_0`, `node_1`, ...
            ids (optional): unique ids; default to the names.

        Raises:
            ValueError: if these do not make a tree (see the class).
        """
        parents = tuple(parents)
        names = tuple(f"node_{node}" for node in range(len(parents))) if names is None else tuple(names)
        return cls(names if ids is None else tuple(ids), names, parents)

    def to_config(self) -> dict[str, list]:
        """The tree as `EchoCareConfig.anatomy_tree` stores it: the lists `ids`, `names` and `parents`."""
        return {"ids": list(self.ids), "names": list(self.names), "parents": list(self.parents)}

    # The tree as a sequence of nodes ---------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[AnatomyNode]:
        return (self[node] for node in range(len(self)))

    def __getitem__(self, node: NodeLike) -> AnatomyNode:
        index = self.index(node)
        level = self.levels[index]
        details = _details(self.ids[index])
        return AnatomyNode(
            index=index,
            id=self.ids[index],
            name=self.names[index],
            parent=self.parents[index],
            level=level,
            level_name=self.level_names[level],
            code=details.code,
            aliases=details.aliases,
        )

    def __contains__(self, node: object) -> bool:
        if not isinstance(node, (str, int, AnatomyNode)):
            return False
        try:
            self.index(node)
        except (UnknownAnatomyError, TypeError):
            return False
        return True

    def __repr__(self) -> str:
        counts = [f"{self.levels.count(level)} {name}s" for level, name in enumerate(self.level_names)]
        return f"AnatomyTree({len(self)} nodes: {', '.join(counts)})" if len(self) else "AnatomyTree(0 nodes)"

    def __reduce__(self) -> tuple:
        return type(self), (self.ids, self.names, self.parents)  # without the cached (read-only) matrices

    # Shape -----------------------------------------------------------------------------------------

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Depth of each node: 0 for a root (region), 1 for an organ, 2 for a structure, and so on."""
        levels: list[int] = []
        for parent in self.parents:
            levels.append(0 if parent < 0 else levels[parent] + 1)
        return tuple(levels)

    @cached_property
    def level_names(self) -> tuple[str, ...]:
        """A word for each level: region, organ, structure, then `level 3`, `level 4`, ... for deeper trees."""
        depth = max(self.levels, default=-1) + 1
        return LEVEL_NAMES[:depth] + tuple(f"level {level}" for level in range(len(LEVEL_NAMES), depth))

    @cached_property
    def _children(self) -> tuple[tuple[int, ...], ...]:
        children: list[list[int]] = [[] for _ in self.ids]
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                children[parent].append(node)
        return tuple(map(tuple, children))

    @property
    def roots(self) -> tuple[int, ...]:
        """The nodes without a parent, in order."""
        return tuple(node for node, parent in enumerate(self.parents) if parent < 0)

    def children(self, node: NodeLike) -> tuple[int, ...]:
        """The nodes right below a node, in order; empty for a leaf."""
        return self._children[self.index(node)]

    def level_nodes(self, level: int | str) -> tuple[int, ...]:
        """All nodes of one level, in order.

        Args:
            level: the depth (0 for the roots) or its name (`"region"`, `"organs"`, ...).

        Raises:
            UnknownAnatomyError: for a level that the tree does not have.
        """
        known = {_key(name): depth for depth, name in enumerate(self.level_names)}
        depth = known.get(_key(level)) if isinstance(level, str) else level
        if depth is None or depth not in range(len(self.level_names)):
            raise UnknownAnatomyError(f"unknown anatomy level {level!r}: choose one of {', '.join(self.level_names)}")
        return tuple(node for node, own in enumerate(self.levels) if own == depth)

    @cached_property
    def ancestor_matrix(self) -> NDArray[np.bool_]:
        """Boolean `(nodes, nodes)`, read-only: `[v, u]` is True where u is an ancestor of v **or v itself**."""
        matrix = np.eye(len(self), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                matrix[node] |= matrix[parent]  # the parent's row is complete: it stands before its children
        matrix.flags.writeable = False
        return matrix

    @cached_property
    def descendant_matrix(self) -> NDArray[np.bool_]:
        """Boolean `(nodes, nodes)`, read-only: `[v, u]` is True where u is a descendant of v **or v itself**."""
        return self.ancestor_matrix.T

    def path_nodes(self, node: NodeLike) -> list[int]:
        """The nodes from the root down to a node, both included."""
        path = [self.index(node)]
        while self.parents[path[-1]] >= 0:
            path.append(self.parents[path[-1]])
        return path[::-1]

    def path(self, node: NodeLike) -> str:
        """The readable path of a node, e.g. `"Thorax -> Heart -> Apical four-chamber view"`; `index` reads it back."""
        return PATH_SEPARATOR.join(self.names[step] for step in self.path_nodes(node))

    # Finding a node --------------------------------------------------------------------------------

    def index(self, node: NodeLike) -> int:
        """The position of a node.

        Text is compared without regard to case, spaces, punctuation, plural, accents, British spelling of "foetal",
        filler words (view, plane, of, the, ...) and digits for small numbers ("Apical 4 chamber"). It is tried, in
        this order, as an id, a code, a path, a name, a name without what it has in brackets, and an alias.

        A code of an adult body site never gives a fetal node that shares the code: `"80891009"` is the heart, and
        `"SCT*:80891009"` the fetal heart (see `by_code`).

        Args:
            node: position (0 to nodes - 1), id (`"heart_a4c"`), name, alias (`"A4C"`), path (`"Thorax -> Heart"`),
                SNOMED CT code (`80891009`, `"80891009"`, `"SCT:80891009"`), `"DCM:121026"`, or an `AnatomyNode`.

        Returns:
            `int`, 0 to nodes - 1.

        Raises:
            UnknownAnatomyError: if no node, or more than one, answers to it; the message names the closest ones.
            TypeError: if it is neither text nor a whole number.
        """
        if isinstance(node, AnatomyNode):
            node = node.id
        if isinstance(node, (bool, np.bool_)):
            raise TypeError("an anatomy node is named by text or a whole number, not by a truth value")
        if not isinstance(node, str):
            number = operator.index(node)
            if 0 <= number < len(self):
                return number
            if number < 10**5:
                raise UnknownAnatomyError(f"unknown anatomy node {number}: the tree has nodes 0 to {len(self) - 1}")
            return self.by_code(number)
        if node in self._position:
            return self._position[node]
        text = node.strip()
        if not text:
            raise UnknownAnatomyError("empty anatomy label")
        if _CODE_PATTERN.fullmatch(text):
            return self.by_code(text)
        found = self._find_path(text) if _PATH_PATTERN.search(text) else self._find_text(text)
        if not found:
            raise UnknownAnatomyError(f"unknown anatomy label {node!r}{self._suggestion(text)}")
        if len(found) > 1:
            candidates = ", ".join(self.ids[index] for index in found)
            raise UnknownAnatomyError(f"anatomy label {node!r} names several nodes, use an id: {candidates}")
        return found[0]

    @cached_property
    def _position(self) -> dict[str, int]:
        return {identifier: node for node, identifier in enumerate(self.ids)}

    @cached_property
    def _tables(self) -> tuple[dict[str, list[int]], ...]:
        """Normalised text -> nodes, one table for each kind of text, in the order in which they are asked."""
        ids: dict[str, list[int]] = {}
        names: dict[str, list[int]] = {}
        bare_names: dict[str, list[int]] = {}
        aliases: dict[str, list[int]] = {}
        for node, (identifier, name) in enumerate(zip(self.ids, self.names, strict=True)):
            texts = [(ids, identifier), (names, name), (bare_names, re.sub(r"\(.*?\)", " ", name))]
            texts += [(aliases, alias) for alias in _details(identifier).aliases]
            for table, text in texts:
                nodes = table.setdefault(_key(text), [])
                if node not in nodes:
                    nodes.append(node)
        return ids, names, bare_names, aliases

    def _find_text(self, text: str) -> list[int]:
        key = _key(text)
        return next((table[key] for table in self._tables if key in table), []) if key else []

    def _find_path(self, text: str) -> list[int]:
        """The nodes that the last step of a path can mean below the nodes of its earlier steps (gaps are allowed)."""
        first, *steps = _PATH_PATTERN.split(text)
        found = self._find_text(first)
        for step in steps:
            found = [
                node
                for node in self._find_text(step)
                if any(self.ancestor_matrix[node, above] and node != above for above in found)
            ]
        return found

    def _suggestion(self, text: str) -> str:
        """The end of an error message: the nodes whose texts are closest, e.g. `: did you mean Heart (heart)?`."""
        from difflib import get_close_matches

        last = _key(_PATH_PATTERN.split(text)[-1])
        keys = dict.fromkeys(key for table in self._tables for key in table)
        close = get_close_matches(last, keys, n=8, cutoff=0.7) if last else []
        close += [key for key in keys if len(last) >= 3 and last in key and key not in close]
        nodes = dict.fromkeys(node for key in close for table in self._tables for node in table.get(key, ()))
        if not nodes:
            return f": none of the tree's {len(self)} nodes comes close; `echocare anatomy` prints them all"
        return f": did you mean {' or '.join(f'{self.names[node]} ({self.ids[node]})' for node in list(nodes)[:4])}?"

    # Codes -----------------------------------------------------------------------------------------

    def code(self, node: NodeLike) -> Code | None:
        """The code of a node as `(scheme, value, meaning)`, or None.

        A tree from a config stores no codes: they are those of the package's tree for the same id. The scheme `SCT*`
        marks the adult body site of a fetal node; DICOM wants it as SCT, beside (DCM, 121026, "Fetus").
        """
        return _details(self.ids[self.index(node)]).code

    def aliases(self, node: NodeLike) -> tuple[str, ...]:
        """Other names of a node in the field; those of the package's tree for the same id."""
        return _details(self.ids[self.index(node)]).aliases

    def find_code(self, code: int | str) -> list[int]:
        """All nodes that carry a code: first those it names in full, then the fetal nodes whose body site it is.

        Args:
            code: `80891009`, `"80891009"`, or with its scheme, `"SCT:80891009"`, `"SCT*:80891009"`, `"DCM:121026"`.
                `SCT` finds both kinds, `SCT*` the fetal nodes only.

        Returns:
            `list[int]`, empty if no node carries it.

        Raises:
            UnknownAnatomyError: if it does not look like a code.
        """
        scheme, value = _split_code(code)
        own: list[int] = []
        fetal: list[int] = []
        for node, identifier in enumerate(self.ids):
            candidate = _details(identifier).code
            if candidate is None or candidate.value != value:
                continue
            if scheme is None or scheme in (candidate.scheme, candidate.scheme.rstrip("*")):
                (fetal if candidate.scheme == FETAL_SCHEME else own).append(node)
        return own + fetal

    def by_code(self, code: int | str, *, fetus: bool = False) -> int:
        """The node of a code, given whether the image shows a fetus.

        Args:
            code: as in `find_code`; the scheme `SCT*` says that it is fetal.
            fetus (`bool`, *optional*, defaults to `False`): whether the code was found beside (DCM, 121026, "Fetus").
                If so the node is looked for in the fetus. If not, a body-site code that the tree has in the fetus only
                is an error, so that an adult femur never becomes a fetal one.

        Returns:
            `int`, the node's position.

        Raises:
            UnknownAnatomyError: if no node answers to it.
        """
        scheme, value = _split_code(code)
        fetus = fetus or scheme == FETAL_SCHEME
        found = self.find_code(value if scheme is None else f"{scheme.rstrip('*')}:{value}")
        wanted = [node for node in found if (self._is_fetal(node) if fetus else not self._has_fetal_code(node))]
        if wanted:
            return wanted[0]
        if not found:
            raise UnknownAnatomyError(f"no anatomy node has the code {code}")
        names = ", ".join(f"{self.names[node]} ({self.ids[node]})" for node in found)
        raise UnknownAnatomyError(
            f"the code {code} is outside the fetus in this tree: {names}"
            if fetus
            else f"the code {code} is in this tree as a body site of the fetus only: {names}; "
            f"'{FETAL_SCHEME}:{value}' names it"
        )

    def _has_fetal_code(self, node: int) -> bool:
        code = self.code(node)
        return code is not None and code.scheme == FETAL_SCHEME

    def _is_fetal(self, node: int) -> bool:
        """Whether a node is, or lies below, the node with the code (DCM, 121026, "Fetus")."""
        codes = (self.code(step) for step in self.path_nodes(node))
        return any(code is not None and code[:2] == ("DCM", FETUS_CODE) for code in codes)

    # Labels ----------------------------------------------------------------------------------------

    def labels(
        self,
        names: NodeLike | Iterable[NodeLike] | None,
        absent: NodeLike | Iterable[NodeLike] = (),
        *,
        exclusive: bool = True,
    ) -> NDArray[np.int8]:
        """The labels of an image that is known to show some nodes: 1 present, 0 absent, -1 unknown.

        A node that the image is labelled with is present, and so are its ancestors. What lies below it is unknown:
        "Heart" does not say which view, nor that no left ventricle is in sight. With `exclusive`, everything else is
        absent: the siblings, the other regions and all below them. An image labelled with several nodes shows them
        all; a node that lies above another one of them adds nothing ("Heart" and "A4C" is "A4C", whose siblings are
        absent). No label at all leaves every node unknown, apart from `absent` ones.

        Args:
            names: a node or nodes that the image shows, in any form that `index` takes; None or `""` for no label.
            absent (optional): a node or nodes it does not show; all below them is absent too.
            exclusive (`bool`, *optional*, defaults to `True`): whether the image shows nothing but `names`. If not,
                whatever does not follow from `names` and `absent` is unknown.

        Returns:
            `int8` array `(nodes,)` of 1, 0 and -1.

        Raises:
            UnknownAnatomyError: for a label that the tree does not know.
            ValueError: if a node would be both present and absent.
        """
        present = self._indices(names)
        labels = np.full(len(self), -1, dtype=np.int8)
        if present and exclusive:
            shown = self.ancestor_matrix[present].any(axis=0)
            deepest = [node for node in present if self.descendant_matrix[node, present].sum() == 1]
            labels[~shown & ~self.descendant_matrix[deepest].any(axis=0)] = 0
        for node in self._indices(absent):
            labels[node] = 0
        for node in present:
            if labels[node] == 0:
                raise ValueError(f"anatomy label {self.path(node)!r} is both present and absent")
            labels[node] = 1
        return self.closure(labels)

    def _indices(self, nodes: NodeLike | Iterable[NodeLike] | None) -> list[int]:
        """Distinct positions of a node, of several, or of none."""
        if nodes is None or (isinstance(nodes, str) and not nodes.strip()):
            return []
        if isinstance(nodes, (str, AnatomyNode)) or not isinstance(nodes, Iterable):
            return [self.index(nodes)]
        return list(dict.fromkeys(self.index(node) for node in nodes))

    def closure(self, labels: ArrayLike) -> NDArray[np.int8]:
        """What follows from partial labels: a present node has present ancestors, an absent one absent descendants.

        Source: EchoCare paper section 4.1.2, the label rule of hierarchical anatomy classification.

        Args:
            labels: array `(..., nodes)` of 1 (present), 0 (absent) and -1 (unknown).

        Returns:
            `int8` array `(..., nodes)`, a new one.

        Raises:
            ValueError: if the shape or a value is wrong, or a present node lies below an absent one.
        """
        given = np.asarray(labels)
        if given.ndim == 0 or given.shape[-1] != len(self):
            raise ValueError(f"labels need shape (..., {len(self)}), one entry a node, got {given.shape}")
        if not np.isin(given, (-1, 0, 1)).all():
            raise ValueError("labels must be 1 (present), 0 (absent) or -1 (unknown)")
        # A Boolean matrix product is "any of": (..., nodes) @ (nodes, nodes)
        present = (given == 1) @ self.ancestor_matrix
        absent = (given == 0) @ self.descendant_matrix
        if (present & absent).any():
            sample = given[tuple(np.argwhere((present & absent).any(axis=-1))[0])] if given.ndim > 1 else given
            child = next(node for node in np.flatnonzero(sample == 1) if (sample[self.path_nodes(node)] == 0).any())
            above = next(node for node in self.path_nodes(child) if sample[node] == 0)
            raise ValueError(f"anatomy label {self.path(child)!r} is present, but {self.names[above]!r} is absent")
        closed = np.full(given.shape, -1, dtype=np.int8)
        closed[present] = 1
        closed[absent] = 0
        return closed

    # Predictions -----------------------------------------------------------------------------------

    def best_path(self, scores: ArrayLike, threshold: float = 0.5) -> list[tuple[int, float]]:
        """The most likely path, read greedily from the top: the best root, then its best child, and so on.

        A node's score counts as the smallest one on its path, as in the loss (an organ is no likelier than its
        region), and the path ends before the first node whose score is below the threshold.

        Args:
            scores: array `(nodes,)`, one score a node, e.g. the sigmoid of the anatomy logits.
            threshold (`float`, *optional*, defaults to 0.5): smallest score that is still reported.

        Returns:
            `list` of `(node, score)` from the root down; empty if no root reaches the threshold.

        Raises:
            ValueError: if the shape is wrong or a score is not a number.
        """
        values = np.asarray(scores, dtype=float)
        if values.shape != (len(self),):
            raise ValueError(f"scores need shape ({len(self)},), one score a node, got {values.shape}")
        if np.isnan(values).any():
            raise ValueError("scores must be numbers, got NaN")
        path: list[tuple[int, float]] = []
        candidates: Sequence[int] = self.roots
        score = float("inf")
        while candidates:
            node = max(candidates, key=lambda candidate: values[candidate])  # the first one, if several are equal
            score = min(score, float(values[node]))
            if score < threshold:
                break
            path.append((node, score))
            candidates = self._children[node]
        return path

    # Text ------------------------------------------------------------------------------------------

    def format(self, node: NodeLike | None = None, *, codes: bool = True) -> str:
        """The tree as indented text, one node a line: `Heart [heart] SCT 80891009`.

        Args:
            node (optional): print this node and what lies below it only.
            codes (`bool`, *optional*, defaults to `True`): whether to print the codes.

        Returns:
            `str`, lines without a newline at the end.
        """
        top = None if node is None else self.index(node)
        lines = []
        stack = list(self.roots if top is None else (top,))[::-1]
        while stack:
            current = stack.pop()
            stack.extend(self._children[current][::-1])
            indent = "  " * (self.levels[current] - (0 if top is None else self.levels[top]))
            code = self.code(current) if codes else None
            suffix = f" {code.scheme} {code.value}" if code else ""
            lines.append(f"{indent}{self.names[current]} [{self.ids[current]}]{suffix}")
        return "\n".join(lines)


@cache
def _package_nodes() -> list[dict[str, Any]]:
    return json.loads(_TREE_FILE.read_text(encoding="utf-8"))


@cache
def _default_tree() -> AnatomyTree:
    nodes = _package_nodes()
    position = {node["id"]: index for index, node in enumerate(nodes)}
    return AnatomyTree.from_parents(
        (-1 if node["parent"] is None else position[node["parent"]] for node in nodes),
        names=[node["name"] for node in nodes],
        ids=[node["id"] for node in nodes],
    )


@cache
def _all_details() -> dict[str, _Details]:
    details = {}
    for node in _package_nodes():
        meaning = node["dicom_meaning"].split(" [CID")[0]  # the file also says which context group a code stands in
        code = Code(node["scheme"], node["code"], meaning) if node["code"] else None
        details[node["id"]] = _Details(code, tuple(node["aliases"]))
    return details


def _details(identifier: str) -> _Details:
    """Code and aliases that the package's tree has for an id; none for an id it does not have."""
    return _all_details().get(identifier, _Details(None, ()))


def _split_code(code: int | str) -> tuple[str | None, str]:
    """`"SCT:80891009"` -> `("SCT", "80891009")`; the scheme is None if it is not given."""
    match = _CODE_PATTERN.fullmatch(str(code).strip())
    if match is None:
        raise UnknownAnatomyError(f"{code!r} is no SNOMED CT or DICOM code (6 to 18 digits, e.g. 'SCT:80891009')")
    scheme = match[1] and match[1].upper()
    return ("SCT" if scheme and scheme.startswith("SNOMED") else scheme), match[2]


def _key(text: str) -> str:
    """Text reduced to what matters in a comparison: `"Apical 4-Chamber Views"` -> `"apicalfourchamber"`."""
    text = unicodedata.normalize("NFKD", text).casefold()
    text = "".join(letter for letter in text if not unicodedata.combining(letter) and letter not in "'’`")
    words = re.findall(r"[^\W_]+", text.replace("foet", "fet"))
    return "".join(_singular(_NUMBER_WORDS.get(word, word)) for word in words if word not in _FILLER_WORDS)


def _singular(word: str) -> str:
    """A word without a plural ending. Good enough to compare by: `"pelvis"` becomes `"pelvi"` on both sides."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "uses", "xes", "ches")):
        word = word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
