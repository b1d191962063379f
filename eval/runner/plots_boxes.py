"""Box plots of metrics over the trials of every model."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from echocare_hf.drawing_canvas import lighter
from echocare_hf.drawing_sheet import contact_sheet
from echocare_hf.drawing_style import INK, Colour

sys.path.append(str(Path(__file__).resolve().parents[2]))
from eval.statistics import box_plot, spread, two_sample_t_test

from .headlines import direction
from .plots_chart import SIZE, WAYS, Chart, axis_of, names_axis
from .plots_results import TaskResults, value_of

PANELS = 12  # metrics a sheet
PARAMETERS = re.compile(r"tolerance_|cutoff_|observers_|.*_before$")
"""Names of values in the records that measure no model: settings, and what is known of the data without one."""
_PARTS = ("validation", "test")
_BOX = "Box: quartiles and median; whiskers: last value within 1.5 interquartile ranges; each dot is a trial."
_STARS = "Stars: two-sample t-test (Student, two-sided) against the best mean, not corrected: * p < .05, ** p < .01, *** p < .001."
_THICK, _JITTER = 0.27, 0.17  # half heights in rows


def boxes_sheets(results: TaskResults, headlines: Sequence[str] = ()) -> list[Image.Image]:
    """A panel a metric of the test part, those of the tables first.

    Args:
        results: of a task.
        headlines: metrics that come first.
    """
    ordered = without_duplicates(results, headlines)
    sheets = []
    for first in range(0, len(ordered), PANELS):
        panels = [
            boxes_panel(metric, results.values(metric), results.colours, others)
            for metric, others in list(ordered.items())[first : first + PANELS]
        ]
        sheets.append(
            contact_sheet(
                [panel for panel, _ in panels],
                [caption for _, caption in panels],
                title=f"{results.key}: test part, every trial",
                subtitle=_BOX,
                footer=_STARS,
                columns=min(3, len(panels)),
            )
        )
    return sheets


def overview_sheet(every: Sequence[TaskResults], headlines: Mapping[str, Sequence[str]]) -> Image.Image:
    """A panel a task: its first metric.

    Args:
        every: results of the tasks, in their order.
        headlines: by task, its metrics, the one that is shown first; another where no trial has it.
    """
    panels, captions = [], []
    for results in every:
        known = results.metrics()
        metric = next((name for name in headlines.get(results.key, ()) if name in known), known[0])
        panel, caption = boxes_panel(metric, results.values(metric), results.colours)
        panels.append(panel)
        captions.append(f"{results.key}: {caption}")
    return contact_sheet(
        panels, captions, title="The first metric of each task: test part, every trial", subtitle=_BOX, footer=_STARS
    )


def without_duplicates(results: TaskResults, headlines: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """The metrics that are worth a panel, `headlines` first, each with the names of others that say the very same.

    Metrics say the same if every trial has the same value of both, on the validation part too, and the one's name is the other's with more
    words (`nsd` and `nsd_2px`, `dice` and `dice_nodule` where there is one class): values of others are equal by chance. `PARAMETERS` are
    left out.
    """
    every = [name for name in results.metrics() if not PARAMETERS.match(name)]
    found: dict[str, tuple[str, ...]] = {}
    for name in (*(name for name in headlines if name in every), *(name for name in every if name not in headlines)):
        same = next(
            (
                other
                for other, others in found.items()
                if any(_say_the_same(results, name, one) for one in (other, *others))
            ),
            None,
        )
        if same is None:
            found[name] = ()
        else:
            found[same] += (name,)
    return found


def _say_the_same(results: TaskResults, name: str, other: str) -> bool:
    short, long = sorted((name.split("_"), other.split("_")), key=len)
    rest = iter(long)
    if short[0] != long[0] or not all(word in rest for word in short):
        return False
    first, second = (
        [value_of(trial, each, part) for trial in results.trials for part in _PARTS] for each in (name, other)
    )
    return np.array_equal(first, second, equal_nan=True)


def boxes_panel(
    metric: str,
    trials: Mapping[str, Sequence[float]],
    colours: Mapping[str, Colour],
    others: Sequence[str] = (),
) -> tuple[Image.Image, str]:
    """A row a model, and a caption with the best one's mean and standard deviation, if there is one best.

    Args:
        metric: its name.
        trials: by model, a value a trial, nan where it is not defined; some value is finite.
        colours: by model.
        others: names of metrics with the same values.
    """
    known = {name: np.array([value for value in values if np.isfinite(value)]) for name, values in trials.items()}
    known = {name: values for name, values in known.items() if len(values)}
    marks = compare_with_best(known, metric)
    axis = axis_of(np.concatenate(list(known.values())), metric + WAYS[direction(metric)], 5)
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
    same = f"\nalso: {', '.join(others)}" if others else ""
    return chart.picture(), f"{metric}\n{_best_in_words(known, marks)}{same}"


def _best_in_words(known: Mapping[str, NDArray[np.float64]], marks: Mapping[str, str]) -> str:
    best = next((name for name, mark in marks.items() if mark == "best"), None)
    if len(known) > 1 and best is None:
        return "no single best: the best mean is shared"
    best = best or next(iter(known))
    said = spread(known[best])
    text = str(said) if said.count > 1 else f"{said.mean:.4f} (n = 1)"
    return f"{'best: ' if len(known) > 1 else ''}{best}, {text}"


def compare_with_best(trials: Mapping[str, Sequence[float]], metric: str) -> dict[str, str]:
    """What stands beside each model: "best" for the best mean, else the stars of the t-test against it, "n.s." without any, nothing where
    either has fewer than two trials. Empty texts for one model alone, and where several share the best mean.

    Args:
        trials: by model, finite values.
        metric: its name, which tells what is best: the highest mean, the lowest, or, of a bias, the one that is closest to 0.
    """
    way = direction(metric)
    means = {name: float(np.mean(values)) for name, values in trials.items()}
    costs = {
        name: abs(mean) if way == "0 is best" else mean if way == "lower is better" else -mean
        for name, mean in means.items()
    }
    leaders = [name for name, cost in costs.items() if np.isclose(cost, min(costs.values()), rtol=1e-9, atol=1e-12)]
    if len(trials) < 2 or len(leaders) > 1:
        return dict.fromkeys(trials, "")
    best = leaders[0]
    marks = {}
    for name, values in trials.items():
        if name == best:
            marks[name] = "best"
        elif min(len(values), len(trials[best])) < 2:
            marks[name] = ""
        else:
            marks[name] = two_sample_t_test(trials[best], values).stars or "n.s."
    return marks
