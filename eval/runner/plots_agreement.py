"""Bland-Altman plots of measured values: a row a target, a panel a model."""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from echocare_hf.drawing_canvas import lighter
from echocare_hf.drawing_sheet import contact_sheet
from echocare_hf.drawing_style import INK, SOFT, VERMILLION, Colour

sys.path.append(str(Path(__file__).resolve().parents[2]))
from eval.statistics import bland_altman

from .plots_chart import Axis, Chart, axis_of
from .plots_results import TaskResults, median_trial, unit_of

Pairs = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Predictions and targets of the test cases that have both."""


def agreement_sheet(results: TaskResults) -> Image.Image | None:
    """A section a target, with a panel a model; None where nothing is measured."""
    panels, captions, sections = [], [], []
    for target in targets_of(results):
        pairs = {}
        for name, trials in results.models.items():
            found = [pairs_of(trial.cases(), target) for trial in trials]
            if any(len(predictions) for predictions, _ in found):
                errors = [np.abs(predictions - true).mean() if len(true) else np.nan for predictions, true in found]
                pairs[name] = (found[median_trial(trials, errors)], len(found))
        unit = unit_of(results.trials[0], target)
        axes = agreement_axes({name: found for name, (found, _) in pairs.items()}, unit)
        for name, (found, count) in pairs.items():
            picture, caption = agreement_panel(*found, axes, results.colours[name])
            panels.append(picture)
            captions.append(f"{name}{f', median of {count} trials' if count > 1 else ''}\n{caption}")
            sections.append(f"{target}{unit}")
    if not panels:
        return None
    return contact_sheet(
        panels,
        captions,
        sections=sections,
        title=f"{results.key}: agreement with the reference (Bland-Altman), test part",
        subtitle="Line: bias; dashed: 95 % limits of agreement; bands: their 95 % confidence intervals (Student's t, cases independent).",
        footer="Of several trials the one with the median mean absolute error.",
        columns=min(3, max(sections.count(section) for section in sections)),
    )


def targets_of(results: TaskResults) -> list[str]:
    """Names of what is measured, of the first trial."""
    columns = list(results.trials[0].cases().columns)
    names = [column.removeprefix("target_") for column in columns if column.startswith("target_")]
    return [name for name in names if f"prediction_{name}" in columns]


def pairs_of(cases: pd.DataFrame, target: str) -> Pairs:
    """Predictions and targets of a table of cases."""
    chosen = cases[cases["part"] == "test"]
    found, true = (chosen[f"{kind}_{target}"].to_numpy(np.float64) for kind in ("prediction", "target"))
    known = np.isfinite(found) & np.isfinite(true)
    return found[known], true[known]


def agreement_axes(models: Mapping[str, Pairs], unit: str) -> tuple[Axis, Axis]:
    """Axes that all panels of a target share, for the eye to compare them: wide enough for every case, limit and interval."""
    means, differences = [], [0.0]
    for predictions, true in models.values():
        means += ((predictions + true) / 2).tolist()
        differences += (predictions - true).tolist()
        differences += [bound for bounds in _bounds(predictions, true).values() for bound in bounds]
    return (
        axis_of(means, f"mean of prediction and reference{unit}", margin=0.02),
        axis_of(differences, f"prediction minus reference{unit}", margin=0.02),
    )


def agreement_panel(
    predictions: NDArray[np.float64], true: NDArray[np.float64], axes: tuple[Axis, Axis], colour: Colour
) -> tuple[Image.Image, str]:
    """Differences over means, with bias and limits of agreement; and a caption that states them.

    Args:
        predictions, true: of the cases, `(n,)`, at least one.
        axes: see `agreement_axes`.
        colour: of the model.
    """
    found, bounds = bland_altman(predictions, true), _bounds(predictions, true)
    chart = Chart(*axes)
    ends = (axes[0].low, axes[0].high)
    for key, (low, high) in bounds.items():
        chart.band(ends, (low, low), (high, high), colour if key == "bias" else VERMILLION, 0.16)
    chart.line([(ends[0], 0), (ends[1], 0)], SOFT, 1.2)
    chart.points(np.stack([(predictions + true) / 2, predictions - true], axis=1), lighter(colour, 0.25), 3.4)
    for key in ("bias", "lower_limit", "upper_limit"):
        chart.line([(ends[0], found[key]), (ends[1], found[key])], INK, 2, dashed=key != "bias")
    caption = f"bias {found['bias']:.3g}"
    if bounds:
        caption += f" ({found['bias_low']:.3g} to {found['bias_high']:.3g})"
        caption += f", limits {found['lower_limit']:.3g} to {found['upper_limit']:.3g}"
    return chart.picture(), f"{caption}, n = {found['count']:.0f}"


def _bounds(predictions: NDArray[np.float64], true: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
    """95 % confidence intervals of the bias and of both limits; empty for fewer than two cases.

    Source: Bland, Altman 1999, Measuring agreement in method comparison studies, section 2.1 (Student's t with n - 1).
    """
    from scipy.stats import t

    if len(predictions) < 2:
        return {}
    found = bland_altman(predictions, true)
    reach = float(t.ppf(0.975, found["count"] - 1)) * found["limit_standard_error"]
    limits = {key: (found[key] - reach, found[key] + reach) for key in ("lower_limit", "upper_limit")}
    return {"bias": (found["bias_low"], found["bias_high"])} | limits
