"""eval/runner/calibration.py against scipy's and scikit-learn's, and loops over the cases."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

sys.path.append(str(Path(__file__).resolve().parents[2] / "eval"))
from runner.calibration import calibrate, fit_temperature, negative_log_likelihood, positive_bins


def sampled(seed, classes=3, count=300, sharpness=2.5):
    """Logits that are too large by `sharpness`, and labels drawn from the probabilities that are right."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (count, classes))
    labels = np.array([random.choice(classes, p=row) for row in softmax(logits, axis=1)])
    return logits * sharpness, labels


def table(logits, labels, with_logits=True):
    probabilities = softmax(logits, axis=1)
    half = len(labels) // 2
    cases = pd.DataFrame({"part": ["validation"] * half + ["test"] * (len(labels) - half), "label": labels})
    for index in range(logits.shape[1]):
        cases[f"probability_{index}"] = probabilities[:, index]
        if with_logits:
            cases[f"logit_{index}"] = logits[:, index]
    return cases


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(2))
def test_temperature_is_that_of_a_general_optimiser(classes, seed):
    logits, labels = sampled(seed, classes)

    def cost(value):
        return -log_softmax(logits / np.exp(value[0]), axis=1)[np.arange(len(labels)), labels].mean()

    best = minimize(cost, [0.0], method="BFGS")
    temperature, problem = fit_temperature(logits, labels)
    assert problem is None
    assert temperature == pytest.approx(math.exp(best.x[0]), rel=1e-3)
    assert negative_log_likelihood(logits / temperature, labels) <= best.fun + 1e-9
    assert temperature == pytest.approx(2.5, rel=0.35)  # by what the logits are too large


