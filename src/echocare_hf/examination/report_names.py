"""Whether a generated sentence names what was measured, in English or Chinese."""

import re

from echocare_hf.reports.structure_names import names

from .results import Measurement

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


__all__ = ["names_measurement"]
