"""Classification: one class an image, ordered classes, or several findings an image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..model.label_losses_echocare import UNKNOWN_CLASSES
from .common import check_names, mean_known

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "ordinal_classification")


def classification_metrics(
    probabilities: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str],
    problem_type: str = "single_label_classification",
) -> dict[str, float]:
    """How well probabilities tell the classes of images.

    One class an image (`"single_label_classification"`, `"ordinal_classification"`); the predicted class is the most probable one:

    - `accuracy`: share of images whose class is predicted, 0 to 1.
    - `balanced_accuracy`: mean over the classes that occur of the share of their images that is found, 0 to 1.
    - `macro_f1`, `f1_<class>`: harmonic mean of precision and recall, 0 to 1; nan for a class neither present nor predicted. `macro_f1`
      is the mean over the other classes.
    - `auc`, `auc_<class>`: area under the receiver operating characteristic of each class against the rest, 0 to 1, 0.5 for chance;
      nan for a class that no image or every image has. `auc` is the mean over the other classes; of two classes it is that of the
      second.
    - `mean_absolute_error`, `quadratic_kappa`, for ordered classes only: mean distance of the predicted class from the true one in
      steps, and Cohen's kappa with squared weights, at most 1, 0 for chance, nan if only one class occurs and is predicted.

    Several findings an image (`"multi_label_classification"`); a finding is predicted from a probability of 0.5 on:

    - `auc`, `auc_<class>` as above, over the images in which the finding is known.
    - `average_precision`, `average_precision_<class>`: mean of the precision, weighted by the steps in recall, 0 to 1; nan where `auc` is.
    - `macro_f1`, `f1_<class>` as above.

    Means leave out what is nan, and are nan if nothing is left; so is everything if no label is known.

    Args:
        probabilities (`array` of shape `(n, classes)`): probabilities, or any finite scores in the same order (thresholds of
            `"multi_label_classification"` apart).
        labels (`array` of shape `(n,)` or `(n, 1)`, or `(n, classes)` for `"multi_label_classification"`): the class of each image, 0 to
            classes - 1; or 1 where a finding is present and 0 where it is absent. -1 and -100 where not known: left out.
        class_names (`list[str]` of `classes` names): used in the names of the values.
        problem_type (`str`, *optional*, defaults to `"single_label_classification"`): as in the configuration.

    Returns:
        `dict[str, float]`

    Raises:
        ValueError: for another problem type, shapes or names that do not fit, probabilities that are not finite, or a label that
            there is not.

    Source: scikit-learn `recall_score`, `f1_score`, `roc_auc_score`, `average_precision_score`, `cohen_kappa_score`.
    """
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"`problem_type` is one of {', '.join(PROBLEM_TYPES)}, got {problem_type!r}")
    scores, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2:
        raise ValueError(f"`probabilities` must be (images, classes), got {scores.shape}")
    check_names(class_names, scores.shape[1], "class_names")
    if not np.isfinite(scores).all():
        wrong = int((~np.isfinite(scores)).any(1).sum())
        raise ValueError(
            f"`probabilities` of {wrong} of {len(scores)} images are nan or infinite: the model has diverged"
        )
    if problem_type == "multi_label_classification":
        return _findings(scores, _known_labels(truth, scores.shape, largest=1), class_names)
    if truth.shape == (len(scores), 1):
        truth = truth[:, 0]
    truth = _known_labels(truth, scores.shape[:1], largest=scores.shape[1] - 1)
    known = truth >= 0
    return _classes(scores[known], truth[known], class_names, ordered=problem_type == "ordinal_classification")


def _known_labels(labels: NDArray, shape: tuple[int, ...], largest: int) -> NDArray[np.int64]:
    """The labels as whole numbers 0 to `largest`, -1 where not known.

    Raises:
        ValueError: for another shape, or any other label.
    """
    if labels.shape != shape:
        raise ValueError(f"`labels` must be {shape} to go with the probabilities, got {labels.shape}")
    unknown = np.isin(labels, UNKNOWN_CLASSES)
    wrong = ~(unknown | np.isin(labels, np.arange(largest + 1)))
    if wrong.any():
        raise ValueError(
            f"`labels` are whole numbers from 0 to {largest}, or -1 where not known, got {labels[wrong][0]}"
        )
    return np.where(unknown, -1, labels).astype(np.int64)


def _classes(
    scores: NDArray[np.float64], truth: NDArray[np.int64], class_names: Sequence[str], ordered: bool
) -> dict[str, float]:
    """One class an image: scores (n, classes), classes (n,), all known."""
    from sklearn import metrics

    classes = np.arange(scores.shape[1])
    predicted = scores.argmax(1) if len(scores) else np.empty(0, dtype=np.int64)
    f1 = [float("nan")] * len(classes)
    recall = float("nan")
    if len(truth):
        f1 = metrics.f1_score(truth, predicted, labels=classes, average=None, zero_division=np.nan)
        recall = metrics.recall_score(truth, predicted, labels=np.unique(truth), average="macro")
    auc = [_area(truth == index, scores[:, index]) for index in classes]
    found = {
        "accuracy": mean_known(predicted == truth),
        "balanced_accuracy": float(recall),
        "macro_f1": mean_known(f1),
        "auc": auc[1] if len(classes) == 2 else mean_known(auc),
    }
    if ordered:
        found["mean_absolute_error"] = mean_known(np.abs(predicted - truth))
        varied = len(np.union1d(truth, predicted)) > 1
        found["quadratic_kappa"] = (
            float(metrics.cohen_kappa_score(truth, predicted, labels=classes, weights="quadratic"))
            if varied
            else float("nan")
        )
    return found | _by_class("f1", f1, class_names) | _by_class("auc", auc, class_names)


def _findings(scores: NDArray[np.float64], truth: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, float]:
    """Several findings an image: scores and labels (n, classes), -1 where not known."""
    from sklearn import metrics

    auc, precision, f1 = [], [], []
    for index in range(scores.shape[1]):
        known = truth[:, index] >= 0
        score, present = scores[known, index], truth[known, index] == 1
        auc.append(_area(present, score))
        both = not np.isnan(auc[-1])
        precision.append(float(metrics.average_precision_score(present, score)) if both else float("nan"))
        predicted = score >= 0.5
        either = present.any() or predicted.any()
        f1.append(float(metrics.f1_score(present, predicted)) if either else float("nan"))
    means = {"auc": mean_known(auc), "average_precision": mean_known(precision), "macro_f1": mean_known(f1)}
    return (
        means
        | _by_class("auc", auc, class_names)
        | _by_class("average_precision", precision, class_names)
        | _by_class("f1", f1, class_names)
    )


def _area(present: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Area under the receiver operating characteristic; nan unless some are present and some are not."""
    from sklearn.metrics import roc_auc_score

    if present.all() or not present.any():
        return float("nan")
    return float(roc_auc_score(present, scores))


def _by_class(metric: str, values: Sequence[float], class_names: Sequence[str]) -> dict[str, float]:
    return {f"{metric}_{name}": float(value) for name, value in zip(class_names, values, strict=True)}
