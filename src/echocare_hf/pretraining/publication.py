"""A model folder of a run: model, image processor, card, and training.json with all that is known of how it was made."""

import json
import platform
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import ModelCardData
from safetensors import SafetensorError

import echocare_hf
from echocare_hf import EchoCareForPreTraining, EchoCareImageProcessorPil
from echocare_hf.files import readable_weights, written_beside
from echocare_hf.finetuning.card import licence_of

from .preparation import Prepared
from .recipe import Recipe

_CARD = """
# {name}

An [EchoCare](https://arxiv.org/abs/2509.11752) encoder for ultrasound, pretrained from {start} by masked image modelling and hierarchical
anatomy classification (`training/pretrain.py`).

```python
from transformers import AutoImageProcessor, AutoModel

folder = "."  # this folder, or its id on the Hub
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
encoder = AutoModel.from_pretrained(folder, trust_remote_code=True)
```

## What it was trained on

{train:,} images, {validation:,} more were held out; the two parts share no group and no look-alike. Licences of the images: {licences}.

| source | images to train on |
|---|---|
{sources}

| | |
|---|---|
| schedule | step {step:,} of {steps:,}, {batch} images a step, {epochs:.1f} passes over the images |
| time | {hours:.2f} hours, {machine}, {precision} |
| objective | L_MIM x {reconstruction}, L_HIE x {anatomy}{extras} |
| input | RGB, {size}x{size} pixels, squashed, values in 0 to 1, no mean and standard deviation |
| masks | units of {unit} pixels, ratio {ratio} |
| parameters | {parameters:,}; these are the moving average of the weights |
| seed | {seed} |
| versions | {versions} |

## What it scored on the held-out images

| figure | value |
|---|---|
{figures}

`median_error` (the median of the visible pixels) and `*_majority` (the commonest node) are the trivial answers to beat.

## What it is not

It is not a medical device. The held-out images come from the same sources as those it learned from.
"""


def save_model(
    model: EchoCareForPreTraining,
    folder: Path,
    recipe: Recipe,
    data: Prepared,
    state: dict[str, Any],
    log: list[dict[str, Any]],
    precision: str,
) -> None:
    """Writes a folder that `from_pretrained` and the Hub take; it appears only when all of it is written.

    Args:
        model: what to publish.
        folder: where to.
        recipe: of the run.
        data: its images.
        state: `step` and `seconds` that are done.
        log: lines of metrics.jsonl.
        precision: "bf16" or "no", of the accelerator.

    Raises:
        ValueError: if it cannot be written, such as on a full disk; what was there before stays.
    """
    looks = [entry for entry in log if "validation_loss" in entry]
    counts = Counter(data.train.licences.tolist())
    record = {
        "recipe": asdict(recipe)
        | {name: [Path(path).name for path in getattr(recipe, name)] for name in ("data", "exclude", "exclude_groups")}
        | {"output_dir": folder.name},
        "step": state["step"],
        "images_seen": state["step"] * recipe.batch_size,
        "seconds": round(state["seconds"], 1),
        "precision": "bf16" if precision == "bf16" else "fp32",
        "train_images": len(data.train),
        "validation_images": len(data.validation),
        "licences": {licence or "none stated": count for licence, count in counts.most_common()},
        "sources": dict(
            Counter(str(name).partition("/")[0] for name in data.train.names if "/" in str(name)).most_common()
        ),
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "versions": {
            "echocare_hf": echocare_hf.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "date": time.strftime("%Y-%m-%d"),
        "history": looks,
    }
    size = recipe.schedule().largest_image
    processor = EchoCareImageProcessorPil(size={"height": size, "width": size})
    try:
        with written_beside(folder) as partial:
            partial.mkdir(parents=True)
            model.save_pretrained(partial)
            processor.save_pretrained(partial)
            readable_weights(partial)
            (partial / "README.md").write_text(_card(model, recipe, record), encoding="utf-8")
            (partial / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{folder}: the model cannot be written ({' '.join(str(error).split())[:200]}); the checkpoints are intact. Make room on the "
            "disk and give the same command again"
        ) from error


def _card(model: EchoCareForPreTraining, recipe: Recipe, record: dict[str, Any]) -> str:
    header = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-feature-extraction",
        license=licence_of(record["licences"]),
        tags=["ultrasound", "medical-imaging", "foundation-model", "echocare", "custom_code"],
    )
    extras = f", hard patches x {recipe.hard_patch_weight}" if recipe.hard_patches else ""
    extras += f", structured contrast x {recipe.contrast_weight}" if recipe.contrast_weight else ""
    last = record["history"][-1] if record["history"] else {}
    text = _CARD.format(
        name=f"EchoCare {recipe.preset}",
        start=f"`{recipe.initial_weights}`" if recipe.initial_weights else "random weights",
        train=record["train_images"],
        validation=record["validation_images"],
        licences=", ".join(f"{name} ({count})" for name, count in record["licences"].items()),
        sources="\n".join(f"| {name} | {count} |" for name, count in record["sources"].items())
        or "| one folder | all |",
        step=record["step"],
        steps=recipe.steps,
        batch=recipe.batch_size,
        epochs=record["images_seen"] / record["train_images"],
        hours=record["seconds"] / 3600,
        machine=f"{record['threads']} threads of a {record['machine']}",
        precision=record["precision"],
        reconstruction=recipe.reconstruction_weight,
        anatomy=recipe.anatomy_weight,
        extras=extras,
        size=model.config.image_size,
        unit=model.config.mask_unit_size,
        ratio=recipe.mask_ratio,
        parameters=model.num_parameters(),
        seed=recipe.seed,
        versions=", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        figures="\n".join(
            f"| {name.removeprefix('validation_')} | {value} |"
            for name, value in last.items()
            if name.startswith("validation_")
        ),
    )
    return f"---\n{header.to_yaml()}\n---\n{text}"
