"""Box plots of metrics over the trials of every model."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from echocare_hf.drawing_canvas import lighter
from echocare_hf.drawing_sheet import contact_sheet
from echocare_hf.drawing_style import INK, Colour

sys.path.append(str(Path(__file__).resolve().parents[2]))
from eval.statistics import box_plot, spread, two_sample_t_test

from .headlines import lower_is_better
from .plots_chart import SIZE, Chart, axis_of, names_axis
from .plots_results import TaskResults

PANELS = 12  # metrics a sheet
_THICK, _JITTER = 0.27, 0.17  # half heights in rows


def boxes_sheets(results: TaskResults, headlines: Sequence[str] = ()) -> list[Image.Image]:
    """A panel a metric of the test part, those of the tables first.

    Args:
        results: of a task.
        headlines: metrics that come first.
    """
    every = results.metrics()
    ordered = [*(name for name in headlines if name in every), *(name for name in every if name not in headlines)]
    sheets = []
    for first in range(0, len(ordered), PANELS):
        panels = [
            boxes_panel(metric, results.values(metric), results.colours) for metric in ordered[first : first + PANELS]
        ]
        sheets.append(
            contact_sheet(
                [panel for panel, _ in panels],
                [caption for _, caption in panels],
                title=f"{results.key}: test part, every trial",
                subtitle="Box: quartiles and median; whiskers: last value within 1.5 interquartile ranges; each dot is a trial.",
                footer="Stars: two-sample t-test (Student, two-sided) against the best mean, not corrected: * p < .05, ** p < .01, "
                "*** p < .001.",
                columns=min(3, len(panels)),
            )
        )
    return sheets


def boxes_panel(
    metric: str, trials: Mapping[str, Sequence[float]], colours: Mapping[str, Colour]
) -> tuple[Image.Image, str]:
    """A row a model, and a caption with the best one's mean and standard deviation.

    Args:
        metric: its name.
        trials: by model, a value a trial, nan where it is not defined; some value is finite.
        colours: by model.
    """
    known = {name: np.array([value for value in values if np.isfinite(value)]) for name, values in trials.items()}
    known = {name: values for name, values in known.items() if len(values)}
    marks = compare_with_best(known, lower_is_better(metric))
    axis = axis_of(
        np.concatenate(list(known.values())), metric + (", less is better" if lower_is_better(metric) else ""), 5
    )
    # Marks stand beyond the largest value.
    room = (0.16 if any(marks.values()) else 0.03) * (axis.high - axis.low)
    chart = Chart(
        axis._replace(low=axis.low - 0.03 * (axis.high - axis.low), high=axis.high + room),
        names_axis(list(known)),
        size=(SIZE[0], 96 + 46 * max(len(known), 2)),
    )
    for row, (name, values) in enumerate(known.items()):
        middle, colour, box = -float(row), colours[name], box_plot(values)
        if len(values) > 1:
            for end, quartile in ((box.low_whisker, box.first_quartile), (box.high_whisker, box.third_quartile)):
                chart.line([(quartile, middle), (end, middle)], colour, 1.6)
                chart.line([(end, middle - _THICK / 2), (end, middle + _THICK / 2)], colour, 1.6)
            chart.bar(
                (box.first_quartile, middle - _THICK),
                (box.third_quartile, middle + _THICK),
                lighter(colour, 0.75),
                colour,
            )
        offsets = (np.arange(len(values)) % 3 - 1) * _JITTER * (len(values) > 2)
        chart.points(np.stack([values, middle + offsets], axis=1), colour, 3.0)
        if len(values) > 1:
            chart.line([(box.median, middle - _THICK), (box.median, middle + _THICK)], INK, 2.4)
        chart.text((axis.high + room, middle), marks[name], INK, "rm")
    best = next(name for name, mark in marks.items() if mark == "best") if len(known) > 1 else next(iter(known))
    return chart.picture(), f"{metric}\n{'best: ' if len(known) > 1 else ''}{best}, {spread(known[best])}"


def compare_with_best(trials: Mapping[str, Sequence[float]], lower: bool) -> dict[str, str]:
    """What stands beside each model: "best" for the best mean, else the stars of the t-test against it, "n.s." without any, nothing where
    either has fewer than two trials. Empty texts for one model alone.

    Args:
        trials: by model, finite values.
        lower: whether less is better.
    """
    if len(trials) < 2:
        return dict.fromkeys(trials, "")
    best = min(trials, key=lambda name: np.mean(trials[name]) * (1 if lower else -1))
    marks = {}
    for name, values in trials.items():
        if name == best:
            marks[name] = "best"
        elif min(len(values), len(trials[best])) < 2:
            marks[name] = ""
        else:
            marks[name] = two_sample_t_test(trials[best], values).stars or "n.s."
    return marks
