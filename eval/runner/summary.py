"""From the trials of a subject to what is said of them: means, spreads, tests, intervals, calibration, subgroups, provenance."""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.append(str(Path(__file__).resolve().parents[2]))
from eval.statistics import adaptation_steps, spread

from .calibration import calibrate
from .case_metrics import headline_case_metric, measured_column, values_by_case
from .comparisons import case_metric, compare_cases, compare_trials
from .headlines import Headline, direction, lower_is_better
from .store import Trial
from .subgroups import by_subgroup
from .subjects import Subject

PARTS = ("validation", "test")
DRAWS = 1_000  # resamples and permutations of subgroups
WHO = ("source", "random_weights", "weights_sha256", "train_share")  # settings that say who is trained, not how
WORST_TEXTS = 5
COMPARED = 2  # metrics of cases that models are compared in


def summarize(subject: Subject, trials: Sequence[Trial]) -> dict[str, Any]:
    """The entry of a subject in results.json.

    Args:
        subject: what was measured.
        trials: all finished ones, those of the first model first.
    """
    by_slug: dict[str, list[Trial]] = {}
    for trial in trials:
        by_slug.setdefault(trial.folder.parent.name, []).append(trial)
    contenders = [_contender(slug, found) for slug, found in by_slug.items()]
    names = {entry["slug"]: entry["name"] for entry in contenders}
    full = {names[slug]: found for slug, found in by_slug.items() if found[0].record["train_share"] == _share(by_slug)}
    learners = {name: found for name, found in full.items() if found[0].record["kind"] != "floor"}
    headlines = [head for head in subject.headlines if any(_has(found, head.metric) for found in by_slug.values())]
    tests: list[dict[str, Any]] = []
    notes: list[str] = []
    for head in headlines if learners else ():
        rows, problems = compare_trials(learners, head.metric)
        tests += rows
        notes += [problem for problem in problems if problem not in notes]
    ordered = learners | {name: found for name, found in full.items() if name not in learners}
    cases = [row for metric in _of_cases(headlines, ordered) for row in compare_cases(ordered, metric)]
    entry = {
        "task": subject.task,
        "title": subject.title,
        "split": subject.split,
        "remarks": [*subject.remarks, *_other_recipes(by_slug, names)],
        "paper": dict(subject.paper),
        "headlines": [
            {"metric": head.metric, "paper": head.paper, "name": head.name, "direction": direction(head.metric)}
            for head in headlines
        ],
        "contenders": contenders,
        "tests_over_trials": tests,
        "bootstrap_over_cases": cases,
        "notes": notes,
        "calibration": _calibration(by_slug, names),
        "subgroups": _subgroups(next(iter(by_slug.values()))[0], headlines[0].metric) if headlines else [],
        "worst_texts": _worst_texts(next(iter(by_slug.values()))[0]),
        "differences_from_the_paper": trials[0].record["provenance"]["differences_from_the_paper"],
        "provenance": {slug: [_origin(trial) for trial in found] for slug, found in by_slug.items()},
    }
    return without_nan(entry)


def _of_cases(headlines: Sequence[Headline], trials: Mapping[str, Sequence[Trial]]) -> list[str]:
    """The first headline metrics that cases tell, of those with the same relation (AP at two overlaps) one; none for one contender."""
    if len(trials) < 2:
        return []
    cases = next(iter(trials.values()))[0].cases()
    test = cases[cases["part"] == "test"]
    chosen: dict[str, str] = {}
    for head in headlines:
        measured = case_metric(head.metric, test) if len(test) else None
        if measured is not None:
            chosen.setdefault(measured, head.metric)
    return list(chosen.values())[:COMPARED]


def _other_recipes(by_slug: Mapping[str, Sequence[Trial]], names: Mapping[str, str]) -> list[str]:
    """What differs between the options that models were trained with, in sentences."""
    learners = {slug: found[0].record for slug, found in by_slug.items() if found[0].record["kind"] != "floor"}
    told = []
    first: dict[str, Any] = {}
    for slug, record in learners.items():
        options = {name: value for name, value in record["settings"].items() if name not in WHO}
        first = first or options
        apart = [
            f"{name} {options.get(name)} rather than {first.get(name)}"
            for name in sorted({*first, *options})
            if options.get(name) != first.get(name)
        ]
        if apart:
            told.append(f"{names[slug]} was trained with {', '.join(apart)}.")
    return told


def _share(by_slug: Mapping[str, Sequence[Trial]]) -> float:
    """Share of the labels of the models that are compared: that of the first."""
    return next(iter(by_slug.values()))[0].record["train_share"]


