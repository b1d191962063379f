"""eval/run.py on report generation: the USreport row from files to tables, other encoders, floors, kills, and cases that add up."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "eval"))
import miniatures
import run
from echocare_hf.data.labelled import read_labelled
from echocare_hf.data.splits import split_by_group
from echocare_hf.reports.arguments import ReportArguments
from echocare_hf.reports.baselines import most_frequent_reports
from reports import lung_pairs
from runner import proxy
from runner.case_metrics import case_statistic
from runner.contact import worst_sheet
from runner.measures import load
from runner.plots_results import all_results
from runner.provenance import data_hash
from runner.publish_index import publish
from runner.subjects import floors_of
from runner.tables import read_results
from tasks import TASKS

pytestmark = pytest.mark.usefixtures("few_draws")
ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--image_size", "32", "--batch_size", "4", "--bf16", "false", "--text_steps", "30", "--max_tokens", "48"]
SMALL = [*SMALL, "--candidates", "3", "--epochs", "2", "--no-draw"]
COUNTED = ("bleu_1_characters", "bleu_4_characters", "bleu_2_jieba_words", "findings_f1", "findings_precision")
MEANS = ("rouge_l_characters", "rouge_l_f1_jieba_words", "meteor_exact_stem_characters", "findings_accuracy")

pytest.importorskip("jieba", reason="jieba, which cuts Chinese into words, is not installed")


@pytest.fixture(scope="module")
def usreport(tmp_path_factory):
    return miniatures.make_miniature("usreport", tmp_path_factory.mktemp("miniature") / "usreport")


@pytest.fixture(scope="module")
def measured(usreport, checkpoint, tmp_path_factory):
    """Results of three kinds of encoders, two seeds."""
    from transformers import ResNetConfig, ResNetModel

    folder = tmp_path_factory.mktemp("reports")
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 24], "depths": [1, 1, 1], "layer_type": "basic"}
    ResNetModel(ResNetConfig(**sizes)).save_pretrained(folder / "resnet")
    models = [f"small={checkpoint}", "tiny", f"resnet=hf:{folder / 'resnet'}"]
    line = ["--task", "usreport", "--data", str(usreport), "--model", *models, "--trials", "2", *SMALL]
    assert run.main([*line, "--output", str(folder / "out")]) == 0
    return folder / "out"


def record_of(output, model, seed=0):
    folder = output / "usreport" / model / str(seed)
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8")), pd.read_parquet(folder / "cases.parquet")


def test_the_row_with_its_models_floors_tests_and_intervals(measured, usreport):
    entry = json.loads((measured / "results.json").read_text(encoding="utf-8"))["subjects"]["usreport"]
    names = {found["name"]: found["kind"] for found in entry["contenders"]}
    learners = {"small": "echocare", "tiny (random weights)": "scratch", "resnet": "backbone"}
    assert names == learners | dict.fromkeys(("retrieval", "frequent", "frequent_organ"), "floor")
    assert (
        entry["paper"] == TASKS["usreport"].figures
        and "bleu_4_over_simmim 4.64" in (measured / "results.md").read_text()
    )
    shown = [head["metric"] for head in entry["headlines"]]
    assert {"bleu_4_characters", "meteor_exact_stem_characters", "rouge_l_characters", "findings_f1"} <= set(shown)
    compared = {(row["metric"], row["other"]) for row in entry["bootstrap_over_cases"]}
    assert {("bleu_4_characters", "retrieval"), ("findings_f1", "resnet")} <= compared
    assert {row["other"] for row in entry["tests_over_trials"]} == {"tiny (random weights)", "resnet"}
    names_of_organs = {"liver", "breast", "thyroid"}
    assert {row["subgroup"] for row in entry["subgroups"]} >= names_of_organs
    worst = entry["worst_texts"][0]
    assert (
        worst["written"] in (measured / "results.md").read_text()
        and worst["case"].partition("/")[0] in names_of_organs
    )
    assert str(usreport.parent) not in (measured / "results.json").read_text()


def test_results_go_into_a_card(measured, tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Reports\n", encoding="utf-8")
    entry = read_results(measured)["usreport"]
    assert publish(tmp_path, "usreport", entry, "small") == len(entry["headlines"])
    results = ModelCard.load(tmp_path / "README.md").data.eval_results
    assert {result.task_type for result in results} == {"image-text-to-text"}
    assert results[0].metric_type == "bleu_4_characters" and results[0].metric_args["seeds"] == [0, 1]


@pytest.mark.parametrize("model", ["small", "tiny-random-weights", "resnet", "retrieval", "frequent_organ"])
def test_metrics_are_those_of_the_texts_that_are_kept(model, measured):
    record, cases = record_of(measured, model)
    assert not list((measured / "usreport" / model).glob("*.partial"))
    for part in ("validation", "test"):
        chosen = cases[cases["part"] == part].reset_index(drop=True)
        assert len(chosen) == record["samples"][part] > 0
        texts = {"predictions": chosen["generated"].to_list(), "references": chosen["written"].to_list()}
        expected = load("report_text").compute(**texts, language="zh")
        expected |= load("clinical_findings").compute(**texts, language="zh")
        rows = np.arange(len(chosen))
        for name in (*COUNTED, *MEANS):
            given = np.nan if record[part][name] is None else record[part][name]
            assert given == pytest.approx(expected[name], abs=1e-5, nan_ok=True), name
            assert case_statistic(chosen, name)(rows) == pytest.approx(expected[name], nan_ok=True), name
    half = rows[::2]
    some = chosen.iloc[half]
    expected = load("report_text").compute(
        predictions=some["generated"].to_list(), references=some["written"].to_list(), language="zh"
    )
    assert case_statistic(chosen, "bleu_3_characters")(half) == pytest.approx(expected["bleu_3_characters"])


def test_floors_are_reports_of_the_training_part(measured, usreport):
    pairs = TASKS["usreport"].read(usreport).samples
    training = [pair for pair in pairs if pair.split == "train"]
    test = [pair for pair in pairs if pair.split == "test"]
    for model, per_organ in (("frequent", False), ("frequent_organ", True)):
        _, cases = record_of(measured, model)
        found = cases[cases["part"] == "test"].set_index("case")["generated"].to_dict()
        assert found == dict(
            zip([pair.name for pair in test], most_frequent_reports(training, test, per_organ), strict=True)
        )
    _, cases = record_of(measured, "retrieval")
    organ_of = {pair.report: pair.organ for pair in training}
    assert [organ_of[text] for text in cases["generated"]] == cases["organ"].to_list()


def test_the_records_say_who_was_measured_on_what(measured, usreport):
    small, _ = record_of(measured, "small")
    foreign, _ = record_of(measured, "resnet")
    scratch, _ = record_of(measured, "tiny-random-weights")
    assert not small["random_weights"] and not foreign["random_weights"] and scratch["random_weights"]
    assert foreign["provenance"]["model"]["architecture"] == "resnet"
    assert foreign["provenance"]["model"]["weights_sha256"]
    for record in (small, foreign, scratch):
        assert record["provenance"]["split_sizes"] == {"train": 15, "validation": 3, "test": 6}
        assert record["provenance"]["data_sha256"] == small["provenance"]["data_sha256"]
        assert record["parameters"] > 0 and record["history"]
    other = TASKS["usreport"].read(usreport, organ="liver")
    assert data_hash(other) != small["provenance"]["data_sha256"]


def test_another_text_is_other_data(usreport, tmp_path):
    folder = tmp_path / "usreport"
    shutil.copytree(usreport, folder)
    before = data_hash(TASKS["usreport"].read(folder))
    assert before == data_hash(TASKS["usreport"].read(usreport))
    table = folder / "new_Liver2.json"
    content = json.loads(table.read_text(encoding="utf-8-sig"))
    content["test"][0]["finding"] += "胆囊未见异常。"
    table.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8-sig")
    assert data_hash(TASKS["usreport"].read(folder)) != before


def test_the_worst_reports_have_a_sheet(measured, usreport):
    (results,) = all_results(measured)
    sheet = worst_sheet(results, "small", 3, [usreport])
    assert sheet is not None and sheet.width > 300


def test_a_killed_trial_goes_on_and_gives_the_same_table(usreport, checkpoint, tmp_path):
    line = ["--task", "usreport", "--model", f"small={checkpoint}", "--data", str(usreport), "--trials", "2", *SMALL]
    line = [*line, "--epochs", "4", "--output"]  # the last one counts
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    started = subprocess.Popen(
        [sys.executable, str(ROOT / "eval" / "run.py"), *line, str(cut)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    second = cut / "usreport" / "small" / "1.partial"
    end = time.monotonic() + 300
    while not list(second.glob("checkpoints/checkpoint-*")) and started.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert second.is_dir() and not (cut / "results.parquet").exists()

    assert run.main([*line, str(cut)]) == 0
    assert run.main([*line, str(whole)]) == 0
    tables = [pd.read_parquet(output / "results.parquet") for output in (cut, whole)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert (cut / "results.md").read_text() == (whole / "results.md").read_text()
    assert not list(cut.rglob("*partial*"))


def test_a_share_of_the_reports(usreport, checkpoint, tmp_path):
    line = ["--task", "usreport", "--data", str(usreport), "--model", f"small={checkpoint}", "--trials", "1", *SMALL]
    assert run.main([*line, "--train_share", "0.4", "--output", str(tmp_path / "out")]) == 0
    record, _ = record_of(tmp_path / "out", "small@40")
    assert 3 <= record["samples"]["train"] <= 8 and record["samples"]["test"] == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--columns", "report=finding"], ("--columns", "leave it out")),
        (["--organ", "liver"], ("--organ", "leave it out")),
        (["--phantoms", "4"], ("--phantoms", "leave it out")),
        (["--reader", "organ=heart"], ("organ is one of", "heart")),
        (["--learning_rate", "-1"], ("--learning_rate",)),
        (["--model", "pixels"], ("pixels", "no floor of usreport", "retrieval")),
        (["--max_tokens", "4"], ("--max_tokens",)),
    ],
)
def test_wrong_input_ends_with_one_line(options, words, usreport, tmp_path, capsys):
    line = ["--task", "usreport", "--data", str(usreport), "--output", str(tmp_path / "out"), "--trials", "1"]
    assert run.main([*line, "--model", "tiny", *SMALL, *options]) == 2
    told = capsys.readouterr().err.strip()
    assert told.count("\n") == 0 and told.startswith("error: ")
    for word in words:
        assert word in told
    assert not list((tmp_path / "out").rglob("metrics.json"))


def test_the_row_of_the_suite_has_the_pairs_of_eval_reports_and_a_test_part_that_is_in_no_corpus(shared_data):
    subject = proxy.proxy_subject("report_pocovid")
    folder = (shared_data / "lung_pocovid").resolve()
    data = subject.read(ReportArguments(data=str(folder), output="x"))
    assert len(data) == len(lung_pairs(folder)) == 108
    assert all(len(pair.images) == 2 or len(pair.images) == 1 for pair in data.samples) and not data.problems
    assert floors_of("report", data) == ("retrieval", "frequent")
    split = split_by_group(data.samples, seed=5)  # stated: no seed deals it out
    parts = [[data.samples[index] for index in part] for part in (split.train, split.validation, split.test)]
    groups = [{pair.group for pair in part} for part in parts]
    assert not groups[0] & groups[2] and not groups[0] & groups[1] and not groups[1] & groups[2]
    other = read_labelled(folder, "classification")
    held = {
        str(image) for index in split_by_group(other.samples, seed=0).test for image in other.samples[index].images
    }
    assert {str(image) for pair in parts[2] for image in pair.images} <= held and min(len(part) for part in parts) > 10
