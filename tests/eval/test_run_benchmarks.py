"""eval/run.py: every benchmark that can be fine-tuned runs end to end on the miniature of its layout, with its metrics and its cases."""

import json
import math
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "eval"))
import miniatures
import run
from tasks import TASKS

pytestmark = pytest.mark.usefixtures("few_draws")
NEEDS = {"thyroid_cineclip": "h5py", "sysu_fll_ceus": "av", "camus": "SimpleITK"}
SMALL = ["--epochs", "1", "--image_size", "32", "--batch_size", "4", "--bf16", "false", "--no-draw"]
EXPECTED = {
    # benchmark: metrics of the test part, columns of its cases, floor
    "ddti": (("dice", "nsd_2px", "dice_nodule"), ("dice", "normalized_surface_dice", "dice_nodule"), None),
    "musv": (("dice", "nsd_2px", "dice_vein", "dice_artery"), ("dice_vein", "normalized_surface_dice_artery"), None),
    "abdomenus": (("dice", "nsd_2px"), ("dice", "dice_spleen"), None),
    "thyroid_cineclip": (
        ("auc", "auc_low", "macro_f1", "f1_validation_cutoff", "sensitivity_test_cutoff_optimistic"),
        ("label", "probability_1", "logit_1", "sex", "age"),
        "pixels",
    ),
    "busbra": (
        ("accuracy", "macro_f1", "ece_15bins", "brier"),
        ("label", "probability_3", "logit_0", "device"),
        "pixels",
    ),
    "sysu_fll_ceus": (("accuracy", "macro_f1"), ("label", "probability_2"), "pixels"),
    "focus": (
        ("ap50_rectangle_cardiac", "ap75_rectangle", "ctr_accuracy", "ctr_found"),
        ("surest_iou", "iou", "score", "lesion_fraction"),
        None,
    ),
    "brain_landmarks": (("mre_px", "mse_px2", "sdr_2px", "mre_skull_1_px"), ("mre_px", "sdr_10px"), None),
    "camus": (
        ("mae", "standard_error", "correlation", "bias", "mae_ejection_fraction"),
        ("target_ejection_fraction", "prediction_ejection_fraction", "spread_ejection_fraction", "view"),
        "mean",
    ),
    "usenhance": (
        ("brisque", "piqe", "frechet_distance_echocare-tiny-pooled"),
        ("psnr", "psnr_before", "organ"),
        None,
    ),
    "ovarian": (
        ("auc", "sensitivity_validation_cutoff", "specificity_validation_cutoff", "accuracy_test_cutoff_optimistic"),
        ("label", "probability_1"),
        "pixels",
    ),
    "thyroid_detection": (("ap50_rectangle", "ap_rectangle"), ("surest_iou", "iou", "score"), None),
}


def test_every_benchmark_that_can_be_fine_tuned_is_here():
    assert set(EXPECTED) == {key for key, task in TASKS.items() if task.task != "report"}