def _has(trials: Sequence[Trial], metric: str) -> bool:
    return any(trial.record["test"].get(metric) is not None for trial in trials)


def _contender(slug: str, trials: Sequence[Trial]) -> dict[str, Any]:
    record = trials[0].record
    share = record["train_share"]
    found: dict[str, Any] = {
        "slug": slug,
        "name": record["model"] if share == 1 else f"{record['model']}, {100 * share:g} % of the labels",
        "kind": record["kind"],
        "train_share": share,
        "seeds": [trial.seed for trial in trials],
        "parameters": record.get("parameters"),
    }
    for part in PARTS:
        names = dict.fromkeys(name for trial in trials for name in trial.record.get(part, {}))
        found[part] = {}
        for name in names:
            values = [trial.record[part].get(name) for trial in trials]
            told = spread([math.nan if value is None else value for value in values])
            found[part][name] = {"mean": told.mean, "standard_deviation": told.standard_deviation, "count": told.count}
    seen = [
        trial.record["steps"] * trial.record["arguments"]["batch_size"] for trial in trials if "steps" in trial.record
    ]
    found["images_seen"] = float(np.mean(seen)) if seen else None
    metric = record["best_metric"]
    steps = [
        adaptation_steps(trial.record, metric, lower_is_better(metric))
        for trial in trials
        if "history" in trial.record
    ]
    known = [step for step in steps if step is not None]
    found["adaptation_steps"] = float(np.mean(known)) if known else None
    return found


def _origin(trial: Trial) -> dict[str, Any]:
    """Provenance of a trial, with its seed and its cost."""
    record = trial.record
    cost = {
        name: record[name] for name in ("total_seconds", "training_seconds", "steps", "precision") if name in record
    }
    return {"seed": trial.seed, **cost, **record["provenance"]}


def _calibration(by_slug: Mapping[str, Sequence[Trial]], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Mean over the trials of the temperature, and of the test errors before and after it; nothing for tasks without probabilities."""
    rows = []
    for slug, trials in by_slug.items():
        tables = [trial.cases() for trial in trials]
        if not all("probability_0" in table and set(table["part"]) == set(PARTS) for table in tables):
            continue
        found = [calibrate(table, trials[0].record["class_names"]) for table in tables]
        row: dict[str, Any] = {
            "model": names[slug],
            "temperature": float(np.mean([one["temperature"] for one in found])),
        }
        for when in ("before", "after"):
            for name in (f"ece_{found[0]['bins']}bins", "brier"):
                values = [math.nan if one[when][name] is None else one[when][name] for one in found]
                row[f"{name}_{when}"] = spread(values).mean
        row["problems"] = sorted({one["problem"] for one in found if one["problem"]})
        rows.append(row)
    return rows


def _subgroups(trial: Trial, metric: str) -> list[dict[str, Any]]:
    """Of the first trial of the first model, whose cases are those of all."""
    cases = trial.cases()
    test = cases[cases["part"] == "test"]
    measured = case_metric(metric, test) if len(test) else None
    if measured is None:
        return []
    if values_by_case(test, measured) is None:  # such as macro-F1, which follows the mixture of classes in a subgroup
        measured = headline_case_metric(test)
    table = by_subgroup(cases, measured, resamples=DRAWS, permutations=DRAWS)
    return [{**row, "small": bool(row["small"])} for row in table.to_dict("records")]


def _worst_texts(trial: Trial) -> list[dict[str, Any]]:
    """Of reports, the written and the generated text of the test cases that are least alike."""
    cases = trial.cases()
    if not {"written", "generated"} <= set(cases.columns):
        return []
    test = cases[cases["part"] == "test"]
    column = measured_column(test)
    worst = test if column is None else test.sort_values(column, kind="stable")
    return worst[["case", "written", "generated"]].head(WORST_TEXTS).to_dict("records")


def long_table(subject: Subject, trials: Sequence[Trial]) -> pd.DataFrame:
    """A row a metric of a part of a trial: `task`, `model` (its folder), `name`, `train_share`, `seed`, `part`, `metric`, `value`."""
    return pd.DataFrame(
        [
            {
                "task": subject.key,
                "model": trial.folder.parent.name,
                "name": trial.record["model"],
                "train_share": float(trial.record["train_share"]),
                "seed": trial.seed,
                "part": part,
                "metric": metric,
                "value": math.nan if value is None else float(value),
            }
            for trial in trials
            for part in PARTS
            for metric, value in trial.record.get(part, {}).items()
        ]
    )


def without_nan(value: Any) -> Any:
    """The same for JSON: None for what is no number, numbers of numpy as Python's."""
    if isinstance(value, dict):
        return {str(key): without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    if isinstance(value, np.generic):
        return without_nan(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
