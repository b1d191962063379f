"""Receiver operating characteristic (ROC): area with its interval, comparison of two areas, and the cut-off of Youden."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class AreaUnderCurve(NamedTuple):
    """Area under the ROC curve: 0 to 1, 0.5 for chance; its standard error, and the ends of its interval, within 0 to 1."""

    auc: float
    standard_error: float
    low: float
    high: float


class AreaDifference(NamedTuple):
    """First area minus second, its standard error and interval, DeLong's z, and the two-sided p-value."""

    difference: float
    standard_error: float
    low: float
    high: float
    z: float
    p: float


class Cutoff(NamedTuple):
    """A score from which on a case counts as positive, and Youden's index (sensitivity + specificity - 1) of it, -1 to 1."""

    cutoff: float
    youden_index: float


def auc_with_interval(scores: ArrayLike, labels: ArrayLike, confidence: float = 0.95) -> AreaUnderCurve:
    """Area under the ROC curve with DeLong's interval, area +- z times standard error, cut off at 0 and 1.

    Args:
        scores (`array` of shape `(n,)`): finite; a tie of a positive and a negative case counts half.
        labels (`array` of shape `(n,)`): 1 for a positive case, 0 for a negative one.
        confidence (`float`, *optional*, defaults to 0.95): of the interval, above 0 and below 1.

    Returns:
        `AreaUnderCurve`: all nan unless there are positive and negative cases; standard error and interval nan if there is only one of
        either. Where every positive case has a higher score than every negative one, the standard error is 0 and says nothing.

    Raises:
        ValueError: for shapes that differ, scores that are not finite, or other labels.

    Source: DeLong, DeLong, Clarke-Pearson 1988, Comparing the areas under two or more correlated receiver operating characteristic curves.
    """
    areas, covariance = _delong(np.asarray(scores, dtype=np.float64)[None], labels)
    return AreaUnderCurve(float(areas[0]), *_interval(float(areas[0]), float(covariance[0, 0]), confidence, 0.0, 1.0))


def delong_test(
    first_scores: ArrayLike, second_scores: ArrayLike, labels: ArrayLike, confidence: float = 0.95
) -> AreaDifference:
    """Whether two models have different areas under the ROC curve on the same cases.

    Args:
        first_scores (`array` of shape `(n,)`): of one model, finite.
        second_scores (`array` of shape `(n,)`): of the other, of the same cases in the same order.
        labels (`array` of shape `(n,)`): 1 for a positive case, 0 for a negative one.
        confidence (`float`, *optional*, defaults to 0.95): of the interval of the difference, which is not cut off.

    Returns:
        `AreaDifference`: all nan unless there are positive and negative cases. z and p are nan if the difference has no variance (both
        models rank alike, or there is only one case of either kind), except that equal ranks give p = 1.

    Raises:
        ValueError: as `auc_with_interval`.

    Source: DeLong, DeLong, Clarke-Pearson 1988.
    """
    from scipy.stats import norm

    both = [np.asarray(scores, dtype=np.float64) for scores in (first_scores, second_scores)]
    if both[0].shape != both[1].shape:
        raise ValueError(f"both models need a score for each case, got {both[0].shape} and {both[1].shape}")
    areas, covariance = _delong(np.stack(both), labels)
    difference = float(areas[0] - areas[1])
    # Rounding must not make a variance out of two models that rank alike.
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    variance = 0.0 if abs(variance) < 1e-15 else variance
    error, low, high = _interval(difference, variance, confidence, -np.inf, np.inf)
    if not variance > 0:
        p = 1.0 if difference == 0 and variance == 0 else float("nan")
        return AreaDifference(difference, error, low, high, float("nan"), p)
    z = difference / error
    return AreaDifference(difference, error, low, high, z, float(2 * norm.sf(abs(z))))


def youden_cutoff(scores: ArrayLike, labels: ArrayLike) -> Cutoff:
    """The score with the greatest sensitivity + specificity - 1; the greatest such score of several.

    Chosen on the cases that it is then judged by, it is optimistic: choose it on validation data.

    Args:
        scores (`array` of shape `(n,)`): finite.
        labels (`array` of shape `(n,)`): 1 for a positive case, 0 for a negative one.

    Returns:
        `Cutoff`: one of the scores; all nan unless there are positive and negative cases.

    Raises:
        ValueError: for shapes that differ, scores that are not finite, or other labels.

    Source: Youden 1950, Index for rating diagnostic tests.
    """
    scores = np.asarray(scores, dtype=np.float64)
    positive = _checked(scores[None], labels)
    if positive.all() or not positive.any():
        return Cutoff(float("nan"), float("nan"))
    choices = np.unique(scores)[::-1]  # falling
    # Cases at or above each choice.
    hits, alarms = (
        (np.searchsorted(np.sort(-part), -choices, side="right")) / len(part)
        for part in (scores[positive], scores[~positive])
    )
    index = hits - alarms
    best = int(np.argmax(np.round(index, 12)))
    return Cutoff(float(choices[best]), float(index[best]))


