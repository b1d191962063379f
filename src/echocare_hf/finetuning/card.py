"""The card (README.md) of a folder that fine-tuning made: what it was trained on, what it scored, how to load it."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from echocare_hf.hub.card_parts import CITATION, carbon, fill, interval_text, preprocessing, table
from echocare_hf.hub.publish_folder import read_json

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

_FRAMES = """
Training took up to {0} frames spread over the whole clip, while the pipeline takes consecutive ones from its start: give as
`frame_sampling_rate` the number of frames of the file divided by {0}.
"""

_START = (
    "; it clearly made the linear model of the features that it began with worse, and these are the weights before it"
)

_SHARES = ("accuracy",)  # figures that are a share of cases, whose interval follows from their number
_SMALL = 200  # cases of a part, below which the card warns

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
    text = card_text(folder, task.pipeline_tag, task.size, record, time.strftime("%Y-%m-%d"))
    (folder / "README.md").write_text(text, encoding="utf-8")


def card_text(
    folder: Path, pipeline_tag: str, size: tuple[int, int], record: Mapping[str, Any], date: str | None = None
) -> str:
    """The card of a fine-tuned model, from what its run recorded.

    Args:
        folder: with the saved image processor.
        pipeline_tag: of the task.
        size: height and width of the model's input in pixels.
        record: what metrics.json holds.
        date: of the measurement, None if it is not known.

    Returns:
        Markdown with YAML front matter.
    """
    arguments, model = record["arguments"], record["arguments"]["model"]
    measured = [part for part in ("validation", "test") if record[part]]
    last, hardware = measured[-1], _hardware(record)
    emission, emission_entry = carbon(record["training_seconds"], record["threads"], record["device"])
    licence = licence_of(record["licences"])
    header = ModelCardData(
        model_name=arguments["output"],
        library_name="transformers",
        pipeline_tag=pipeline_tag,
        base_model=model if "/" in model else None,  # a Hub id: of a folder the record has the last name alone
        license=licence,
        license_name="depends-on-the-training-data" if licence == "other" else None,
        tags=["ultrasound", "medical-imaging", "echocare", "custom_code"],
        metrics=[name for name in record[last] if name != "loss"],
        eval_results=_results(pipeline_tag, record, last),
        co2_eq_emissions=emission_entry,
    )
    height, width = size
    cases = record["samples"][last]
    body = fill(
        "model_card.md",
        name=arguments["output"],
        task=record["task"],
        data=arguments["data"],
        use=_USE[pipeline_tag],
        hint=_FRAMES.format(arguments["num_frames"]) if pipeline_tag == "video-classification" else "",
        counts=", ".join(f"{count} {name}" for name, count in record["samples"].items() if count),
        licences=table(
            ("source", "licence of the images", "images"),
            ((arguments["data"], name, count) for name, count in record["licences"].items()),
        ),
        problems=_problems(record["problems"]),
        looked=_LOOKED["test" in measured],
        facts=table(("", ""), _facts(record, hardware, f"{width}x{height} pixels")),
        preprocessing=preprocessing(_processor(folder, height, width, arguments["resize_mode"])),
        table=_table(record, measured),
        hardware=hardware,
        precision=record["precision"],
        date=f", {date}" if date else "",
        intervals=_intervals(record, last),
        size_limit=f"The figures come from {cases} images or clips"
        + (": few, so chance has a large part in them." if cases < _SMALL else " of one split."),
        carbon=emission,
        citation=CITATION,
    )
    return f"---\n{header.to_yaml()}\n---\n{body}"


def _results(pipeline_tag: str, record: Mapping[str, Any], part: str) -> list[EvalResult]:
    """The figures of a part for the metadata, but for the loss and what is not defined."""
    data = record["arguments"]["data"]
    return [
        EvalResult(
            task_type=pipeline_tag,
            dataset_type=data,
            dataset_name=data,
            dataset_split=part,
            metric_type=name,
            metric_value=value,
        )
        for name, value in record[part].items()
        if value is not None and name != "loss"
    ]


def _problems(problems: list[str]) -> str:
    shown = "".join(f"\n- {problem}" for problem in problems[:10])
    return f"\n\nWhat was left out or looks wrong ({len(problems)}):\n{shown}" if problems else ""


def _facts(record: Mapping[str, Any], hardware: str, size: str) -> list[tuple[str, str]]:
    model, minutes = record["arguments"]["model"], record["training_seconds"] / 60
    kept = _START if record.get("head_start", {}).get("kept") else ""
    schedule = f"{record['epochs']} epochs, {record['steps']} steps, {minutes:.1f} minutes on {hardware}, "
    return [
        ("starts from", f"random weights (preset `{model}`)" if record["random_weights"] else f"`{model}`"),
        ("schedule", schedule + record["precision"] + kept),
        ("input", f"RGB, {size}, {record['arguments']['resize_mode']}"),
        ("parameters", f"{record['parameters']:,}"),
        ("seed", str(record["arguments"]["seed"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in record["versions"].items())),
    ]


def _processor(folder: Path, height: int, width: int, resize_mode: str) -> dict[str, Any]:
    """What the image processor does: as it is saved beside the model, else as the run set it up."""
    if (path := folder / "preprocessor_config.json").is_file():
        return read_json(path)
    size = {"height": height, "width": width}
    does = {"do_convert_rgb": True, "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255}
    return {**does, "size": size, "resize_mode": resize_mode}


def _intervals(record: Mapping[str, Any], part: str) -> str:
    """What is known of the intervals of a part's figures, in words."""
    measured = record.get("intervals", {}).get(part)
    known = {}
    for name, value in record[part].items():
        if text := interval_text(name, value, record["samples"][part], measured, _SHARES):
            known[name] = text
    if not known:
        return "The run recorded no intervals."
    how = "bootstrap over groups" if measured else f"Wilson, {record['samples'][part]} cases"
    others = "" if len(known) >= len(record[part]) - 1 else " The run recorded none for the other figures."
    return f"95 % intervals on {part} ({how}): {', '.join(f'{name} {text}' for name, text in known.items())}.{others}"


def _hardware(record: Mapping[str, Any]) -> str:
    if record["device"] != "CPU":
        return record["device"]
    return f"{record['threads']} thread{'s' if record['threads'] > 1 else ''} of a CPU"


def _table(record: Mapping[str, Any], parts: list[str]) -> str:
    """Every metric of the parts that were measured, as Markdown."""
    names = dict.fromkeys(name for part in parts for name in record[part])
    return table(("metric", *parts), ([name, *(_shown(record[part].get(name)) for part in parts)] for name in names))


def _shown(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4g}"
