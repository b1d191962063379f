"""Whether the probabilities of a classifier mean what they say, before and after temperature scaling.

The temperature, one number that all logits are divided by, is fitted on validation cases and judged on test cases. It changes no ranking
within a case, so that accuracy stays as it is. The weights were chosen on the same validation cases, which makes the fit a little too
confident.

Source: Guo et al. 2017, On calibration of modern neural networks (temperature scaling, section 4.2); Kumar et al. 2019, Verified
uncertainty calibration (the error of each class).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from echocare_hf.metrics.calibration import calibration_metrics, reliability_bins

BINS = 15
LIMITS = (0.01, 100.0)
"""Temperatures that are looked at; the best one at an end means that there is none."""
FLAT = 1e-12  # differences of the likelihood that are none
_TINY = 1e-12  # probabilities are kept this far from 0 and 1 where logits are made out of them


def calibrate(cases: pd.DataFrame, class_names: Sequence[str] | None = None, bins: int = BINS) -> dict[str, Any]:
    """Fit a temperature on the validation cases of a trial, and measure the test cases before and after.

    Args:
        cases (`DataFrame`): the table of a trial: `part` ("validation" or "test"), `probability_0`, ... and `label` (one class), or
            `label_0`, ... (findings that may occur together; below 0 or nan where not known). `logit_0`, ... are used where they are
            there; else they are made from the probabilities, which differ from them by what softmax does not see.
        class_names (`list[str]`, *optional*): names of the classes, else their numbers.
        bins (`int`, *optional*, defaults to 15): of equal width, for errors and diagrams.

    Returns:
        `dict`, ready for JSON, None for what is not defined:

        - `temperature`: above 0; 1 if `problem` says why none could be fitted. Above 1 the model was too sure of itself.
        - `problem`: a sentence, or None.
        - `validation_cases`, `test_cases`, `bins`; for findings they count known labels.
        - `before`, `after`: of the test cases, `ece_<bins>bins`, `brier`, `negative_log_likelihood` (per case, natural logarithm), and
          `reliability`, a list of bins with `low`, `high`, `confidence`, `accuracy`, `count`.
        - `classes`: for each class the same four, one against the rest, in which the confidence is the probability of that class
          and the accuracy how often it is there; under `before` and `after`.

    Raises:
        ValueError: for a table without the columns, or without cases of either part.
    """
    scores, labels, single = _columns(cases)
    known = np.isfinite(scores).all(1)
    parts = cases["part"].to_numpy()
    validation, test = (known & (parts == part) for part in ("validation", "test"))
    for name, chosen in (("validation", validation), ("test", test)):
        if not chosen.any():
            raise ValueError(f"there are no {name} cases with finite probabilities: calibration needs both parts")
    names = [str(name) for name in (class_names or range(scores.shape[1]))]
    if len(names) != scores.shape[1]:
        raise ValueError(f"{len(names)} names for {scores.shape[1]} classes: give one each")
    temperature, problem = fit_temperature(scores[validation], labels[validation])
    measured: dict[str, dict[str, Any]] = {}
    of_classes: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, divisor in (("before", 1.0), ("after", temperature)):
        probabilities = _probabilities(scores[test] / divisor, single)
        measured[key] = _judge(probabilities, labels[test], bins)
        for index, name in enumerate(names):
            truth = (labels[test] == index).astype(float) if single else labels[test][:, index]
            of_classes[name][key] = _judge(probabilities[:, [index]], truth[:, None], bins)
    return {
        "temperature": temperature,
        "problem": problem,
        "validation_cases": _count(labels[validation]),
        "test_cases": _count(labels[test]),
        "bins": bins,
        **measured,
        "classes": of_classes,
    }


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> tuple[float, str | None]:
    """The temperature under which the labels are likeliest.

    The mean negative log-likelihood is convex in 1 / temperature, so that a search along one line finds the best.

    Args:
        logits (`array` of shape `(n, classes)`): before softmax, or, for findings, before the sigmoid.
        labels (`array` of shape `(n,)` or `(n, classes)`): true class, or 0 and 1 for each finding, below 0 or nan where not known.

    Returns:
        `tuple[float, str | None]`: the temperature and None; or 1 and why none is best within 0.01 to 100, such as where every case is
            called right, so that the surest model is the likeliest.

    Raises:
        ValueError: for shapes that do not fit, or without a label.
    """
    from scipy.optimize import minimize_scalar

    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or truth.shape not in (scores.shape[:1], scores.shape) or not _count(truth):
        raise ValueError(
            f"logits are (cases, classes) and labels (cases,) or alike, got {scores.shape}, {truth.shape}"
        )
    lowest, highest = np.log(1 / np.array(LIMITS[::-1]))

    def cost(exponent: float) -> float:
        return negative_log_likelihood(scores * np.exp(exponent), truth)

    found = minimize_scalar(cost, bounds=(lowest, highest), method="bounded", options={"xatol": 1e-9})
    for end, reason in ((lowest, "no better than by chance"), (highest, "without an error")):
        if cost(end) <= found.fun + FLAT:
            return 1.0, f"the validation cases are told apart {reason}: no temperature is best, it stays 1"
    return float(np.exp(-found.x)), None


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-likelihood of the labels, natural logarithm; arguments as of `fit_temperature`."""
    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if truth.ndim == 1:
        largest = scores.max(1)
        normaliser = largest + np.log(np.exp(scores - largest[:, None]).sum(1))
        return float((normaliser - scores[np.arange(len(scores)), truth.astype(np.int64)]).mean())
    known = truth >= 0  # False for nan
    return float((np.logaddexp(0, scores) - np.where(known, truth, 0) * scores)[known].mean())


