"""What each part of pretraining brings: eight variants, several seeds, the same steps; then a linear probe and fine-tuning on real images.

    python eval/ablation.py run --data DATA --corpus CORPUS --output RUNS      # all of it, resumable, two runs at a time
    python eval/ablation.py table --output RUNS                                # what is done so far, as Markdown
    python eval/ablation.py plot --output RUNS --picture docs/ablation.png

DATA is a folder that holds breast_busi, ...; CORPUS is what `echocare curate` made, without the images that
`python eval/heads.py test_files` lists. A run that is there is not repeated, and one that was cut off goes on.

Each variant is training/recipes/tiny.yaml with fewer steps and the values below; a seed is that of weights, order, augmentation and masks.
From the weights at the end start

- probes: a linear model on frozen features. Of classes: logistic regression on the pooled features of an image, its strength chosen on the
  validation part, macro AUC. Of lesions: logistic regression on the maps of the encoder at every fourth pixel of both directions,
  AUC over these pixels;
- fine-tuning: training/finetune.py with the same minutes of processor time (of training; evaluations not counted) and the split of
  eval/heads.py.

Fine-tuning has two recipes: from random weights all is trained at a higher rate, and from a checkpoint the head starts from a linear model
or learns first. So random weights are there twice: "from scratch" with the first, "random weights" saved as a checkpoint with the second.

Validation parts decide which variant ships. Test parts are read once a run.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F
from transformers import AutoModel

from echocare_hf import EchoCareConfig, EchoCareForPreTraining, EchoCareImageProcessorPil, EchoCareModel
from echocare_hf.drawing_sheet import contact_sheet
from echocare_hf.files import written_beside
from echocare_hf.finetuning.arguments import FinetuneArguments
from echocare_hf.finetuning.job import PARTS, open_job
from echocare_hf.model.pooling_echocare import pooled_features
from heads import ROOT, ROWS, cell, command
from runner.plots_boxes import boxes_panel
from runner.plots_chart import COLOURS

SCRATCH = "scratch"
RANDOM = "random"
VARIANTS = {
    "mim": ("--anatomy_weight", "0"),
    "mim_hie": (),
    "hard": ("--hard_patches", "true"),
    "progressive": ("--image_size", "0:96 0.5:128", "--mask_ratio", "0:0.4 1:0.6"),
    "contrast": ("--contrast_weight", "0.1"),
    "wide_decoder": ("--config", "{drop_path_rate: 0.05, decoder_type: multi_scale, decoder_hidden_size: 64}"),
}
NAMES = {
    SCRATCH: "from scratch",
    RANDOM: "random weights, recipe of trained ones",
    "mim": "L_MIM",
    "mim_hie": "L_MIM + L_HIE",
    "hard": "L_MIM + L_HIE, hard patches",
    "progressive": "L_MIM + L_HIE, progressive",
    "contrast": "L_MIM + L_HIE, contrast",
    "wide_decoder": "L_MIM + L_HIE, image decoder of 64 channels",
}
TASKS = ("classification_busi", "segmentation_busi")
METRICS = {"classification_busi": "auc", "segmentation_busi": "dice"}
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
PIXELS_AN_IMAGE = 200  # that the lesion probe learns from
EVERY = 4  # pixel of both directions that the lesion probe looks at

Array = NDArray[np.float64]


def run_variant(name: str, seed: int, arguments: argparse.Namespace) -> str:
    """Pretraining, probes and fine-tuning of one variant and seed; returns what to print."""
    folder = arguments.output / name / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = "tiny"
    if name == RANDOM:
        model = str(folder / "weights")
        if not Path(model).is_dir():
            save_random(Path(model), seed)
    elif name != SCRATCH:
        model = str(folder / "pretrain" / "final")
        if not (folder / "pretrain" / "final" / "model.safetensors").is_file():
            line = [sys.executable, str(ROOT / "training" / "pretrain.py"), str(ROOT / "training/recipes/tiny.yaml")]
            line += ["--data", str(arguments.corpus), "--output_dir", str(folder / "pretrain"), "--seed", str(seed)]
            line += ["--steps", str(arguments.steps), "--warmup_steps", str(max(1, arguments.steps // 10))]
            line += ["--evaluate_every", str(arguments.steps), "--save_every", "50", *VARIANTS[name]]
            if problem := call(line, folder / "pretrain.log"):
                return f"{name} seed {seed}: pretraining {problem}"
    if not (folder / "probe.json").is_file():
        line = [sys.executable, __file__, "probe", "--data", str(arguments.data), "--model", model]
        line += ["--seeds", str(seed), "--output", str(folder / "probe.json")]
        if problem := call(line, folder / "probe.log"):
            return f"{name} seed {seed}: probe {problem}"
    for task in TASKS:
        if not (folder / task / "metrics.json").is_file():
            row = ROWS[task]
            line = command(row, "echocare", seed, arguments.data, folder / task, model)
            line[line.index("--cpu_minutes") + 1] = str(arguments.minutes)
            if problem := call(line, folder / f"{task}.log"):
                return f"{name} seed {seed}: {task} {problem}"
    found = {column: value for column, value in read_run(folder).items() if value is not None}
    return f"{name} seed {seed}: " + ", ".join(f"{column} {value:.3f}" for column, value in found.items())


def save_random(folder: Path, seed: int) -> None:
    """A checkpoint of the recipe's network that has learned nothing."""
    recipe = yaml.safe_load((ROOT / "training/recipes/tiny.yaml").read_text())
    torch.manual_seed(seed)
    config = EchoCareConfig.preset(recipe["preset"], **recipe["config"], image_size=recipe["image_size"])
    side = recipe["image_size"]
    with written_beside(folder) as partial:
        EchoCareForPreTraining(config).save_pretrained(partial)
        EchoCareImageProcessorPil(size={"height": side, "width": side}).save_pretrained(partial)


