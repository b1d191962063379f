"""Numbers in generated sentences against what was measured: a number that no measurement supports is flagged.

A generator writes numbers that fit its sentences; it does not measure. So a number counts as supported only if the sentence names what
was measured, and the measurement has this value, in the unit that stands behind it, rounded as it is written. An equal value of something
else does not support it: of many measurements, one has a given value by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from echocare_hf.reports.numbers import Quantity, find_quantities, unit_scale

from .report_names import names_measurement
from .results import PERCENT, RATIO, Measurement

_ROUGH = 0.1
"""A rounded number may be off by this share of the measured value, or by half a millimetre, percent, ...: "1 cm" is not 6 mm."""


@dataclass(frozen=True)
class CheckedNumber:
    """A number of a sentence and what it rests on. Measurements are given by their places in a list.

    Attributes:
        quantity: the number, and where it stands in the sentence.
        measurement: that supports it; None where nothing does.
        same_value: an unsupported number's: a measurement with this value of something that the sentence does not name.
        instead: an unsupported number's: what was measured, in the same unit, of what the sentence names.
    """

    quantity: Quantity
    measurement: int | None = None
    same_value: int | None = None
    instead: tuple[int, ...] = ()


def check_numbers(text: str, measurements: Sequence[Measurement]) -> tuple[CheckedNumber, ...]:
    """The numbers of a sentence against the measurements of its file; each of these supports one number at most.

    Args:
        text: of one sentence.
        measurements: of the file.
    """
    named = [place for place, measurement in enumerate(measurements) if names_measurement(text, measurement)]
    checked, used = [], set()
    for quantity in find_quantities(text):
        fitting = _fitting(quantity, measurements)
        place = next((place for place in fitting if place in named and place not in used), None)
        if place is not None:
            used.add(place)
            checked.append(CheckedNumber(quantity, place))
            continue
        other = next((place for place in fitting if place not in used), None)
        instead = [place for place in named if place not in used and _is_alike(quantity, measurements[place])]
        checked.append(CheckedNumber(quantity, None, other, tuple(instead)))
    return tuple(checked)


def supporting_measurement(quantity: Quantity, measurements: Sequence[Measurement]) -> Measurement | None:
    """The measurement whose value comes nearest to that of a number in a text, as far as the number can be it; None if there is none.

    A number without a unit can be a ratio or a share alone.
    """
    return next((measurements[place] for place in _fitting(quantity, measurements)), None)


def _fitting(quantity: Quantity, measurements: Sequence[Measurement]) -> list[int]:
    """Places of the measurements whose value a number can be, the nearest first."""
    if quantity.value is None:
        return []
    found = []
    for place, measurement in enumerate(measurements):
        value = measurement.value * _scale(measurement)[1]
        off = abs(value - quantity.value)
        if _is_alike(quantity, measurement) and off <= min(quantity.step, max(0.5, _ROUGH * abs(value))) * (1 + 1e-9):
            found.append((off, place))
    return [place for _, place in sorted(found)]


def _is_alike(quantity: Quantity, measurement: Measurement) -> bool:
    unit = _scale(measurement)[0]
    return unit == quantity.unit if quantity.unit else unit in (RATIO, PERCENT)


def _scale(measurement: Measurement) -> tuple[str, float]:
    """The unit that a measurement's own is brought to, and how much of it it is."""
    return unit_scale(measurement.unit.strip("{}")) if measurement.unit != RATIO else (RATIO, 1.0)


__all__ = ["CheckedNumber", "check_numbers", "find_quantities", "supporting_measurement"]