@pytest.mark.parametrize("key", EXPECTED)
def test_a_benchmark_from_its_files_to_its_tables(key, checkpoint, tmp_path, capsys):
    pytest.importorskip(NEEDS.get(key, "torch"))
    if key == "usenhance" and find_spec("brisque") is None:
        pytest.skip("the package brisque, whose regression BRISQUE needs, is not installed")
    metrics, columns, floor = EXPECTED[key]
    data = miniatures.make_miniature("ddti" if key == "thyroid_detection" else key, tmp_path / "data")
    output = tmp_path / "out"
    line = [
        "--task",
        key,
        "--model",
        f"small={checkpoint}",
        "--data",
        str(data),
        "--trials",
        "1",
        "--output",
        str(output),
    ]
    assert run.main([*line, *SMALL]) == 0
    printed = capsys.readouterr().out
    if TASKS[key].paper is not None:
        assert "not as in the paper" in printed

    record = json.loads((output / key / "small" / "0" / "metrics.json").read_text())
    cases = pd.read_parquet(output / key / "small" / "0" / "cases.parquet")
    assert set(metrics) <= set(record["test"]), set(metrics) - set(record["test"])
    assert any(record["test"][name] is not None for name in metrics)
    assert {"case", "group", "part", "image", *columns} <= set(cases.columns), set(columns) - set(cases.columns)
    for part in ("validation", "test"):
        assert (cases["part"] == part).sum() == record["samples"][part] > 0
    assert not set(cases[cases["part"] == "test"]["case"]) & set(cases[cases["part"] == "validation"]["case"])
    check_means(record["test"], cases[cases["part"] == "test"])

    entry = json.loads((output / "results.json").read_text())["subjects"][key]
    floors = [found["name"] for found in entry["contenders"] if found["kind"] == "floor"]
    assert floors == ([floor] if floor else [])
    assert entry["headlines"], "nothing to show"
    text = (output / "results.md").read_text()
    assert text.startswith(f"## {key}") and "small" in text
    if floor:
        assert f"{floor} (floor)" in text
    if any(head["paper"] is not None for head in entry["headlines"]):
        assert "*EchoCare in the paper*" in text
    assert not list(output.rglob("*partial*"))


def check_means(test, cases):
    """The cases are those that the metrics were computed from."""
    if "probability_1" in cases:
        probabilities = cases.filter(regex=r"^probability_\d+$").to_numpy()
        assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)
        assert test["accuracy"] == pytest.approx((probabilities.argmax(1) == cases["label"]).mean(), abs=1e-5)
        logits = cases.filter(regex=r"^logit_\d+$").to_numpy()
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert shares == pytest.approx(probabilities, abs=1e-5)
    if "prediction_ejection_fraction" in cases:  # a patient is the mean of the views
        patients = cases.groupby("group")[["target_ejection_fraction", "prediction_ejection_fraction"]].mean()
        errors = (patients["prediction_ejection_fraction"] - patients["target_ejection_fraction"]).abs()
        assert test["mae"] == pytest.approx(errors.mean(), abs=1e-4)
    if "dice_nodule" in cases:
        assert test["dice"] == pytest.approx(cases["dice_nodule"].mean(), abs=1e-5)
    if "mre_px" in cases:
        assert test["mre_px"] == pytest.approx(cases["mre_px"].mean(), abs=1e-4)


def test_the_cut_off_is_that_of_the_validation_part(checkpoint, tmp_path):
    data = miniatures.make_miniature("ovarian", tmp_path / "data")
    line = ["--task", "ovarian", "--model", f"small={checkpoint}", "--data", str(data), "--trials", "1"]
    assert run.main([*line, "--output", str(tmp_path / "out"), *SMALL, "--fractions", "0.6", "0.4", "0"]) == 0
    folder = tmp_path / "out" / "ovarian" / "small" / "0"
    test = json.loads((folder / "metrics.json").read_text())["test"]
    cases = pd.read_parquet(folder / "cases.parquet")
    for part, ending in (("validation", "validation_cutoff"), ("test", "test_cutoff_optimistic")):
        chosen = cases[cases["part"] == part]
        scores, labels = chosen["probability_1"].to_numpy(), chosen["label"].to_numpy()
        if len(set(labels)) < 2:
            assert test[ending] is None
            continue
        youden = {
            cut: ((scores >= cut)[labels == 1].mean() + (scores < cut)[labels == 0].mean() - 1)
            for cut in sorted(scores)
        }
        best = max(youden.values())
        assert math.isclose(youden[min(youden, key=lambda cut: abs(cut - test[ending]))], best, abs_tol=1e-9)
        called = cases[cases["part"] == "test"]
        sick = called[called["label"] == 1]
        found = (sick["probability_1"] >= test[ending] - 1e-5).mean()
        assert test[f"sensitivity_{ending}"] == pytest.approx(found, abs=1e-4)
