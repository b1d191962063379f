"""Reliability diagrams: how often the predicted class is right against how sure the model was, before and after temperature scaling."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from echocare_hf.drawing_canvas import lighter
from echocare_hf.drawing_sheet import contact_sheet
from echocare_hf.drawing_style import FAINT, SOFT, Colour

from .calibration import BINS, calibrate
from .plots_chart import Chart, Entry, unit_axis
from .plots_results import TaskResults, class_names, median_trial

_SIZE = (460, 440)
_HISTOGRAM = 0.18  # of the height, for the fullest bin


def reliability_sheet(results: TaskResults) -> Image.Image | None:
    """A section a model with its panels before and after; None where no model says probabilities of both parts."""
    panels: list[Image.Image] = []
    captions, sections = [], []
    for name, trials in results.models.items():
        found = []
        for trial in trials:
            cases = trial.cases()
            if "probability_0" in cases.columns and {"validation", "test"} <= set(cases["part"]):
                found.append(calibrate(cases, class_names(trial, cases)))
        if not found:
            continue
        key = f"ece_{BINS}bins"
        chosen = found[median_trial(trials, [one["before"][key] for one in found])]
        of_many = f", median of {len(found)} trials" if len(found) > 1 else ""
        for when in ("before", "after"):
            judged = chosen[when]
            panels.append(reliability_panel(judged["reliability"], results.colours[name]))
            if when == "before":
                heading = "as the model says them"
            else:
                heading = (
                    f"temperature {chosen['temperature']:.2f}" if chosen["problem"] is None else "no temperature fits"
                )
            errors = f"ECE {judged[key]:.3f} ({BINS} bins), Brier {judged['brier']:.3f}, NLL {judged['negative_log_likelihood']:.3f}"
            captions.append(f"{heading}\n{errors}")
            sections.append(f"{name}{of_many}")
    if not panels:
        return None
    return contact_sheet(
        panels,
        captions,
        sections=sections,
        title=f"{results.key}: reliability, test part",
        subtitle="Before and after one temperature, fitted on the validation part. Grey: share of the cases in each bin.",
        footer="On the diagonal the model is right as often as it says. Small bins scatter.",
        columns=2,
    )


def reliability_panel(bins: Sequence[Mapping[str, Any]], colour: Colour) -> Image.Image:
    """Accuracy over confidence, a bar a bin, with the number of cases below.

    Args:
        bins: `reliability` of `calibrate`.
        colour: of the model.
    """
    chart = Chart(
        unit_axis("confidence"),
        unit_axis("accuracy"),
        legend=[Entry("accuracy in the bin", colour, "band"), Entry("its mean confidence", colour, "dot")],
        size=_SIZE,
    )
    most = max((one["count"] for one in bins), default=0)
    for one in bins:
        if one["count"]:
            low, high = one["low"] + 0.004, one["high"] - 0.004
            chart.bar((low, 0), (high, one["accuracy"]), lighter(colour, 0.7), lighter(colour, 0.3))
            chart.bar((low + 0.012, 0), (high - 0.012, _HISTOGRAM * one["count"] / most), FAINT, SOFT)
    chart.line([(0, 0), (1, 1)], SOFT, 1.4, dashed=True)
    places = [(one["confidence"], one["accuracy"]) for one in bins if one["count"]]
    chart.points(places, colour, 4)
    return chart.picture()
