"""Whether a sentence of a report speaks of another part of the body than the one that was examined.

    other_organs("Thyroid nodule.", "lung")                  # ("Thyroid",)
    other_organs("Thyroid nodule.", "carotid artery")        # (), both are of the neck

A findings head knows nothing of it: it looks for the findings of the organ that it was told.
"""

import re
from functools import cache

from echocare_hf.anatomy import AnatomyTree

from .structure_names import name_pattern, organ_node

# Parts of the body that one report speaks of together: top nodes of the anatomy tree, or organs of theirs that stand apart.
_APART = ("breast",)
_TOGETHER = (("abdomen", "pelvis"), ("pelvis", "fetus"))
_WHOLE_BODY = ("fetus",)  # has all the others
# Nodes whose names are everyday words too ("on the other hand"), or are of no place.
_NOT_LOOKED_FOR = {
    *("back", "abdomen", "thorax", "pelvis", "hand_wrist", "finger_joint", "ankle_foot", "eye"),
    *("other", "skin", "soft_tissue", "phantom"),
}
_ELSE = re.compile(r"[a-z]+[- ]like\b|\bheart[- ]?(?:rate|beat)s?\b|心率|心律", re.IGNORECASE)


def other_organs(text: str, organ: str | None) -> tuple[str, ...]:
    """The names, as the text writes them, of organs in other parts of the body than the examined one.

    A sentence that also names something of the examined part speaks of both, as in "the lung above the liver": nothing is found in it.
    Parts are the top nodes of the anatomy tree; abdomen and pelvis, and pelvis and fetus, are reported together, the breast stands apart
    from lung and heart, and a fetus has organs of all parts. Names are English and Chinese.

    Args:
        text (`str`): a sentence.
        organ (`str`, *optional*): examined, in any form that the anatomy tree or structure_names.yaml knows; for another one, or none,
            nothing is found.
    """
    node = organ_node(organ) if organ and organ.strip() else None
    if node is None:
        return ()
    own = _part(node)
    if own in (*_WHOLE_BODY, "other"):
        return ()
    beside = {own, *(part for pair in _TOGETHER if own in pair for part in pair)}
    text = _ELSE.sub(lambda found: " " * len(found.group()), text)
    elsewhere = []
    for place, pattern in _patterns():
        for found in pattern.finditer(text):
            if _part(place) in beside:
                return ()
            elsewhere.append((found.start(), -found.end(), found.group()))
    kept: dict[str, None] = {}
    end = 0
    for start, stop, name in sorted(elsewhere):  # of names within one another the longest
        if start >= end:
            kept[name] = None
            end = -stop
    return tuple(kept)


@cache
def _part(node: int) -> str:
    """The part of the body that a node belongs to."""
    tree = AnatomyTree.default()
    path = [tree.ids[step] for step in tree.path_nodes(node)]
    return next((name for name in path if name in _APART), path[0])


@cache
def _patterns() -> tuple[tuple[int, re.Pattern[str]], ...]:
    """Those of all nodes that are looked for, by node."""
    ids = AnatomyTree.default().ids
    return tuple((node, name_pattern(name)) for node, name in enumerate(ids) if name not in _NOT_LOOKED_FOR)


__all__ = ["other_organs"]
