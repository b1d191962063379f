"""A model folder of a run: model, image processor, card, and training.json with all that is known of how it was made."""

import json
import math
import platform
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import EvalResult, ModelCardData
from safetensors import SafetensorError, safe_open

import echocare_hf
from echocare_hf import EchoCareForPreTraining, EchoCareImageProcessorPil
from echocare_hf.files import readable_weights, written_beside
from echocare_hf.finetuning.card import licence_of
from echocare_hf.hub.card_parts import CITATION, carbon, fill, interval_text, preprocessing, table
from echocare_hf.hub.publish_folder import read_json

from .preparation import Prepared
from .recipe import Recipe

_FEW = 1000  # held-out images, below which the card warns


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
        "licences_of": _licences_of(data),
        "validation_labelled": _labelled(data, recipe),
        "parameters": model.num_parameters(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
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
            (partial / "README.md").write_text(card_text(partial, record), encoding="utf-8")
            (partial / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{folder}: the model cannot be written ({' '.join(str(error).split())[:200]}); the checkpoints are intact. Make room on the "
            "disk and give the same command again"
        ) from error


def _licences_of(data: Prepared) -> dict[str, dict[str, int]]:
    """How many images to train on each source has under each licence."""
    found: dict[str, Counter[str]] = {}
    for name, licence in zip(data.train.names.tolist(), data.train.licences.tolist(), strict=True):
        source = str(name).partition("/")[0] if "/" in str(name) else "one folder"
        found.setdefault(source, Counter())[licence or "none stated"] += 1
    return {source: dict(counts.most_common()) for source, counts in sorted(found.items())}


def _labelled(data: Prepared, recipe: Recipe) -> dict[str, int]:
    """Held-out images that are labelled on each level of the tree; empty if only a part of them was measured."""
    if len(data.validation) > recipe.evaluation_images:
        return {}
    known = (data.validation.level_labels() >= 0).sum(0).tolist()
    return dict(zip(data.validation.tree.level_names, known, strict=True))


def card_text(folder: Path, record: Mapping[str, Any], name: str | None = None) -> str:
    """The card of a pretrained model, from what its run recorded.

    Args:
        folder: with the saved model and image processor.
        record: what training.json holds.
        name: what the model is called, "EchoCare" and its preset by default.

    Returns:
        Markdown with YAML front matter.
    """
    recipe, config = record["recipe"], read_json(folder / "config.json")
    last = {
        key.removeprefix("validation_"): value
        for key, value in (record["history"][-1] if record["history"] else {}).items()
        if key.startswith("validation_")
    }
    # Records of older versions lack some entries: they were made on CPUs.
    emission, emission_entry = carbon(record["seconds"], record["threads"], record.get("device", "CPU"))
    licence, title = licence_of(record["licences"]), name or f"EchoCare {recipe['preset']}"
    header = ModelCardData(
        model_name=title,
        library_name="transformers",
        pipeline_tag="image-feature-extraction",
        license=licence,
        license_name="depends-on-the-training-data" if licence == "other" else None,
        tags=["ultrasound", "medical-imaging", "foundation-model", "echocare", "custom_code"],
        metrics=list(last) or None,
        eval_results=_results(last) or None,
        co2_eq_emissions=emission_entry,
    )
    known = _intervals(last, record.get("validation_labelled", {}))
    body = fill(
        "pretrained_card.md",
        name=title,
        start=f"`{recipe['initial_weights']}`" if recipe["initial_weights"] else "random weights",
        train=record["train_images"],
        validation=record["validation_images"],
        licences=", ".join(f"{name} ({count})" for name, count in record["licences"].items()),
        sources=_sources(record),
        facts=table(("", ""), _facts(record, config, _parameters(folder, record))),
        preprocessing=preprocessing(read_json(folder / "preprocessor_config.json")),
        figures=table(("figure", "value"), last.items()),
        machine=f"{record['threads']} threads of a {record['machine']}",
        precision=record["precision"],
        date=record["date"],
        intervals=f"95 % intervals (Wilson): {known}."
        if known
        else "The run did not record how many held-out images are labelled, so no intervals are stated.",
        few=f"{record['validation_images']} held-out images are "
        + ("few: chance has a part in the figures." if record["validation_images"] < _FEW else "of one split."),
        carbon=emission,
        citation=CITATION,
    )
    return f"---\n{header.to_yaml()}\n---\n{body}"


def _results(figures: Mapping[str, float]) -> list[EvalResult]:
    """The figures for the metadata, but for losses and trivial answers."""
    return [
        EvalResult(
            task_type="image-feature-extraction",
            dataset_type="held-out-part-of-the-training-sources",
            dataset_name="Held-out part of the training sources",
            dataset_split="validation",
            metric_type=name,
            metric_value=value,
        )
        for name, value in figures.items()
        if name.endswith("_accuracy") or name == "masked_error"
    ]


def _intervals(figures: Mapping[str, float], labelled: Mapping[str, int]) -> str:
    """Intervals of the accuracies whose number of images is known, in words."""
    texts = []
    for level, count in labelled.items():
        name = f"{level}_accuracy"
        if text := interval_text(name, figures.get(name), count, None, (name,)):
            texts.append(f"{name} {text} ({count} images)")
    return ", ".join(texts)


def _sources(record: Mapping[str, Any]) -> str:
    """A table of the sources, with the licences of each where the run recorded them."""
    by_source = record.get("licences_of")
    if not by_source:
        return table(("source", "images to train on"), record["sources"].items() or [("one folder", "all")])
    rows = (
        (source, ", ".join(f"{name} ({count})" for name, count in licences.items()), sum(licences.values()))
        for source, licences in sorted(by_source.items(), key=lambda entry: -sum(entry[1].values()))
    )
    return table(("source", "licences", "images to train on"), rows)


def _facts(record: Mapping[str, Any], config: Mapping[str, Any], parameters: int) -> list[tuple[str, str]]:
    recipe = record["recipe"]
    epochs = record["images_seen"] / record["train_images"]
    extras = f", hard patches x {recipe['hard_patch_weight']}" if recipe["hard_patches"] else ""
    extras += f", structured contrast x {recipe['contrast_weight']}" if recipe["contrast_weight"] else ""
    time_taken = f"{record['seconds'] / 3600:.2f} hours, {record['threads']} threads of a {record['machine']}"
    return [
        (
            "schedule",
            f"step {record['step']:,} of {recipe['steps']:,}, {recipe['batch_size']} images a step, {epochs:.1f} passes over the images",
        ),
        ("time", f"{time_taken}, {record['precision']}"),
        ("objective", f"L_MIM x {recipe['reconstruction_weight']}, L_HIE x {recipe['anatomy_weight']}{extras}"),
        ("input", f"RGB, {config['image_size']}x{config['image_size']} pixels"),
        ("masks", f"units of {config['mask_unit_size']} pixels, ratio {recipe['mask_ratio']}"),
        ("parameters", f"{parameters:,}; these are the moving average of the weights"),
        ("seed", str(recipe["seed"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in record["versions"].items())),
    ]


def _parameters(folder: Path, record: Mapping[str, Any]) -> int:
    """Values in the weights: as recorded, else counted in the file, whose tensors are the parameters."""
    if "parameters" in record:
        return record["parameters"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        return sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 - no mapping
