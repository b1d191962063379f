"""eval/runner/subgroups.py and case_metrics.py against scikit-learn, scipy, and every permutation there is."""

import itertools
import math
import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

sys.path.append(str(Path(__file__).resolve().parents[2]))
sys.path.append(str(Path(__file__).resolve().parents[2] / "eval"))
from eval.statistics import bootstrap

import miniatures
from echocare_hf.metrics import classification_metrics
from runner.case_metrics import case_statistic, headline_case_metric, trial_statistic
from runner.subgroups import COLUMNS, UNKNOWN, by_subgroup, subgroup_labels
from tasks import TASKS


def cases_of(count=60, seed=0, **columns):
    random = np.random.default_rng(seed)
    names = [f"case {index}" for index in range(count)]
    groups = [f"patient {index // 2}" for index in range(count)]
    return pd.DataFrame({"case": names, "group": groups, "part": "test", "dice": random.beta(8, 2, count), **columns})


def classified(count=80, classes=3, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    probabilities = random.dirichlet(np.ones(classes), count) * 0.6 + 0.4 * np.eye(classes)[labels]
    named = {f"probability_{index}": probabilities[:, index] for index in range(classes)}
    return cases_of(count, label=labels, **named), labels, probabilities


def test_values_counts_and_intervals():
    device = np.where(np.arange(60) // 2 % 3 == 0, "GE", "Philips")
    cases = cases_of(device=device)
    found = by_subgroup(cases, "dice", resamples=4_000)
    assert list(found.columns) == list(COLUMNS) and found["subgroup"].tolist() == ["GE", "Philips"]
    for _, row in found.iterrows():
        chosen = cases[cases["device"] == row["subgroup"]]
        assert row["value"] == pytest.approx(chosen["dice"].mean())
        assert (row["cases"], row["groups"]) == (len(chosen), chosen["group"].nunique())
        means = chosen.groupby("group")["dice"].mean()  # two images each: the mean over patients is that over images
        low, high = stats.bootstrap(
            (means,), np.mean, n_resamples=4_000, method="percentile", rng=1
        ).confidence_interval
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.004)
    assert not found["small"].any()
    assert found["difference"].iloc[0] == pytest.approx(np.ptp(found["value"]))


def test_permutation_test_against_every_permutation():
    """Eight patients of two images, three of them scanned with another device: all 56 choices of three."""
    cases = cases_of(16, seed=3)
    other = np.isin(np.arange(16) // 2, (0, 3, 4))
    cases["dice"] -= 0.08 * other
    cases["device"] = np.where(other, "GE", "Philips")
    values = cases["dice"].to_numpy()

    def differ(inside):
        groups = values[inside], values[~inside]
        return sum(len(group) * (group.mean() - values.mean()) ** 2 for group in groups)

    every = [differ(np.isin(np.arange(16) // 2, chosen)) for chosen in itertools.combinations(range(8), 3)]
    exact = np.mean([value >= differ(other) - 1e-12 for value in every])
    found = by_subgroup(cases, "dice", permutations=5_000).iloc[0]
    assert found["test"] == "permutation of patients"
    assert found["p"] == pytest.approx(exact, abs=0.02) and found["p_holm"] == found["p"]


def test_what_differs_is_found_and_holm_corrects():
    cases = cases_of(80, age=np.repeat(np.linspace(20, 89, 40), 2), size_px=np.arange(80) * 7 % 5 * 100 + 300)
    cases["sex"] = np.where(np.arange(80) // 2 % 2, "F", "M")
    cases.loc[cases["sex"] == "F", "dice"] -= 0.15
    found = by_subgroup(cases, "dice")
    p = found.drop_duplicates("attribute").set_index("attribute")
    assert list(p.index) == ["sex", "age", "size_px"]
    assert p["p"]["sex"] == pytest.approx(1 / 1001) and p["p_holm"]["sex"] == pytest.approx(3 / 1001)
    assert p["p"]["age"] > 0.05 and p["p"]["size_px"] > 0.05
    assert p["test"].to_dict() == {
        "sex": "permutation of patients",
        "age": "permutation of patients",
        "size_px": "permutation of cases",  # images of one patient differ
    }


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_of_cases_against_scikit_learn(classes):
    cases, labels, probabilities = classified(classes=classes)
    rows = np.random.default_rng(1).integers(0, len(cases), 50)  # some more than once
    truth, scores = labels[rows], probabilities[rows]
    measured = {name: case_statistic(cases, name)(rows) for name in ("accuracy", "macro_f1", "auc", "brier", "auc_1")}
    assert measured["accuracy"] == pytest.approx(accuracy_score(truth, scores.argmax(1)))
    assert measured["macro_f1"] == pytest.approx(f1_score(truth, scores.argmax(1), average="macro"))
    assert measured["auc_1"] == pytest.approx(roc_auc_score(truth == 1, scores[:, 1]))
    expected = classification_metrics(scores, truth, [str(index) for index in range(classes)])
    assert measured["auc"] == pytest.approx(expected["auc"])
    assert case_statistic(cases, "balanced_accuracy")(rows) == pytest.approx(expected["balanced_accuracy"])
    squares = np.square(scores - np.eye(classes)[truth]).sum(1).mean() / (2 if classes == 2 else 1)
    assert measured["brier"] == pytest.approx(squares)


def test_metrics_of_findings_and_values():
    cases = pd.DataFrame({"label_0": [1, 0, -1], "probability_0": [0.4, 0.5, 0.9]})
    assert case_statistic(cases, "auc")(np.arange(3)) == 0
    assert math.isnan(case_statistic(cases, "auc")(np.array([0, 2])))
    values = pd.DataFrame(
        {"target_a": [1.0, 2.0], "prediction_a": [2.0, 0.0], "target_b": [5.0, np.nan], "prediction_b": [5.0, 1]}
    )
    assert case_statistic(values, "mae_a")(np.arange(2)) == 1.5
    assert case_statistic(values, "bias_a")(np.arange(2)) == -0.5
    assert case_statistic(values, "mae")(np.arange(2)) == pytest.approx((0.5 + 2) / 2)
    for table, metric, told in (
        (cases, "dice", "neither a column"),
        (values, "mae_c", "no target c"),
        (cases, "auc_7", "classes 0 to 0"),
        (cases, "accuracy", "neither a column"),
        (values, "auc", "auc: the table of cases has no such column"),
    ):
        with pytest.raises(ValueError, match=told):
            case_statistic(table, metric)


def test_auc_intervals_are_the_bootstrap_of_the_subgroup():
    cases, labels, probabilities = classified(classes=2)
    cases["device"] = np.where(np.arange(80) < 30, "GE", "Philips")
    row = by_subgroup(cases, "auc", resamples=300, permutations=50, seed=4).iloc[0]
    groups = cases["group"][:30].to_numpy(str)

    def area(rows):
        return roc_auc_score(labels[rows], probabilities[rows, 1]) if len(set(labels[rows])) == 2 else math.nan

    expected = bootstrap(area, 30, groups, 300, seed=4)
    assert row["value"] == pytest.approx(expected.value)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), abs=0.03)


def test_several_trials_are_put_together():
    trials = [cases_of(seed=seed, device=np.where(np.arange(60) < 30, "GE", "Philips")) for seed in range(3)]
    found = by_subgroup(trials, "dice")
    assert found["value"].tolist() == pytest.approx(
        [np.mean([trial["dice"][part].mean() for trial in trials]) for part in (slice(0, 30), slice(30, 60))]
    )
    tables = [classified(seed=0)[0], classified(seed=0)[0].assign(probability_0=0.0)]
    areas = [case_statistic(table, "auc")(np.arange(80)) for table in tables]
    assert trial_statistic(tables, "auc")(np.arange(80)) == pytest.approx(np.mean(areas))
    with pytest.raises(ValueError, match="other cases"):
        by_subgroup([trials[0], trials[1].iloc[::-1]], "dice")


def test_small_and_degenerate_subgroups_are_flagged_not_hidden():
    device = np.array(["GE"] * 40 + ["Philips"] * 12 + ["Siemens"] * 2 + [None] * 6, dtype=object)
    cases = cases_of(device=device)
    cases.loc[52:53, "dice"] = np.nan
    found = by_subgroup(cases, "dice").set_index("subgroup")
    assert found.index.tolist() == ["GE", "Philips", "Siemens", UNKNOWN]
    assert found["small"].tolist() == [False, False, True, True]
    assert math.isnan(found["value"]["Siemens"]) and math.isnan(found["low"]["Siemens"])  # one patient, no value
    assert found["difference"].iloc[0] == pytest.approx(abs(found["value"]["GE"] - found["value"]["Philips"]))
    cases = cases_of(device="GE", dice=0.5)
    alone = by_subgroup(cases, "dice").iloc[0]
    assert alone["test"] == "" and math.isnan(alone["p"]) and (alone["low"], alone["high"]) == (0.5, 0.5)
    equal = by_subgroup(cases.assign(sex=np.where(np.arange(60) < 30, "F", "M")), "dice")
    assert equal[equal["attribute"] == "sex"]["p"].tolist() == [1, 1]
    assert by_subgroup(cases.drop(columns="device"), "dice").empty
    one_class = classified(classes=2)[0].assign(label=1, device=["GE", "Philips"] * 40)
    assert by_subgroup(one_class, "auc", resamples=5, permutations=5)["value"].isna().all()


def test_cases_without_patients_are_units():
    cases = cases_of(device=np.where(np.arange(60) < 30, "GE", "Philips"))
    for groups in (cases.assign(group=None), cases.drop(columns="group")):
        found = by_subgroup(groups, "dice").iloc[0]
        assert found["groups"] == 30 and found["test"] == "permutation of cases"


def test_what_is_refused():
    cases = cases_of(device="GE")
    with pytest.raises(ValueError, match="no validation cases"):
        by_subgroup(cases, "dice", part="validation")
    with pytest.raises(ValueError, match="no column 'sex'"):
        by_subgroup(cases, "dice", ["sex"])
    with pytest.raises(ValueError, match="iou: the table of cases has no such column"):
        by_subgroup(cases, "iou")
    with pytest.raises(ValueError, match="no metric"):
        headline_case_metric(cases.drop(columns="dice"))


def test_bands_quarters_and_rare_texts():
    ages = subgroup_labels(pd.Series([17.0, 18, 39.9, 40, 80, np.nan]), "age")
    assert ages.tolist() == ["below 18", "18 to 39", "18 to 39", "40 to 59", "80 or more", UNKNOWN]
    values = pd.Series(np.random.default_rng(0).uniform(0, 1, 101))
    quarters = subgroup_labels(values, "lesion_fraction")
    assert sorted(quarters.value_counts()) == [25, 25, 25, 26]
    means = values.groupby(quarters, observed=True).mean()
    assert means.is_monotonic_increasing and len(means) == 4
    assert subgroup_labels(pd.Series([5.0, 5.0, 3.0]), "size_px").tolist() == ["5", "5", "3"]  # few values stay
    tied = subgroup_labels(pd.Series([1.0] * 90 + list(range(2, 12))), "size_px")
    assert not (tied == UNKNOWN).any() and tied.nunique() >= 1
    texts = pd.Series([f"kind {index}" for index in range(20) for _ in range(20 - index)])
    kinds = subgroup_labels(texts, "histology")
    assert kinds.nunique() == 8 and (kinds == "other").sum() == sum(range(1, 14))


@pytest.mark.parametrize(
    ("layout", "needs", "expected"),
    [
        ("busbra", None, {"device": {"GE Logiq 7", "GE Logiq 5"}, "laterality": {"l", "r"}, "birads": set("2345")}),
        ("ddti", None, {"sex": {"F", "M"}, "age": set(range(41, 49)), "tirads": set("234")}),
        (
            "camus",
            "SimpleITK",
            {"sex": {"F", "M"}, "image_quality": {"Good"}, "view": {"2CH", "4CH"}, "age": set(range(51, 61))},
        ),
        ("thyroid_cineclip", "h5py", {"sex": {"F", "M"}, "age": set(range(41, 49)), "location": {"right"}}),
        ("usenhance", None, {"organ": {"breast", "carotid", "kidney", "liver", "thyroid"}}),
    ],
)
def test_readers_state_attributes(layout, needs, expected, tmp_path):
    if needs:
        pytest.importorskip(needs)
    data = TASKS[layout].read(miniatures.make_miniature(layout, tmp_path / layout))
    for name, values in expected.items():
        assert {sample.attributes[name] for sample in data.samples} == values
    again = pickle.loads(pickle.dumps(data.samples[0]))
    assert dict(again.attributes) == dict(data.samples[0].attributes)
    if layout == "ddti":
        assert all("margins" not in sample.attributes for sample in data.samples)  # blank in the file


def test_blanks_are_unknown_and_spellings_are_one():
    labels = subgroup_labels(pd.Series(["F", "f ", "M", " ", "", None, "F"]), "sex")
    assert labels.to_list() == ["F", "F", "M", "unknown", "unknown", "unknown", "F"]
    assert list(labels.cat.categories) == ["F", "M", "unknown"]
