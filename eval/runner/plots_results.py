"""The trials of a folder of results, as the plots take them: by task, model and share of the training labels."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from echocare_hf.drawing_style import Colour

from .plots_chart import COLOURS
from .store import Trial, cases_of, trials_of
from .tables import read_results

Models = Mapping[str, list[Trial]]


@dataclass(frozen=True)
class TaskResults:
    """All finished trials of a task.

    Attributes:
        key: name of the task's folder.
        trials: in the order of models and seeds.
    """

    key: str
    trials: tuple[Trial, ...]

    @cached_property
    def models(self) -> dict[str, list[Trial]]:
        """The trials with all training labels, by model, EchoCare first, floors last, by seed."""
        return self._by_model(lambda trial: share_of(trial) == 1)

    @cached_property
    def shares(self) -> dict[str, dict[float, list[Trial]]]:
        """The trials of every model that has some with fewer labels, by share."""
        found = {}
        for name, trials in self._by_model(lambda trial: True).items():
            shares = sorted({share_of(trial) for trial in trials})
            if len(shares) > 1:
                found[name] = {share: [trial for trial in trials if share_of(trial) == share] for share in shares}
        return found

    @cached_property
    def colours(self) -> dict[str, Colour]:
        """The same colour for a model in all plots of the task."""
        names = list(self._by_model(lambda trial: True))
        return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}

    def values(self, metric: str, part: str = "test") -> dict[str, list[float]]:
        """A metric of all models, a value a trial, nan where it is not defined; models without any are left out."""
        found = {name: [value_of(trial, metric, part) for trial in trials] for name, trials in self.models.items()}
        return {name: values for name, values in found.items() if np.isfinite(values).any()}

    def metrics(self, part: str = "test") -> list[str]:
        """Names of the metrics that some trial has, in the order of the records, without the loss."""
        names = dict.fromkeys(name for trial in self.trials for name in trial.record.get(part) or {})
        return [name for name in names if name != "loss" and self.values(name, part)]

    def _by_model(self, wanted: Any) -> dict[str, list[Trial]]:
        found: dict[str, list[Trial]] = {}
        ranks = {"echocare": 0, "floor": 2}
        for trial in sorted(self.trials, key=lambda trial: (ranks.get(trial.record.get("kind", ""), 1), trial.seed)):
            if wanted(trial):
                found.setdefault(model_of(trial), []).append(trial)
        return found


def all_results(output: Path) -> Iterator[TaskResults]:
    """The results of every task in a folder that has finished trials. Those that were measured on other data or another split than the
    tables tell of (without tables, than the first of them) are left out.

    Raises:
        ValueError: if it is no folder, or holds no finished trial, or its results.json cannot be read.
    """
    if not output.is_dir():
        raise ValueError(f"{output}: there is no such folder; give the --output of eval/run.py")
    found, tables = False, read_results(output)
    for folder in sorted(path for path in output.iterdir() if path.is_dir() and path.name != "plots"):
        trials = _of_one_data(tuple(trials_of(output, folder.name)), tables.get(folder.name))
        if trials:
            found = True
            yield TaskResults(folder.name, trials)
    if not found:
        raise ValueError(
            f"{output}: holds no finished trial (<task>/<model>/<seed>/metrics.json and cases.parquet); give the --output of eval/run.py"
        )


def _of_one_data(trials: tuple[Trial, ...], entry: Mapping[str, Any] | None) -> tuple[Trial, ...]:
    """The trials that were measured on the cases of the tables, else on those of the first trial."""
    measured = [cases_of(trial.record.get("provenance") or {}) for trial in trials]
    shown = [cases_of(origin) for found in (entry or {}).get("provenance", {}).values() for origin in found]
    wanted = next((cases for cases in shown if cases in measured), measured[0] if measured else None)
    return tuple(trial for trial, cases in zip(trials, measured, strict=True) if cases == wanted)


def model_of(trial: Trial) -> str:
    """Its name in tables; else that of its folder."""
    return str(trial.record.get("model") or trial.folder.parent.name.partition("@")[0])


def share_of(trial: Trial) -> float:
    """Share of the training labels that it learned from, above 0 to 1."""
    return float(trial.record.get("train_share") or (trial.record.get("arguments") or {}).get("train_share") or 1.0)


def value_of(trial: Trial, metric: str, part: str = "test") -> float:
    """A metric of a trial, nan where it is not defined."""
    value = (trial.record.get(part) or {}).get(metric)
    return float("nan") if value is None else float(value)


def median_trial(trials: list[Trial], values: list[float]) -> int:
    """Index of the trial in the middle, the lower of two; of the first one if no value is finite."""
    known = [index for index in np.argsort(values, kind="stable") if np.isfinite(values[index])]
    return int(known[(len(known) - 1) // 2]) if known else 0


def class_names(trial: Trial, cases: pd.DataFrame) -> list[str]:
    """Names of the classes of a table with probabilities, else their numbers."""
    count = sum(1 for column in cases.columns if re.fullmatch(r"probability_\d+", column))
    names = trial.record.get("class_names") or []
    return [str(name) for name in names] if len(names) == count else [f"class {index}" for index in range(count)]


def unit_of(trial: Trial, target: str) -> str:
    """Unit of a measured value in brackets, with a space before; empty if unknown."""
    units = dict(zip(trial.record.get("target_names") or (), trial.record.get("target_units") or (), strict=False))
    return f" ({units[target]})" if units.get(target) else ""
