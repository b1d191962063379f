"""training/report.py end to end on phantom exams: what it makes, what a kill leaves, what it refuses."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from echocare_hf.reports import ReportArguments, load_generator, write_drafts, write_phantom_exams
from echocare_hf.reports.job import open_report_job
from echocare_hf.reports.pair_images import pair_frames
from echocare_hf.reports.pairs import read_pairs

ROOT = Path(__file__).resolve().parents[2]
# By its path: another script of the repository has the same name.
_spec = importlib.util.spec_from_file_location("training_report", ROOT / "training" / "report.py")
report = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(report)

OPTIONS = [
    "--model",
    "tiny",
    "--image_size",
    "32",
    "--max_tokens",
    "80",
    "--bf16",
    "false",
    "--batch_size",
    "4",
    "--epochs",
    "3",
    "--text_steps",
    "4",
    "--candidates",
    "3",
]


@pytest.fixture(scope="module")
def exams(tmp_path_factory):
    return write_phantom_exams(tmp_path_factory.mktemp("data") / "exams", 12, 0, ["zh"], 32, ["thyroid"])


@pytest.fixture(scope="module")
def made(exams, tmp_path_factory):
    """A finished run."""
    output = tmp_path_factory.mktemp("made") / "reports"
    assert report.main(["--data", str(exams), "--output", str(output), *OPTIONS]) == 0
    return output


def figures(folder):
    """What must not depend on how often a run was cut off."""
    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {
        name: record[name] for name in ("validation", "test", "copying", "history", "thresholds", "steps", "examples")
    }


def test_what_a_run_makes(made, exams):
    record = json.loads((made / "metrics.json").read_text(encoding="utf-8"))
    assert set(record["test"]) == {"generator", "nearest neighbour", "most frequent"}
    assert {
        "bleu_4_characters",
        "bleu_4_jieba_words",
        "meteor_exact_stem_characters",
        "rouge_l_characters",
        "findings_f1",
    } <= set(record["test"]["generator"])
    assert {"exact_copies", "novel_4grams"} <= set(record["copying"]["test"]["generator"])
    assert {"eval_bleu_1_characters", "eval_rouge_l_characters", "eval_findings_f1", "eval_score"} <= set(
        record["history"][0]
    )
    assert {example["kind"] for example in record["examples"]} == {"good", "bad"}
    assert sum(record["samples"].values()) == 12 and str(exams.parent) not in json.dumps(record)
    card = (made / "README.md").read_text(encoding="utf-8")
    assert "draft" in card and "nearest neighbour" in card and "pipeline_tag: image-text-to-text" in card
    assert not made.with_name("reports.partial").exists()


def test_the_folder_writes_drafts(made, exams):
    model, processor, thresholds = load_generator(made)
    pair = read_pairs(exams).pairs[0]
    frames, views = pair_frames(pair.images, pair.views, 2)
    inputs = processor(images=[frames], views=[views], organ=[pair.organ], indication=[pair.indication])
    (draft,) = write_drafts(model, processor, inputs, thresholds, ["zh"], ["thyroid"], max_new_tokens=30)
    assert draft.to_text().startswith("草稿") and set(draft.probabilities) == set(model.config.findings)
    assert all(0 < part.confidence <= 1 for part in draft.sentences)
    plain = processor.batch_decode(model.generate(**inputs, max_new_tokens=30, do_sample=False))[0]
    assert model.config.draft_candidates == 3 and model.config.finding_tokens
    (greedy,) = write_drafts(
        model, processor, inputs, thresholds, ["zh"], ["thyroid"], candidates=1, max_new_tokens=30, do_sample=False
    )
    assert greedy.text == plain.strip()


def test_a_killed_run_goes_on_to_the_same_end(made, exams, tmp_path):
    """SIGKILL after the first checkpoint; the same command gives what an uninterrupted run gave."""
    output = tmp_path / "reports"
    line = ["--data", str(exams), "--output", str(output), *OPTIONS]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "training" / "report.py"), *line],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    checkpoints = output.with_name("reports.partial") / "checkpoints"
    end = time.monotonic() + 600
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")) and process.poll() is None:
        assert time.monotonic() < end, "no checkpoint in ten minutes"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not output.exists()
    assert report.main(line) == 0
    whole, cut = figures(made), figures(output)
    assert [entry["epoch"] for entry in cut["history"]] == [1, 2, 3]
    np.testing.assert_allclose(
        [entry["eval_loss"] for entry in cut["history"]], [entry["eval_loss"] for entry in whole["history"]], rtol=1e-3
    )
    assert cut["steps"] == whole["steps"] and cut["test"]["nearest neighbour"] == whole["test"]["nearest neighbour"]


def test_other_arguments_do_not_go_on(exams, tmp_path, capsys):
    work = tmp_path / "x.partial"
    (work / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (work / "checkpoints" / "checkpoint-1" / "trainer_state.json").write_text("{}")
    (work / "arguments.json").write_text(json.dumps({"task": "report", "seed": 7}))
    assert report.main(["--data", str(exams), "--output", str(tmp_path / "x"), *OPTIONS]) == 2
    assert "--resume false" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--data", "nowhere.json", "--output", "OUT"], "nowhere.json: there is no such file"),
        (["--output", "OUT"], "give either --data with image-report pairs or --phantoms"),
        (["--phantoms", "9"], "--output is needed"),
        (["--phantoms", "9", "--output", "OUT", "--epochs", "0"], "--epochs is 0: give"),
        (
            ["--phantoms", "9", "--output", "OUT", "--model", "no_such_folder"],
            "no_such_folder: there is no such folder",
        ),
        (["--phantoms", "9", "--output", "OUT", "--max_tokens", "5"], "give --max_tokens"),
        (["--phantoms", "9", "--output", "OUT", "--languages", "de"], "phantom exams have reports in en and zh"),
        (["--phantoms", "1", "--output", "OUT", "--languages", "en"], "cannot be split into 3 parts"),
        (["--phantoms", "9", "--output", "OUT", "--columns", "text"], "--columns is text: give what=name"),
    ],
)
def test_what_is_refused_in_one_line(options, expected, tmp_path, capsys):
    output = tmp_path / "out"
    line = [str(output) if option == "OUT" else option for option in options]
    line += [] if "--image_size" in line else ["--image_size", "32"]
    assert report.main(line) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ") and expected in error[-1] and not output.exists()


def test_a_report_that_is_too_long_is_not_learned_from(exams, tmp_path, capsys):
    rows = json.loads(exams.read_text(encoding="utf-8"))
    for row in rows:
        row["images"] = [str(exams.parent / name) for name in row["images"]]
        row["split"] = "train" if row is not rows[-1] else "validation"
    rows[0]["report"] = "".join(chr(0x4E00 + place) for place in range(300))
    (tmp_path / "pairs.json").write_text(json.dumps(rows), encoding="utf-8")
    values = {
        "data": str(tmp_path / "pairs.json"),
        "output": "x",
        "model": "tiny",
        "image_size": 32,
        "max_tokens": 250,
    }
    values |= {"fractions": [0.8, 0.2, 0.0]}
    job = open_report_job(ReportArguments(**values), tmp_path)
    assert rows[0]["name"] not in {pair.name for pair in job.parts["train"]}
    assert any("not learned from" in problem and "--max_tokens" in problem for problem in job.data.problems)
    with pytest.raises(ValueError, match="its report has"):
        open_report_job(ReportArguments(**values, strict=True), tmp_path)


def test_images_are_augmented_in_training_alone_and_never_mirrored(exams, tmp_path):
    job = open_report_job(ReportArguments(data=str(exams), output="x", model="tiny", image_size=32), tmp_path)
    train, validation = job.sets["train"], job.sets["validation"]
    assert not np.array_equal(train[0]["images"], job.task.example(train.item(0), None)["images"])
    assert np.array_equal(validation[0]["images"], job.task.example(validation.item(0), None)["images"])
    assert job.task.augmentation.settings.flip == 0
    batch = job.task.collate([train[0], train[1]])
    assert batch["pixel_values"].shape == (2, 2, 3, 32, 32) and set(batch["views"].flatten().tolist()) == {1, 2}
    assert batch["findings"].shape == (2, len(job.task.findings)) and (batch["labels"] >= 0).any()
