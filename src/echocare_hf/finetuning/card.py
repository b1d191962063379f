"""The card (README.md) of a folder that fine-tuning made: what it was trained on, what it scored, how to load it."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

# Licences of data that leave the choice of the weights' licence to whoever trains them, and what stands between several of them.
_FREE = re.compile(
    r"cc0([- ]1\.0)?|public domain|cc[- ]by[- ][34](\.0)?|mit|apache([- ](license )?2(\.0)?)?", re.IGNORECASE
)
_PARTS = re.compile(r"[,;+/]|\band\b|\blandmarks\b|\bmasks\b|\bimages\b", re.IGNORECASE)

_USE = {
    "image-classification": 'pipeline("image-classification", model=folder, trust_remote_code=True)("image.png")',
    "image-segmentation": 'pipeline("image-segmentation", model=folder, trust_remote_code=True)("image.png")',
    "object-detection": 'pipeline("object-detection", model=folder, trust_remote_code=True)("image.png")',
    "keypoint-detection": 'pipeline("keypoint-detection", model=folder, trust_remote_code=True)("image.png")',
    "image-to-image": 'pipeline("image-to-image", model=folder, trust_remote_code=True)("image.png")',
    "video-classification": 'pipeline("video-classification", model=folder, trust_remote_code=True)("clip.mp4", frame_sampling_rate=1)',
}

_TEXT = """
# {name}

An [EchoCare](https://arxiv.org/abs/2509.11752) model, fine-tuned for **{task}** on {data}.

```python
from transformers import pipeline

folder = "."  # this folder, or its id on the Hub
print({use})
```
{hint}
![Best and worst predictions on validation images](predictions.png)

## What it was trained on

{counts}. Licences of the images: {licences}.{problems}

The parts share no group (patient, clip, sequence) where the data name one, and no image twice. Weights were chosen on the validation part;
{looked}

| | |
|---|---|
| starts from | {model} |
| schedule | {epochs} epochs, {steps} steps, {minutes:.1f} minutes on {hardware}, {precision}{kept} |
| input | RGB, {size}, {resize}, values in 0 to 1, no mean and standard deviation |
| parameters | {parameters:,} |
| seed | {seed} |
| versions | {versions} |

## What it scored

{table}

One run, one split: figures of small parts scatter. `metrics.json` has every value, argument and epoch.

## What it is not

It is not a medical device. It was measured on images of the same source as those it learned from, and on no others.
"""

_FRAMES = """
Training took up to {0} frames spread over the whole clip, while the pipeline takes consecutive ones from its start: give as
`frame_sampling_rate` the number of frames of the file divided by {0}.
"""

_START = "; it brought nothing better than the linear model of the features that it began with, and these are the weights before it"

_LOOKED = {
    True: "the test part was looked at once.",
    False: "there was no test part. The figures below are those by which the weights were chosen, and better than new images would give.",
}


def licence_of(licences: dict[str, int]) -> str:
    """The `license` of the card: "apache-2.0" where all images allow it, else "other"."""
    parts = [part.strip() for licence in licences for part in _PARTS.split(licence)]
    return "apache-2.0" if all(_FREE.fullmatch(part) for part in parts if part) and any(parts) else "other"


def write_card(folder: Path, task: Any, record: dict[str, Any]) -> None:
    """Writes README.md into `folder`.

    Args:
        folder: with the saved model.
        task: the `Task`.
        record: what metrics.json holds.
    """
    arguments, model = record["arguments"], record["arguments"]["model"]
    measured = [part for part in ("validation", "test") if record[part]]
    results = [
        EvalResult(
            task_type=task.pipeline_tag,
            dataset_type=arguments["data"],
            dataset_name=arguments["data"],
            dataset_split=measured[-1],
            metric_type=name,
            metric_value=value,
        )
        for name, value in record[measured[-1]].items()
        if value is not None and name != "loss"
    ]
    header = ModelCardData(
        model_name=arguments["output"],
        library_name="transformers",
        pipeline_tag=task.pipeline_tag,
        base_model=model if "/" in model else None,  # a Hub id: of a folder the record has the last name alone
        license=licence_of(record["licences"]),
        tags=["ultrasound", "medical-imaging", "echocare", "custom_code"],
        eval_results=results,
    )
    problems = record["problems"]
    shown = "".join(f"\n- {problem}" for problem in problems[:10])
    height, width = task.size
    text = _TEXT.format(
        name=arguments["output"],
        task=record["task"],
        data=arguments["data"],
        use=_USE[task.pipeline_tag],
        hint=_FRAMES.format(arguments["num_frames"]) if task.pipeline_tag == "video-classification" else "",
        kept=_START if record.get("head_start", {}).get("kept") else "",
        counts=", ".join(f"{count} {name}" for name, count in record["samples"].items() if count),
        licences=", ".join(f"{name} ({count})" for name, count in record["licences"].items()),
        problems=f"\n\nWhat was left out or looks wrong ({len(problems)}):\n{shown}" if problems else "",
        looked=_LOOKED["test" in measured],
        model=f"random weights (preset `{model}`)" if record["random_weights"] else f"`{model}`",
        epochs=record["epochs"],
        steps=record["steps"],
        minutes=record["training_seconds"] / 60,
        hardware=_hardware(record),
        precision=record["precision"],
        size=f"{width}x{height} pixels",
        resize=arguments["resize_mode"],
        parameters=record["parameters"],
        seed=arguments["seed"],
        versions=", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        table=_table(record, measured),
    )
    (folder / "README.md").write_text(f"---\n{header.to_yaml()}\n---\n{text}", encoding="utf-8")


def _hardware(record: dict[str, Any]) -> str:
    if record["device"] != "CPU":
        return record["device"]
    return f"{record['threads']} thread{'s' if record['threads'] > 1 else ''} of a CPU"


def _table(record: dict[str, Any], parts: list[str]) -> str:
    """Every metric of the parts that were measured, as Markdown."""
    names = dict.fromkeys(name for part in parts for name in record[part])
    rows = [["metric", *parts], ["---"] * (1 + len(parts))]
    rows += [[name, *(_shown(record[part].get(name)) for part in parts)] for name in names]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shown(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4g}"
