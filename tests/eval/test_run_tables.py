"""eval/runner: what becomes of trials that are there, without training any: pairs, corrections, remarks, locks and settings."""

import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "eval"))
from echocare_hf.data.labelled import Sample
from echocare_hf.finetuning import FinetuneArguments
from runner import case_metrics, comparisons, headlines, plots, plots_results, store, subjects, summary, tables
from runner.case_metrics import one_row_a_value
from runner.contenders import contender
from runner.store import Trial
from runner.trial import Bench
from tasks import TASKS


def trial(folder, model, seed, test, cases=None, settings=(), kind="echocare", targets=()):
    """A finished trial, as a run leaves it."""
    record = {
        "seed": seed,
        "model": model,
        "kind": kind,
        "train_share": 1.0,
        "best_metric": "dice",
        "validation": {},
        "test": test,
        "target_names": list(targets),
        "class_names": ["background", "nodule"],
        "settings": {"source": model, "random_weights": False, "learning_rate": 0.1, **dict(settings)},
        "provenance": {"differences_from_the_paper": []},
    }
    table = pd.DataFrame({"case": ["a"], "group": [None], "part": ["test"]}) if cases is None else cases
    place = folder / model / str(seed)
    store.write_trial(place, record, table.assign(part="test"))
    return Trial(place, record)


def test_models_are_paired_by_the_seeds_that_both_have(tmp_path):
    """A model with one trial hides no other comparison, and does not count in Holm's correction."""
    first = {0: 0.80, 1: 0.83, 2: 0.81, 3: 0.86}
    second = {3: 0.70, 1: 0.72, 2: 0.78}
    third = {seed: value - 0.01 * seed for seed, value in first.items()}
    values = {"first": first, "second": second, "third": third, "lone": {2: 0.5}}
    trials = {
        name: [trial(tmp_path, name, seed, {"dice": value}) for seed, value in found.items()]
        for name, found in values.items()
    }
    rows, problems = comparisons.compare_trials(trials, "dice")
    assert [(row["other"], row["trials"]) for row in rows] == [("second", 3), ("third", 4)]
    assert len(problems) == 1 and "lone" in problems[0]
    seeds = [1, 2, 3]
    sides = [[found[seed] for seed in seeds] for found in (first, second)]
    assert rows[0]["difference"] == pytest.approx(np.mean(sides[0]) - np.mean(sides[1]))
    assert rows[0]["wilcoxon"]["p"] == pytest.approx(stats.wilcoxon(*sides).pvalue)
    p = [stats.ttest_ind(*sides).pvalue, stats.ttest_ind(list(first.values()), list(third.values())).pvalue]
    assert [row["t_test"]["p"] for row in rows] == pytest.approx(p)
    corrected = [min(1, 2 * p[0]), max(min(1, 2 * p[0]), p[1])]
    assert p[0] < p[1] and [row["t_test"]["p_holm"] for row in rows] == pytest.approx(corrected)

    trials["third"][0].record["test"]["dice"] = None
    rows, problems = comparisons.compare_trials(trials, "dice")
    assert [row["other"] for row in rows] == ["second"] and "not defined in every trial" in problems[0]


def test_views_of_one_heart_are_one_value_and_visits_are_not():
    cases = pd.DataFrame(
        {
            "case": ["a2", "a4", "b1", "b2", "c", "d"],
            "group": ["a", "a", "b", "b", None, None],
            "target_x": [60.0, 60.0, 30.0, 40.0, 50.0, 50.0],
            "prediction_x": [50.0, 70.0, 33.0, 41.0, 52.0, 45.0],
        }
    )
    found = one_row_a_value(cases)
    assert found["case"].to_list() == ["a2", "b1", "b2", "c", "d"]
    assert found["target_x"].to_list() == [60, 30, 40, 50, 50]
    assert found["prediction_x"].to_list() == [60, 33, 41, 52, 45]


def test_errors_are_compared_by_patient(tmp_path):
    """The bootstrap is of the error that the table shows, the one of the mean over the views."""
    rng = np.random.default_rng(0)
    truth, people = np.repeat(rng.normal(55, 10, 12), 2), np.repeat([f"p{index}" for index in range(12)], 2)
    cases = pd.DataFrame({"case": [f"c{index}" for index in range(24)], "group": people, "target_x": truth})
    trials, errors = {}, {}
    for name, noise in (("first", 2.0), ("second", 9.0), ("third", 9.0)):
        predictions = truth + rng.normal(0, noise, 24)
        table = cases.assign(prediction_x=predictions)
        trials[name] = [trial(tmp_path, name, 0, {"mae": 1.0}, table, targets=("x",))]
        errors[name] = np.abs(predictions.reshape(12, 2).mean(1) - truth[::2]).mean()
    rows = comparisons.compare_cases(trials, "mae")
    assert [row["difference"] for row in rows] == pytest.approx(
        [errors["first"] - errors[name] for name in trials][1:]
    )
    assert [row["units"] for row in rows] == [12, 12] and all(row["high"] < 0 for row in rows)
    p = [row["p"] for row in rows]
    assert sorted(row["p_holm"] for row in rows) == pytest.approx(
        [min(1, 2 * min(p)), max(min(1, 2 * min(p)), max(p))]
    )


