"""Whether a sentence of a report speaks of another part of the body than the one that was examined.

    other_organs("Thyroid nodule.", "lung")                  # ("Thyroid",)
    other_organs("Thyroid nodule.", "carotid artery")        # (), both are of the neck

A findings head knows nothing of it: it looks for the findings of the organ that it was told.
"""

import re
from functools import cache

from echocare_hf.anatomy import AnatomyTree

from .structure_names import name_pattern, organ_nodes

# Parts of the body that one report speaks of together: top nodes of the anatomy tree, or organs of theirs that stand apart.
_APART = ("breast",)
_TOGETHER = (("abdomen", "pelvis"), ("pelvis", "fetus"))
_WHOLE_BODY = ("fetus",)  # has all the others
# What is seen beside an organ, or through it, though it is of another part.
_BESIDE = {
    "heart": ("liver", "inferior_vena_cava", "abdominal_aorta"),
    "lung": ("liver", "spleen", "spine"),
    "abdomen": ("pleura",),
    "pelvis": ("pleura",),
    "spine": ("kidney",),
    "carotid_artery": ("thoracic_aorta",),
    "brachial_plexus": ("lung", "upper_limb"),
    "femoral_artery": ("abdominal_aorta",),
    "femoral_vein": ("inferior_vena_cava",),
}
# Nodes whose names do not tell a part: regions, everyday words ("on the other hand"), and names that other organs' parts have too
# ("AC" joint, "CCA" of the bile ducts, "AP2" as a diameter, 内膜 of vessels).
_NOT_TELLING = {
    *("abdomen", "back", "head_neck", "lower_limb", "pelvis", "thorax", "upper_limb", "other"),
    *("ankle_foot", "eye", "finger_joint", "hand_wrist", "phantom", "skin", "soft_tissue"),
    *("common_carotid_artery", "endometrium", "thyroid_isthmus"),
    *("fetal_abdomen", "fetal_abdominal_circumference", "fetal_femur", "fetal_humerus"),
    *("heart_a2c", "heart_a3c", "heart_a4c"),
}
_ELSE = re.compile(
    r"(?<![a-z])[a-z]{1,20}[- ]like\b|\bheart[- ]?(?:rate|beat)s?\b|心率|心律|[左右]乳(?:突|头肌)", re.IGNORECASE
)


def other_organs(text: str, organ: str | None) -> tuple[str, ...]:
    """The names, as the text writes them, of organs in other parts of the body than the examined one.

    A sentence that also names something of the examined part speaks of both, as in "the thyroid in front of the spine": nothing is found
    in it. Parts are the top nodes of the anatomy tree; abdomen and pelvis, and pelvis and fetus, are reported together, the breast stands
    apart from lung and heart, a fetus has organs of all parts, and what is seen beside an organ, as the liver below the lung, is none of
    another part. Names are English and Chinese.

    Args:
        text (`str`): a sentence.
        organ (`str`, *optional*): examined, one or several, under names that the anatomy tree or structure_names.yaml has; for another
            one, or none, nothing is found.
    """
    nodes = organ_nodes(organ) if organ and organ.strip() else ()
    own = {_part(node) for node in nodes}
    if not own or own & {*_WHOLE_BODY, "other"}:
        return ()
    own |= {part for pair in _TOGETHER if own & set(pair) for part in pair}
    beside = {near for node in nodes for name in _path(node) for near in _BESIDE.get(name, ())}
    text = _ELSE.sub(lambda found: " " * len(found.group()), text)
    elsewhere = []
    for node, name in enumerate(AnatomyTree.default().ids):
        for found in name_pattern(name).finditer(text):
            if _part(node) in own:
                return ()
            if name not in _NOT_TELLING and not beside & set(_path(node)):
                elsewhere.append((found.start(), -found.end(), found.group()))
    kept: dict[str, None] = {}
    end = 0
    for start, stop, words in sorted(elsewhere):  # of names within one another the longest
        if start >= end:
            kept[words] = None
            end = -stop
    return tuple(kept)


def _part(node: int) -> str:
    """The part of the body that a node belongs to."""
    return next((name for name in _path(node) if name in _APART), _path(node)[0])


@cache
def _path(node: int) -> tuple[str, ...]:
    tree = AnatomyTree.default()
    return tuple(tree.ids[step] for step in tree.path_nodes(node))


__all__ = ["other_organs"]
