"""eval/metrics: every folder is a metric that `evaluate.load` finds by its path, without a network, in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import evaluate
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "eval"))
from runner.measures import as_files

METRICS = Path(__file__).resolve().parents[2] / "eval" / "metrics"
NAMES = sorted(folder.name for folder in METRICS.iterdir() if (folder / f"{folder.name}.py").is_file())
SCRIPT = """
import socket, sys

def refuse(*arguments, **names):
    raise AssertionError("a metric asked for the network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import evaluate

for name in sys.argv[2:]:
    metric = evaluate.load(f"{sys.argv[1]}/{name}", keep_in_memory=True)
    assert metric.name == name, (metric.name, name)
metric = evaluate.load(f"{sys.argv[1]}/regression_error")
metric.add(prediction=3.0, reference=5.0)
metric.add_batch(predictions=[1.0, 2.0], references=[1.0, 1.0])
print(metric.compute()["mae"])
"""


def test_there_is_a_metric_for_every_row():
    assert set(NAMES) >= {
        *("dice", "normalized_surface_dice", "oriented_average_precision", "cardiothoracic_ratio", "landmark_error"),
        *("regression_error", "area_under_curve", "sensitivity_specificity", "macro_f1", "calibration"),
        *("niqe", "brisque", "piqe", "frechet_distance", "psnr_ssim", "lncc", "report_text", "clinical_findings"),
    }
    assert len(NAMES) == len([folder for folder in METRICS.iterdir() if folder.name != "__pycache__"])


def test_all_load_offline_and_take_batches(tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_EVALUATE_OFFLINE": "1"}
    for name in ("HF_MODULES_CACHE", "HF_EVALUATE_CACHE", "HF_METRICS_CACHE"):
        environment.pop(name, None)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(METRICS), *NAMES],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout.split()[-1]) == pytest.approx(1)


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_is_and_where_it_is_from(name):
    metric = evaluate.load(str(METRICS / name), keep_in_memory=True)
    assert metric.description and metric.citation and "Args:" in metric.inputs_description
    assert metric.inputs_description in metric.compute.__doc__


def test_the_examples_of_the_page_on_evaluation_run():
    root = METRICS.parents[1]
    blocks = re.findall(r"```python\n(.*?)```", (root / "docs" / "evaluation.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 2
    run = subprocess.run([sys.executable, "-c", "\n".join(blocks)], capture_output=True, text=True, cwd=root)
    assert run.returncode == 0, run.stderr
    assert "{'dice': 0.8, 'dice_nodule': 0.8}" in run.stdout and "0.8250 ± 0.0129 (n = 4)" in run.stdout


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_images_reach_a_metric_unchanged(shape):
    images = [np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8) for seed in range(3)]
    column = datasets.Image()
    for image, file in zip(images, as_files(images), strict=True):
        np.testing.assert_array_equal(np.asarray(column.decode_example(column.encode_example(file))), image)