def test_one_patient_has_no_interval(tmp_path):
    cases = pd.DataFrame({"case": ["a", "b"], "group": ["p", "p"], "dice": [0.5, 0.7]})
    trials = {name: [trial(tmp_path, name, 0, {"dice": 0.6}, cases)] for name in ("first", "second")}
    (row,) = comparisons.compare_cases(trials, "dice")
    assert row["difference"] == 0 and np.isnan([row["low"], row["high"], row["p"], row["p_holm"]]).all()


def test_metrics_with_one_relation_are_compared_once(tmp_path):
    cases = pd.DataFrame(
        {"case": ["a", "b"], "group": [None, None], "surest_iou": [0.5, 0.7], "circumference_error_mm": [3, -4]}
    )
    test = {"ap50_rectangle": 0.5, "ap75_rectangle": 0.4, "circumference_mae_mm": 3.5}
    trials = {name: [trial(tmp_path, name, 0, test, cases)] for name in ("first", "second")}
    chosen = summary._of_cases([headlines.Headline(name) for name in test], trials)
    assert chosen == ["ap50_rectangle", "circumference_mae_mm"]
    assert case_metrics.case_statistic(cases, "circumference_mae_mm")(np.array([0, 1, 1])) == pytest.approx(11 / 3)


def test_models_with_another_recipe_are_named(tmp_path):
    by_slug = {
        "first": [trial(tmp_path, "first", 0, {})],
        "second": [trial(tmp_path, "second", 0, {})],
        "third": [trial(tmp_path, "third", 0, {}, settings={"learning_rate": 0.2, "random_weights": True}.items())],
        "floor": [trial(tmp_path, "floor", 0, {}, settings={"image_size": 32}.items(), kind="floor")],
    }
    told = summary._other_recipes(by_slug, {name: name for name in by_slug})
    assert told == ["third was trained with learning_rate 0.2 rather than 0.1."]


def test_which_way_is_better():
    assert headlines.direction("bias") == "0 is best"
    assert {headlines.direction(name) for name in ("mae", "mae_x", "brier", "mse_mm2", "circumference_mae_mm")} == {
        "lower is better"
    }
    assert {headlines.direction(name) for name in ("dice", "auc", "sdr_2mm", "correlation", "macro_f1", "ap50")} == {
        "higher is better"
    }


@pytest.mark.parametrize("key", [key for key, task in TASKS.items() if task.task != "report"])
def test_a_figure_of_the_paper_stands_beside_its_like_or_in_words(key):
    """Figures of private data, and one that contradicts its own unit, are told but stand in no column."""
    subject = subjects.benchmark(key, {})
    beside = {head.name for head in subject.headlines if head.paper is not None}
    assert beside <= set(subject.paper) and not any("private" in name for name in beside)
    assert all(
        0 < head.paper <= 1 for head in subject.headlines if head.paper is not None and head.name.startswith("ap")
    )
    assert not (key == "brain_landmarks" and "mse" in beside)


def test_an_unfinished_trial_goes_on_with_its_own_settings_alone(tmp_path):
    settings = {"source": "a", "weights_sha256": "1", "betas": (0.9, 0.99)}
    store.keep_settings(tmp_path, settings, goes_on=False)
    store.keep_settings(tmp_path, settings, goes_on=True)
    with pytest.raises(ValueError, match="unfinished trial with another weights_sha256"):
        store.keep_settings(tmp_path, settings | {"weights_sha256": "2"}, goes_on=True)


def test_another_stated_split_is_another_experiment(tmp_path):
    def settings(*parts, of="pixels", share=1.0):
        samples = [Sample(f"{row}.png", (f"{row}.png",), label=0, split=part) for row, part in enumerate(parts)]
        bench = Bench(SimpleNamespace(task="classification"), SimpleNamespace(samples=samples), tmp_path)
        return bench.settings(contender(of), FinetuneArguments(data="folder", train_share=share))

    before = settings("train", "validation", "test")
    store.write_trial(
        tmp_path / "0", {**dict.fromkeys(store.NEEDED), "settings": before}, pd.DataFrame({"case": ["a"]})
    )
    assert store.finished_trial(tmp_path / "0", settings("train", "validation", "test")) is not None
    for other in (("train", "test", "validation"), (None, None, None)):
        with pytest.raises(ValueError, match="another stated_split_sha256"):
            store.finished_trial(tmp_path / "0", settings(*other))
    assert "stated_split_sha256" not in settings(None, None, None)
    assert "shares" in settings(None, None, None, of="tiny", share=0.5) and "shares" not in settings(None, of="tiny")


