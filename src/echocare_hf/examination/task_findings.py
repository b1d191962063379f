"""From the output of a model to what it found, in pixels of the original grid and in millimetres: one function for each task.

Each takes the model, its inputs (a batch, as `LoadedModel.normalize` returns them), the region of each image and its pixels, and gives for
each image the fields of a `FrameResult` as `{field: findings}`.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.anatomy.tree import UnknownAnatomyError
from echocare_hf.model.ellipses_echocare import cardiothoracic_ratio, ellipse_area
from echocare_hf.model.label_losses_echocare import problem_type_of
from echocare_hf.model.losses_echocare import coherent_anatomy_scores
from echocare_hf.model.pipeline_echocare import likely_paths

from .models import LoadedModel
from .region import Region
from .results import (
    MILLIMETRE,
    PIXEL,
    RATIO,
    SQUARE_MILLIMETRE,
    SQUARE_PIXEL,
    Ellipse,
    Label,
    Landmark,
    Measurement,
    Segmentation,
)

Findings = dict[str, Any]

NOT_ANALYSED = 255
LONGEST_ENHANCED = 1024
"""Longest side, in pixels, of a region that is enhanced at its own resolution; larger ones are reduced to it and enlarged again."""

LEAST_ANATOMY_SCORE, MOST_ANATOMY_NODES = 0.05, 24
"""Nodes below the first are not listed, nor more than the second."""

_UNITS = {"pixel": PIXEL, "pixels": PIXEL, "px": PIXEL, "mm2": SQUARE_MILLIMETRE, "mm²": SQUARE_MILLIMETRE, "ml": "mL"}
_UCUM = (
    "%",
    "1",
    "mm",
    "cm",
    "m",
    "mm2",
    "cm2",
    "mL",
    "L",
    "ms",
    "s",
    "min",
    "h",
    "d",
    "wk",
    "mo",
    "a",
    "deg",
    "g",
    "kg",
    "/min",
)
_DIRECTIONS = np.deg2rad(np.arange(180))


@cache
def node_of(label: str) -> str | None:
    """The id of the tree's node that a label names, under any of its names; None if it names none or several."""
    tree = AnatomyTree.default()
    try:
        return tree.ids[tree.index(label)]
    except UnknownAnatomyError:
        return None


def unit_of(unit: str | None) -> str:
    """A unit as UCUM has it; what is no unit of UCUM stands in braces."""
    if not unit:
        return "{unit not stated}"
    unit = _UNITS.get(unit.strip().lower(), unit.strip())
    return unit if unit in _UCUM or re.fullmatch(r"\{[^{}]+\}\d?", unit) else "{" + re.sub(r"[{}]", "", unit) + "}"


def anatomy(model: LoadedModel, inputs: Tensor, regions: Sequence[Region], threshold: float) -> list[Findings]:
    """The nodes of the checkpoint's own tree: those on likely paths, from the region down, best path first, then others by score."""
    tree = model.config.anatomy_tree or {}
    return [{"anatomy": _anatomy_labels(row, tree, threshold)} for row in anatomy_scores(model, inputs).tolist()]


def anatomy_scores(model: LoadedModel, inputs: Tensor) -> Tensor:
    """Scores of all nodes of the checkpoint's own tree, 0 to 1, `(batch, nodes)`; no node is above its parent."""
    pooled = model.network.echocare(inputs).pooler_output
    logits = model.network.anatomy_classifier(pooled).float()
    return coherent_anatomy_scores(logits, model.network.anatomy_ancestors)


def _anatomy_labels(scores: list[float], tree: dict[str, list], threshold: float) -> tuple[Label, ...]:
    order = [node for path in likely_paths(scores, tree["parents"], threshold) for node in path]
    order += sorted(range(len(scores)), key=lambda node: -scores[node])
    nodes = [node for node in dict.fromkeys(order) if scores[node] >= min(LEAST_ANATOMY_SCORE, threshold)]
    labels = []
    for node in nodes[:MOST_ANATOMY_NODES]:
        path = [node]
        while tree["parents"][path[-1]] >= 0:
            path.append(tree["parents"][path[-1]])
        names = tuple(tree["names"][step] for step in reversed(path))
        labels.append(Label(tree["names"][node], scores[node], tree["ids"][node], names))
    return tuple(labels)


