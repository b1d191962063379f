"""Classification metrics against loops over images and pairs of images, written down from the definitions."""

import math

import numpy as np
import pytest

from echocare_hf.metrics import classification_metrics

NAMES = ["benign", "malignant", "normal"]


def pair_auc(present: np.ndarray, scores: np.ndarray) -> float:
    """The share of pairs (one present, one absent) that the scores put in order; a tie counts half."""
    pairs = [
        (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
        for i in np.flatnonzero(present)
        for j in np.flatnonzero(~present)
    ]
    return float(np.mean(pairs)) if pairs else math.nan


def counted_f1(present: np.ndarray, predicted: np.ndarray) -> float:
    right = np.sum(present & predicted)
    missed, extra = np.sum(present & ~predicted), np.sum(~present & predicted)
    return float(2 * right / (2 * right + missed + extra)) if right + missed + extra else math.nan


def stepwise_average_precision(present: np.ndarray, scores: np.ndarray) -> float:
    """Sum over the thresholds of precision times the gain in recall."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        predicted = scores >= threshold
        recall = np.sum(predicted & present) / np.sum(present)
        total += (recall - before) * np.sum(predicted & present) / np.sum(predicted)
        before = recall
    return total


def counted_kappa(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """1 - observed over expected squared distance."""
    observed = np.mean([(a - b) ** 2 for a, b in zip(truth, predicted, strict=True)])
    expected = np.mean([(a - b) ** 2 for a in truth for b in predicted])
    return 1 - observed / expected


def mean_of(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def random_case(seed: int, count: int, classes: int, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that know something of the labels; with few decimals there are ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) + 1.2 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities.round(decimals), labels


@pytest.mark.parametrize("decimals", [8, 1], ids=["distinct", "ties"])
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_one_class_an_image(seed, classes, decimals):
    probabilities, labels = random_case(seed, 30, classes, decimals)
    names = [f"class {index}" for index in range(classes)]
    found = classification_metrics(probabilities, labels, names, "ordinal_classification")
    predicted = probabilities.argmax(1)
    f1 = [counted_f1(labels == c, predicted == c) for c in range(classes)]
    auc = [pair_auc(labels == c, probabilities[:, c]) for c in range(classes)]
    recalls = [np.mean(predicted[labels == c] == c) for c in set(labels)]
    expected = {
        "accuracy": np.mean(predicted == labels),
        "balanced_accuracy": np.mean(recalls),
        "macro_f1": mean_of(f1),
        "auc": auc[1] if classes == 2 else mean_of(auc),
        "mean_absolute_error": np.mean(np.abs(predicted - labels)),
        "quadratic_kappa": counted_kappa(labels, predicted, classes),
        **{f"f1_{name}": value for name, value in zip(names, f1, strict=True)},
        **{f"auc_{name}": value for name, value in zip(names, auc, strict=True)},
    }
    assert found == pytest.approx(expected, nan_ok=True)
    assert all(type(value) is float for value in found.values())
    plain = classification_metrics(probabilities, labels, names)
    assert plain == {
        key: value for key, value in found.items() if key not in ("mean_absolute_error", "quadratic_kappa")
    }


def test_auc_of_two_classes_is_that_of_the_second():
    scores = np.array([[0.5, 0.1], [0.4, 0.9], [0.5, 0.2], [0.6, 0.3]])  # need not sum to 1
    found = classification_metrics(scores, [0, 1, 0, 1], ["healthy", "ill"])
    assert found["auc"] == found["auc_ill"] == 1 and found["auc_healthy"] == 0.5


@pytest.mark.filterwarnings("error")
def test_a_class_that_does_not_occur_is_left_out():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1], [0.3, 0.6, 0.1]])
    found = classification_metrics(probabilities, [0, 1, 1, 1], NAMES)
    assert math.isnan(found["f1_normal"]) and math.isnan(found["auc_normal"])
    assert found["auc"] == pytest.approx(1.0)  # both of the other classes are ranked without a fault
    assert found["balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)


@pytest.mark.filterwarnings("error")
def test_a_class_that_is_only_predicted_counts_in_f1():
    found = classification_metrics([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]], [0, 0], NAMES)
    assert found["f1_normal"] == 0 and math.isnan(found["f1_malignant"])
    assert found["macro_f1"] == pytest.approx(1 / 3)
    assert found["balanced_accuracy"] == 0.5
    assert math.isnan(found["auc"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("labels", [[], [-1, -100]], ids=["no images", "no labels"])
@pytest.mark.parametrize("problem_type", ["single_label_classification", "ordinal_classification"])
def test_nothing_known_is_nan(labels, problem_type):
    found = classification_metrics(np.full((len(labels), 3), 1 / 3), labels, NAMES, problem_type)
    assert found and all(math.isnan(value) for value in found.values())


@pytest.mark.filterwarnings("error")
def test_kappa_of_one_class_only_is_nan():
    found = classification_metrics([[0.9, 0.1, 0], [0.8, 0.1, 0.1]], [0, 0], NAMES, "ordinal_classification")
    assert math.isnan(found["quadratic_kappa"]) and found["mean_absolute_error"] == 0 and found["accuracy"] == 1


def test_unknown_labels_are_left_out():
    probabilities, labels = random_case(0, 20, 3, 8)
    unknown = np.random.default_rng(1).random(20) < 0.4
    hidden = np.where(unknown, -1, labels)[:, None]  # (n, 1) is taken too
    assert classification_metrics(probabilities, hidden, NAMES) == classification_metrics(
        probabilities[~unknown], labels[~unknown], NAMES
    )


@pytest.mark.parametrize("decimals", [8, 1], ids=["distinct", "ties"])
@pytest.mark.parametrize("seed", range(4))
def test_several_findings(seed, decimals):
    rng = np.random.default_rng(seed)
    probabilities = rng.random((25, 4)).round(decimals)
    labels = rng.choice([-1, 0, 1], size=(25, 4), p=[0.3, 0.4, 0.3]).astype(float)
    names = ["a", "b", "c", "d"]
    found = classification_metrics(probabilities, labels, names, "multi_label_classification")
    expected, columns = {}, {"auc": [], "average_precision": [], "f1": []}
    for index, name in enumerate(names):
        known = labels[:, index] >= 0
        present, scores = labels[known, index] == 1, probabilities[known, index]
        expected[f"auc_{name}"] = pair_auc(present, scores)
        expected[f"average_precision_{name}"] = stepwise_average_precision(present, scores)
        expected[f"f1_{name}"] = counted_f1(present, scores >= 0.5)
        for metric, values in columns.items():
            values.append(expected[f"{metric}_{name}"])
    expected |= {"macro_f1": np.mean(columns["f1"])}
    expected |= {metric: np.mean(columns[metric]) for metric in ("auc", "average_precision")}
    assert found == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
def test_findings_without_both_labels_are_left_out():
    probabilities = [[0.9, 0.2, 0.1, 0.4], [0.1, 0.9, 0.2, 0.3], [0.8, 0.9, 0.4, 0.9]]
    labels = [[1, 1, 0, -1], [0, 1, 0, -1], [1, -1, 0, -1]]  # both; only present; only absent; unknown
    found = classification_metrics(probabilities, labels, ["a", "b", "c", "d"], "multi_label_classification")
    assert found["auc"] == found["auc_a"] == 1 and found["average_precision"] == 1
    assert all(math.isnan(found[f"{metric}_{name}"]) for metric in ("auc", "average_precision") for name in "bcd")
    assert found["f1_b"] == pytest.approx(2 / 3) and math.isnan(found["f1_c"]) and math.isnan(found["f1_d"])
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem_type": "regression"}, "problem_type"),
        ({"probabilities": [0.5, 0.5]}, "images, classes"),
        ({"probabilities": [[0.5, 0.5], [np.nan, 0.5]]}, "1 of 2 images"),
        ({"labels": [0]}, r"\(2,\)"),
        ({"labels": [0, 2]}, "from 0 to 1.*got 2"),
        ({"labels": [0, -2]}, "got -2"),
        ({"labels": [0, 0.5]}, "got 0.5"),
        ({"labels": [[0, 0.5], [1, 1]], "problem_type": "multi_label_classification"}, "got 0.5"),
        ({"class_names": ["a"]}, "1 names for 2"),
        ({"class_names": ["a", "a"]}, "more than once"),
    ],
)
def test_wrong_input_is_named(changes, message):
    given = {"probabilities": [[0.5, 0.5], [0.2, 0.8]], "labels": [0, 1], "class_names": ["a", "b"]} | changes
    with pytest.raises(ValueError, match=message):
        classification_metrics(**given)
