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
    others = _other_names().get(structure.strip().lower().replace(" ", "_"), [])
    capitals = [name for name in (*known, *others) if re.fullmatch("[A-Z][A-Z0-9]+", name)]
    words = sorted(
        (name for name in known if len(name) >= _SHORTEST_NAME and name not in capitals), key=len, reverse=True
    )
    words += [f"{word[:-1]}ie" for word in words if word.endswith("y")]  # with the s of its plural
    parts = [rf"(?<![A-Za-z])(?:{'|'.join(map(re.escape, words))})(?:s|es)?(?![A-Za-z])"] if words else []
    parts += [rf"(?-i:(?<![A-Za-z])(?:{'|'.join(capitals)})(?![A-Za-z0-9]))"] if capitals else []
    parts += [re.escape(name) for name in others if name not in capitals]
    return re.compile("|".join(parts) or r"(?!)", re.IGNORECASE)


def names(text: str, structure: str) -> bool:
    """Whether a text names a structure, see `name_pattern`."""
    return name_pattern(structure).search(text) is not None


def organ_node(organ: str) -> int | None:
    """The node of the anatomy tree that an organ stands for, see `organ_nodes`; None if nothing or several organs are named."""
    found = organ_nodes(organ)
    return found[0] if len(found) == 1 else None


@cache
def organ_nodes(organ: str) -> tuple[int, ...]:
    """The nodes of the anatomy tree that a text names as organs, under any name that the tree or structure_names.yaml has: of "Thyroid
    left lobe" or "甲状腺左叶" the lobe, of "kidneys and bladder" both; of a node and its parts, the parts."""
    tree = AnatomyTree.default()
    try:
        return (tree.index(_OF_ONE_CHARACTER.get(organ.strip(), organ)),)
    except ValueError:
        found = [node for node, identifier in enumerate(tree.ids) if names(organ, identifier)]
    above = {step for node in found for step in tree.path_nodes(node)[:-1]}
    return tuple(node for node in found if node not in above)


@cache
def _other_names() -> dict[str, list[str]]:
    return yaml.safe_load(_OTHER_NAMES.read_text(encoding="utf-8"))


__all__ = ["name_pattern", "names", "organ_node", "organ_nodes"]
