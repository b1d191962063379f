"""Metrics of any choice of cases, from the table of a trial: what bootstrap, permutation and the worst cases are computed with."""

import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from echocare_hf.metrics.text_overlap import ORDERS, bleu_of_counts

CaseStatistic = Callable[[NDArray[np.int64]], float]
"""Gets the rows of the cases, some maybe more than once; returns the metric, nan where it is not defined."""


def case_statistic(cases: pd.DataFrame, metric: str) -> CaseStatistic:
    """A metric as a function of the rows of cases.

    Args:
        cases (`DataFrame`): the table of a trial, a row a case.
        metric (`str`): a column of numbers, whose mean without nan is the metric; or, where there is no such column,

            - "accuracy", "balanced_accuracy", "macro_f1", "brier" (one class a case: `label`, `probability_0`, ...),
            - "auc", "auc_<index>": area under the ROC curve of a class against the rest; without an index of class 1 of two, else the mean
              over the classes that some but not all cases have; also of findings (`label_0`, ...),
            - "circumference_mae_mm" and alike (`circumference_error_mm`), means without their signs,
            - "bleu_<order>_<tokenizer>", "findings_f1", "findings_precision", "findings_recall" of reports: of the whole choice, from
              what each case counts,
            - "mae_<target>", "bias_<target>" (`target_<target>`, `prediction_<target>`); "mae" over all targets of a case.

    Raises:
        ValueError: for a metric that the table does not have.
    """
    values = values_by_case(cases, metric)
    if values is not None:
        return lambda rows: _mean(values[rows])
    counted = _of_counts(cases, metric)
    if counted is not None:
        return counted
    probabilities, labels = scores_and_labels(cases, metric)
    if found := re.fullmatch(r"auc(?:_(\d+))?", metric):
        count = probabilities.shape[1]
        if found[1] is not None and int(found[1]) >= count:
            raise ValueError(f"{metric}: the table of cases has the classes 0 to {count - 1}")
        every = range(count) if labels.ndim == 2 or count > 2 else (1,)
        indices = every if found[1] is None else (int(found[1]),)
        return lambda rows: _mean_auc(probabilities[rows], labels[rows], indices)
    if labels.ndim == 1 and metric in _OF_CLASSES:
        measure = _OF_CLASSES[metric]
        return lambda rows: measure(probabilities[rows], labels[rows]) if len(rows) else float("nan")
    raise ValueError(f"{metric!r} is neither a column of the table of cases ({', '.join(cases)}) nor made from them")


def values_by_case(cases: pd.DataFrame, metric: str) -> NDArray[np.float64] | None:
    """The value of each case (cases,), nan where it has none; None for a metric that is no mean over cases, such as an area under a curve.

    Args:
        cases, metric: as of `case_statistic`.

    Raises:
        ValueError: for a target that there is not.
    """
    if metric in cases.columns and pd.api.types.is_numeric_dtype(cases[metric]):
        return cases[metric].to_numpy(np.float64)
    if found := re.fullmatch(r"(mae|bias)(?:_(.+))?", metric):
        errors = signed_errors(cases, found[2])
        return mean_known(np.abs(errors) if found[1] == "mae" else errors, axis=1)
    if (error := metric.replace("_mae_", "_error_")) != metric and error in cases.columns:
        return np.abs(cases[error].to_numpy(np.float64))
    if metric in ("accuracy", "brier") and "label" in cases.columns:
        probabilities, labels = scores_and_labels(cases, metric)
        if metric == "accuracy":
            return (probabilities.argmax(1) == labels).astype(np.float64)
        classes = probabilities.shape[1]
        squares = np.square(probabilities - np.eye(classes)[labels.astype(np.int64)]).sum(1)
        return squares / (2 if classes == 2 else 1)
    return None


