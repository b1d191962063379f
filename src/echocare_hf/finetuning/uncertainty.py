"""How far a metric of two models on the same samples can be trusted to tell them apart."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from echocare_hf.data.labelled import Sample

RESAMPLES = 100
FEWEST = 5  # samples, below which draws say nothing

Metric = Callable[[Sequence[Any], Sequence[Sample]], float]


def difference_error(metric: Metric, first: Sequence[Any], second: Sequence[Any], samples: Sequence[Sample]) -> float:
    """The standard error of the difference between two models, by the bootstrap: both are measured on the same drawn samples.

    Samples are drawn one by one and, where they have groups (patients, clips), whole groups at a time; the larger error counts, since few
    groups hardly differ between draws.

    Args:
        metric: of predictions and their samples.
        first: predictions of one model, one a sample.
        second: those of the other.
        samples: what was predicted.

    Returns:
        In the unit of the metric; NaN where there are fewer than five samples, or the metric is defined for less than half of the draws.

    Source: Efron & Tibshirani 1993, An introduction to the bootstrap, chapter 6; for groups, Field & Welsh 2007, J. R. Stat. Soc. B 69.
    """
    if len(samples) < FEWEST:
        return np.nan
    groups: dict[str, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        groups[sample.name if sample.group is None else sample.group].append(row)
    ways = [[[row] for row in range(len(samples))]]
    if len(groups) < len(samples):
        ways.append(list(groups.values()))
    errors = [_spread(metric, first, second, samples, units) for units in ways]
    return max((error for error in errors if not np.isnan(error)), default=np.nan)


def _spread(
    metric: Metric, first: Sequence[Any], second: Sequence[Any], samples: Sequence[Sample], units: list[list[int]]
) -> float:
    random = np.random.default_rng(0)
    differences = []
    for _ in range(RESAMPLES):
        rows = [row for unit in random.integers(len(units), size=len(units)) for row in units[unit]]
        drawn = [samples[row] for row in rows]
        differences.append(metric([first[row] for row in rows], drawn) - metric([second[row] for row in rows], drawn))
    known = np.array(differences)[np.isfinite(differences)]
    return float(known.std(ddof=1)) if 2 * len(known) >= RESAMPLES else np.nan


__all__ = ["difference_error"]
