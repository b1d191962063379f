"""What all metrics share: means over what is known, and names that must fit the columns."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def mean_known(values: ArrayLike) -> float:
    """The mean of the values that are not nan; nan if there are none."""
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def check_names(names: Sequence[str], count: int, what: str) -> None:
    """One clear error where names cannot stand for `count` columns.

    Raises:
        ValueError: for another number of names, or one given twice.
    """
    if len(names) != count:
        raise ValueError(f"`{what}` has {len(names)} names for {count} columns: give one a column")
    if len(set(names)) != count:
        twice = sorted({name for name in names if list(names).count(name) > 1})
        raise ValueError(f"`{what}` names {', '.join(twice)} more than once: names must differ")
