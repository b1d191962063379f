"""Whether probabilities mean what they say: expected calibration error (ECE) and Brier score."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Rows of probabilities may miss a sum of 1 by this much: those of a softmax in bf16 do.
SUM_TOLERANCE = 1e-2


class ReliabilityBins(NamedTuple):
    """Cases by the confidence of their prediction, for a reliability plot; each (bins,), nan in a bin without cases."""

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    cases: NDArray[np.int64]


def reliability_bins(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> ReliabilityBins:
    """Mean confidence and accuracy of the cases in bins of equal width over 0 to 1, each of which holds its upper end.

    Args:
        probabilities (`array` of shape `(n, classes)`): rows sum to 1. The predicted class is the most probable one, the first of several,
            and its probability is the confidence.
        labels (`array` of shape `(n,)`): true class of each case, 0 to classes - 1.
        bins (`int`, *optional*, defaults to 15): at least 1.

    Returns:
        `ReliabilityBins`

    Raises:
        ValueError: for shapes that do not fit, rows that are no probabilities, a label that there is not, or no bins.
    """
    given, truth = _checked(probabilities, labels)
    if bins < 1:
        raise ValueError(f"`bins` is at least 1, got {bins}")
    confidence = given.max(1)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [
            np.bincount(place, weights=values, minlength=bins) / count
            for values in (confidence, (given.argmax(1) == truth).astype(np.float64))
        ]
    return ReliabilityBins(means[0], means[1], count)


def calibration_metrics(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> dict[str, float]:
    """How far probabilities are from frequencies.

    - `ece`: expected calibration error of the predicted class: sum over the bins of (cases in the bin / all cases) times
      |accuracy - mean confidence|, 0 to 1. It depends on the number of bins: state it.
    - `brier`: mean over the cases of the squared distance between the probabilities and the true class as 0 and 1, summed over the
      classes, 0 to 2; halved for two classes, where it is then the squared error of either probability, 0 to 1.

    Args:
        probabilities (`array` of shape `(n, classes)`): rows sum to 1.
        labels (`array` of shape `(n,)`): true class of each case, 0 to classes - 1.
        bins (`int`, *optional*, defaults to 15): of equal width over 0 to 1, at least 1.

    Returns:
        `dict[str, float]`, nan without cases.

    Raises:
        ValueError: for shapes that do not fit, rows that are no probabilities, a label that there is not, or no bins.

    Source: Guo et al. 2017, On calibration of modern neural networks (equation 3, 15 bins); Brier 1950, Verification of forecasts
    expressed in terms of probability; scikit-learn's `brier_score_loss`.
    """
    if not len(np.asarray(labels)) and not len(np.asarray(probabilities)):
        return {"ece": float("nan"), "brier": float("nan")}
    given, truth = _checked(probabilities, labels)
    found = reliability_bins(given, truth, bins)
    gaps = np.nan_to_num(np.abs(found.accuracy - found.confidence))
    squares = np.square(given - np.eye(given.shape[1])[truth]).sum(1)
    return {
        "ece": float((gaps * found.cases).sum() / len(truth)),
        "brier": float(squares.mean() / (2 if given.shape[1] == 2 else 1)),
    }


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Raises:
    ValueError: for shapes that do not fit, rows that are no probabilities, or a label that there is not.
    """
    given, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if given.ndim != 2 or given.shape[1] < 2 or truth.shape != given.shape[:1]:
        raise ValueError(
            f"probabilities must be (cases, at least two classes) and labels (cases,), got {given.shape} and {truth.shape}"
        )
    sums = given.sum(1)
    if not ((given >= 0).all() and (np.abs(sums - 1) <= SUM_TOLERANCE).all()):
        raise ValueError("probabilities are at least 0 and sum to 1 in each row: take the softmax of logits first")
    if not np.isin(truth, np.arange(given.shape[1])).all():
        raise ValueError(f"labels are whole numbers from 0 to {given.shape[1] - 1}")
    return given, truth.astype(np.int64)
