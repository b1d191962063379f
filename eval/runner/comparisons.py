"""The first model against the others: tests over trials, by name, and the interval over the cases of the test set."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.append(str(Path(__file__).resolve().parents[2]))
from eval.statistics import Bootstrap, bootstrap, compare_models, holm, paired_bootstrap

from .case_metrics import case_statistic, one_row_a_value
from .store import Trial
from .subgroups import group_names

RESAMPLES = 1_000
"""Of a metric that is no mean over cases, such as AUC or macro-F1; of a mean, ten times as many."""
_OF_CASES = (
    ("nsd", "normalized_surface_dice"),
    ("ap", "surest_iou"),
    ("mre", "mre"),
    ("mse_px", "mre"),
    ("mse_mm", "mre"),
)
"""Beginnings of metrics of a whole set, and the column of cases that is compared in their place."""


def compare_trials(trials: Mapping[str, Sequence[Trial]], metric: str) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Two-sample t-test and Wilcoxon's signed-rank test of the first model against each other, each with Holm's correction over them.

    Args:
        trials: of each model that learns, the first model first; the first and another one are compared on the seeds that both have.
        metric: of the test part.

    Returns:
        A row a comparison, and why others are missing.
    """
    first, *others = trials
    if not others:
        return [], ("there is one model: nothing to compare it with",)
    values = {
        name: {trial.seed: trial.record["test"].get(metric) for trial in found} for name, found in trials.items()
    }
    found, seeds, problems = {}, {}, []
    for other in others:
        common = sorted(values[first].keys() & values[other].keys())
        sides = {name: [values[name][seed] for seed in common] for name in (first, other)}
        if len(common) < 2:
            problems.append(f"two seeds are needed that {first} and {other} both have")
        elif None in (*sides[first], *sides[other]):
            problems.append(f"{metric} of {first} or {other} is not defined in every trial")
        else:
            (found[other],) = compare_models(sides, first)
            seeds[other] = len(common)
    corrected = [holm([getattr(one, test).p for one in found.values()]) for test in ("t_test", "wilcoxon")]
    rows = [
        {
            "metric": metric,
            "model": first,
            "other": other,
            "difference": one.difference,
            "trials": seeds[other],
            "t_test": _test(one.t_test, float(corrected[0][place])),
            "wilcoxon": _test(one.wilcoxon, float(corrected[1][place])),
        }
        for place, (other, one) in enumerate(found.items())
    ]
    return rows, tuple(problems)


def _test(test: Any, corrected: float) -> dict[str, Any]:
    return {"name": test.name, "statistic": test.statistic, "p": test.p, "stars": test.stars, "p_holm": corrected}


def compare_cases(trials: Mapping[str, Sequence[Trial]], metric: str) -> list[dict[str, Any]]:
    """The difference of the first model to each other one in a metric of the test cases, each model's mean over its trials, with the 95 %
    interval of a paired bootstrap over patients, or over cases where none is known.

    Args:
        trials: of each model or floor, the first model first.
        metric: of the test part. Where it is none of single cases, the nearest one that is, see `case_metric`.

    Returns:
        A row a comparison, p also after Holm's correction over them; none where no case tells the metric.
    """
    tables = {name: [_test_cases(trial, metric) for trial in found] for name, found in trials.items()}
    first, *others = tables
    reference = tables[first][0]
    measured = case_metric(metric, reference)
    if measured is None or not len(reference):
        return []
    groups = group_names(reference)
    rows = []
    for other in others:
        sides = [[_aligned(table, reference) for table in tables[name]] for name in (first, other)]
        if measured in reference.columns and all(measured in table.columns for side in sides for table in side):
            means = [np.stack([table[measured].to_numpy(np.float64) for table in side]).mean(0) for side in sides]
            if np.isnan(means[0] - means[1]).all():
                continue
            found = paired_bootstrap(means[0], means[1], groups, resamples=10 * RESAMPLES)
        else:
            found = _resampled(sides, measured, groups)
        if found.units < 2:  # one patient tells nothing of other patients
            found = replace(found, low=math.nan, high=math.nan, p=math.nan)
        rows.append(
            {
                "metric": measured,
                "model": first,
                "other": other,
                "difference": found.value,
                "low": found.low,
                "high": found.high,
                "p": found.p,
                "units": found.units,
                "resamples": found.resamples,
            }
        )
    corrected = holm([row["p"] for row in rows])
    return [row | {"p_holm": float(p)} for row, p in zip(rows, corrected, strict=True)]


def case_metric(metric: str, cases: pd.DataFrame) -> str | None:
    """What of a table of cases stands for a metric of the set: the metric itself, or its nearest relation (overlap for AP); None if
    nothing does."""
    nearest = next((column for start, column in _OF_CASES if metric.startswith(start)), metric)
    unit = "_mm" if metric.endswith(("_mm", "_mm2")) else "_px"
    for name in (metric, nearest, nearest + unit):
        if name in cases.columns and cases[name].notna().any():
            return name
    try:
        value = case_statistic(cases, metric)(np.arange(len(cases)))
    except ValueError:
        return None
    return metric if np.isfinite(value) else None


def _resampled(sides: Sequence[Sequence[pd.DataFrame]], metric: str, groups: Any) -> Bootstrap:
    statistics = [[case_statistic(table, metric) for table in side] for side in sides]

    def difference(rows: Any) -> float:
        means = [np.mean([statistic(rows) for statistic in side]) for side in statistics]
        return float(means[0] - means[1])

    return bootstrap(difference, len(sides[0][0]), groups, RESAMPLES)


def _test_cases(trial: Trial, metric: str) -> pd.DataFrame:
    """The cases that a metric is a mean over: of an error in the only measured value of a patient, the patients."""
    cases = trial.cases()
    test = cases[cases["part"] == "test"].reset_index(drop=True)
    of_patients = metric in ("mae", "bias") and len(trial.record["target_names"]) == 1
    return one_row_a_value(test) if of_patients else test


def _aligned(table: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of the reference.

    Raises:
        ValueError: if the cases are not the same.
    """
    if set(table["case"]) != set(reference["case"]):
        raise ValueError("the trials were measured on different test cases: remove those of another split")
    return table.set_index("case").loc[reference["case"]].reset_index()
