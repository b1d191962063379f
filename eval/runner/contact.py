"""The worst cases of a model on a sheet: image, reference and prediction where they are at hand, name and value."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from echocare_hf.data.labelled.pixels import read_source
from echocare_hf.drawing_canvas import Canvas
from echocare_hf.drawing_sheet import contact_sheet
from echocare_hf.drawing_style import text_font

from .case_metrics import measured_column
from .headlines import lower_is_better
from .plots import COUNT
from .plots_results import TaskResults, class_names
from .store import Trial

TILE = 360  # pixels
PICTURE = "picture"
"""Column of a table of cases: path, below the trial's folder, of a picture with reference and prediction drawn in."""


def worst_sheet(
    results: TaskResults, model: str, count: int = COUNT, folders: Sequence[Path] = (), metric: str | None = None
) -> Image.Image | None:
    """The worst test cases of a model, by the mean over its trials.

    Args:
        results: of a task.
        model: its name.
        count (optional): cases at most.
        folders (optional): where the paths of images begin.
        metric (optional): see `case_values`.

    Returns:
        The sheet; None without a test case that has a value.
    """
    trials = results.models[model]
    tables = [trial.cases() for trial in trials]
    tables = [cases[cases["part"] == "test"].set_index("case", drop=False) for cases in tables]
    names = class_names(trials[0], tables[0])
    if tables[0].empty:
        return None
    if (
        metric is None
    ):  # of some trials no case may have a value, such as overlaps where nothing is there and nothing found
        ranked = [index for index, cases in enumerate(tables) if _can_be_ranked(cases)]
        trials, tables = [trials[index] for index in ranked], [tables[index] for index in ranked]
        if not tables:
            return None
    scored = [case_values(cases, metric) for cases in tables]
    title, lower = scored[0][1], scored[0][2]
    values = pd.concat([found for found, _, _ in scored], axis=1).mean(axis=1).dropna()
    worst = values.sort_values(ascending=not lower, kind="stable").index[:count]
    if not len(worst):
        return None
    numbers = [column for column in tables[0].columns if column.startswith(("probability_", "prediction_"))]
    said = pd.concat([cases[numbers] for cases in tables]).groupby(level=0).mean()
    tiles, captions = [], []
    for case in worst:
        of_trials = [float(found.get(case, np.nan)) for found, _, _ in scored]
        tile, drawn = case_tile(trials, tables, case, folders, np.argsort(of_trials)[:: -1 if lower else 1].tolist())
        tiles.append(tile)
        text = _said(tables[0].loc[case].to_dict() | said.loc[case].to_dict(), names, title, float(values[case]))
        if drawn is not None and len(trials) > 1:
            text += f"\ndrawn: seed {trials[drawn].seed}, {of_trials[drawn]:.3f}"
        captions.append(f"{case}\n{text}")
    of_many = f", mean of {len(trials)} trials" if len(trials) > 1 else ""
    return contact_sheet(
        tiles,
        captions,
        title=f"{results.key}, {model}: worst cases of the test part",
        subtitle=f"{title}{of_many}; the worst {len(worst)} of {len(values)} cases, the worst first",
        footer="Not a medical device.",
        columns=min(4, len(worst)),
    )


def case_values(cases: pd.DataFrame, metric: str | None = None) -> tuple[pd.Series, str, bool]:
    """A value of every case, what it is called, and whether less is better.

    Args:
        cases: the table of a trial.
        metric (optional): a column of numbers; by default the probability of the true class, the mean error of the scores of findings, the
            absolute error of the first target, or the case's own metric of the task.

    Raises:
        ValueError: for a column that there is not, or a table without a metric.
    """
    if metric is not None:
        if metric not in cases.columns or not pd.api.types.is_numeric_dtype(cases[metric]):
            raise ValueError(f"the table of cases has no metric {metric!r}; it has {', '.join(cases)}")
        return cases[metric], metric, lower_is_better(metric)
    probabilities = cases[[column for column in cases.columns if re.fullmatch(r"probability_\d+", column)]]
    if "label" in cases.columns and len(probabilities.columns):
        rows, labels = np.arange(len(cases)), cases["label"].to_numpy(np.int64)
        return pd.Series(probabilities.to_numpy()[rows, labels], cases.index), "probability of the true class", False
    if "label_0" in cases.columns:
        labels = cases[[f"label_{index}" for index in range(len(probabilities.columns))]].to_numpy(np.float64)
        errors = np.where(labels >= 0, np.abs(labels - probabilities.to_numpy()), np.nan)
        return pd.DataFrame(errors, cases.index).mean(axis=1), "mean error of the scores", True
    targets = [column.removeprefix("target_") for column in cases.columns if column.startswith("target_")]
    if targets:
        errors = (cases[f"prediction_{targets[0]}"] - cases[f"target_{targets[0]}"]).abs()
        return errors, f"absolute error of {targets[0]}", True
    column = measured_column(cases)
    if column is None:
        raise ValueError(f"the table of cases has no metric to rank by; it has {', '.join(cases)}")
    return cases[column], column, lower_is_better(column)