def test_one_process_at_a_time_works_on_a_trial(tmp_path, capsys):
    place, order = tmp_path / "model" / "0", []

    def other():
        with store.one_at_a_time(place):
            order.append("second")

    with store.one_at_a_time(place):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "two work on one trial"
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"] and "another process" in capsys.readouterr().out


def test_damaged_files_of_a_trial_are_named(tmp_path):
    found = trial(tmp_path, "model", 0, {})
    (found.folder / store.CASES).write_bytes(b"PAR1 cut short")
    with pytest.raises(ValueError, match=r"cases\.parquet: cannot be read .*; remove the folder"):
        found.cases()
    (found.folder / store.CASES).unlink()
    assert store.read_trial(found.folder) is None, "half a trial is none"
    store.write_trial(found.folder, found.record, pd.DataFrame({"case": ["a"], "part": ["test"]}))
    (found.folder / store.RECORD).write_text('{"seed": 0')
    with pytest.raises(ValueError, match=r"metrics\.json: cannot be read"):
        store.read_trial(found.folder)


def test_a_cell_says_how_far_trials_spread():
    assert tables.cell({"mean": 0.51234, "standard_deviation": 0.01, "count": 3}) == "0.5123 ± 0.0100"
    assert tables.cell({"mean": 0.5, "standard_deviation": None, "count": 1}) == "0.5000"
    assert tables.cell({"mean": None, "standard_deviation": None, "count": 0}) == tables.cell(None) == ""


def test_plots_show_the_trials_of_the_tables(tmp_path):
    """Trials on other data, which the tables leave out, are not drawn beside them either."""
    for model, seed, data in (("first", 0, "old"), ("second", 0, "new"), ("second", 1, "new")):
        found = trial(tmp_path / "ddti", model, seed, {"dice": 0.5})
        record = found.record | {"provenance": {"data_sha256": data, "measured_sha256": "parts"}}
        (found.folder / "metrics.json").write_text(json.dumps(record))
    (results,) = plots_results.all_results(tmp_path)
    assert list(results.models) == ["first"]
    entry = {"provenance": {"second": [{"data_sha256": "new", "measured_sha256": "parts"}]}}
    (tmp_path / "results.json").write_text(json.dumps({"subjects": {"ddti": entry}}))
    (results,) = plots_results.all_results(tmp_path)
    assert {name: len(trials) for name, trials in results.models.items()} == {"second": 2}


@pytest.mark.parametrize("content", ["[]", "{}", '{"seed": 0'])
def test_a_record_that_says_too_little_is_named(content, tmp_path):
    found = trial(tmp_path, "first", 0, {"dice": 0.5})
    (found.folder / "metrics.json").write_text(content)
    with pytest.raises(ValueError, match=r"first.0.metrics.json: .*remove the folder to repeat the trial"):
        store.finished_trial(found.folder, {})


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"subjects": {', b"\xff\xfe"])
def test_a_damaged_results_json_is_named(content, tmp_path):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"results.json: cannot be read .*--table writes it again"):
        tables.read_results(tmp_path)


def test_a_damaged_results_parquet_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "long_table", lambda subject, trials: pd.DataFrame({"task": ["ddti"]}))
    (tmp_path / "results.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"results.parquet: cannot be read .*--table writes it again"):
        tables._add_to_files(tmp_path, subjects.benchmark("ddti", {}), [], {})


@pytest.mark.parametrize(("units", "warned"), [(1, False), (2, True), (9, True), (10, False)])
def test_a_bootstrap_of_few_patients_is_called_too_sure(units, warned):
    row = {"metric": "dice", "model": "first", "other": "second", "difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.5}
    text = tables._intervals({"bootstrap_over_cases": [{**row, "p_holm": 0.5, "units": units}]})
    assert ("too narrow" in text) == warned and f"{units} in all" in text


def test_plots_of_cases_without_any_metric_are_left_out(tmp_path):
    """Where no image holds a lesion and none is found, no case has an overlap."""
    cases = pd.DataFrame({"case": ["a", "b"], "group": [None, None], "image": ["a", "b"], "dice": [np.nan, np.nan]})
    trial(tmp_path / "ddti", "first", 0, {"dice": None}, cases.assign(sex=["F", "M"]))
    assert plots.draw_all(tmp_path) == []
