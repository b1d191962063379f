"""eval/run.py: trials that resume, tables against scipy, results in a card, floors, and what wrong input is told."""

import hashlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "eval"))
import miniatures
import run
from runner import proxy

pytestmark = pytest.mark.usefixtures("few_draws")
ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--epochs", "1", "--image_size", "32", "--batch_size", "4", "--bf16", "false", "--no-draw"]


@pytest.fixture(scope="module")
def ddti(tmp_path_factory):
    return miniatures.make_miniature("ddti", tmp_path_factory.mktemp("miniature") / "ddti")


@pytest.fixture(scope="module")
def busbra(tmp_path_factory):
    return miniatures.make_miniature("busbra", tmp_path_factory.mktemp("miniature") / "busbra")


def results(output):
    """Every value of the tables, and every case."""
    table = pd.read_parquet(output / "results.parquet")
    cases = pd.concat([pd.read_parquet(path) for path in sorted(output.glob("*/*/*/cases.parquet"))])
    return table, cases.reset_index(drop=True), (output / "results.md").read_text()


def test_a_run_killed_in_trial_3_of_5_resumes_and_gives_the_same_table(ddti, checkpoint, tmp_path):
    line = ["--task", "ddti", "--model", f"small={checkpoint}", "--data", str(ddti), "--trials", "5", *SMALL]
    line = [*line, "--epochs", "2", "--output"]  # the last one counts
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    started = subprocess.Popen(
        [sys.executable, str(ROOT / "eval" / "run.py"), *line, str(cut)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    third = cut / "ddti" / "small" / "2.partial"
    end = time.monotonic() + 300
    while not third.exists() and started.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    started.wait()
    done = sorted(path.parent.name for path in cut.glob("ddti/small/*/metrics.json"))
    assert done == ["0", "1"] and third.exists() and not (cut / "results.parquet").exists()
    before = (cut / "ddti" / "small" / "0" / "metrics.json").read_text()

    assert run.main([*line, str(cut)]) == 0
    assert run.main([*line, str(whole)]) == 0
    assert (cut / "ddti" / "small" / "0" / "metrics.json").read_text() == before, "a finished trial was repeated"
    (table, cases, text), (table_whole, cases_whole, text_whole) = results(cut), results(whole)
    pd.testing.assert_frame_equal(table, table_whole, check_exact=True)
    pd.testing.assert_frame_equal(cases, cases_whole, check_exact=True)
    assert text == text_whole
    assert sorted(table["seed"].unique()) == [0, 1, 2, 3, 4]
    assert not list(cut.rglob("*partial*"))


def test_tables_say_what_scipy_says(busbra, checkpoint, tmp_path, capsys):
    line = ["--task", "busbra", "--data", str(busbra), "--output", str(tmp_path / "out"), "--seeds", "3", "5", "8"]
    assert run.main([*line, "--model", f"first={checkpoint}", f"second={checkpoint}", "tiny", *SMALL]) == 0
    printed = capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert list(table.columns) == ["task", "model", "name", "train_share", "seed", "part", "metric", "value"]
    entry = json.loads((tmp_path / "out" / "results.json").read_text())["subjects"]["busbra"]

    def values(model, metric):
        chosen = table[(table["model"] == model) & (table["metric"] == metric) & (table["part"] == "test")]
        return chosen.sort_values("seed")["value"].to_list()

    found = {row["other"]: row for row in entry["tests_over_trials"] if row["metric"] == "accuracy"}
    assert list(found) == ["second", "tiny (random weights)"]
    first, other = values("first", "accuracy"), values("tiny-random-weights", "accuracy")
    row = found["tiny (random weights)"]
    assert row["difference"] == pytest.approx(sum(first) / 3 - sum(other) / 3)
    if first != other and len({*first}) > 1:
        assert row["t_test"]["p"] == pytest.approx(stats.ttest_ind(first, other).pvalue)
        assert row["wilcoxon"]["p"] == pytest.approx(stats.wilcoxon(first, other).pvalue)
    assert row["t_test"]["name"].startswith("two-sample t-test") and row["wilcoxon"]["name"].startswith("Wilcoxon")
    # The same model and the same seeds: the same trials.
    assert found["second"]["difference"] == 0 and found["second"]["t_test"]["p_holm"] == 1
    same = [row for row in entry["bootstrap_over_cases"] if row["other"] == "second" and row["metric"] == "accuracy"]
    assert (same[0]["difference"], same[0]["low"], same[0]["high"]) == (0, 0, 0)
    for name in ("first", "second", "tiny (random weights)", "pixels (floor)", "*EchoCare in the paper*", "0.7036"):
        assert f"| {name} |" in printed
    shown = next(found for found in entry["contenders"] if found["name"] == "first")["test"]["accuracy"]
    assert shown["mean"] == pytest.approx(sum(first) / 3) and shown["count"] == 3
    assert len({origin["split_sha256"] for found in entry["provenance"].values() for origin in found}) == 1


def test_provenance_of_a_trial(ddti, checkpoint, tmp_path, capsys):
    line = ["--task", "ddti", "--model", f"small={checkpoint}", "--data", str(ddti), "--trials", "1"]
    assert run.main([*line, "--output", str(tmp_path / "out"), *SMALL]) == 0
    text = (tmp_path / "out" / "ddti" / "small" / "0" / "metrics.json").read_text()
    origin = json.loads(text)["provenance"]
    weights = hashlib.sha256((Path(checkpoint) / "model.safetensors").read_bytes()).hexdigest()
    assert origin["model"]["weights_sha256"] == weights and not origin["model"]["random_weights"]
    assert origin["split_sizes"] == {"train": 7, "validation": 2, "test": 2}
    assert origin["versions"]["torch"] == importlib.metadata.version("torch")
    assert origin["machine"]["threads"] == torch.get_num_threads()
    assert "634 fewer" in origin["differences_from_the_paper"][0]
    assert str(tmp_path) not in text, "a record names no path of the machine"

    # Other settings make another experiment, which does not mix with what is there: the same seed or another one.
    line = line[:-2]
    for seeds in (["--seeds", "0"], ["--seeds", "7"]):
        capsys.readouterr()
        assert run.main([*line, *seeds, "--output", str(tmp_path / "out"), *SMALL, "--learning_rate", "0.5"]) == 2
        assert "another learning_rate" in capsys.readouterr().err
    assert not (tmp_path / "out" / "ddti" / "small" / "7").exists()


def test_shares_of_the_labels_stand_beside_each_other(busbra, checkpoint, tmp_path):
    line = ["--task", "busbra", "--model", f"small={checkpoint}", "--data", str(busbra), "--trials", "1"]
    assert run.main([*line, "--output", str(tmp_path / "out"), "--train_share", "0.5", "1", *SMALL]) == 0
    table = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert set(table["model"]) == {"small", "small@50", "pixels"}
    records = {
        name: json.loads((tmp_path / "out" / "busbra" / name / "0" / "metrics.json").read_text())
        for name in ("small", "small@50")
    }
    assert records["small@50"]["samples"]["train"] < records["small"]["samples"]["train"]
    assert records["small@50"]["samples"]["test"] == records["small"]["samples"]["test"]
    assert "small, 50 % of the labels" in (tmp_path / "out" / "results.md").read_text()


@pytest.mark.slow
def test_trials_in_processes_of_their_own_give_the_same_table(ddti, checkpoint, tmp_path):
    line = [
        "--task",
        "ddti",
        "--model",
        f"small={checkpoint}",
        "--data",
        str(ddti),
        "--trials",
        "2",
        *SMALL,
        "--output",
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as those processes have
    try:
        assert run.main([*line, str(tmp_path / "one")]) == 0
    finally:
        torch.set_num_threads(threads)
    assert run.main([*line, str(tmp_path / "two"), "--jobs", "2"]) == 0
    pd.testing.assert_frame_equal(results(tmp_path / "one")[0], results(tmp_path / "two")[0])


CARD = """---
license: mit
model-index:
- name: lesions
  results:
  - task:
      type: image-segmentation
    dataset:
      type: others
      name: Others
    metrics:
    - type: dice
      value: 0.5
---
# Lesions

Written by hand: *äöü*.
"""


def test_results_go_into_the_card_beside_what_stands_there(ddti, checkpoint, tmp_path):
    folder = tmp_path / "lesions"
    folder.mkdir()
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    line = ["--task", "ddti", "--model", f"small={checkpoint}", "--data", str(ddti), "--output", str(tmp_path / "out")]
    for seeds in (["0"], ["0", "1"]):  # the second time replaces what the first wrote
        assert run.main([*line, "--seeds", *seeds, "--publish", str(folder), *SMALL]) == 0
    card = ModelCard.load(folder / "README.md")
    assert card.text.strip() == CARD.rpartition("---\n")[2].strip() and card.data.license == "mit"
    by_data = {}
    for result in card.data.eval_results:
        by_data.setdefault(result.dataset_type, []).append(result)
    assert [result.metric_value for result in by_data["others"]] == [0.5]
    assert [result.metric_type for result in by_data["ddti"]] == ["dice", "nsd_2px"]
    table = pd.read_parquet(tmp_path / "out" / "results.parquet")
    dice = table[(table["metric"] == "dice") & (table["part"] == "test")]["value"]
    assert by_data["ddti"][0].metric_value == pytest.approx(dice.mean(), abs=1e-5)
    assert by_data["ddti"][0].metric_args["seeds"] == [0, 1] and by_data["ddti"][0].task_type == "image-segmentation"
    assert [path.name for path in folder.iterdir()] == ["README.md"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task", "dti"], ("did you mean ddti", "usenhance")),
        (["--task", "usreport", "--data", "empty"], ("empty", "was expected")),
        (["--task", "ddti"], ("--data is needed",)),
        (["--task", "ddti", "--data", "nowhere"], ("nowhere", "ddti")),
        (["--task", "ddti", "--data", "empty"], ("empty", "was expected")),
        (["--task", "focus", "--data", "empty"], ("training", "was expected")),
        (["--task", "ddti", "--data", "empty", "--model", "nowhere"], ("--model nowhere", "echocare-tiny")),
        (["--task", "ddti", "--data", "DDTI", "--model", "pixels"], ("pixels", "no floor of ddti")),
        (
            ["--task", "ddti", "--data", "empty", "--model", "tiny", "a=tiny", "a=base"],
            ("both would be called a", "NAME=MODEL"),
        ),
        (["--task", "ddti", "--data", "empty", "--trials", "0"], ("at least one trial",)),
        (["--task", "ddti", "--data", "empty", "--seeds", "1", "1"], ("different",)),
        (["--task", "ddti", "--data", "empty", "--train_share", "0"], ("--train_share", "above 0")),
        (["--task", "ddti", "--data", "empty", "--rows", "keypoints_hc18"], ("--rows", "--suite")),
        (["--task", "ddti", "--data", "empty", "--mask", "lesion"], ("--mask", "reader")),
        (["--task", "ddti", "--data", "empty", "--epoks", "3"], ("--epoks",)),
        (["--task", "ddti", "--data", "empty", "--epochs", "-3"], ("epochs",)),
        (["--task", "ddti", "--data", "DDTI", "--reader", "fold=2"], ("--reader", "fold")),
        (["--task", "ddti", "--data", "empty", "--reader", "fold"], ("--reader fold", "name=value")),
        (["--task", "busbra", "--data", "empty", "--reader", "fold=[1"], ("fold=[1", "name=value")),
        (["--task", "busbra", "--data", "empty", "--reader", "fold=1", "fold=2"], ("fold is given twice",)),
        (["--task", "ddti", "--data", "empty", "--reader", "strict=false"], ("--reader strict", "leave it out")),
        (["--task", "ddti", "--data", "a.zip"], ("a.zip", "unpack it")),
        (["--task", "ddti", "--data", "empty", "--output", "a.zip"], ("--output", "is a file")),
        (["--task", "ddti", "--data", "empty", "--output", "a.zip/results"], ("--output", "a.zip is a file")),
        (["--task", "ddti", "--data", "DDTI", "--cpu_minutes", "0"], ("--cpu_minutes", "above 0")),
        (["--task", "ddti", "--data", "empty", "--model", "***=tiny"], ("***=tiny", "NAME=MODEL")),
        (["--task", "ddti", "--data", "empty", "--publish", "broken"], ("README.md", "YAML")),
        (["--task", "ddti", "--data", "empty", "--publish", "several"], ("README.md", "2 models")),
        (["--task", "ddti", "--data", "empty", "--publish", "empty"], ("README.md", "no card")),
        (["--task", "ddti", "--data", "DDTI", "--table", "results.md"], ("--table FILE", "--suite")),
        (["--suite", "proxy", "--data", "empty"], ("breast_busi", "was expected here")),
        (["--suite", "proxy", "--data", "empty", "--rows", "hearts"], ("hearts", "keypoints_hc18")),
        (["--suite", "proxy", "--reader", "fold=2"], ("--reader",)),
    ],
)
def test_wrong_input_ends_with_one_line(options, words, ddti, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.zip").write_bytes(b"PK")
    for name, header in (
        ("broken", "tags: [a"),
        ("several", "model-index: [{name: a, results: []}, {name: b, results: []}]"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"---\n{header}\n---\nA card.\n")
    options = [str(ddti) if word == "DDTI" else word for word in options]
    assert run.main(options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    assert all(word in lines[0] for word in words), lines[0]
    assert not (tmp_path / "evaluation").exists()


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as end:
        run.main(["--help"])
    assert end.value.code == 0
    assert "python eval/run.py --task ddti --model echocare-tiny --data DDTI --trials 20" in capsys.readouterr().out


def test_rows_of_the_suite_have_the_split_of_their_relatives(shared_data):
    """The test images of a further row are those that eval/heads.py keeps out of pretraining."""
    from echocare_hf.data.labelled import read_labelled
    from echocare_hf.data.splits import split_by_group
    from echocare_hf.finetuning import FinetuneArguments

    row = proxy.ROWS["detection_busi"]
    arguments = FinetuneArguments(data=str(shared_data / row.data), output="x", split_seed=0)
    data = proxy.proxy_subject("detection_busi").read(arguments)
    mine = {str(sample.images[0]) for sample in data.samples if sample.split == "test"}
    other = read_labelled(shared_data / row.data, "classification")
    held = {str(other.samples[index].images[0]) for index in split_by_group(other.samples, seed=0).test}
    assert mine == held and mine


def test_every_type_of_task_has_a_row():
    assert {row.task for row in proxy.ROWS.values()} == {
        *("classification", "segmentation", "detection", "keypoints", "video", "regression", "enhancement"),
        "report",
    }


def test_the_suite_shows_each_rows_first_metric_and_its_differences():
    def entry(metric, cases):
        one = {"metric": metric, "model": "big", "other": "tiny", "difference": -0.25, "t_test": {"p_holm": 0.0321}}
        other = {**one, "metric": "auc", "difference": 3.0}
        contenders = [{"name": name, "kind": "echocare", "seeds": [0, 1], "test": {}} for name in ("big", "tiny")]
        origin = {
            "finished": "2026-11-23T00:00:00",
            "machine": {"accelerator": None, "threads": 1, "processor": "Some"},
            "versions": {"torch": "2", "transformers": "5"},
            "split_sizes": {"test": 3},
        }
        return {
            **dict.fromkeys(("title", "split"), ""),
            **{key: [] for key in ("remarks", "differences_from_the_paper", "notes")},
            "paper": {},
            "headlines": [{"metric": metric, "name": metric, "paper": None}],
            "contenders": contenders,
            "tests_over_trials": [
                {**each, "trials": 2, "t_test": test, "wilcoxon": {**test, "name": "w"}}
                for each in (one, other)
                for test in [{**each["t_test"], "p": 0.02, "stars": "*", "name": "t"}]
            ],
            "bootstrap_over_cases": [
                {**one, "metric": cases, "low": -1, "high": 1, "p": 0.4, "p_holm": 0.4, "units": 30}
            ],
            "calibration": None,
            "provenance": {"big": [origin]},
        }

    rows = {"segmentation_busi": entry("dice", "dice"), "detection_busi": entry("ap50_rectangle", "surest_iou")}
    text = proxy.suite_markdown(rows)
    assert "| row | metric | against tiny |" in text
    assert "| segmentation_busi | dice | -0.2500 (0.0321; 0.4000) |" in text
    assert "| detection_busi | ap50_rectangle | -0.2500 (0.0321; -) |" in text


def test_tables_go_between_the_markers_of_a_document(tmp_path):
    document = tmp_path / "results.md"
    document.write_text(f"# Results\n\n{proxy.BEGIN}\nold\n{proxy.END}\n\nAfter.\n")
    for text in ("one | two", r"three \1"):
        proxy.put_between_markers(text, document)
    assert document.read_text() == f"# Results\n\n{proxy.BEGIN}\n\nthree \\1\n\n{proxy.END}\n\nAfter.\n"
    (tmp_path / "other.md").write_text("nothing")
    with pytest.raises(ValueError, match="expected to hold"):
        proxy.put_between_markers("text", tmp_path / "other.md")