def trial_values(trials: Sequence[pd.DataFrame], metric: str) -> NDArray[np.float64] | None:
    """The mean over trials of the value of each case, see `values_by_case`.

    Args:
        trials (`list[DataFrame]`): tables of the same cases in the same order, one a trial.
        metric (`str`): see `case_statistic`.

    Raises:
        ValueError: for other cases in another trial.
    """
    for other in trials[1:]:
        if list(other["case"]) != list(trials[0]["case"]):
            raise ValueError(
                "the trials have other cases or another order: only trials of one split can be put together"
            )
    found = [values_by_case(cases, metric) for cases in trials]
    return None if found[0] is None else mean_known(np.stack([one for one in found if one is not None]), axis=0)


def trial_statistic(trials: Sequence[pd.DataFrame], metric: str) -> CaseStatistic:
    """The mean over trials of a metric of the same cases; arguments and errors as of `trial_values` and `case_statistic`."""
    values = trial_values(trials, metric)
    if values is not None:
        return lambda rows: _mean(values[rows])
    statistics = [case_statistic(cases, metric) for cases in trials]
    return lambda rows: _mean(np.array([statistic(rows) for statistic in statistics]))


def mean_known(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Means without nan, nan where there is nothing else."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis) / np.where(known.any(axis), known.sum(axis), np.nan)


def headline_case_metric(cases: pd.DataFrame) -> str:
    """The metric that a table of cases is divided into subgroups by: the one of its task that few cases suffice for.

    Raises:
        ValueError: if it has none.
    """
    if "label" in cases.columns:
        return "accuracy"
    if "label_0" in cases.columns:
        return "auc"
    if any(column.startswith("target_") for column in cases.columns):
        return "mae"
    column = measured_column(cases)
    if column is None:
        raise ValueError(f"the table of cases has no metric; it has {', '.join(cases)}")
    return column


def measured_column(cases: pd.DataFrame) -> str | None:
    """The column that says how good each case is, where it is neither classes nor measured values; None if there is none."""
    names = (
        "dice",
        "surest_iou",
        "iou",
        "mre_mm",
        "mre_px",
        "psnr",
        "niqe",
        "rouge_l_f1_words",
        "rouge_l_f1_characters",
    )
    return next((name for name in names if name in cases.columns and cases[name].notna().any()), None)


FINDING_COUNTS = ("findings_both", "findings_generated", "findings_written")
"""Columns of a report: its findings that both texts have, that the generated and that the written text has."""


def run_columns(tokenizer: str) -> list[str]:
    """Columns of what BLEU counts of a report, in the order of `metrics.text_overlap.bleu_counts`."""
    names = [f"{kind}_{order}_{tokenizer}" for order in range(1, ORDERS + 1) for kind in ("matched", "generated")]
    return [*names, f"tokens_generated_{tokenizer}", f"tokens_written_{tokenizer}"]


def _of_counts(cases: pd.DataFrame, metric: str) -> CaseStatistic | None:
    """Of reports BLEU, or precision, recall and F1 of their findings, from sums over the cases; None for another metric or table."""
    if (found := re.fullmatch(r"bleu_([1-4])_(\w+)", metric)) and set(run_columns(found[2])) <= set(cases.columns):
        order = int(found[1]) - 1
        runs = cases[run_columns(found[2])].to_numpy(np.float64)
        runs = np.where(np.isnan(runs), 0, runs).reshape(len(cases), -1, 2)  # reports in another language
        return lambda rows: bleu_of_counts(runs[rows].sum(0))[order]
    parts = {"findings_f1": (1, 2), "findings_precision": (1,), "findings_recall": (2,)}.get(metric)
    if parts is None or not set(FINDING_COUNTS) <= set(cases.columns):
        return None
    counts = cases[list(FINDING_COUNTS)].to_numpy(np.float64)

    def share(rows: NDArray[np.int64]) -> float:
        sums = counts[rows].sum(0)
        whole = sums[list(parts)].sum()
        return float(len(parts) * sums[0] / whole) if whole else float("nan")

    return share


def signed_errors(cases: pd.DataFrame, target: str | None = None) -> NDArray[np.float64]:
    """Prediction minus target: (cases, targets), of all of them or of one.

    Raises:
        ValueError: if there is none of this name.
    """
    names = [column.removeprefix("target_") for column in cases.columns if column.startswith("target_")]
    chosen = [name for name in names if target in (None, name) and f"prediction_{name}" in cases.columns]
    if not chosen:
        raise ValueError(
            f"the table of cases has no target {target or ''} with predictions; it has {', '.join(cases)}"
        )
    return np.stack(
        [(cases[f"prediction_{name}"] - cases[f"target_{name}"]).to_numpy(np.float64) for name in chosen], axis=1
    )


def one_row_a_value(cases: pd.DataFrame) -> pd.DataFrame:
    """A row for each measured value instead of each case: cases of one patient that state the same value, such as the views of one heart,
    are one, whose prediction is their mean. Cases that state different values, such as two visits, stay apart.

    Args:
        cases: with `case`, `group`, and one column each of `target_<name>` and `prediction_<name>`.

    Returns:
        Columns `case` (the first one), `group`, `target_<name>`, `prediction_<name>`, in the order of the cases.
    """
    (target,) = (column for column in cases.columns if column.startswith("target_"))
    prediction = f"prediction_{target.removeprefix('target_')}"
    patient = cases["group"].where(cases["group"].notna(), cases["case"]).rename("patient")
    found = cases.groupby([patient, cases[target].rename("value")], sort=False, dropna=False)
    return found.agg({"case": "first", "group": "first", target: "first", prediction: "mean"}).reset_index(drop=True)


def scores_and_labels(cases: pd.DataFrame, what: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities (cases, classes), and labels: (cases,) of one class each, or (cases, findings) of 0 and 1, below 0 or nan if unknown.

    Args:
        cases: the table of a trial.
        what: what they are for, for the message.

    Raises:
        ValueError: for the table of another task.
    """
    count = sum(1 for column in cases.columns if re.fullmatch(r"probability_\d+", column))
    truth = ["label"] if "label" in cases.columns else [f"label_{index}" for index in range(count)]
    if not count or not set(truth) <= set(cases.columns):
        raise ValueError(
            f"{what}: the table of cases has no such column, and no probabilities and labels to make it of"
        )
    probabilities = cases[[f"probability_{index}" for index in range(count)]].to_numpy(np.float64)
    labels = cases[truth].to_numpy(np.float64)
    return probabilities, labels[:, 0] if truth == ["label"] else labels


def area_under_curve(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve by ranks, ties half; nan without positive or without negative cases."""
    from scipy.stats import rankdata

    count = int(positive.sum())
    if not 0 < count < len(positive):
        return float("nan")
    above = rankdata(scores)[positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(positive) - count)))


def _mean_auc(
    probabilities: NDArray[np.float64], labels: NDArray[np.float64], indices: range | tuple[int, ...]
) -> float:
    areas = []
    for index in indices:
        truth = labels == index if labels.ndim == 1 else labels[:, index]
        known = np.isfinite(probabilities[:, index]) & (truth >= 0)
        areas.append(area_under_curve(probabilities[known, index], truth[known] == 1))
    return _mean(np.array(areas))


def _balanced_accuracy(probabilities: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    right = probabilities.argmax(1) == labels
    return float(np.mean([right[labels == index].mean() for index in np.unique(labels)]))


def _macro_f1(probabilities: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Mean over the classes that occur in labels or predictions, as scikit-learn."""
    called, scores = probabilities.argmax(1), []
    for index in np.union1d(labels, called):
        found, true = called == index, labels == index
        scores.append(2 * (found & true).sum() / (found.sum() + true.sum()))
    return float(np.mean(scores))


_OF_CLASSES: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], float]] = {
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
}


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