def call(line: list[str], log: Path) -> str:
    """Runs a command with one thread; returns what went wrong, an empty text if nothing did."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    with log.open("w") as stream:
        code = subprocess.run(line, stdout=stream, stderr=stream, env=environment, check=False).returncode
    return f"failed with exit code {code}, see {log}" if code else ""


def probe(model: str, data: Path, seed: int) -> dict[str, dict[str, float]]:
    """Linear models on frozen features of both tasks.

    Args:
        model: folder of a checkpoint, or a preset's name for random weights of this seed.
        data: folder of the data sets.
        seed: of random weights and of the pixels that are drawn.

    Returns:
        For each of the two tasks the AUC of the validation and the test part.
    """
    torch.manual_seed(seed)
    encoder = (
        AutoModel.from_pretrained(model)
        if Path(model).is_dir()
        else EchoCareModel(EchoCareConfig.preset(model, drop_path_rate=0.0))
    ).eval()
    found = {}
    for task in TASKS:
        row = ROWS[task]
        job = open_job(row.task, FinetuneArguments(data=str(data / row.data), output="", model=model, split_seed=0))  # type: ignore[arg-type]
        read = class_features if row.task == "classification" else pixel_features
        parts = {part: read(encoder, job.sets[part], np.random.default_rng(seed), part) for part in PARTS}
        found[task] = linear_probe(parts)
    return found


def linear_probe(parts: dict[str, tuple[Array, Array]]) -> dict[str, float]:
    """AUC of the validation and test part of a logistic regression whose strength the validation part chooses."""
    scale = StandardScaler().fit(parts["train"][0])
    best: tuple[float, float] = (-1.0, float("nan"))
    for strength in STRENGTHS:
        machine = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
        machine.fit(scale.transform(parts["train"][0]), parts["train"][1])
        scores = {part: machine.predict_proba(scale.transform(parts[part][0])) for part in ("validation", "test")}
        auc = {part: area(parts[part][1], scores[part]) for part in scores}
        if auc["validation"] > best[0]:
            best = auc["validation"], auc["test"]
    return {"validation": best[0], "test": best[1]}


def area(labels: Array, scores: Array) -> float:
    """AUC of two classes, or the mean of each class against the others."""
    if scores.shape[1] == 2:
        return float(roc_auc_score(labels, scores[:, 1]))
    return float(roc_auc_score(labels, scores, multi_class="ovr"))


@torch.inference_mode()
def class_features(encoder, data, random: np.random.Generator, part: str) -> tuple[Array, Array]:
    """(images, features) and (images,): pooled features of whole images, and their classes."""
    items = [data.task.example(data.item(row), None) for row in range(len(data))]
    pixels = torch.stack([item["pixel_values"] for item in items])
    features = torch.cat([pooled_features(encoder, some)[0] for some in pixels.split(32)])
    return features.double().numpy(), torch.stack([item["labels"] for item in items]).double().numpy().reshape(-1)


@torch.inference_mode()
def pixel_features(encoder, data, random: np.random.Generator, part: str) -> tuple[Array, Array]:
    """(pixels, features) and (pixels,): all maps of the encoder where a pixel lies, and whether it is lesion."""
    features, labels = [], []
    for row in range(len(data)):
        item = data.task.example(data.item(row), None)
        wanted = item["labels"][EVERY // 2 :: EVERY, EVERY // 2 :: EVERY]
        maps = encoder(item["pixel_values"][None], output_hidden_states=True).reshaped_hidden_states
        grid = torch.cat([F.interpolate(one, wanted.shape, mode="bilinear") for one in maps], 1)[0]
        flat = grid.flatten(1).T  # (pixels, features)
        known = (wanted.flatten() != 255).nonzero()[:, 0].numpy()
        if part == "train":
            known = random.choice(known, min(PIXELS_AN_IMAGE, len(known)), replace=False)
        features.append(flat[known].float().numpy())
        labels.append((wanted.flatten()[known] > 0).numpy())
    return np.concatenate(features).astype(np.float64), np.concatenate(labels).astype(np.float64)


def read_run(folder: Path) -> dict[str, float | None]:
    """What a run measured so far: columns of the table."""
    columns: dict[str, float | None] = {}
    probed = json.loads((folder / "probe.json").read_text()) if (folder / "probe.json").is_file() else {}
    for part in ("validation", "test"):
        for task in TASKS:
            columns[f"{task} probe {part}"] = probed.get(task, {}).get(part)
            file = folder / task / "metrics.json"
            record = json.loads(file.read_text()) if file.is_file() else {}
            columns[f"{task} tuned {part}"] = record.get(part, {}).get(METRICS[task])
    return columns


def collect(output: Path) -> dict[str, list[dict[str, float | None]]]:
    """The runs of each variant that has any."""
    found = {name: [read_run(folder) for folder in sorted((output / name).glob("*"))] for name in NAMES}
    return {name: runs for name, runs in found.items() if any(run["classification_busi probe test"] for run in runs)}


def table(output: Path) -> str:
    """Mean and standard deviation over the seeds, one line a variant, for validation and test."""
    lines = []
    for part in ("validation", "test"):
        lines += [f"{part} part:", ""]
        lines.append("| pretraining | classes, probe: AUC | tuned: AUC | lesions, probe: AUC | tuned: Dice | seeds |")
        lines.append("|---" * 6 + "|")
        for name, runs in collect(output).items():
            cells = [
                cell([run[f"{task} {kind} {part}"] for run in runs]) for task in TASKS for kind in ("probe", "tuned")
            ]
            lines.append(f"| {NAMES[name]} | {' | '.join(cells)} | {len(runs)} |")
        lines.append("")
    return "\n".join(lines)


def plot(output: Path, picture: Path) -> None:
    """A panel for each of the four columns of the test part, a row a variant, a dot a seed."""
    titles = {"classification_busi": "breast classes", "segmentation_busi": "breast lesions"}
    runs = collect(output)
    colours = {NAMES[name]: COLOURS[place % len(COLOURS)] for place, name in enumerate(runs)}
    panels, captions = [], []
    for task in TASKS:
        for kind, metric in (("probe", "auc"), ("tuned", METRICS[task])):
            values = {NAMES[name]: [run[f"{task} {kind} test"] for run in found] for name, found in runs.items()}
            known = {name: [math.nan if one is None else one for one in found] for name, found in values.items()}
            panel, caption = boxes_panel(metric, known, colours)
            panels.append(panel)
            captions.append(f"{titles[task]}, {'linear probe' if kind == 'probe' else 'fine-tuned'}: {caption}")
    footer = "Each dot is a seed. Stars: two-sample t-test against the best mean, not corrected: * p < .05, ** p < .01, *** p < .001."
    sheet = contact_sheet(
        panels, captions, title="What parts of pretraining bring, test parts", footer=footer, columns=2
    )
    with written_beside(picture) as partial:
        sheet.save(partial, format="png", optimize=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table", "plot", "probe"))
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs; of probe: a file")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--corpus", type=Path, help="curated corpus to pretrain on")
    parser.add_argument("--variants", nargs="+", choices=NAMES, default=[*NAMES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400, help="of pretraining, 32 images each")
    parser.add_argument("--minutes", type=float, default=1.5, help="processor time of each fine-tuning")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument("--model", help="of probe: folder of a checkpoint, or tiny for random weights")
    parser.add_argument("--picture", type=Path, default=Path("ablation.png"))
    arguments = parser.parse_args(argv)
    if arguments.action == "table":
        print(table(arguments.output))
        return 0
    if arguments.action == "plot":
        plot(arguments.output, arguments.picture)
        return 0
    if arguments.data is None or not arguments.data.is_dir():
        parser.error("--data names no folder")
    if arguments.action == "probe":
        if arguments.model is None:
            parser.error("--model is needed")
        found = probe(arguments.model, arguments.data, arguments.seeds[0])
        with written_beside(arguments.output) as partial:
            partial.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    if arguments.corpus is None or not arguments.corpus.is_dir():
        parser.error("--corpus names no folder")
    jobs = [(name, seed) for seed in arguments.seeds for name in arguments.variants]
    failed = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for done in pool.map(lambda job: run_variant(*job, arguments), jobs):
            print(done, flush=True)
            failed += "failed" in done
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
