"""What reports call the nodes of the anatomy tree and the labels of models, in English and Chinese."""

import re
from functools import cache
from pathlib import Path

import yaml

from echocare_hf.anatomy import AnatomyTree

_OTHER_NAMES = Path(__file__).with_name("structure_names.yaml")
_SHORTEST_NAME = 3  # letters; shorter aliases occur within texts by chance, and count in capitals alone

# Organs of one character, which occur within other words: only a whole name is one of them.
_OF_ONE_CHARACTER = {
    "肺": "lung",
    "心": "heart",
    "肝": "liver",
    "胆": "gallbladder",
    "脾": "spleen",
    "肾": "kidney",
    "胃": "stomach",
}


@cache
def name_pattern(structure: str) -> re.Pattern[str]:
    """What finds a structure in a text: a node of the anatomy tree under its name or an alias, or a label of a model, also by the Chinese
    names and long forms of structure_names.yaml."""
    tree = AnatomyTree.default()
    known = {structure, structure.replace("_", " ")}
    if structure in tree.ids:
        node = tree[tree.ids.index(structure)]
        known |= {node.name, *node.aliases}
    words = sorted((name for name in known if len(name) >= _SHORTEST_NAME), key=len, reverse=True)
    parts = [rf"(?<![A-Za-z])(?:{'|'.join(map(re.escape, words))})(?:s|es)?(?![A-Za-z])"] if words else []
    others = _other_names().get(structure.strip().lower().replace(" ", "_"), [])
    short = [name for name in (*known, *others) if re.fullmatch("[A-Z]{2,3}", name)]
    parts += [rf"(?-i:(?<![A-Za-z])(?:{'|'.join(short)})(?![A-Za-z]))"] if short else []
    parts += [re.escape(name) for name in others if name not in short]
    return re.compile("|".join(parts) or r"(?!)", re.IGNORECASE)


def names(text: str, structure: str) -> bool:
    """Whether a text names a structure, see `name_pattern`."""
    return name_pattern(structure).search(text) is not None


@cache
def organ_node(organ: str) -> int | None:
    """The node of the anatomy tree that an organ stands for, under any name that the tree or structure_names.yaml has: of "Thyroid left
    lobe", "left thyroid" or "甲状腺左叶"; None if nothing or several organs are named."""
    tree = AnatomyTree.default()
    try:
        return tree.index(_OF_ONE_CHARACTER.get(organ.strip(), organ))
    except ValueError:
        found = [node for node, identifier in enumerate(tree.ids) if names(organ, identifier)]
    deepest = max(found, key=lambda node: tree.levels[node], default=None)
    return deepest if deepest is not None and set(found) <= set(tree.path_nodes(deepest)) else None


@cache
def _other_names() -> dict[str, list[str]]:
    return yaml.safe_load(_OTHER_NAMES.read_text(encoding="utf-8"))


__all__ = ["name_pattern", "names", "organ_node"]
