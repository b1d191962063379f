"""Classification with several columns of labels: findings that may occur together, from the command line to the pipeline."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from echocare_hf import finetuning

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
import finetune

SMALL = ["--image_size", "32", "--batch_size", "4", "--epochs", "2", "--bf16", "false", "--model", "tiny"]
FINDINGS = ["effusion", "b_lines", "consolidation"]


@pytest.fixture(scope="module")
def lungs(tmp_path_factory):
    """Thirty patients with one image each, and three findings that lighten the left, the right or the lower part."""
    folder = tmp_path_factory.mktemp("lungs")
    random = np.random.default_rng(0)
    rows = []
    for index in range(30):
        present = random.integers(0, 2, 3)
        image = random.integers(0, 90, (40, 40))
        image[:, :16] += 80 * present[0]
        image[:, 24:] += 80 * present[1]
        image[30:] += 80 * present[2]
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{index:02}.png")
        rows.append({"file_name": f"{index:02}.png", **dict(zip(FINDINGS, present.tolist(), strict=True))})
    write(folder / "metadata.csv", rows)
    return folder


def write(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_several_columns_make_a_model_of_findings(lungs, tmp_path):
    output = tmp_path / "findings"
    command = ["classification", "--data", str(lungs), "--label", *FINDINGS, "--output", str(output), *SMALL]
    assert finetune.main(command) == 0
    config = json.loads((output / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification" and config.get("class_weights") is None
    assert len(config["positive_weights"]) == 3
    assert [config["id2label"][str(index)] for index in range(3)] == FINDINGS

    record = json.loads((output / "metrics.json").read_text())
    assert record["arguments"]["label"] == FINDINGS
    expected = {f"{metric}_{name}" for metric in ("auc", "average_precision", "f1") for name in FINDINGS}
    assert expected | {"auc", "average_precision", "macro_f1", "loss"} == set(record["test"])
    card = (output / "README.md").read_text()
    assert all(f"| {name} |" in card for name in ("auc", *expected))
    assert Image.open(output / "predictions.png").width > 300

    # Each finding has a probability of its own: the pipeline takes the sigmoid.
    path = str(lungs / "00.png")
    found = {
        entry["label"]: entry["score"] for entry in pipeline("image-classification", model=str(output))(path, top_k=3)
    }
    inputs = AutoImageProcessor.from_pretrained(output)(images=Image.open(path).convert("RGB"), return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForImageClassification.from_pretrained(output)(**inputs).logits[0]
    assert found == pytest.approx(dict(zip(FINDINGS, logits.sigmoid().tolist(), strict=True)), abs=1e-4)


def test_labels_and_loss_are_those_of_the_table(lungs):
    argv = ["classification", "--data", str(lungs), "--label", *FINDINGS, "--output", "unused", *SMALL]
    job = finetuning.open_job(*finetuning.parse_arguments(argv, ""))
    data = job.sets["validation"]
    batch = job.task.collate([data[row] for row in range(len(data))])
    rows = {row["file_name"]: [float(row[name]) for name in FINDINGS] for row in read(lungs / "metadata.csv")}
    assert batch["labels"].tolist() == [rows[sample.name] for sample in data.samples]
    with torch.no_grad():
        outputs = job.model().eval()(**batch)
    present = np.array([sample.label for sample in job.parts["train"]]).sum(0)
    weights = torch.tensor((len(job.parts["train"]) - present) / present)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        outputs.logits, batch["labels"], pos_weight=weights
    )
    assert float(outputs.loss) == pytest.approx(float(expected), rel=1e-4)
    probabilities = job.task.predict(outputs, data.samples, [])
    np.testing.assert_allclose(probabilities, outputs.logits.sigmoid(), atol=1e-6)


def test_one_column_is_one_class_an_image_as_before(lungs):
    argv = ["classification", "--data", str(lungs), "--label", "effusion", "--output", "unused", *SMALL]
    job = finetuning.open_job(*finetuning.parse_arguments(argv, ""))
    values = job.task.config_values(job.parts["train"])
    assert values["problem_type"] == "single_label_classification" and values["id2label"] == {0: "0", 1: "1"}
    counts = np.bincount([sample.label for sample in job.parts["train"]])
    assert values["class_weights"] == pytest.approx(len(job.parts["train"]) / (2 * counts), abs=1e-4)


def test_clips_may_have_findings(lungs, tmp_path):
    rows = []
    for clip in range(10):
        for frame in range(2):
            rows.append({"file_name": str(lungs / f"{2 * clip + frame:02}.png"), "clip": f"c{clip}", "frame": frame})
            rows[-1] |= {"effusion": clip % 2, "b_lines": clip // 5}
    write(tmp_path / "metadata.csv", rows)
    output = tmp_path / "out"
    options = ["--label", "effusion", "b_lines", "--num_frames", "2", "--fractions", "0.6", "0.4", "0", *SMALL]
    assert finetune.main(["video", "--data", str(tmp_path), "--output", str(output), *options]) == 0
    assert json.loads((output / "config.json").read_text())["problem_type"] == "multi_label_classification"


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"effusion": "maybe"}, [], "has 'maybe' in the column effusion; write 1 or 0"),
        ({}, ["--ordinal", "true"], "findings from several columns of --label have no order"),
        ({}, ["--label", "effusion", "nodule"], "no column 'nodule' for --label"),
    ],
)
def test_findings_that_do_not_serve(change, options, words, lungs, tmp_path, capsys):
    rows = [{**row, "file_name": str(lungs / row["file_name"])} for row in read(lungs / "metadata.csv")]
    rows[3] |= change
    write(tmp_path / "metadata.csv", rows)
    command = ["classification", "--data", str(tmp_path), "--label", *FINDINGS, "--output", str(tmp_path / "out")]
    assert finetune.main([*command, *SMALL, *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("level", "words"), [("0", "no image of the training part"), ("1", "every image of the")])
def test_a_finding_that_never_changes_in_the_training_part(level, words, lungs, tmp_path, capsys):
    rows = [
        {**row, "file_name": str(lungs / row["file_name"]), "split": "train" if index < 20 else "val"}
        for index, row in enumerate(read(lungs / "metadata.csv"))
    ]
    for row in rows[:20]:
        row["b_lines"] = level
    write(tmp_path / "metadata.csv", rows)
    command = ["classification", "--data", str(tmp_path), "--label", *FINDINGS, "--output", str(tmp_path / "out")]
    assert finetune.main([*command, *SMALL]) == 2
    error = capsys.readouterr().err
    assert words in error and "shows b_lines" in error


def read(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
