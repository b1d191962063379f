"""The heads beside their references on real images: every row of docs/results.md's table, over several seeds.

    python eval/heads.py run --data DATA --output RUNS                 # all rows, three seeds, two runs at a time
    python eval/heads.py run --data DATA --output RUNS --rows segmentation_busi keypoints --seeds 0 1
    python eval/heads.py table --output RUNS                           # what is done so far, as Markdown
    python eval/heads.py test_files --data DATA > test_files.txt       # what no pretraining corpus may hold: --exclude of pretrain.py

DATA is a folder that holds breast_busi, fetal_head_hc18, ...; RUNS gets one folder a run. A run that is there is not repeated, so that
what was cut off goes on with the same command. Each run has one thread and its row's minutes of processor time for training (evaluations
not counted), so that runs beside each other, and other work on the machine, do not change what it can do. All runs share one split, whose
test part is in no pretraining corpus; the seed is that of the weights, the order of the images and their augmentation.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echocare_hf.data.labelled import read_labelled
from echocare_hf.data.labelled.record import SPLIT_NAMES
from echocare_hf.data.splits import split_by_group

PRESETS = ("tiny", "base", "large")  # random weights
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """One data set and task.

    Attributes:
        task: of training/finetune.py.
        data: folder in DATA.
        minutes: processor time of a training run.
        references: names for eval/references.py.
        metrics: what the table shows, of the test part.
        options: for EchoCare and the references alike.
        scratch: further ones for what starts from random weights: the references, and EchoCare with --model tiny.
    """

    task: str
    data: str
    minutes: float
    references: tuple[str, ...]
    metrics: tuple[str, ...]
    options: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()


ROWS = {
    "segmentation_busi": Row(
        "segmentation",
        "breast_busi",
        10,
        ("unet", "basic_unet"),
        ("dice", "nsd"),
        scratch=("--learning_rate", "4e-3"),
    ),
    "segmentation_usgra": Row(
        "segmentation",
        "nerve_vessel_usgra",
        3,
        ("unet", "basic_unet"),
        ("dice", "nsd"),
        scratch=("--learning_rate", "4e-3"),
    ),
    "segmentation_hc18": Row(
        "segmentation",
        "fetal_head_hc18",
        3,
        ("unet", "basic_unet"),
        ("dice", "nsd"),
        scratch=("--learning_rate", "4e-3"),
    ),
    "classification_busi": Row(
        "classification",
        "breast_busi",
        3,
        ("resnet18", "pixels"),
        ("auc", "macro_f1"),
        scratch=("--learning_rate", "3e-3"),
    ),
    "classification_pocovid": Row(
        "classification",
        "lung_pocovid",
        3,
        ("resnet18", "pixels"),
        ("auc", "macro_f1"),
        scratch=("--learning_rate", "3e-3"),
    ),
    "detection_hc18": Row(
        "detection", "fetal_head_hc18", 6, ("mask_ellipse",), ("ap50", "ap75", "circumference_mae_mm")
    ),
    "keypoints_hc18": Row(
        "keypoints", "fetal_head_hc18", 3, ("regression",), ("mre_mm", "sdr_2mm", "sdr_4mm", "sdr_10mm")
    ),
    "video_timtrack": Row(
        "video",
        "muscle_timtrack",
        3,
        ("single_frame", "mean"),
        ("mae_height_px_orig", "observers_mae_height_px_orig"),
    ),
    "enhancement_busi": Row(
        "enhancement",
        "breast_busi",
        8,  # the filters need no training: no time to be even with
        ("filters",),
        ("psnr", "ssim", "niqe"),
        options=("--image_size", "192"),  # NIQE needs two of its patches of 96 pixels a side
    ),
}
SEGMENTATION_OF = {"detection_hc18": "segmentation_hc18"}  # whose EchoCare runs `mask_ellipse` starts from


def command(row: Row, method: str, seed: int, data: Path, output: Path, model: str | Path) -> list[str]:
    """What runs one method with one seed."""
    options = ["--data", str(data / row.data), "--output", str(output), "--seed", str(seed), "--model", str(model)]
    options += [
        "--split_seed",
        "0",
        "--cpu_minutes",
        str(row.minutes),
        "--epochs",
        "1000",
        "--patience",
        "0",
        *row.options,
    ]
    if method != "echocare" or model in PRESETS:
        options += row.scratch
    if method == "echocare":
        return [sys.executable, str(ROOT / "training" / "finetune.py"), row.task, *options]
    return [sys.executable, str(ROOT / "eval" / "references.py"), row.task, method, *options]


def run_one(name: str, method: str, seed: int, arguments: argparse.Namespace) -> str:
    """Runs one method with one seed, unless its result is there; returns what to print."""
    label = f"{name} {method} seed {seed}"
    output = arguments.output / name / method / str(seed)
    if (output / "metrics.json").is_file():
        return f"{label}: is there"
    output.parent.mkdir(parents=True, exist_ok=True)
    log = output.with_name(f"{seed}.log")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    with log.open("w") as stream:
        model = arguments.model
        if method == "mask_ellipse":
            model = arguments.output / SEGMENTATION_OF[name] / "echocare" / str(seed)
        line = command(ROWS[name], method, seed, arguments.data, output, model)
        code = subprocess.run(line, stdout=stream, stderr=stream, env=environment, check=False).returncode
    if code:
        return f"{label}: failed with exit code {code}, see {log}"
    test = json.loads((output / "metrics.json").read_text())["test"]
    return f"{label}: " + ", ".join(f"{key} {test[key]}" for key in ROWS[name].metrics if test.get(key) is not None)


def run(arguments: argparse.Namespace) -> int:
    jobs = [
        (name, method, seed)
        for seed in arguments.seeds
        for name in arguments.rows
        for method in ("echocare", *ROWS[name].references)
        if arguments.methods is None or method in arguments.methods
    ]
    failed = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for done in pool.map(lambda job: run_one(*job, arguments), jobs):
            print(done, flush=True)
            failed += "failed" in done
    return 1 if failed else 0


def table(arguments: argparse.Namespace) -> int:
    """Mean and standard deviation over the seeds, one line a method."""
    for name in arguments.rows:
        row = ROWS[name]
        print(f"\n### {name}: {row.data}, {row.minutes:g} minutes of one core\n")
        print(f"| method | {' | '.join(row.metrics)} | images seen | seeds |")
        print("|---" * (len(row.metrics) + 3) + "|")
        for method in ("echocare", *row.references):
            files = sorted((arguments.output / name / method).glob("*/metrics.json"))
            records = [json.loads(file.read_text()) for file in files]
            if records:
                for label, prefix in labels_of(method, records[0]["test"]):
                    cells = [
                        cell([record["test"].get(prefix + metric) for record in records]) for metric in row.metrics
                    ]
                    seen = [
                        record["steps"] * record["arguments"]["batch_size"] for record in records if "steps" in record
                    ]
                    shown = f"{np.mean(seen):,.0f}" if seen else ""
                    print(f"| {label} | {' | '.join(cells)} | {shown} | {len(records)} |")
    return 0


def test_files(arguments: argparse.Namespace) -> int:
    """Prints the images of all test parts, one a line, by their place in DATA."""
    names = set()
    for name in arguments.rows:
        row = ROWS[name]
        folder = (arguments.data / row.data).resolve()
        parts = parts_of_images(folder, row.task)
        names |= {f"{row.data}/{Path(image).relative_to(folder)}" for image, part in parts.items() if part == "test"}
    print("\n".join(sorted(names)))
    return 0


def parts_of_images(
    folder: Path, task: str, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0
) -> dict[str, str]:
    """The part of every image of a data set, "train", "validation" or "test", by its path, as a task splits it.

    By default that of all runs here, whose test part is in no pretraining corpus.
    """
    data = read_labelled(folder, task)  # type: ignore[arg-type]
    train, validation, test = fractions
    split = split_by_group(data.samples, (train, validation, test), seed)
    return {
        str(image): part
        for part in SPLIT_NAMES
        for index in getattr(split, part)
        for image in data.samples[index].images
    }


def labels_of(method: str, test: dict[str, float]) -> list[tuple[str, str]]:
    """Name and prefix of the metrics of each method that a run measured: `filters` measures several."""
    if method != "filters":
        return [(method, "")]
    return [(key.removesuffix("_psnr"), key.removesuffix("psnr")) for key in test if key.endswith("_psnr")]


def cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ± {np.std(known, ddof=1):.3f}" if len(known) > 1 else ""
    return f"{np.mean(known):.3f}{spread}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table", "test_files"))
    parser.add_argument("--output", type=Path, help="folder of the runs")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=[*ROWS], help="all if not given")
    parser.add_argument("--methods", nargs="+", help="echocare and names of references; all if not given")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument(
        "--model", default="echocare-tiny", help="what EchoCare starts from, as in training/finetune.py"
    )
    arguments = parser.parse_args(argv)
    if arguments.action != "test_files" and arguments.output is None:
        parser.error("--output is needed")
    if arguments.action == "table":
        return table(arguments)
    if arguments.data is None or not arguments.data.is_dir():
        parser.error("--data names no folder")
    return run(arguments) if arguments.action == "run" else test_files(arguments)


if __name__ == "__main__":
    sys.exit(main())
