"""Stored sample values to 8-bit grey: windows, full-range scaling, and what counts as already 8-bit.

All functions are pure: arrays in, uint8 arrays of the same shape out.
"""

from typing import Literal, NamedTuple

import numpy as np

WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


def window_to_uint8(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Apply a DICOM window to 0..255 (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: any real dtype, any shape, in the units of the window (after the modality transform).
        centre: Window Center, in the same units.
        width: Window Width, at least 1 for LINEAR, above 0 for the others.
        function: VOI LUT Function: "LINEAR", "LINEAR_EXACT" or "SIGMOID".

    Returns:
        uint8, the shape of `values`, 0..255.

    Raises:
        ValueError: for a width or a function that the standard does not allow.
    """
    values = values.astype(np.float64)
    if function == "LINEAR" and width == 1:  # a threshold
        ramp = (values > centre - 0.5).astype(np.float64)
    elif function == "LINEAR" and width > 1:
        ramp = (values - (centre - 0.5)) / (width - 1) + 0.5
    elif function == "LINEAR_EXACT" and width > 0:
        ramp = (values - centre) / width + 0.5
    elif function == "SIGMOID" and width > 0:
        ramp = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    else:
        raise ValueError(f"window width {width} is not allowed for VOI LUT function {function}")
    return _round_to_uint8(255 * np.clip(ramp, 0, 1))


def range_to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map `low..high` linearly to 0..255, clamped; a range without extent gives 0 everywhere.

    Args:
        values: any real dtype, any shape.
        low: the value that becomes 0.
        high: the value that becomes 255.

    Returns:
        uint8, the shape of `values`.
    """
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return _round_to_uint8(np.clip(scaled, 0, 255))


class ValueRange(NamedTuple):
    """Smallest and largest sample of a file, and whether all of them are whole numbers."""

    low: float
    high: float
    is_whole: bool

    def joined(self, other: "ValueRange | None") -> "ValueRange":
        """The range of both."""
        if other is None:
            return self
        return ValueRange(min(self.low, other.low), max(self.high, other.high), self.is_whole and other.is_whole)


def value_range(values: np.ndarray) -> ValueRange:
    """The range of `values`: any real dtype without NaN or infinity, any shape, at least one value."""
    is_whole = np.issubdtype(values.dtype, np.integer) or bool(np.all(values == np.rint(values)))
    return ValueRange(float(values.min()), float(values.max()), is_whole)


def volume_to_uint8(values: np.ndarray, over: ValueRange | None = None) -> np.ndarray:
    """Map the samples of a file that carries no window to 0..255.

    Values that are whole numbers within 0..255 are kept as they are (ultrasound stored as float or int16 often is
    that, CAMUS for one); anything else is scaled linearly, its smallest value to 0 and its largest to 255, over all
    frames together so that brightness does not flicker.

    Args:
        values: any real dtype without NaN or infinity, any shape, at least one value.
        over: range of all frames of the file, where `values` are only some of them; by default that of `values`.

    Returns:
        uint8, the shape of `values`.
    """
    if values.dtype == np.uint8:
        return values
    low, high, is_whole = over or value_range(values)
    if low >= 0 and high <= 255 and is_whole:
        return values.astype(np.uint8)
    return range_to_uint8(values, low, high)


def grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    """Repeat grey `(..., height, width)` into `(..., height, width, 3)`."""
    rgb = np.empty((*grey.shape, 3), grey.dtype)
    for channel in range(3):  # less than half the time of `np.repeat`
        rgb[..., channel] = grey
    return rgb


def _round_to_uint8(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.uint8)
