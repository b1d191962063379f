"""From a source's words to nodes of the anatomy tree, with a record of every decision."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Literal, NamedTuple

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.anatomy.tree import UnknownAnatomyError
from echocare_hf.data.labelled.table import is_blank, need_cells, read_table, text

How = Literal["alias", "exact", "contained", "close", "unmapped"]

CLOSE = 0.88
"""Least similarity (difflib ratio, 0 to 1) at which a misspelt text is taken for a name."""

_FUZZY_PLACES = ("node", "view", "organ")
_SHORTEST = 4  # letters of a name that may be found inside a longer text
_NEGATIONS = frozenset(("no", "non", "not", "without"))
_NO_NAMES = frozenset(("test", "tests"))  # of a part of a data set; one letter away from "testis"
_REST = "other"  # the region of what is none of the others; "other" in the words of a source is seldom meant so


class Mapped(NamedTuple):
    """What a text was taken for: the id of a node or None, and how it was found."""

    node: str | None
    how: How


@dataclass
class LabelMapper:
    """Maps texts to nodes.

    A text is looked up as an alias of the user's, then by `AnatomyTree.index` (name, alias, code, path; spelling does not matter),
    then without what it has in brackets. Texts that state anatomy (node, view, organ) and names of folders are also searched for the
    longest name of a node inside them. A misspelt name is known in all texts but names of folders. A text that could mean two nodes means
    none, and neither does one with "no", "non", "not" or "without" before a name, nor "other", except where a node is stated.

    Attributes:
        tree: the anatomy tree.
        aliases: the user's own, text in lower case to id.
        counts: how many files each `(where, text)` was looked up for, with what it was mapped to.
    """

    tree: AnatomyTree
    aliases: Mapping[str, str] = field(default_factory=dict)
    counts: Counter[tuple[str, str, Mapped]] = field(default_factory=Counter)
    _cache: dict[tuple[str, str], Mapped] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names: dict[str, set[str]] = {}
        for node in self.tree:
            for name in (node.name, re.sub(r"\(.*?\)", " ", node.name), *node.aliases):
                names.setdefault(_words(name), set()).add(node.id)
        self._names = {name: min(ids) for name, ids in names.items() if len(ids) == 1 and len(name) >= _SHORTEST}

    def map(self, texts: Iterable[tuple[str, str]]) -> str | None:
        """The node of a file: of its texts the first that can be mapped; one that lies below it in the tree goes before it.

        Args:
            texts: `(where, text)` of `Facts`.

        Returns:
            The id of a node, or None.
        """
        best: str | None = None
        for where, given in texts:
            if best is not None and where == "folder":
                break
            mapped = self.look_up(where, given)
            self.counts[where, given, mapped] += 1
            if mapped.node is None:
                continue
            below = best is not None and self.tree.ancestor_matrix[self.tree.index(mapped.node), self.tree.index(best)]
            if best is None or below:
                best = mapped.node
            if where == "node":
                break
        return best

    def look_up(self, where: str, given: str) -> Mapped:
        """The node of one text."""
        key = (where, given)
        if key not in self._cache:
            self._cache[key] = self._find(where, given)
        return self._cache[key]

    def _find(self, where: str, given: str) -> Mapped:
        alias = self.aliases.get(given.strip().lower())
        if alias is not None:
            return Mapped(alias or None, "alias")
        for attempt in (given, re.sub(r"[(\[].*?[)\]]", " ", given)):
            try:
                node = self.tree.ids[self.tree.index(attempt)]
            except UnknownAnatomyError:
                continue
            return Mapped(node, "exact") if node != _REST or where == "node" else Mapped(None, "unmapped")
        words = _words(given)
        if words in _NO_NAMES or _NEGATIONS & set(words.split()):
            return Mapped(None, "unmapped")
        if where in (*_FUZZY_PLACES, "folder") and (inside := self._inside(words)) is not None:
            return Mapped(inside, "contained")
        if where in (*_FUZZY_PLACES, "label") and (close := self._close(words)) is not None:
            return Mapped(close, "close")
        return Mapped(None, "unmapped")

    def _inside(self, words: str) -> str | None:
        """The node with the longest name among those that stand in a text; None if names of different branches do."""
        found = sorted(
            ((len(name), node) for name, node in self._names.items() if f" {name} " in f" {words} "), reverse=True
        )
        if not found:
            return None
        best = self.tree.index(found[0][1])
        others = [self.tree.index(node) for _, node in found]
        related = self.tree.ancestor_matrix[best] | self.tree.descendant_matrix[best]
        return self.tree.ids[best] if all(related[other] for other in others) else None

    def _close(self, words: str) -> str | None:
        ratios = [(SequenceMatcher(None, words, name).ratio(), node) for name, node in self._names.items()]
        best = max(ratios, default=(0.0, ""))
        rivals = {node for ratio, node in ratios if ratio >= CLOSE}
        return best[1] if best[0] >= CLOSE and len(rivals) == 1 else None

    def report(self) -> list[dict[str, str | int]]:
        """A row a text: where it stood, the text, the node (empty if unmapped), how it was found, for how many files."""
        return [
            {"where": where, "text": given, "node": mapped.node or "", "how": mapped.how, "files": count}
            for (where, given, mapped), count in sorted(self.counts.items(), key=lambda entry: str(entry[0]))
        ]


def read_aliases(path: Path, tree: AnatomyTree) -> dict[str, str]:
    """The user's aliases: a table with the columns `text` and `node`; an empty node says that the text names none.

    Raises:
        ValueError: if a column or a cell is missing or a node is not in the tree.
    """
    table = read_table(path)
    text_column, node_column = table.find(("text",)), table.find(("node",))
    if text_column is None or node_column is None:
        raise ValueError(f"{path}: needs the columns text and node, has {', '.join(table.columns)}")
    need_cells(table, (text_column, node_column))
    aliases = {}
    for row in table.rows:
        node = "" if is_blank(row[node_column]) else tree.ids[tree.index(text(row[node_column]))]
        aliases[text(row[text_column]).lower()] = node
    return aliases


def _words(given: str) -> str:
    """Lower-case words parted by single spaces."""
    return " ".join(re.findall(r"[^\W_]+", given.lower()))
