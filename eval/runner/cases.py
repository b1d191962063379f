"""A row a case: what is known of it, what was said of it, and how good that was."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from echocare_hf.data.labelled import Sample, read_mask
from echocare_hf.finetuning import Job
from echocare_hf.metrics import ellipse_errors, image_metrics, keypoint_metrics, niqe_metric
from echocare_hf.metrics.local_correlation import local_correlation_metrics

Row = dict[str, Any]
Predictions = Mapping[str, Sequence[Any]]


def case_table(job: Job, predictions: Predictions) -> pd.DataFrame:
    """All cases of the validation and test parts.

    Columns `case`, `group` (patient, clip; None if unknown), `part`, `image` (its first one, below the data folder where it is there),
    what the data say of the case (`device`, `sex`, ...), `size_px` (longer side), `lesion_fraction` (share of the image that labels
    cover), and:

    - classes: `label`, `probability_<k>`, `logit_<k>` (natural logarithm of the probability: the logit up to a constant of the case);
      findings that may occur together: `label_<k>`, `probability_<k>`.
    - measured values: `target_<name>`, `prediction_<name>`, `spread_<name>` (predicted standard deviation, of clips).
    - segmentation: `dice`, `normalized_surface_dice` (2 pixels), means over the classes but the background, and each by class.
    - detection: `surest_iou` (mean over the true objects of the overlap with as many predictions of their class, the surest ones; 0 where
      there is none), `iou` (with all whose score is 0.5 or more), `score` (of the surest), and of one object with known spacing the
      errors of its ellipse in mm.
    - landmarks: `mre_px`, `mre_mm`, `sdr_<radius>`.
    - enhancement: `psnr`, `ssim`, `lncc` against the better image; `niqe`; each also `_before`.
    """
    rows_of = _ROWS[type(getattr(job.task, "of_clip", job.task)).__name__]
    rows = [
        {**_facts(job, sample, part), **rows_of(job, found, sample)}
        for part, all_found in predictions.items()
        for found, sample in zip(all_found, job.parts[part], strict=True)
    ]
    return pd.DataFrame(rows)


def _facts(job: Job, sample: Sample, part: str) -> Row:
    row: Row = {
        "case": sample.name,
        "group": sample.group,
        "part": part,
        "image": image_place(sample, job.arguments.data),
        **sample.attributes,
    }
    if sample.size is not None:
        row["size_px"] = max(sample.size)
        covered = _covered(job, sample)
        if covered is not None:
            row["lesion_fraction"] = covered
    return row


def image_place(sample: Sample, folder: str) -> str:
    """The first image of a case: its path below the data folder where it is there, else the whole path."""
    path, root = Path(str(sample.images[0])), Path(folder).resolve()
    return path.resolve().relative_to(root).as_posix() if path.resolve().is_relative_to(root) else str(path)


def _covered(job: Job, sample: Sample) -> float | None:
    """Share of the image that is no background, 0 to 1; of boxes, of the ellipses in them; None where nothing is outlined."""
    assert sample.size is not None
    if sample.mask and job.data.task == "segmentation":
        mask = read_mask(sample, job.data.mask_values)
        return float(((mask > 0) & (mask < 255)).mean())
    if sample.boxes:
        areas = sum(np.pi / 4 * box.long_axis * box.short_axis for box in sample.boxes)
        return min(1.0, float(areas / (sample.size[0] * sample.size[1])))
    return None


def _classes(job: Job, found: np.ndarray, sample: Sample) -> Row:
    several = isinstance(sample.label, tuple)
    row: Row = (
        {f"label_{index}": value for index, value in enumerate(sample.label)} if several else {"label": sample.label}
    )  # type: ignore[arg-type]
    row |= {f"probability_{index}": float(value) for index, value in enumerate(found)}
    if not several:
        logits = np.log(np.maximum(np.asarray(found, dtype=np.float64), np.finfo(np.float32).tiny))
        row |= {f"logit_{index}": float(value) for index, value in enumerate(logits)}
    return row


def _values(job: Job, found: np.ndarray, sample: Sample) -> Row:
    row: Row = {}
    count = len(job.data.target_names)
    for index, name in enumerate(job.data.target_names):
        row |= {f"target_{name}": float(sample.targets[name]), f"prediction_{name}": float(found[index])}
        if len(found) > count:
            row[f"spread_{name}"] = float(found[count + index])
    return row


def _areas(job: Job, found: np.ndarray, sample: Sample) -> Row:
    dice, surface = job.task.overlaps(found, sample, surface=True)  # type: ignore[attr-defined]
    row: Row = {"dice": _mean(dice[1:]), "normalized_surface_dice": _mean(surface[1:])}
    for index, name in enumerate(job.data.class_names[1:], 1):
        row |= {f"dice_{name}": float(dice[index]), f"normalized_surface_dice_{name}": float(surface[index])}
    return row


def _objects(job: Job, found: dict[str, np.ndarray], sample: Sample) -> Row:
    true = len(sample.boxes or ())
    overlaps = {
        name: sum(job.task.matches(found, sample, surest)) / true if true else float("nan")  # type: ignore[attr-defined]
        for name, surest in (("surest_iou", True), ("iou", False))
    }
    row: Row = {
        **overlaps,
        "score": float(found["scores"].max(initial=0)),
        "objects": true,
    }
    if sample.spacing is not None and true == 1 and len(found["boxes"]):
        reference = job.task.boxes(sample)["boxes"].numpy()[0]  # type: ignore[attr-defined]
        row |= ellipse_errors(found["boxes"][0], reference, sample.spacing)
    return row


def _points(job: Job, found: np.ndarray, sample: Sample) -> Row:
    references = np.array([sample.keypoints], dtype=float)
    row: Row = {}
    for spacing in (None, sample.spacing):
        if spacing is not None or not row:
            pixel = None if spacing is None else np.array([spacing])
            values = keypoint_metrics(np.asarray(found)[None], references, pixel, job.data.keypoint_pairs)
            row |= {name: value for name, value in values.items() if name in ("mre_px", "mre_mm") or name[:3] == "sdr"}
    return row


def _pictures(job: Job, found: dict[str, Any], sample: Sample) -> Row:
    row: Row = {}
    for when, ending in (("after", ""), ("before", "_before")):
        values = niqe_metric([found[when]])
        if found["reference"] is not None:
            values |= image_metrics([found[when]], [found["reference"]])
            values["lncc"] = local_correlation_metrics([found[when]], [found["reference"]])["lncc"]
        row |= {f"{name}{ending}": value for name, value in values.items()}
    return row


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


_ROWS: dict[str, Callable[[Job, Any, Sample], Row]] = {
    "Classification": _classes,
    "Regression": _values,
    "Segmentation": _areas,
    "Detection": _objects,
    "Keypoints": _points,
    "Enhancement": _pictures,
}
"""By the class of the fine-tuning task; of clips, that of what is said of one."""
