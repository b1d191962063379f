"""What a score rests on: parts of the image are covered one after the other, and the score is computed anew each time.

A place is worth how much the score falls while it is covered, averaged over all windows that cover it. Nothing of the model's inside is
used, so it holds for every head that gives scores.

Source: Zeiler and Fergus 2014, Visualizing and understanding convolutional networks, section 4.2.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from echocare_hf.examination.models import LoadedModel
from echocare_hf.examination.results import FrameResult
from echocare_hf.examination.task_findings import anatomy_scores, class_labels

from .analysis import Check

WINDOWS = 9
"""Windows along each side; each is two steps wide, so that they overlap by half."""

BATCH_SIZE = 16
MOST_TARGETS = 12


@dataclass(frozen=True)
class Target:
    """A score that can be explained: the model's name, the label, and what the score is without a cover; None where the map tells it."""

    model: str
    label: str
    score: float | None


@dataclass(frozen=True, eq=False)
class OcclusionMap:
    """How much a score rests on each place.

    Attributes:
        values: float32 `(height, width)` of the model's input without its padding: how far the score falls while the place is covered;
            below 0 where it rises.
        score: without a cover, 0 to 1.
        evaluations: images, or clips, that the model saw.
        windows: along each side.
    """

    values: np.ndarray
    score: float
    evaluations: int
    windows: int = WINDOWS


def find_targets(found: FrameResult, clip: FrameResult | None = None) -> list[Target]:
    """The scores of a frame, and of a clip as a whole, that can be explained, best first in each model.

    Nodes of the anatomy tree, classes, the best object of each label, landmarks, and the classes of a segmentation, whose score is the
    mean probability where they were found.

    Args:
        found: in the frame.
        clip: in the clip as a whole, None for a still.
    """
    targets = []
    for model, classes in (clip.classes if clip is not None else {}).items():
        targets += [Target(model, each.label, each.score) for each in classes[:MOST_TARGETS]]
    for group in (found.anatomy, found.classes, found.ellipses, found.landmarks):
        for model, labels in group.items():
            best: dict[str, float] = {}
            for each in labels:
                best[each.label] = max(each.score, best.get(each.label, 0.0))
            targets += [Target(model, label, score) for label, score in list(best.items())[:MOST_TARGETS]]
    for model, segmentation in found.segmentations.items():
        there = set(np.unique(segmentation.label_map).tolist())
        targets += [Target(model, label, None) for value, label in segmentation.classes.items() if value in there]
    return targets


def occlusion_map(
    model: LoadedModel, crop: np.ndarray, label: str, check: Check | None = None, windows: int = WINDOWS
) -> OcclusionMap:
    """Covers windows of an image with its mean colour and looks at a score.

    Args:
        model: of task anatomy, classification, detection, keypoints or segmentation.
        crop: uint8 `(height, width, 3)`, as the model gets it before resizing.
        label: the name of the node, class, object or landmark.
        check: called before each batch; see `Analyser.turn`.
        windows: along each side, at least 2.

    Raises:
        ValueError: for a label that the model has no score of.
    """
    image = model.resize(crop)
    found = cover_in_turn(image, _scores_of(model, label, image), check, windows, BATCH_SIZE)
    return replace(found, values=without_padding(model, found.values, crop.shape[:2]))


def cover_in_turn(
    pixels: Tensor, score_of: Callable[[Tensor], Tensor], check: Check | None, windows: int, batch_size: int
) -> OcclusionMap:
    """Covers windows of an image, or of all frames of a clip at once, one after the other, and looks at a score.

    Args:
        pixels: uint8 `(..., 3, height, width)`; what is black in all frames stays so.
        score_of: from a batch of such, `(batch, ..., 3, height, width)`, to the scores `(batch,)`.
        check: called before each batch.
        windows: along each side.
        batch_size: images or clips at a time.
    """
    height, width = pixels.shape[-2:]
    lit, fill = lit_and_fill(pixels)
    boxes = [
        (slice(top, bottom), slice(left, right))
        for top, bottom in _spans(height, windows)
        for left, right in _spans(width, windows)
        if lit[top:bottom, left:right].any()
    ]
    base = score_of(pixels[None])[0].item()
    total, cover = torch.zeros(height, width), torch.zeros(height, width)
    for start in range(0, len(boxes), batch_size):
        if check is not None:
            check("the map ", f", at window {start} of {len(boxes)}")
        batch = boxes[start : start + batch_size]
        covered = pixels.expand(len(batch), *pixels.shape).clone()
        for each, (rows, columns) in zip(covered, batch, strict=True):
            inside = lit[rows, columns]
            each[..., rows, columns] = torch.where(inside, fill[:, None, None], each[..., rows, columns])
        for (rows, columns), score in zip(batch, score_of(covered).tolist(), strict=True):
            total[rows, columns] += base - score
            cover[rows, columns] += 1
    values = torch.where(lit, total / cover.clamp(min=1), torch.zeros(()))
    return OcclusionMap(values.numpy(), base, len(boxes) + 1, windows)


