"""ROC curves of the test part, a panel a class."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from echocare_hf.drawing_canvas import lighter
from echocare_hf.drawing_sheet import contact_sheet
from echocare_hf.drawing_style import SOFT, Colour
from echocare_hf.metrics.roc import auc_with_interval, sensitivity_specificity, youden_cutoff

from .case_metrics import scores_and_labels
from .plots_chart import Chart, Entry, unit_axis
from .plots_results import TaskResults, class_names, median_trial

_SIZE = (560, 540)


class OneClass(NamedTuple):
    """A class against the rest in one trial: scores and whether it is there, of the validation and test cases of which that is known."""

    validation: tuple[NDArray[np.float64], NDArray[np.bool_]]
    test: tuple[NDArray[np.float64], NDArray[np.bool_]]


def roc_curve(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """(n, 2): false and true positive rate at every cut-off, from (0, 0) to (1, 1); cases of one score enter together.

    Args:
        scores (`array` of shape `(n,)`): finite.
        labels (`array` of shape `(n,)`): 1 or True for positive cases, of which there are some, as of the others.
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    order = np.argsort(-values, kind="stable")
    last = np.append(np.diff(values[order]) != 0, True)
    hits, alarms = np.cumsum(positive[order])[last], np.cumsum(~positive[order])[last]
    rates = np.stack([alarms / alarms[-1], hits / hits[-1]], axis=1)
    return np.concatenate([[(0.0, 0.0)], rates])


def roc_sheet(results: TaskResults) -> Image.Image | None:
    """A panel a class with the curves of all models; None where no model says probabilities."""
    tables = {name: [trial.cases() for trial in trials] for name, trials in results.models.items()}
    tables = {name: found for name, found in tables.items() if "probability_0" in found[0].columns}
    if not tables:
        return None
    first = next(iter(tables))
    names = class_names(results.models[first][0], tables[first][0])
    binary = len(names) == 2 and "label" in tables[first][0].columns
    panels = []
    for index in (1,) if binary else range(len(names)):
        panel = roc_panel(
            {name: [one_class(cases, index) for cases in found] for name, found in tables.items()},
            names[index] + (f" against {names[0]}" if binary else " against the rest"),
            results.colours,
        )
        if panel is not None:
            panels.append(panel)
    if not panels:
        return None
    return contact_sheet(
        panels,
        ["" for _ in panels],
        title=f"{results.key}: receiver operating characteristic, test part",
        subtitle="Strong: the trial whose area is the median one, with DeLong's 95 % interval (over cases). Faint: the other trials.",
        footer="Dot: the cut-off of Youden chosen on the validation part of that trial.",
        columns=min(3, len(panels)),
    )


def roc_panel(models: Mapping[str, list[OneClass]], title: str, colours: Mapping[str, Colour]) -> Image.Image | None:
    """The curves of one class; None if the test part has no case of the class, or nothing else.

    Args:
        models: by model, a trial each.
        title: what is told from what.
        colours: by model.
    """
    drawn = {name: [trial for trial in trials if _both_kinds(trial.test[1])] for name, trials in models.items()}
    drawn = {name: trials for name, trials in drawn.items() if trials}
    if not drawn:
        return None
    chosen, legend = {}, []
    for name, trials in drawn.items():
        areas = [auc_with_interval(*trial.test) for trial in trials]
        chosen[name] = median_trial([], [area.auc for area in areas])
        area = areas[chosen[name]]
        interval = f" ({area.low:.3f} to {area.high:.3f})" if np.isfinite(area.low) else ""
        mean = f", mean of {len(areas)}: {np.mean([area.auc for area in areas]):.3f}" if len(areas) > 1 else ""
        legend.append(Entry(f"{name}: AUC {area.auc:.3f}{interval}{mean}", colours[name]))
    chart = Chart(unit_axis("1 - specificity"), unit_axis("sensitivity"), title=title, legend=legend, size=_SIZE)
    chart.line([(0, 0), (1, 1)], SOFT, 1.2, dashed=True)
    for name, trials in drawn.items():
        for index, trial in enumerate(trials):
            if index != chosen[name]:
                chart.line(roc_curve(*trial.test), lighter(colours[name], 0.65), 1.1)
    for name, trials in drawn.items():
        chart.line(roc_curve(*trials[chosen[name]].test), colours[name], 2.4)
    for name, trials in drawn.items():
        chart.points([cutoff_point(trials[chosen[name]])], colours[name], 6)
    return chart.picture()


def cutoff_point(trial: OneClass) -> tuple[float, float]:
    """1 - specificity and sensitivity of the test part at Youden's cut-off of the validation part; nan without both kinds there."""
    if not _both_kinds(trial.validation[1]):
        return float("nan"), float("nan")
    at = sensitivity_specificity(*trial.test, youden_cutoff(*trial.validation).cutoff)
    return 1 - at["specificity"], at["sensitivity"]


def one_class(cases: pd.DataFrame, index: int) -> OneClass:
    """A class of a trial's table against the rest; cases whose label is not known or whose probability is not finite are left out."""
    probabilities, labels = scores_and_labels(cases, "a receiver operating characteristic")
    truth = labels == index if labels.ndim == 1 else labels[:, index] == 1
    known = np.isfinite(probabilities[:, index]) & ((labels if labels.ndim == 1 else labels[:, index]) >= 0)
    parts = [known & (cases["part"] == part).to_numpy() for part in ("validation", "test")]
    validation, test = ((probabilities[part, index], truth[part]) for part in parts)
    return OneClass(validation, test)


def _both_kinds(positive: NDArray[np.bool_]) -> bool:
    return bool(positive.any() and not positive.all())
