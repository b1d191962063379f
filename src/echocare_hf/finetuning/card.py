"""The card (README.md) of a folder that fine-tuning made: what it was trained on, what it scored, how to load it."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

# Licences of data that leave the choice of the weights' licence to whoever trains them.
FREE_LICENCES = ("cc0", "cc by 4", "cc-by-4", "cc by 3", "cc-by-3", "mit", "apache")

_USE = {
    "image-classification": 'pipeline("image-classification", model=folder, trust_remote_code=True)("image.png")',
    "image-segmentation": 'pipeline("image-segmentation", model=folder, trust_remote_code=True)("image.png")',
    "object-detection": 'pipeline("object-detection", model=folder, trust_remote_code=True)("image.png")',
    "keypoint-detection": 'pipeline("keypoint-detection", model=folder, trust_remote_code=True)("image.png")',
    "image-to-image": 'pipeline("image-to-image", model=folder, trust_remote_code=True)("image.png")',
    "video-classification": 'pipeline("video-classification", model=folder, trust_remote_code=True)("clip.mp4")',
}

_TEXT = """
# {name}

An [EchoCare](https://arxiv.org/abs/2509.11752) model, fine-tuned for **{task}** on {data}.

```python
from transformers import pipeline

folder = "."  # this folder, or its id on the Hub
print({use})
```

![Best and worst predictions on validation images](predictions.png)

## What it was trained on

{counts}. Licences of the images: {licences}.{problems}

The parts share no group (patient, clip, sequence) where the data name one, and no image twice. Weights were chosen on the validation part;
the test part was looked at once.

| | |
|---|---|
| starts from | `{model}` |
| schedule | {epochs} epochs, {steps} steps, {minutes:.1f} minutes on {threads} threads of a CPU, {precision} |
| input | RGB, {size}, {resize}, values in 0 to 1, no mean and standard deviation |
| parameters | {parameters:,} |
| seed | {seed} |
| versions | {versions} |

## What it scored

| metric | validation | test |
|---|---|---|
{rows}

One run, one split: figures of small test parts scatter. `metrics.json` has every value, argument and epoch.

## What it is not

It is not a medical device. It was measured on images of the same source as those it learned from, and on no others.
"""


def licence_of(licences: dict[str, int]) -> str:
    """The `license` of the card: "apache-2.0" where all images allow it, else "other"."""
    free = all(any(licence.lower().startswith(known) for known in FREE_LICENCES) for licence in licences)
    return "apache-2.0" if free else "other"


def write_card(folder: Path, task: Any, record: dict[str, Any]) -> None:
    """Writes README.md into `folder`.

    Args:
        folder: with the saved model.
        task: the `Task`.
        record: what metrics.json holds.
    """
    arguments, test = record["arguments"], record["test"]
    results = [
        EvalResult(
            task_type=task.pipeline_tag,
            dataset_type=arguments["data"],
            dataset_name=arguments["data"],
            dataset_split="test",
            metric_type=name,
            metric_value=value,
        )
        for name, value in test.items()
        if value is not None and name != "loss"
    ]
    header = ModelCardData(
        model_name=arguments["output"],
        library_name="transformers",
        pipeline_tag=task.pipeline_tag,
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
        counts=", ".join(f"{count} {name}" for name, count in record["samples"].items()),
        licences=", ".join(f"{name} ({count})" for name, count in record["licences"].items()),
        problems=f"\n\nWhat was left out or looks wrong ({len(problems)}):\n{shown}" if problems else "",
        model=arguments["model"],
        epochs=record["epochs"],
        steps=record["steps"],
        minutes=record["training_seconds"] / 60,
        threads=record["threads"],
        precision=record["precision"],
        size=f"{width}x{height} pixels",
        resize=arguments["resize_mode"],
        parameters=record["parameters"],
        seed=arguments["seed"],
        versions=", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        rows="\n".join(
            f"| {name} | {_shown(record['validation'].get(name))} | {_shown(value)} |" for name, value in test.items()
        ),
    )
    (folder / "README.md").write_text(f"---\n{header.to_yaml()}\n---\n{text}", encoding="utf-8")


def _shown(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4g}"