def classification(model: LoadedModel, inputs: Tensor, regions: Sequence[Region], threshold: float) -> list[Findings]:
    """Scores of all classes, best first."""
    return [{"classes": labels} for labels in class_labels(model, model.network(inputs).logits)]


def class_labels(model: LoadedModel, logits: Tensor) -> list[tuple[Label, ...]]:
    """Labels of each image or clip of logits `(batch, classes)`, best first."""
    findings = problem_type_of(model.config) == "multi_label_classification"
    scores = logits.float().sigmoid() if findings else logits.float().softmax(-1)
    names = [model.labels[index] for index in range(scores.shape[1])]
    return [
        tuple(
            Label(names[index], row[index], node_of(names[index]))
            for index in sorted(range(len(names)), key=lambda index: -row[index])
        )
        for row in scores.tolist()
    ]


def regression(model: LoadedModel, inputs: Tensor, regions: Sequence[Region], threshold: float) -> list[Findings]:
    """Measured values."""
    return measured_values(model, model.network(inputs).logits)


def measured_values(model: LoadedModel, values: Tensor, spreads: Tensor | None = None) -> list[Findings]:
    """Values, and what they measure, of each image or clip of `(batch, targets)`."""
    names = [model.labels[index] for index in range(values.shape[1])]
    units: Sequence[str | None] = model.config.regression_unit or [None] * len(names)
    rows = values.float().tolist()
    deviations = spreads.float().tolist() if spreads is not None else [[None] * len(names)] * len(rows)
    return [
        {
            "values": dict(zip(names, row, strict=True)),
            "measurements": tuple(
                Measurement(name, value, unit_of(unit), model.name, spread=spread)
                for name, value, unit, spread in zip(names, row, units, deviation, strict=True)
            ),
        }
        for row, deviation in zip(rows, deviations, strict=True)
    ]


def segmentation(model: LoadedModel, inputs: Tensor, regions: Sequence[Region], threshold: float) -> list[Findings]:
    """Label maps of the original grid, and the area and the longest extent of each class."""
    outputs = model.network(inputs)
    maps = model.processor.post_process_semantic_segmentation(
        outputs, target_sizes=[region.size for region in regions]
    )
    classes = {index: name for index, name in model.labels.items() if index != 0}
    nodes = {index: node for index, name in classes.items() if (node := node_of(name)) is not None}
    found = []
    for region, label_map in zip(regions, maps, strict=True):
        crop = label_map.to(torch.uint8).cpu().numpy()
        nowhere = np.full((region.height, region.width), NOT_ANALYSED, np.uint8)
        whole = region.paste(crop, nowhere)
        measurements = []
        for value, name in classes.items():
            mask = crop == value if region.mask is None else (crop == value) & region.mask
            if pixels := int(np.count_nonzero(mask)):
                row, column = region.spacing or (1.0, 1.0)
                area, length = (SQUARE_MILLIMETRE, MILLIMETRE) if region.spacing else (SQUARE_PIXEL, PIXEL)
                measurements.append(
                    Measurement("area", pixels * row * column, area, model.name, name, nodes.get(value))
                )
                measurements.append(
                    Measurement(
                        "long axis", longest_extent(mask, (row, column)), length, model.name, name, nodes.get(value)
                    )
                )
        found.append({"segmentations": Segmentation(whole, classes, nodes), "measurements": tuple(measurements)})
    return found