def lit_and_fill(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Which places of an image or clip, uint8 `(..., 3, height, width)`, are not always black, bool `(height, width)`; their mean colour,
    uint8 `(3,)`."""
    frames = pixels.reshape(-1, *pixels.shape[-3:])
    lit = frames.amax((0, 1)) > 0
    if not lit.any():
        return lit, torch.zeros(3, dtype=torch.uint8)
    return lit, frames[..., lit].float().mean((0, 2)).round().to(torch.uint8)


def without_padding(model: LoadedModel, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Values `(height, width)` of a model's input without what was padded; `size` is height and width of the image before resizing."""
    geometry = model.processor.resize_geometry(*size)
    (rows, columns), (top, left) = geometry.resized, geometry.offset
    return values[top : top + rows, left : left + columns]


def _spans(length: int, windows: int) -> list[tuple[int, int]]:
    """Start and end of overlapping windows of two steps."""
    edges = np.linspace(0, length, windows + 2).round().astype(int).tolist()
    return list(zip(edges[:-2], edges[2:], strict=True))


def _scores_of(model: LoadedModel, label: str, image: Tensor) -> Callable[[Tensor], Tensor]:
    """A function from resized images, uint8 `(batch, 3, height, width)`, to the label's scores `(batch,)`.

    Args:
        model: any with scores.
        label: of the score.
        image: without a cover, uint8 `(3, height, width)`.
    """
    names = _names(model)
    if label not in names:
        raise ValueError(f"{model.name} has no score of {label!r}")
    index = names.index(label)

    def anatomy(images: Tensor) -> Tensor:
        return anatomy_scores(model, model.normalize(images))[:, index]

    def classification(images: Tensor) -> Tensor:
        rows = class_labels(model, model.network(model.normalize(images)).logits)
        return torch.tensor([next(each.score for each in row if each.label == label) for row in rows])

    def detection(images: Tensor) -> Tensor:
        logits = model.network(model.normalize(images)).logits.float()  # (batch, classes, rows, columns)
        return logits[:, index].amax((1, 2)).sigmoid().cpu()  # the score of the best object of the class

    def keypoints(images: Tensor) -> Tensor:
        found = model.processor.post_process_keypoint_detection(
            model.network(model.normalize(images)), target_sizes=[tuple(image.shape[1:])] * len(images)
        )
        return torch.stack([each["scores"][index].float().cpu() for each in found])

    def probabilities(images: Tensor) -> Tensor:
        return model.network(model.normalize(images)).logits.float().softmax(1)  # (batch, classes, height, width)

    def segmentation(images: Tensor) -> Tensor:
        return probabilities(images)[:, index, there].mean(-1).cpu()

    if model.task == "segmentation":
        with torch.inference_mode():
            there = probabilities(image[None])[0].argmax(0) == index
        if not there.any():
            raise ValueError(f"{model.name} finds no {label!r} in this image")
    functions = {"anatomy": anatomy, "classification": classification, "detection": detection, "keypoints": keypoints}
    return torch.inference_mode()({**functions, "segmentation": segmentation}[model.task])


def _names(model: LoadedModel) -> list[str]:
    """The names that a model has scores of, in the order of its outputs."""
    if model.task == "anatomy":
        return list((model.config.anatomy_tree or {})["names"])
    if model.task == "keypoints":
        count = model.config.num_keypoints
        return list(model.config.keypoint_names or [f"keypoint {index}" for index in range(count)])
    return list(model.labels.values()) if model.task in ("classification", "detection", "segmentation") else []


__all__ = [
    "OcclusionMap",
    "Target",
    "cover_in_turn",
    "find_targets",
    "lit_and_fill",
    "occlusion_map",
    "without_padding",
]
