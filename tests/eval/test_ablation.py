"""eval/ablation.py and eval/label_efficiency.py: linear probes against scikit-learn and plain loops, tables from records of runs."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from echocare_hf import EchoCareConfig, EchoCareModel
from echocare_hf.finetuning import FinetuneArguments, open_job

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "eval"))
import ablation
import label_efficiency


def write(file: Path, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_validation_part_chooses_the_strength_of_a_probe(classes):
    random = np.random.default_rng(classes)
    centres = random.normal(size=(classes, 5))
    parts = {}
    for part, count in (("train", 40), ("validation", 60), ("test", 60)):
        labels = np.arange(count) % classes
        parts[part] = 3 * centres[labels] / 4 + random.normal(size=(count, 5)), labels.astype(float)
    mean, deviation = parts["train"][0].mean(0), parts["train"][0].std(0)
    seen = []
    for strength in ablation.STRENGTHS:
        machine = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
        machine.fit((parts["train"][0] - mean) / deviation, parts["train"][1])
        aucs = []
        for part in ("validation", "test"):
            scores = machine.predict_proba((parts[part][0] - mean) / deviation)
            aucs.append(
                np.mean([roc_auc_score(parts[part][1] == label, scores[:, label]) for label in range(classes)])
            )
        seen.append(aucs)
    best = max(seen, key=lambda pair: pair[0])
    found = ablation.linear_probe(parts)
    assert [found["validation"], found["test"]] == pytest.approx(best)
    assert len({round(auc, 6) for auc, _ in seen}) > 1


def test_pixels_have_the_features_of_their_place(discs):
    """A loop over a few pixels: each map read off where the pixel lies, with the label of that pixel."""
    arguments = FinetuneArguments(
        data=str(discs), model="tiny", image_size=32, mask_values=["0=background", "1=disc"], fractions=[0.6, 0.2, 0.2]
    )
    job = open_job("segmentation", arguments)
    data = job.sets["validation"]
    encoder = EchoCareModel(EchoCareConfig.preset("tiny", image_size=32)).eval()
    features, labels = ablation.pixel_features(encoder, data, np.random.default_rng(0), "validation")
    side = 32 // ablation.EVERY
    assert features.shape[0] == labels.shape[0] == len(data) * side * side
    assert 0 < labels.mean() < 0.5

    example = data.task.example(data.item(1), None)
    with torch.inference_mode():
        maps = encoder(example["pixel_values"][None], output_hidden_states=True).reshaped_hidden_states
    for row, column in ((0, 0), (3, 5), (7, 2)):
        place = side * side + row * side + column
        assert labels[place] == (example["labels"][4 * row + 2, 4 * column + 2] == 1)
        start = 0
        for one in maps:
            resized = F.interpolate(one, (side, side), mode="bilinear")[0, :, row, column]
            np.testing.assert_allclose(features[place, start : start + len(resized)], resized, rtol=1e-5, atol=1e-5)
            start += len(resized)
        assert start == features.shape[1]

    some, _ = ablation.pixel_features(encoder, job.sets["train"], np.random.default_rng(0), "train")
    assert len(some) == len(job.sets["train"]) * side * side  # fewer than PIXELS_AN_IMAGE each


def test_the_table_has_what_was_measured(tmp_path):
    for seed, (probe, auc, dice) in enumerate(((0.7, 0.8, 0.5), (0.72, 0.84, 0.54))):
        folder = tmp_path / "mim" / str(seed)
        write(folder / "probe.json", {task: {"validation": probe, "test": probe + 0.1} for task in ablation.TASKS})
        for task, value in zip(ablation.TASKS, (auc, dice), strict=True):
            metric = ablation.METRICS[task]
            write(folder / task / "metrics.json", {"validation": {metric: value}, "test": {metric: value + 0.01}})
    validation, test = ablation.table(tmp_path).split("test part:")
    assert "| L_MIM | 0.710 ± 0.014 | 0.820 ± 0.028 | 0.710 ± 0.014 | 0.520 ± 0.028 | 2 |" in validation
    assert "| L_MIM | 0.810 ± 0.014 | 0.830 ± 0.028 | 0.810 ± 0.014 | 0.530 ± 0.028 | 2 |" in test
    assert "from scratch" not in validation + test


def test_adaptation_is_when_validation_first_comes_near_its_best():
    history = [{"step": 10, "eval_auc": 0.5}, {"step": 20, "eval_auc": 0.893}, {"step": 30, "eval_auc": 0.9}]
    assert label_efficiency.adaptation_steps({"history": history}, "auc") == 20
    assert label_efficiency.adaptation_steps({"history": [*history, {"step": 40, "eval_auc": 0.91}]}, "auc") == 40
    assert label_efficiency.adaptation_steps({"history": [{"step": 10, "eval_auc": float("nan")}]}, "auc") is None


def test_the_curve_has_what_was_measured(tmp_path):
    for share, value in ((10, 0.6), (100, 0.8)):
        for seed in range(2):
            metrics = {"auc": value + 0.02 * seed}
            record = {"test": metrics, "history": [{"step": 5 * share, "eval_auc": value}]}
            write(tmp_path / "classification_busi" / "echocare-tiny" / str(share) / str(seed) / "metrics.json", record)
    arguments = Namespace(output=tmp_path, models=["echocare-tiny"], picture=tmp_path / "curve.png")
    lines = label_efficiency.table(arguments).splitlines()
    row = next(line for line in lines if line.startswith("| echocare-tiny"))
    assert row == "| echocare-tiny | 0.610 ± 0.014 (50) |  |  |  |  | 0.810 ± 0.014 (500) |"