def longest_extent(mask: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """The largest distance between two points of a mask (its Feret diameter), from its pixels' outer corners.

    The width in each of 180 directions, so at most 0.004 % short.

    Args:
        mask: bool `(height, width)`, True somewhere.
        spacing: of rows and columns.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    cut = mask[rows]
    left, right = cut.argmax(axis=1), mask.shape[1] - cut[:, ::-1].argmax(axis=1)
    x = np.concatenate((left, left, right, right)) * spacing[1]
    y = np.concatenate((rows, rows + 1, rows, rows + 1)) * spacing[0]
    along = np.outer(np.cos(_DIRECTIONS), x) + np.outer(np.sin(_DIRECTIONS), y)
    return float(np.ptp(along, axis=1).max())


def detection(model: LoadedModel, inputs: Tensor, regions: Sequence[Region], threshold: float) -> list[Findings]:
    """Ellipses with circumference, axes and area; width and height where the model knows upright boxes only; the cardiothoracic ratio."""
    results = model.processor.post_process_oriented_detection(
        model.network(inputs),
        threshold=threshold,
        target_sizes=[region.size for region in regions],
        spacing=[region.spacing for region in regions],
    )
    found = []
    for region, result in zip(regions, results, strict=True):
        names = [model.labels[label] for label in result["labels"].tolist()]
        scores = result["scores"].tolist()
        boxes = result["boxes"].double()
        boxes[:, :2] += torch.tensor(region.box[:2])
        sizes = result.get("boxes_mm", result["boxes"])
        around = result.get("circumference_mm", result["circumference"]).tolist()
        areas = ellipse_area(sizes).tolist()
        ellipses, measurements = [], []
        for index, (name, score) in enumerate(zip(names, scores, strict=True)):
            x, y, along, across, angle = boxes[index].tolist()
            ellipses.append(Ellipse(name, score, x, y, along, across, angle, node_of(name)))
            long, short = sizes[index, 2:4].tolist()
            if model.config.oriented_boxes:
                measured = {
                    "circumference": around[index],
                    "long axis": long,
                    "short axis": short,
                    "area": areas[index],
                }
            else:
                upright = 45 < float(sizes[index, 4]) < 135
                measured = dict(zip(("width", "height"), (short, long) if upright else (long, short), strict=True))
            for what, value in measured.items():
                units = (SQUARE_MILLIMETRE, SQUARE_PIXEL) if what == "area" else (MILLIMETRE, PIXEL)
                unit = units[region.spacing is None]
                measurements.append(
                    Measurement(what, value, unit, model.name, of=name, node=node_of(name), score=score)
                )
        measurements += _heart_in_thorax(model.name, names, scores, sizes)
        found.append({"ellipses": tuple(ellipses), "measurements": tuple(measurements)})
    return found


def _heart_in_thorax(model: str, names: Sequence[str], scores: Sequence[float], sizes: Tensor) -> list[Measurement]:
    """The cardiothoracic ratio by diameters, of the best heart and the best thorax, if there are both."""
    best: dict[str, int] = {}
    for index, name in enumerate(names):  # best first
        best.setdefault(re.sub(r"^f(o?)etal[ _-]", "", name.strip().lower()), index)
    if not {"heart", "thorax"} <= set(best):
        return []
    thorax, heart = best["thorax"], best["heart"]
    ratio = float(cardiothoracic_ratio(sizes[thorax], sizes[heart]))
    return [Measurement("cardiothoracic ratio", ratio, RATIO, model, score=min(scores[thorax], scores[heart]))]


def keypoints(model: LoadedModel, inputs: Tensor, regions: Sequence[Region], threshold: float) -> list[Findings]:
    """Landmarks, and the distance between those that are the ends of one diameter."""
    results = model.processor.post_process_keypoint_detection(
        model.network(inputs), target_sizes=[region.size for region in regions]
    )
    names = model.config.keypoint_names or [f"keypoint {index}" for index in range(model.config.num_keypoints)]
    found = []
    for region, result in zip(regions, results, strict=True):
        points = result["keypoints"].double().cpu().numpy() + region.box[:2]
        scores, visible = result["scores"].tolist(), result["visible"].tolist()
        landmarks = tuple(
            Landmark(name, score, x, y, seen)
            for name, score, (x, y), seen in zip(names, scores, points.tolist(), visible, strict=True)
        )
        scale, unit = (np.ones(2), PIXEL) if region.spacing is None else (np.array(region.spacing[::-1]), MILLIMETRE)
        measurements = []
        for first, second in model.config.keypoint_pairs or []:
            if visible[first] and visible[second]:
                length = float(np.hypot(*((points[second] - points[first]) * scale)))
                of = pair_name(names[first], names[second])
                score = min(scores[first], scores[second])
                measurements.append(
                    Measurement("distance", length, unit, model.name, of=of, node=node_of(of), score=score)
                )
        found.append({"landmarks": landmarks, "measurements": tuple(measurements)})
    return found


def pair_name(first: str, second: str) -> str:
    """What two landmarks are the ends of: "bpd" of "bpd_1" and "bpd_2", else both names."""
    common = 0
    while common < min(len(first), len(second)) and first[common] == second[common]:
        common += 1
    shared = first[:common].rstrip(" _-.")
    return shared or f"{first} to {second}"


def enhancement(
    model: LoadedModel, inputs: Tensor, regions: Sequence[Region], threshold: float, pixels: Sequence[np.ndarray]
) -> list[Findings]:
    """Frames whose region is enhanced, at its own resolution: what the network does is local, so it needs no fixed size.

    At the input size of the processor, enlarged, an image is blurred; on degraded breast images that had 0.9 dB less.
    """
    found: list[Findings] = []
    for region, frame in zip(regions, pixels, strict=True):
        crop = region.crop(frame)
        height, width = crop.shape[:2]
        scale = min(1.0, LONGEST_ENHANCED / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        seen = crop if scale == 1 else np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.BOX))
        values = model.normalize(torch.from_numpy(np.ascontiguousarray(seen.transpose(2, 0, 1)))[None])
        enhanced = model.processor.reconstruct_images(model.network(values).reconstruction.float())[0]
        image = Image.fromarray(enhanced[: size[1], : size[0]])
        if scale < 1:
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        found.append({"enhanced": region.paste(np.asarray(image), frame)})
    return found


_FINDERS: dict[str, Callable[..., list[Findings]]] = {
    "anatomy": anatomy,
    "classification": classification,
    "regression": regression,
    "segmentation": segmentation,
    "detection": detection,
    "keypoints": keypoints,
    "enhancement": enhancement,
}


@torch.inference_mode()
def find(
    model: LoadedModel, inputs: Tensor, regions: Sequence[Region], pixels: Sequence[np.ndarray], threshold: float
) -> list[Findings]:
    """What a model of single images finds in a batch.

    Args:
        model: any but a video model.
        inputs: resized images, uint8 `(batch, 3, height, width)`.
        regions: of each image; a model that sees whole images gets `Region.whole`.
        pixels: the frames, each uint8 `(height, width, 3)`.
        threshold: smallest score of objects and of nodes on a path.
    """
    more = {"pixels": pixels} if model.task == "enhancement" else {}
    return _FINDERS[model.task](model, model.normalize(inputs), regions, threshold, **more)


@torch.inference_mode()
def find_in_clip(model: LoadedModel, inputs: Tensor, times_ms: Sequence[float] | None) -> Findings:
    """What a video model finds in the frames of one clip.

    Args:
        inputs: resized frames, uint8 `(frames, 3, height, width)`.
        times_ms: of the frames, rising; None if the file does not say.
    """
    times = None if times_ms is None else torch.tensor([list(times_ms)], device=model.device)
    outputs = model.network(model.normalize(inputs)[None], frame_times=times)
    if problem_type_of(model.config) == "regression":
        return measured_values(model, outputs.logits, outputs.spread)[0]
    return {"classes": class_labels(model, outputs.logits)[0]}


def rising(times_ms: Sequence[float | None]) -> list[float] | None:
    """The times if all are known and each is later than the one before, else None."""
    known = [time for time in times_ms if time is not None]
    if len(known) < len(times_ms) or any(later <= earlier for earlier, later in pairwise(known)):
        return None
    return known


__all__ = ["NOT_ANALYSED", "find", "find_in_clip", "longest_extent", "node_of", "pair_name", "rising", "unit_of"]