def _columns(cases: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[Any], bool]:
    """Logits (n, classes), labels (n,) or (n, classes), and whether a case has one class.

    Raises:
        ValueError: for a table without the columns.
    """
    count = sum(1 for column in cases.columns if column.startswith("probability_"))
    wanted = [f"probability_{index}" for index in range(count)]
    single = "label" in cases.columns
    truth = ["label"] if single else [f"label_{index}" for index in range(count)]
    missing = [column for column in (*(wanted or ["probability_0"]), *truth, "part") if column not in cases.columns]
    if missing:
        raise ValueError(f"the table of cases has no column {missing[0]}: calibration is of classifiers alone")
    logits = [f"logit_{index}" for index in range(count)]
    if set(logits) <= set(cases.columns) and cases[logits].notna().all(axis=None):
        scores = cases[logits].to_numpy(np.float64)
    else:
        given = np.clip(cases[wanted].to_numpy(np.float64), _TINY, 1 - _TINY)
        scores = np.log(given) if single else np.log(given) - np.log1p(-given)
    labels = cases["label"].to_numpy(np.int64) if single else cases[truth].to_numpy(np.float64)
    return scores, labels, single


def _probabilities(logits: NDArray[np.float64], single: bool) -> NDArray[np.float64]:
    if not single:
        return np.exp(-np.logaddexp(0, -logits))
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _count(labels: NDArray[Any]) -> int:
    return int((labels >= 0).sum())


def _judge(probabilities: NDArray[np.float64], labels: NDArray[Any], bins: int) -> dict[str, Any]:
    """Errors and bins of test cases: of the predicted class, or, with labels (n, findings), of whether each finding is there."""
    if labels.ndim == 1:
        found = calibration_metrics(probabilities, labels, bins)
        per_bin = reliability_bins(probabilities, labels, bins)
        confidence, accuracy, counts = per_bin.confidence, per_bin.accuracy, per_bin.cases
        ece, brier = found["ece"], found["brier"]
        likelihood = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _TINY)).mean()
    else:
        known = labels >= 0
        given, truth = probabilities[known], labels[known]
        confidence, accuracy, counts = positive_bins(given, truth, bins)
        ece = float((np.nan_to_num(np.abs(accuracy - confidence)) * counts).sum() / max(len(truth), 1))
        brier = float(np.square(given - truth).mean()) if len(truth) else float("nan")
        right = np.maximum(np.where(truth == 1, given, 1 - given), _TINY)
        likelihood = -np.log(right).mean() if len(truth) else float("nan")
    edges = np.linspace(0, 1, bins + 1)
    return {
        f"ece_{bins}bins": _finite(ece),
        "brier": _finite(brier),
        "negative_log_likelihood": _finite(likelihood),
        "reliability": [
            {
                "low": float(edges[index]),
                "high": float(edges[index + 1]),
                "confidence": _finite(confidence[index]),
                "accuracy": _finite(accuracy[index]),
                "count": int(counts[index]),
            }
            for index in range(bins)
        ],
    }


def positive_bins(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Of one class against the rest: mean probability and share of cases that are of it, in bins of equal width over 0 to 1, each of which
    holds its upper end.

    Args:
        probabilities (`array` of shape `(n,)`): of the class, 0 to 1.
        labels (`array` of shape `(n,)`): 1 where it is there, else 0.
        bins (`int`, *optional*, defaults to 15): at least 1.

    Returns:
        Three arrays `(bins,)`: mean probability and share, nan in a bin without cases, and the number of cases.
    """
    given, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    place = np.clip(np.ceil(given * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, weights=values, minlength=bins) / counts for values in (given, truth)]
    return means[0], means[1], counts


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
