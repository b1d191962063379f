"""Numbers in generated sentences against what was measured: a number that no measurement supports is flagged.

A generator writes numbers that fit its sentences; it does not measure. So a number counts as supported only if a measurement has this
value, in the unit that stands behind it, rounded as it is written. Numbers within names, such as A4C or L1, are no values.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from .results import Measurement

# To millimetres, square millimetres, millilitres, percent, beats a minute and milliseconds.
_UNITS: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("mm", "毫米", "millimeter", "millimeters", "millimetre", "millimetres"), ("mm", 1.0)),
    **dict.fromkeys(("cm", "厘米", "centimeter", "centimeters", "centimetre", "centimetres"), ("mm", 10.0)),
    **dict.fromkeys(("mm2", "mm²", "平方毫米"), ("mm2", 1.0)),
    **dict.fromkeys(("cm2", "cm²", "平方厘米"), ("mm2", 100.0)),
    **dict.fromkeys(("ml", "毫升", "cm3", "cm³"), ("mL", 1.0)),
    **dict.fromkeys(("%", "percent", "％"), ("%", 1.0)),
    **dict.fromkeys(("bpm", "/min", "次/分"), ("/min", 1.0)),
    **dict.fromkeys(("ms", "毫秒"), ("ms", 1.0)),
}
_UNIT = "|".join(map(re.escape, sorted(_UNITS, key=len, reverse=True)))
# A number with its unit, if it has one of these. Not 4C, 2D, 3rd, B3: these are names.
_QUANTITY = re.compile(
    r"(?:(?<![A-Za-z\d.])|(?<=\d[xX]))(\d+(?:[.,]\d+)?)(?!\d|[.,]\d)(?!(?:[A-Z]|st|nd|rd|th)(?![A-Za-z\d]))"
    rf"(?:\s*((?i:{_UNIT}))(?![A-Za-z]))?"
)
# What stands between numbers that share a unit: "11 x 8 mm", "3 to 5 cm".
_SHARED = re.compile(r"\s*(?:x|×|\*|-|–|~|by|to|and|至|乘)\s*", re.IGNORECASE)


class Quantity(NamedTuple):
    """A number in a text: as it is written, with its unit, "" without one, and where it is."""

    text: str
    number: str
    unit: str
    start: int


def find_quantities(text: str) -> list[Quantity]:
    """The numbers of a text; one without a unit of its own takes that of the next if "x", "to" or the like stands between them."""
    matches = list(_QUANTITY.finditer(text))
    found: list[Quantity] = []
    unit, begin = "", len(text)
    for match in reversed(matches):
        own = (match[2] or "").lower()
        is_shared = not own and _SHARED.fullmatch(text[match.end() : begin])
        unit, begin = own or (unit if is_shared else ""), match.start()
        found.append(Quantity(match[0].strip(), match[1].replace(",", "."), unit, begin))
    return found[::-1]


def supporting_measurement(quantity: Quantity, measurements: Sequence[Measurement]) -> Measurement | None:
    """The first measurement that a number in a text can be; None if there is none.

    A number without a unit can be a ratio or a share alone.
    """
    number, digits = float(quantity.number), len(quantity.number.partition(".")[2])
    unit, factor = _UNITS.get(quantity.unit, ("", 1.0))
    for measurement in measurements:
        alike = measurement.unit == unit if unit else measurement.unit in ("1", "%")
        if alike and abs(measurement.value / factor - number) <= 0.5 * 10**-digits * (1 + 1e-9):
            return measurement
    return None


__all__ = ["Quantity", "find_quantities", "supporting_measurement"]
