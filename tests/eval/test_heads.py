"""eval/heads.py and eval/references.py: every reference is measured on the split and by the metrics of the task."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from echocare_hf.data.labelled import read_labelled
from echocare_hf.data.splits import split_by_group
from echocare_hf.metrics import classification_metrics, regression_metrics
from echocare_hf.model.ellipses_echocare import ellipse_overlap

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "eval"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
import finetune
import heads
import references

SMALL = ["--image_size", "32", "--batch_size", "4", "--epochs", "1", "--bf16", "false", "--model", "tiny"]


def measured(task, reference, discs, output, *options):
    arguments = [task, reference, "--data", str(discs), "--output", str(output), *SMALL, *options]
    assert references.main(arguments) == 0
    assert not output.with_name(output.name + ".partial").exists()
    return json.loads((output / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("task", "reference", "metric", "options"),
    [
        ("segmentation", "unet", "nsd", ["--mask_values", "0=background", "1=disc"]),
        ("segmentation", "basic_unet", "dice", ["--mask_values", "0=background", "1=disc"]),
        ("keypoints", "regression", "mre_mm", ["--keypoints", "centre"]),
        ("classification", "resnet18", "auc", ["--label", "label"]),
    ],
)
def test_networks_are_trained_by_the_job_of_echocare(task, reference, metric, options, discs, tmp_path):
    if reference.endswith("unet"):
        pytest.importorskip("monai")
    if reference == "resnet18":
        pytest.importorskip("timm.models", reason="timm needs a torchvision that fits torch")
    record = measured(task, reference, discs, tmp_path / reference, *options)
    assert record["reference"] == reference and record["steps"] == 4 and sum(record["samples"].values()) == 24
    assert metric in record["test"] and metric in record["validation"]


def test_pixels_are_a_real_floor(discs, tmp_path):
    """On discs whose size is the class, a linear model of the pixels does better than chance: scikit-learn agrees with the record."""
    record = measured("classification", "pixels", discs, tmp_path / "pixels", "--label", "label")
    assert "steps" not in record
    assert record["validation"]["auc"] > 0.5
    data = read_labelled(discs, "classification", label="label")
    split = split_by_group(data.samples, (0.7, 0.15, 0.15), 0)
    assert record["samples"]["test"] == len(split.test)
    labels = np.array([data.samples[index].label for index in split.test])
    constant = np.full((len(labels), 2), 0.5)
    assert set(classification_metrics(constant, labels, data.class_names, "single_label_classification")) >= {"auc"}


def test_the_mean_of_the_training_part(discs, tmp_path):
    record = measured("regression", "mean", discs, tmp_path / "mean", "--target", "radius_mm")
    data = read_labelled(discs, "regression", target="radius_mm")
    split = split_by_group(data.samples, (0.7, 0.15, 0.15), 0)
    values = np.array([sample.targets["radius_mm"] for sample in data.samples])
    expected = np.abs(values[list(split.test)] - values[list(split.train)].mean()).mean()
    assert record["test"]["mae_radius_mm"] == pytest.approx(expected, abs=1e-4)
    assert "mae_radius_mm" in regression_metrics(np.zeros((2, 1)), np.ones((2, 1)), ["radius_mm"])


def test_observers_are_compared_with_the_mean_of_the_others():
    class Reading:
        def __init__(self, *values):
            self.readings = {"height": values}

    spread = references.observer_spread([Reading(1.0, 2.0, 6.0), Reading(3.0, float("nan"), 5.0), Reading(9.0)])
    # 1 against 4, 2 against 3.5, 6 against 1.5; 3 against 5 and 5 against 3; one reading says nothing.
    assert spread == {"observers_mae_height": pytest.approx((3 + 1.5 + 4.5 + 2 + 2) / 5)}


def test_the_ellipse_of_a_segmentation(discs, tmp_path):
    """Masks that are found perfectly give the ellipses that they were drawn from."""
    label_map = np.zeros((60, 80), dtype=np.uint8)
    rows, columns = np.mgrid[:60, :80] + 0.5
    label_map[((columns - 40) / 20) ** 2 + ((rows - 30) / 10) ** 2 < 1] = 1
    found = references._ellipse(label_map)
    true = torch.tensor([[40.0, 30.0, 40.0, 20.0, 0.0]])
    assert ellipse_overlap(true, torch.from_numpy(found["boxes"]).float()).item() > 0.98
    assert len(references._ellipse(np.zeros((4, 4)))["boxes"]) == 0

    # Masks and ellipses are split alike where the table says which part an image is of.
    rows = list(csv.DictReader((discs / "metadata.csv").open()))
    parts = ["train"] * 16 + ["validation"] * 4 + ["test"] * 4
    shutil.copytree(discs, tmp_path / "split")
    with (tmp_path / "split" / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "split"])
        writer.writeheader()
        writer.writerows({**row, "split": part} for row, part in zip(rows, parts, strict=True))
    masks = tmp_path / "masks"
    options = ["--data", str(tmp_path / "split"), *SMALL, "--mask_values", "0=background", "1=disc"]
    assert finetune.main(["segmentation", *options, "--output", str(masks)]) == 0
    options += ["--model", str(masks), "--label", "label"]
    assert references.main(["detection", "mask_ellipse", *options, "--output", str(tmp_path / "ellipse")]) == 0
    record = json.loads((tmp_path / "ellipse" / "metrics.json").read_text())
    assert "ap50" in record["test"] and "steps" not in record and record["samples"]["test"] == 4


def test_filters_are_measured_beside_the_degraded_image(discs, tmp_path):
    pytest.importorskip("skimage")
    record = measured("enhancement", "filters", discs, tmp_path / "filters")
    methods = ("median", "bicubic", "bicubic_median", "non_local_means")
    assert all(f"{method}_psnr" in record["test"] for method in methods) and "psnr_before" in record["test"]


def test_one_frame_of_a_clip_is_measured_as_the_clip_is(tmp_path):
    rows = ["file_name,sequence,frame,width_px"]
    for number in range(18):
        sequence, frame = divmod(number, 3)
        pixels = np.random.default_rng(number).integers(0, 100, (32, 32), np.uint8)
        pixels[8:24, 8 : 12 + number % 7] = 200
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,clip{sequence},{frame},{4 + number % 7}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    options = ["--target", "width_px", "--num_frames", "2"]
    record = measured("video", "single_frame", tmp_path, tmp_path / "single", *options)
    assert record["steps"] > 0 and np.isfinite(record["test"]["mae_width_px"])
    assert "coverage_width_px" not in record["test"], "an image model predicts no spread"


def test_an_unknown_reference_is_told_with_the_known_ones(capsys):
    assert references.main(["video", "unet", "--data", "x", "--output", "y"]) == 2
    assert "mean, single_frame" in capsys.readouterr().err


def test_the_table_shows_mean_and_spread_of_the_runs_that_are_there(tmp_path, capsys):
    for seed, dice in enumerate((0.5, 0.7)):
        for method, value in (("echocare", dice), ("unet", dice - 0.1)):
            folder = tmp_path / "segmentation_busi" / method / str(seed)
            folder.mkdir(parents=True)
            record = {"test": {"dice": value, "nsd": None}, "steps": 10, "arguments": {"batch_size": 8}}
            (folder / "metrics.json").write_text(json.dumps(record))
    assert heads.main(["table", "--output", str(tmp_path), "--rows", "segmentation_busi"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| echocare | 0.600 ± 0.141 |  | 80 | 2 |" in lines and "| unet | 0.500 ± 0.141 |  | 80 | 2 |" in lines


def test_a_run_that_is_there_is_not_repeated(tmp_path, capsys):
    folder = tmp_path / "runs" / "video_timtrack" / "mean" / "0"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    arguments = heads.argparse.Namespace(output=tmp_path / "runs", data=tmp_path, model="tiny")
    assert heads.run_one("video_timtrack", "mean", 0, arguments) == "video_timtrack mean seed 0: is there"


def test_the_images_of_all_test_parts_are_listed(discs, monkeypatch, capsys):
    monkeypatch.setattr(heads, "ROWS", {"discs": heads.Row("classification", discs.name, 1, (), ())})
    arguments = heads.argparse.Namespace(data=discs.parent, rows=["discs"])
    assert heads.test_files(arguments) == 0
    data = read_labelled(discs, "classification")
    expected = [f"{discs.name}/{data.samples[index].name}" for index in split_by_group(data.samples, seed=0).test]
    assert capsys.readouterr().out.split() == sorted(expected)
