"""Results by subgroup as a forest plot: a row a subgroup, its value with its interval, and how many cases it has."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from PIL import Image

from echocare_hf.drawing_canvas import lighter
from echocare_hf.drawing_sheet import contact_sheet
from echocare_hf.drawing_style import SOFT, Colour, shorten

from .case_metrics import headline_case_metric
from .plots_chart import TEXT, Chart, axis_of, names_axis
from .plots_results import TaskResults
from .subgroups import ATTRIBUTES, SMALL, by_subgroup

_WIDTH, _ROW = 640, 30
_NAME_WIDTH = 210  # pixels, so that the number of cases beside it stays in sight


def subgroups_sheet(results: TaskResults) -> Image.Image | None:
    """A section a model with a panel an attribute; None where the data divide the test cases by nothing."""
    tables = {}
    for name, trials in results.models.items():
        cases = [trial.cases() for trial in trials]
        metric = _metric_of(cases[0]) if (cases[0]["part"] == "test").any() else None
        if metric is not None:
            tables[name] = by_subgroup(cases, metric)
    return forest_sheet(tables, results.colours, results.key)


def _metric_of(cases: pd.DataFrame) -> str | None:
    """The metric that the table is divided by; None where no case has any, such as overlaps where nothing is there and nothing found."""
    try:
        return headline_case_metric(cases)
    except ValueError:
        return None


def forest_sheet(tables: Mapping[str, pd.DataFrame], colours: Mapping[str, Colour], key: str) -> Image.Image | None:
    """The sheet of `by_subgroup`'s tables.

    Args:
        tables: by model; attributes with one subgroup alone are left out.
        colours: by model.
        key: of the task.
    """
    panels, captions, sections = [], [], []
    for name, table in tables.items():
        for attribute, rows in table.groupby("attribute", sort=False):
            if len(rows) < 2 or not np.isfinite(rows["value"]).any():
                continue
            panels.append(forest_panel(rows, colours[name]))
            first = rows.iloc[0]
            tested = (
                f"p = {first['p']:.3f}, Holm {first['p_holm']:.3f} ({first['test']})"
                if first["test"]
                else "not tested"
            )
            captions.append(f"{ATTRIBUTES.get(str(attribute), attribute)}\n{tested}")
            sections.append(name)
    if not panels:
        return None
    return contact_sheet(
        panels,
        captions,
        sections=sections,
        title=f"{key}: subgroups, test part",
        subtitle="Mean over the trials, with the 95 % bootstrap interval over patients (cases where no patient is known).",
        footer=f"Pale: fewer than {SMALL} cases. A difference that is not found is not shown to be absent.",
        columns=min(3, max(sections.count(section) for section in sections)),
    )


def forest_panel(rows: pd.DataFrame, colour: Colour) -> Image.Image:
    """The subgroups of one attribute.

    Args:
        rows: of `by_subgroup`.
        colour: of the model; small subgroups are paler.
    """
    metric = str(rows["metric"].iloc[0])
    axis = axis_of(rows[["value", "low", "high"]].to_numpy(np.float64), metric, 5)
    names = [
        f"{shorten(str(name), TEXT, _NAME_WIDTH)} ({count})"
        for name, count in zip(rows["subgroup"], rows["cases"], strict=True)
    ]
    chart = Chart(axis, names_axis(names), size=(_WIDTH, 88 + _ROW * max(len(names), 3)))
    for place, (_, row) in enumerate(rows.iterrows()):
        shade = lighter(colour, 0.5) if row["small"] else colour
        middle = -float(place)
        if np.isfinite(row["low"]):
            chart.line([(row["low"], middle), (row["high"], middle)], shade, 2.2)
        chart.points([(row["value"], middle)], shade, 4.5)
        if not np.isfinite(row["value"]):
            chart.text(((axis.low + axis.high) / 2, middle), "not defined", SOFT)
    return chart.picture()
