"""Whether a generated sentence names what a model knows: a structure, and what was measured of it, in English or Chinese."""

import re
from functools import cache
from pathlib import Path

import yaml

from echocare_hf.anatomy import AnatomyTree

from .results import Measurement

_OTHER_NAMES = Path(__file__).with_name("structure_names.yaml")
_SHORTEST_NAME = 3  # letters; shorter aliases occur within texts by chance, and count in capitals alone

# What measurements are called in texts, by their names before a comma ("long axis, maximum").
_CALLED: dict[str, str] = {
    "circumference": r"circumference|perimeter|\bHC\b|\bAC\b|周长|周径|头围|腹围",
    "ejection fraction": r"ejection fraction|\b(?:LV)?EF\b|射血分数",
    "fractional area change": r"fractional area change|\bFAC\b|面积变化",
    "heart rate": r"(?:heart|pulse|ventricular) rate|\bHR\b|\bbpm\b|beats|心率|心室率",
    "cardiothoracic ratio": r"cardio-?thoracic|\bCTR\b|心胸",
    "end-diastolic area": r"diastol|\bEDA\b|舒张",
    "end-systolic area": r"systol|\bESA\b|收缩",
    "end-diastolic volume": r"diastol|\bEDV\b|舒张",
    "end-systolic volume": r"systol|\bESV\b|收缩",
}
_TELLING = (
    "ejection fraction",
    "fractional area change",
    "heart rate",
    *(name for name in _CALLED if name.startswith("end-")),
)
"""Names that say what they are of: an ejection fraction is the left ventricle's."""
_LENGTHS = ("long axis", "short axis", "width", "height", "distance")
# Lengths that no model measures, and words of those that they do.
_OTHER_LENGTH = re.compile(
    rf"\bdepth\b|\bat (?:about |approximately |ca\.? )?\d|\bdeep\b|thick|\bwall\b|\bfrom the skin\b|深|厚|{_CALLED['circumference']}",
    re.IGNORECASE,
)
_LENGTH = re.compile(
    r"diameter|\bax[ie]s\b|\blength\b|\bwid(?:e|th)\b|\bheight\b|\bBPD\b|\d ?x ?\d|×|径|长|宽|大小|范围", re.IGNORECASE
)


def names(text: str, structure: str) -> bool:
    """Whether a text names a structure: a node of the anatomy tree under its name or an alias, or a label of a model, also by the Chinese
    names and long forms of structure_names.yaml."""
    return _name_pattern(structure).search(text) is not None


def names_measurement(text: str, measurement: Measurement) -> bool:
    """Whether a text names what was measured, so that a number in it can be this measurement's.

    It names the structure, unless the measurement says itself of what it is, such as the ejection fraction; and what was measured of it,
    where this has a name that reports use (circumference, heart rate, ...). A depth or a thickness is no axis.
    """
    name = measurement.name.split(",")[0].strip()
    if name in _CALLED:
        if not re.search(_CALLED[name], text, re.IGNORECASE):
            return False
        if name in _TELLING or measurement.of is None:
            return True
    elif name in _LENGTHS:
        if _OTHER_LENGTH.search(text) and not _LENGTH.search(text):
            return False
    elif measurement.of is None:  # of a regression, by the name that its training gave it
        return names(text, name)
    known = [each for each in (measurement.of, measurement.node) if each]
    return any(names(text, each) for each in known) if known else names(text, name)


@cache
def _name_pattern(structure: str) -> re.Pattern[str]:
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


@cache
def _other_names() -> dict[str, list[str]]:
    return yaml.safe_load(_OTHER_NAMES.read_text(encoding="utf-8"))


__all__ = ["names", "names_measurement"]