def _can_be_ranked(cases: pd.DataFrame) -> bool:
    return (
        any(column.startswith(("label", "target_")) for column in cases.columns) or measured_column(cases) is not None
    )


def keep_worst(
    cases: pd.DataFrame, draw: Callable[[int], Image.Image], folder: Path, count: int = COUNT
) -> pd.DataFrame:
    """Draws the worst test cases of a trial while its predictions are at hand, for `worst_sheet` to show.

    Args:
        cases: the table of the trial.
        draw: a row of it to the picture of image, reference and prediction, such as fine-tuning's `task.draw` makes.
        folder: of the trial; gets `pictures/00.png` (the worst) and so on.
        count (optional): pictures at most.

    Returns:
        The table with the column `picture`, None where there is none; without it if no case has a value to rank by.
    """
    if not _can_be_ranked(cases):
        return cases
    values, _, lower = case_values(cases.reset_index(drop=True))
    test = (cases["part"] == "test").to_numpy()
    worst = values[test].dropna().sort_values(ascending=not lower, kind="stable").index[:count]
    places: list[str | None] = [None] * len(cases)
    for rank, row in enumerate(worst):
        places[row] = f"pictures/{rank:02}.png"
        (folder / "pictures").mkdir(exist_ok=True)
        picture = draw(int(row))
        picture.thumbnail((TILE, 2 * TILE))
        picture.save(folder / places[row], optimize=True)
    return cases.assign(**{PICTURE: places})


def case_tile(
    trials: Sequence[Trial], tables: Sequence[pd.DataFrame], case: str, folders: Sequence[Path], order: Sequence[int]
) -> tuple[Image.Image, int | None]:
    """The picture that a trial kept of a case, else its image alone, else a grey tile that says so.

    Args:
        trials: of a model.
        tables: of their cases, by name of the case.
        case: its name.
        folders: where the paths of images begin.
        order: indices of trials; the first of them that kept a picture is shown.

    Returns:
        The tile, and the index of the trial whose picture it is.
    """
    for index in order:
        place = tables[index].loc[case].get(PICTURE) if case in tables[index].index else None
        if isinstance(place, str) and (trials[index].folder / place).is_file():
            with Image.open(trials[index].folder / place) as picture:
                kept = picture.convert("RGB")
            kept.thumbnail((TILE, 2 * TILE))
            return kept, index
    stored = Path(str(tables[0].loc[case]["image"]))
    data = Path(str((trials[0].record.get("arguments") or {}).get("data") or "."))
    found = [place for folder in folders for place in (folder / stored, folder / data.name / stored)]
    for place in (stored, *found):
        if place.is_file():
            return Canvas(read_source(str(place)), TILE).picture, None
    tile = Image.new("RGB", (TILE, round(0.7 * TILE)), (60, 66, 72))
    text = "image not at hand (--data)"
    ImageDraw.Draw(tile).text((tile.width / 2, tile.height / 2), text, (200, 205, 210), text_font(18), anchor="mm")
    return tile, None


def _said(row: Mapping[str, Any], names: Sequence[str], title: str, value: float) -> str:
    """Reference and prediction of a case in words, as far as its row has them."""
    if title == "probability of the true class":
        scores = [row[f"probability_{index}"] for index in range(len(names))]
        likeliest = int(np.argmax(scores))
        text = f"true: {names[int(row['label'])]} ({value:.2f})"
        return (
            text if likeliest == row["label"] else f"{text}, predicted: {names[likeliest]} ({scores[likeliest]:.2f})"
        )
    target = title.removeprefix("absolute error of ")
    if target != title:
        return f"{row[f'prediction_{target}']:.4g} instead of {row[f'target_{target}']:.4g}, error {value:.3g}"
    return f"{title} {value:.3f}"
