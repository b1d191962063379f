"""Regression metrics against scikit-learn and scipy."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from echocare_hf.metrics import regression_metrics


@pytest.mark.parametrize("seed", range(4))
def test_against_scikit_learn_and_scipy(seed):
    rng = np.random.default_rng(seed)
    references = rng.normal(50, 10, (40, 2))
    predictions = references + rng.normal(1, 4, references.shape)
    spreads = rng.uniform(1, 6, references.shape)
    references[rng.random(references.shape) < 0.2] = np.nan
    found = regression_metrics(predictions, references, ["EF", "GLS"], spreads)
    expected = {}
    for index, name in enumerate(["EF", "GLS"]):
        known = ~np.isnan(references[:, index])
        p, r, s = (values[known, index] for values in (predictions, references, spreads))
        expected |= {
            f"mae_{name}": metrics.mean_absolute_error(r, p),
            f"standard_error_{name}": stats.sem(np.abs(p - r)),
            f"rmse_{name}": metrics.root_mean_squared_error(r, p),
            f"bias_{name}": p.mean() - r.mean(),
            f"correlation_{name}": stats.pearsonr(p, r).statistic,
            f"coverage_{name}": np.mean([a - 1.96 * d <= b <= a + 1.96 * d for a, b, d in zip(p, r, s, strict=True)]),
        }
    assert found == pytest.approx(expected)
    assert all(type(value) is float for value in found.values())


def test_right_spreads_cover_95_percent():
    rng = np.random.default_rng(0)
    spreads = rng.uniform(0.5, 3, (20_000, 1))
    found = regression_metrics(rng.normal(0, spreads), np.zeros_like(spreads), ["thickness"], spreads)
    assert found["coverage_thickness"] == pytest.approx(0.95, abs=0.005)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        ([3, 3, 3], [1, 2, 6], {"mae": 2, "rmse": math.sqrt(14 / 3), "bias": 0, "correlation": math.nan}),
        ([1, 2, 3], [2, 2, 2], {"mae": 2 / 3, "bias": 0, "correlation": math.nan}),
        ([1, 2], [3, 4], {"mae": 2, "standard_error": 0, "rmse": 2, "bias": -2, "correlation": 1}),
        ([5], [3], {"mae": 2, "standard_error": math.nan, "rmse": 2, "bias": 2, "correlation": math.nan}),
        ([5, 7], [np.nan, 3], {"mae": 4, "standard_error": math.nan, "correlation": math.nan}),
        ([np.nan, 7], [np.nan, 3], {"mae": 4}),
        ([5], [np.nan], dict.fromkeys(["mae", "standard_error", "rmse", "bias", "correlation"], math.nan)),
        ([], [], dict.fromkeys(["mae", "standard_error", "rmse", "bias", "correlation"], math.nan)),
    ],
)
def test_cases_by_hand(predictions, references, expected):
    given = (np.reshape(values, (-1, 1)) for values in (predictions, references))
    found = regression_metrics(*given, ["EF"])
    chosen = {key: found[f"{key}_EF"] for key in expected}
    assert chosen == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"references": np.zeros(3)}, "samples, targets"),
        ({"predictions": [[0], [np.nan], [1]]}, "nan or infinite"),
        ({"target_names": ["a", "b"]}, "2 names for 1"),
        ({"spreads": np.zeros((3, 2))}, "spreads"),
        ({"spreads": [[0], [-1], [1]]}, "spreads"),
        ({"spreads": [[0], [np.nan], [1]]}, "spreads"),
    ],
)
def test_wrong_input_is_named(changes, message):
    given = {"predictions": np.zeros((3, 1)), "references": np.zeros((3, 1)), "target_names": ["EF"]} | changes
    with pytest.raises(ValueError, match=message):
        regression_metrics(**given)