def sensitivity_specificity(scores: ArrayLike, labels: ArrayLike, cutoff: float) -> dict[str, float]:
    """What a cut-off finds: a case is called positive from that score on.

    - `sensitivity`: share of positive cases that are called positive; `specificity`: share of negative cases that are called negative.
    - `accuracy`: share of cases that are called right.
    - `f1`: 2 true positives / (2 true positives + false positives + false negatives); nan if there are neither.

    Args:
        scores (`array` of shape `(n,)`): finite.
        labels (`array` of shape `(n,)`): 1 for a positive case, 0 for a negative one.
        cutoff (`float`): in the unit of the scores; nan makes everything nan.

    Returns:
        `dict[str, float]`, 0 to 1; nan where there is no case to measure it on.

    Raises:
        ValueError: for shapes that differ, scores that are not finite, or other labels.
    """
    scores = np.asarray(scores, dtype=np.float64)
    positive = _checked(scores[None], labels)
    if np.isnan(cutoff):
        return dict.fromkeys(("sensitivity", "specificity", "accuracy", "f1"), float("nan"))
    called = scores >= cutoff
    right, wrong = int((called & positive).sum()), int((called != positive).sum())
    return {
        "sensitivity": _share(called[positive]),
        "specificity": _share(~called[~positive]),
        "accuracy": _share(called == positive),
        "f1": 2 * right / (2 * right + wrong) if right + wrong else float("nan"),
    }


def _share(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _checked(scores: NDArray[np.float64], labels: ArrayLike) -> NDArray[np.bool_]:
    """Which cases are positive: scores (models, n) to (n,).

    Raises:
        ValueError: for shapes that differ, scores that are not finite, or other labels.
    """
    truth = np.asarray(labels)
    if scores.ndim != 2 or truth.shape != scores.shape[1:]:
        raise ValueError(f"scores and labels must both be (cases,), got {scores.shape[1:]} and {truth.shape}")
    if not np.isfinite(scores).all():
        wrong = int((~np.isfinite(scores)).any(0).sum())
        raise ValueError(f"scores of {wrong} of {len(truth)} cases are nan or infinite: the model has diverged")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(f"labels are 1 (positive) or 0, got {truth[~np.isin(truth, (0, 1))][0]}")
    return truth.astype(bool)


def _delong(scores: NDArray[np.float64], labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Areas (models,) and their covariance (models, models); nan where there are no cases, or one, to tell it from."""
    from scipy.stats import rankdata

    positive = _checked(scores, labels)
    models, counts = len(scores), (int(positive.sum()), int((~positive).sum()))
    if not all(counts):
        return np.full(models, np.nan), np.full((models, models), np.nan)
    ranks = rankdata(scores, axis=1)
    within = [rankdata(scores[:, part], axis=1) for part in (positive, ~positive)]
    # Share of negative cases below each positive one, and of positive cases above each negative one.
    placements = (ranks[:, positive] - within[0]) / counts[1], 1 - (ranks[:, ~positive] - within[1]) / counts[0]
    if min(counts) < 2:
        return placements[0].mean(1), np.full((models, models), np.nan)
    covariance = sum(np.cov(part).reshape(models, models) / part.shape[1] for part in placements)
    return placements[0].mean(1), np.asarray(covariance)


def _interval(value: float, variance: float, confidence: float, low: float, high: float) -> tuple[float, float, float]:
    """Standard error and both ends of the interval.

    Raises:
        ValueError: for a confidence outside 0 to 1.
    """
    from scipy.stats import norm

    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` is above 0 and below 1, such as 0.95, got {confidence}")
    error = float(np.sqrt(variance)) if variance >= 0 else float("nan")
    reach = float(norm.ppf((1 + confidence) / 2)) * error
    if np.isnan(reach):
        return error, float("nan"), float("nan")
    return error, max(low, value - reach), min(high, value + reach)
