"""How few labels do, and how fast a model adapts (paper, Fig. 5)."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from echocare_hf.drawing_canvas import lighter
from echocare_hf.drawing_style import SOFT

sys.path.append(str(Path(__file__).resolve().parents[2]))
from eval.statistics import adaptation_steps

from .headlines import direction, lower_is_better
from .plots_chart import WAYS, Axis, Chart, Entry, axis_of
from .plots_results import TaskResults, value_of
from .store import Trial

_SIZE = (720, 460)


def efficiency_chart(results: TaskResults, metric: str) -> Image.Image | None:
    """A metric of the test part against the share of the training labels: mean and standard deviation over the trials, and every trial.

    Args:
        results: of a task.
        metric: its name.

    Returns:
        The chart; None where no model has several shares with a value.
    """
    curves: dict[str, dict[float, NDArray[np.float64]]] = {}
    for name, by_share in results.shares.items():
        values = {share: [value_of(trial, metric) for trial in trials] for share, trials in by_share.items()}
        known = {share: np.array([value for value in found if np.isfinite(value)]) for share, found in values.items()}
        known = {share: found for share, found in known.items() if len(found)}
        if len(known) > 1:
            curves[name] = known
    if not curves:
        return None
    shares = sorted({100 * share for curve in curves.values() for share in curve})
    every = [
        bound
        for curve in curves.values()
        for found in curve.values()
        for bound in (*found, found.mean() - _deviation(found), found.mean() + _deviation(found))
    ]
    legend = [
        Entry(f"{name} (n = {_counts([len(found) for found in curve.values()])})", results.colours[name])
        for name, curve in curves.items()
    ]
    chart = Chart(
        Axis(0, 104, tuple((share, f"{share:g}") for share in shares), "training labels (%)"),
        axis_of(every, f"{metric}, test part{WAYS[direction(metric)]}"),
        title=f"{results.key}: label efficiency",
        legend=[
            *legend,
            Entry("mean ± standard deviation over n trials", SOFT, "band"),
        ],
        size=_SIZE,
    )
    for name, curve in curves.items():
        places = np.array([100 * share for share in curve])
        means = np.array([found.mean() for found in curve.values()])
        spreads = np.array([_deviation(found) for found in curve.values()])
        chart.band(places, means - spreads, means + spreads, results.colours[name])
    for name, curve in curves.items():
        places = np.array([100 * share for share in curve])
        for place, found in zip(places, curve.values(), strict=True):
            chart.points([(place, value) for value in found], lighter(results.colours[name], 0.45), 2.2)
        means = [float(found.mean()) for found in curve.values()]
        chart.line(np.stack([places, means], axis=1), results.colours[name])
        chart.points(np.stack([places, means], axis=1), results.colours[name], 4)
    return chart.picture()


def adaptation_chart(results: TaskResults) -> Image.Image | None:
    """The validation metric that chose the weights over the steps: every trial, their mean where all were measured, and a ring where a
    trial first came within 1 % of its best.

    Args:
        results: of a task.

    Returns:
        The chart; None without a history.
    """
    metric = next(
        (str(trial.record["best_metric"]) for trial in results.trials if trial.record.get("best_metric")), None
    )
    if metric is None:
        return None
    lower = lower_is_better(metric)
    histories = {
        name: found
        for name, trials in results.models.items()
        if (found := [(history, trial) for trial in trials if len(history := _history(trial, metric))])
    }
    if not histories:
        return None
    points = np.concatenate([history for found in histories.values() for history, _ in found])
    legend, rings = [], {}
    for name, found in histories.items():
        steps = [adaptation_steps(trial.record, metric, lower) for _, trial in found]
        rings[name] = [step for step in steps if step is not None]
        within = f"within 1 % after {np.median(rings[name]):,.0f} steps" if rings[name] else "never measured"
        legend.append(Entry(f"{name}: {within}{' (median)' if len(rings[name]) > 1 else ''}", results.colours[name]))
    chart = Chart(
        axis_of([0, *points[:, 0]], "training steps"),
        axis_of(points[:, 1], f"{metric}, validation part{', less is better' if lower else ''}"),
        title=f"{results.key}: adaptation",
        legend=[*legend, Entry("first within 1 % of its best", SOFT, "ring")],
        size=_SIZE,
    )
    for name, found in histories.items():
        for history, _ in found:
            chart.line(history, lighter(results.colours[name], 0.6 if len(found) > 1 else 0), 1.4)
    for name, found in histories.items():
        chart.line(_mean_curve([history for history, _ in found]), results.colours[name], 2.6)
        for (history, _), step in zip(found, rings[name], strict=False):
            chart.points(history[history[:, 0] == step], results.colours[name], 5, ring=True)
    return chart.picture()


def _history(trial: Trial, metric: str) -> NDArray[np.float64]:
    """(n, 2): steps and values that are finite."""
    entries = [(entry.get("step"), entry.get(f"eval_{metric}")) for entry in trial.record.get("history") or ()]
    known = [(step, value) for step, value in entries if step is not None and value is not None and np.isfinite(value)]
    return np.array(known, dtype=np.float64).reshape(-1, 2)


def _mean_curve(histories: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean over trials at the steps at which all were measured."""
    if len(histories) == 1:
        return histories[0]
    tables = [dict(history) for history in histories]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    return np.array([(step, np.mean([table[step] for table in tables])) for step in steps]).reshape(-1, 2)


def _deviation(values: NDArray[np.float64]) -> float:
    """Sample standard deviation, 0 of one value."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _counts(counts: Sequence[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
