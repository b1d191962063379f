"""eval/metrics: AUC with DeLong's interval, Youden's cut-off, macro-F1, ECE and Brier against scikit-learn and loops."""

import math
from pathlib import Path

import evaluate
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import (
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    roc_auc_score,
    roc_curve,
)

from echocare_hf.metrics.calibration import reliability_bins
from echocare_hf.metrics.roc import auc_with_interval, delong_test, sensitivity_specificity, youden_cutoff

METRICS = Path(__file__).resolve().parents[2] / "eval" / "metrics"


def load(name: str) -> evaluate.Metric:
    return evaluate.load(str(METRICS / name), keep_in_memory=True)


def scored(seed: int, count: int = 40, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = (random.random(count) < 0.4).astype(int)
    scores = labels + random.normal(0, 1, count)
    return (np.round(scores) if ties else scores), labels


def looped_delong(all_scores: list[np.ndarray], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas and covariance from the definition: how often each case wins against those of the other kind."""

    def wins(a, b):
        return 1.0 if a > b else 0.5 if a == b else 0.0

    tables = []
    for scores in all_scores:
        positive, negative = scores[labels == 1], scores[labels == 0]
        tables.append(np.array([[wins(a, b) for b in negative] for a in positive]))
    areas = np.array([table.mean() for table in tables])
    m, n = tables[0].shape
    covariance = np.zeros((len(tables), len(tables)))
    for r, one in enumerate(tables):
        for s, other in enumerate(tables):
            s10 = sum((one[i].mean() - areas[r]) * (other[i].mean() - areas[s]) for i in range(m)) / (m - 1)
            s01 = sum((one[:, j].mean() - areas[r]) * (other[:, j].mean() - areas[s]) for j in range(n)) / (n - 1)
            covariance[r, s] = s10 / m + s01 / n
    return areas, covariance


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_auc_and_its_interval(seed, ties):
    scores, labels = scored(seed, ties=ties)
    areas, covariance = looped_delong([scores], labels)
    error = math.sqrt(covariance[0, 0])
    found = load("area_under_curve").compute(predictions=scores, references=labels)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores)) == pytest.approx(areas[0])
    assert found["auc_standard_error"] == pytest.approx(error)
    assert found["auc_low"] == pytest.approx(max(0, areas[0] - 1.959964 * error), abs=1e-6)
    assert found["auc_high"] == pytest.approx(min(1, areas[0] + 1.959964 * error), abs=1e-6)
    narrow = load("area_under_curve").compute(predictions=scores, references=labels, confidence=0.5)
    assert narrow["auc_low"] == pytest.approx(areas[0] - 0.6744898 * error)


@pytest.mark.parametrize("seed", range(3))
def test_delong_of_two_models(seed):
    scores, labels = scored(seed)
    other = np.round(scores + np.random.default_rng(seed + 9).normal(0, 1, len(scores)), 1)
    areas, covariance = looped_delong([scores, other], labels)
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    z = (areas[0] - areas[1]) / error
    found = delong_test(scores, other, labels)
    assert found.difference == pytest.approx(areas[0] - areas[1])
    assert (found.z, found.p) == pytest.approx((z, 2 * norm.cdf(-abs(z))))
    turned = delong_test(other, scores, labels)
    assert (turned.difference, turned.p) == pytest.approx((-found.difference, found.p))
    by_metric = load("area_under_curve").compute(predictions=scores, references=labels, other_predictions=other)
    assert by_metric["auc_difference"] == pytest.approx(found.difference)
    assert by_metric["delong_p"] == pytest.approx(found.p)
    assert by_metric["auc_difference_low"] == pytest.approx(found.difference - 1.959964 * error, abs=1e-6)


def test_the_interval_covers_the_true_area():
    """Of 300 samples of 60 cases from two normal distributions one standard deviation apart, nearly 95 % cover Phi(1 / sqrt(2))."""
    random, true = np.random.default_rng(0), norm.cdf(1 / math.sqrt(2))
    labels = np.arange(60) % 2
    covered = 0
    for _ in range(300):
        area = auc_with_interval(random.normal(size=60) + labels, labels)
        covered += area.low <= true <= area.high
    assert 0.91 <= covered / 300 <= 0.985


def test_degenerate_areas():
    assert all(map(math.isnan, auc_with_interval([0.1, 0.2], [1, 1])))
    assert all(map(math.isnan, auc_with_interval([], [])))
    single = auc_with_interval([0.1, 0.2, 0.3], [0, 1, 0])
    assert single.auc == 0.5 and math.isnan(single.low)
    assert tuple(auc_with_interval([0, 0, 1, 1], [0, 0, 1, 1])) == (1, 0, 1, 1)
    assert auc_with_interval([1, 1, 1, 1], [0, 0, 1, 1]).auc == 0.5
    scores, labels = scored(0)
    same = delong_test(scores, 2 * scores + 3, labels)
    assert (same.difference, same.p) == (0, 1) and math.isnan(same.z)
    assert math.isnan(delong_test(scores, scores, np.ones(len(scores), int)).p)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_youden_cutoff_is_that_of_the_curve(seed, ties):
    scores, labels = scored(seed, ties=ties)
    false_alarms, hits, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    best = np.argmax(np.round(hits - false_alarms, 12)[1:]) + 1  # the first threshold is infinite
    found = youden_cutoff(scores, labels)
    assert found == pytest.approx((thresholds[best], (hits - false_alarms)[best]))


@pytest.mark.parametrize("seed", range(3))
def test_sensitivity_at_the_cutoff_of_validation_and_of_test(seed):
    scores, labels = scored(seed)
    validation_scores, validation_labels = scored(seed + 50, ties=True)
    found = load("sensitivity_specificity").compute(
        predictions=scores,
        references=labels,
        validation_predictions=validation_scores,
        validation_references=validation_labels,
    )
    for name, chosen in (
        ("validation_cutoff", youden_cutoff(validation_scores, validation_labels).cutoff),
        ("test_cutoff_optimistic", youden_cutoff(scores, labels).cutoff),
    ):
        called = (scores >= chosen).astype(int)
        tn, fp, fn, tp = confusion_matrix(labels, called).ravel()
        assert found[name] == chosen
        assert found[f"sensitivity_{name}"] == pytest.approx(tp / (tp + fn))
        assert found[f"specificity_{name}"] == pytest.approx(tn / (tn + fp))
        assert found[f"accuracy_{name}"] == pytest.approx((tp + tn) / len(labels))
        assert found[f"f1_{name}"] == pytest.approx(f1_score(labels, called))
    optimistic = found["sensitivity_test_cutoff_optimistic"] + found["specificity_test_cutoff_optimistic"]
    assert optimistic >= found["sensitivity_validation_cutoff"] + found["specificity_validation_cutoff"]


def test_a_cutoff_of_one_class_is_nan():
    assert all(map(math.isnan, youden_cutoff([0.1, 0.4], [0, 0])))
    assert all(map(math.isnan, sensitivity_specificity([0.1, 0.4], [0, 1], math.nan).values()))
    found = sensitivity_specificity([0.1, 0.4], [0, 0], 0.3)
    assert math.isnan(found["sensitivity"]) and found["specificity"] == 0.5 and found["f1"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_macro_f1_is_that_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    true, predicted = random.integers(0, 4, (2, 50))
    found = load("macro_f1").compute(predictions=predicted, references=true, class_names=["2", "3", "4", "5"])
    assert found["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert found["accuracy"] == pytest.approx((true == predicted).mean())
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(true, predicted))
    assert found["f1_4"] == pytest.approx(f1_score(true == 2, predicted == 2))


def test_a_class_that_is_nowhere_is_left_out_of_macro_f1():
    found = load("macro_f1").compute(predictions=[0, 1], references=[0, 0], class_names=["2", "3", "4"])
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2) and math.isnan(found["f1_4"])
    with pytest.raises(ValueError, match="outside 0 to 1"):
        load("macro_f1").compute(predictions=[2], references=[0], class_names=["2", "3"])


def looped_ece(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    total = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        inside = [i for i, row in enumerate(probabilities) if low < row.max() <= high]
        if inside:
            right = np.mean([probabilities[i].argmax() == labels[i] for i in inside])
            total += abs(right - np.mean([probabilities[i].max() for i in inside])) * len(inside) / len(labels)
    return total


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("bins", [10, 15])
def test_calibration(classes, bins):
    random = np.random.default_rng(classes)
    logits = random.normal(0, 2, (200, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = random.integers(0, classes, 200)
    labels[:120] = probabilities[:120].argmax(1)
    found = load("calibration").compute(predictions=probabilities.tolist(), references=labels, bins=bins)
    assert found[f"ece_{bins}bins"] == pytest.approx(looped_ece(probabilities, labels, bins))
    if classes == 2:
        assert found["brier"] == pytest.approx(brier_score_loss(labels, probabilities[:, 1]))
    else:
        expected = np.mean(
            [sum((p - (k == t)) ** 2 for k, p in enumerate(row)) for row, t in zip(probabilities, labels, strict=True)]
        )
        assert found["brier"] == pytest.approx(expected)
    table = reliability_bins(probabilities, labels, bins)
    assert table.cases.sum() == 200 and np.isnan(table.accuracy[table.cases == 0]).all()


def test_calibration_at_the_ends():
    sure = [[1.0, 0.0], [1.0, 0.0]]
    right = load("calibration").compute(predictions=sure, references=[0, 0])
    assert right == {"ece_15bins": 0, "brier": 0}
    wrong = load("calibration").compute(predictions=sure, references=[1, 1])
    assert wrong == {"ece_15bins": 1, "brier": 1}
    edge = reliability_bins([[0.6, 0.4]], [0], bins=5)
    assert edge.cases.tolist() == [0, 0, 1, 0, 0]  # 0.6 is the upper end of the third bin
    nothing = load("calibration").compute(predictions=[], references=[])
    assert set(nothing) == {"ece_15bins", "brier"} and all(map(math.isnan, nothing.values()))


@pytest.mark.parametrize(
    ("metric", "given", "message"),
    [
        ("area_under_curve", {"predictions": [0.1, math.nan], "references": [0, 1]}, "1 of 2 cases are nan"),
        ("area_under_curve", {"predictions": [0.1, 0.2], "references": [0, 2]}, "labels are 1"),
        ("area_under_curve", {"predictions": [0.1, 0.2], "references": [0, 1], "confidence": 95}, "confidence"),
        (
            "area_under_curve",
            {"predictions": [0.1, 0.2], "references": [0, 1], "other_predictions": [1.0]},
            "a score for each case",
        ),
        ("calibration", {"predictions": [[2.0, -1.0]], "references": [0]}, "softmax"),
        ("calibration", {"predictions": [[0.5, 0.5]], "references": [2]}, "from 0 to 1"),
        ("calibration", {"predictions": [[0.5, 0.5]], "references": [1], "bins": 0}, "bins"),
    ],
)
def test_wrong_input_is_named(metric, given, message):
    with pytest.raises(ValueError, match=message):
        load(metric).compute(**given)
