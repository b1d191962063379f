"""Results as JSON has them, and the way back; docs/predict.md describes every field."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from .results import SCHEMA, Ellipse, FileResult, FrameResult, Label, Landmark, Measurement

Record = dict[str, Any]


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers of six digits, None for what is not finite, no empty optional entries."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if value is None or isinstance(value, str):
        return value
    return str(value)


def measurement_record(measurement: Measurement) -> Record:
    """Of one number; what it has not is left out."""
    return {key: plain(value) for key, value in asdict(measurement).items() if value is not None}


def label_record(label: Label) -> Record:
    """Of one class or node."""
    record: Record = {"label": label.label, "score": plain(label.score)}
    if label.node is not None:
        record["node"] = label.node
    if label.path:
        record["path"] = list(label.path)
    return record


def frame_record(found: FrameResult) -> Record:
    """Of one frame: its findings by kind and model, without the arrays of masks and enhanced images."""
    record: Record = {"frame": found.index, "time_ms": plain(found.time_ms)}
    for kind, labels in (("anatomy", found.anatomy), ("classes", found.classes)):
        if labels:
            record[kind] = {model: [label_record(label) for label in each] for model, each in labels.items()}
    if found.values:
        record["values"] = plain(found.values)
    if found.segmentations:
        record["segmentations"] = {
            model: {"classes": plain(each.classes), "nodes": plain(each.nodes)}
            for model, each in found.segmentations.items()
        }
    for kind, objects in (("ellipses", found.ellipses), ("landmarks", found.landmarks)):
        if objects:
            record[kind] = {model: [_given(asdict(item)) for item in each] for model, each in objects.items()}
    record["measurements"] = [measurement_record(each) for each in found.measurements]
    if found.familiarity is not None:
        record["familiarity"] = plain(found.familiarity)
    if found.warnings:
        record["warnings"] = list(found.warnings)
    return record


def frame_from_record(record: Record) -> FrameResult:
    """The frame behind a record, without arrays."""
    return FrameResult(
        index=record["frame"],
        time_ms=record["time_ms"],
        anatomy=_labels(record.get("anatomy", {})),
        classes=_labels(record.get("classes", {})),
        values=record.get("values", {}),
        segmentations={},
        ellipses={
            model: tuple(Ellipse(**each) for each in found) for model, found in record.get("ellipses", {}).items()
        },
        landmarks={
            model: tuple(Landmark(**each) for each in found) for model, found in record.get("landmarks", {}).items()
        },
        measurements=tuple(Measurement(**each) for each in record["measurements"]),
        familiarity=record.get("familiarity"),
        warnings=tuple(record.get("warnings", ())),
    )


def file_record(result: FileResult, still: FrameResult | None = None) -> Record:
    """Of one file: `still` holds the findings of an image, `clip` those of a clip as a whole."""
    record: Record = {
        "schema": SCHEMA,
        "name": result.name,
        "sha256": result.sha256,
        "study": result.study,
        "kind": result.kind,
        "modality": result.modality,
        "height": result.height,
        "width": result.width,
        "num_frames": result.num_frames,
        "spacing_mm": plain(result.spacing),
        "box": plain(result.box),
        "models": {name: _given(asdict(facts)) for name, facts in result.models.items()},
        "anatomy_path": [label_record(label) for label in result.anatomy_path],
        "measurements": [measurement_record(each) for each in result.measurements],
        "warnings": list(result.warnings),
        "outputs": dict(result.outputs),
        "facts": plain(result.facts),
        "seconds": round(result.seconds, 3),
    }
    if result.familiarity is not None:
        record["familiarity"] = plain(result.familiarity)
    if still is not None:
        record["still"] = frame_record(still)
    if result.clip is not None:
        record["key_frames"] = dict(result.key_frames)
        record["clip"] = frame_record(result.clip)
        for name, frames in (("end_diastoles", result.end_diastoles), ("end_systoles", result.end_systoles)):
            if frames:
                record[name] = list(frames)
    return record


def _given(values: Mapping[str, Any]) -> Record:
    return {key: plain(value) for key, value in values.items() if value is not None}


def _labels(found: Mapping[str, Iterable[Record]]) -> dict[str, tuple[Label, ...]]:
    return {
        model: tuple(
            Label(each["label"], each["score"], each.get("node"), tuple(each.get("path", ()))) for each in labels
        )
        for model, labels in found.items()
    }


__all__ = ["Record", "file_record", "frame_from_record", "frame_record", "measurement_record", "plain"]