def test_temperature_of_findings():
    random = np.random.default_rng(4)
    logits = random.normal(0, 2, (400, 3))
    labels = (random.uniform(size=logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    labels[random.uniform(size=labels.shape) < 0.2] = -1
    labels[0, 0] = np.nan
    known = labels >= 0
    temperature, problem = fit_temperature(3 * logits, labels)
    signs = np.where(labels[known] == 1, -3, 3) * logits[known]
    costs = {step: np.log1p(np.exp(signs / step)).mean() for step in np.arange(0.5, 6, 0.01)}
    assert problem is None and temperature == pytest.approx(min(costs, key=costs.get), abs=0.011)


@pytest.mark.parametrize("with_logits", [True, False])
def test_errors_before_and_after(with_logits):
    logits, labels = sampled(1)
    found = calibrate(table(logits, labels, with_logits), ["a", "b", "c"])
    temperature = fit_temperature(logits[:150], labels[:150])[0]
    assert found["temperature"] == pytest.approx(temperature, rel=1e-6)
    assert (found["validation_cases"], found["test_cases"], found["problem"]) == (150, 150, None)
    for when, divisor in (("before", 1), ("after", temperature)):
        probabilities, truth = softmax(logits[150:] / divisor, axis=1), labels[150:]
        bins, pairs = [[] for _ in range(15)], (probabilities, truth)
        for row, label in zip(*pairs, strict=True):
            place = next(index for index in range(15) if row.max() <= (index + 1) / 15 + 1e-15)
            bins[place].append((row.max(), row.argmax() == label))
        ece = sum(abs(sum(p for p, _ in one) - sum(right for _, right in one)) for one in bins) / len(truth)
        brier = np.mean(
            [sum((p - (k == label)) ** 2 for k, p in enumerate(row)) for row, label in zip(*pairs, strict=True)]
        )
        assert found[when]["ece_15bins"] == pytest.approx(ece)
        assert found[when]["brier"] == pytest.approx(brier)
        assert found[when]["negative_log_likelihood"] == pytest.approx(
            log_loss(truth, probabilities, labels=[0, 1, 2])
        )
        assert [one["count"] for one in found[when]["reliability"]] == [len(one) for one in bins]
        for index, name in enumerate("abc"):
            of_class = found["classes"][name][when]
            assert of_class["brier"] == pytest.approx(brier_score_loss(truth == index, probabilities[:, index]))
            share, mean = calibration_curve(truth == index, probabilities[:, index], n_bins=15)
            drawn = [one for one in of_class["reliability"] if one["count"]]
            assert [one["accuracy"] for one in drawn] == pytest.approx(share)
            assert [one["confidence"] for one in drawn] == pytest.approx(mean)
    assert found["after"]["ece_15bins"] < found["before"]["ece_15bins"]
    assert found["after"]["negative_log_likelihood"] < found["before"]["negative_log_likelihood"]
    json.dumps(found, allow_nan=False)


def test_positive_bins_hold_their_upper_end():
    confidence, share, counts = positive_bins([0.0, 0.2, 0.25, 1.0], [0, 1, 0, 1], bins=5)
    assert counts.tolist() == [2, 1, 0, 0, 1]
    np.testing.assert_allclose(confidence, [0.1, 0.25, np.nan, np.nan, 1])
    np.testing.assert_allclose(share, [0.5, 0, np.nan, np.nan, 1])


def test_findings_with_labels_that_are_not_known():
    cases = pd.DataFrame(
        {
            "part": ["validation"] * 4 + ["test"] * 3,
            "label_0": [1, 0, 1, 0, 1, 0, -1],
            "probability_0": [0.9, 0.2, 0.4, 0.6, 0.8, 0.3, 0.5],
            "label_1": [0, 0, 1, 1, -1, -1, -1],
            "probability_1": [0.3, 0.4, 0.7, 0.2, 0.5, 0.5, 0.5],
        }
    )
    found = calibrate(cases)
    assert (found["validation_cases"], found["test_cases"]) == (8, 2)
    assert found["before"]["brier"] == pytest.approx((0.2**2 + 0.3**2) / 2)
    assert found["classes"]["1"]["before"]["brier"] is None  # nothing known of it
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("logits", "labels", "told"),
    [
        ([[5.0, -5.0], [-4.0, 4.0]], [0, 1], "without an error"),
        ([[5.0, -5.0], [-4.0, 4.0]], [1, 0], "by chance"),
        ([[0.0, 0.0], [0.0, 0.0]], [1, 0], "by chance"),  # ties alone
        ([[2.0, 0.0]], [0], "without an error"),  # one class, one case
    ],
)
def test_no_temperature_is_best(logits, labels, told):
    temperature, problem = fit_temperature(np.array(logits), np.array(labels))
    assert temperature == 1 and told in problem
    found = calibrate(table(np.array(logits * 2), np.array(labels * 2)))
    assert found["before"] == found["after"] and found["problem"] == problem


def test_probabilities_of_0_and_1_are_finite():
    cases = pd.DataFrame(
        {"part": ["validation"] * 3 + ["test"], "label": [0, 1, 0, 1], "probability_0": [1.0, 0.0, 0.0, 1.0]}
    )
    cases["probability_1"] = 1 - cases["probability_0"]
    found = calibrate(cases)
    assert found["temperature"] > 1 and math.isfinite(found["after"]["negative_log_likelihood"])


def test_tables_that_cannot_be_calibrated():
    cases = table(*sampled(0, count=20))
    for bad, told in (
        (cases[cases["part"] == "test"], "no validation cases"),
        (cases.assign(probability_0=np.nan, logit_0=np.nan), "no validation cases"),
        (cases.drop(columns="label"), "no column label_0"),
        (pd.DataFrame({"part": ["test"], "dice": [0.5]}), "of classifiers alone"),
    ):
        with pytest.raises(ValueError, match=told):
            calibrate(bad)
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        calibrate(cases, ["a", "b"])
    with pytest.raises(ValueError, match="logits are"):
        fit_temperature([[1.0, 2.0]], [0, 1, 0])
