"""From the maps of the detection and keypoint heads to objects and landmarks in pixels of the original image and in millimetres."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .ellipse_refinement_echocare import refine_ellipses
from .ellipses_echocare import (
    ellipse_bounds,
    ellipse_circumference,
    ellipse_overlap,
    scale_ellipses,
    transform_ellipses,
)

# Objects of an image that are looked at, best first.
MAXIMUM_OBJECTS = 100
# Of two objects of one class that overlap by more than this (intersection over union), the better one stays.
DUPLICATE_OVERLAP = 0.5

Sizes = Sequence[tuple[int, int]] | Tensor
Spacing = float | tuple[float, float] | Sequence[float | tuple[float, float] | None] | Tensor


class PointPostProcessingMixin:
    """`post_process_*` of the detection and keypoint heads, for an image processor of EchoCare."""

    resize_geometry: Callable[..., Any]

    def post_process_object_detection(
        self, outputs: Any, threshold: float = 0.5, target_sizes: Sizes | None = None
    ) -> list[dict[str, Tensor]]:
        """Objects as axis-aligned rectangles, what the stock object-detection pipeline takes.

        Args:
            outputs (`EchoCareObjectDetectionOutput`):
                Output of [`EchoCareForObjectDetection`].
            threshold (`float`, *optional*, defaults to 0.5):
                Smallest score that is reported, 0 to 1.
            target_sizes (`list[tuple[int, int]]` or `torch.Tensor` of shape `(batch, 2)`, *optional*):
                Height and width of each original image, in pixels. Without them positions are in pixels of the model's input.

        Returns:
            `list[dict]`: for each image `scores` (objects,), best first, `labels` (objects,), and `boxes` (objects, 4) as x0, y0, x1,
            y1 in pixels: the tightest rectangle around each ellipse, cut at the edges of the image.

        Raises:
            ValueError: for another number of sizes than images, a size below 1 pixel, or a threshold outside 0 to 1.
        """
        results = []
        for found, size in self._found_objects(outputs, threshold, target_sizes):
            corners = ellipse_bounds(found["boxes"])
            x, y = corners[:, 0::2].clamp(0, size[1]), corners[:, 1::2].clamp(0, size[0])
            results.append({**found, "boxes": torch.stack((x, y), -1).flatten(1)})
        return results

    def post_process_oriented_detection(
        self,
        outputs: Any,
        threshold: float = 0.5,
        target_sizes: Sizes | None = None,
        spacing: Spacing | None = None,
    ) -> list[dict[str, Tensor]]:
        """Objects as ellipses, with their circumference and axes in millimetres where the spacing is known.

        The way back from the model's input is exact for an image that was squashed or padded, and so are millimetres for pixels that
        are not square: an ellipse stays one.

        Args:
            outputs (`EchoCareObjectDetectionOutput`):
                Output of [`EchoCareForObjectDetection`].
            threshold (`float`, *optional*, defaults to 0.5):
                Smallest score that is reported, 0 to 1.
            target_sizes (`list[tuple[int, int]]` or `torch.Tensor` of shape `(batch, 2)`, *optional*):
                Height and width of each original image, in pixels. Without them positions are in pixels of the model's input.
            spacing (`float`, `tuple[float, float]` or `list` of these, *optional*):
                Millimetres per pixel of the images that `target_sizes` describes: a number, a tuple (row spacing, column spacing),
                or a list with one of these, or None, for each image.

        Returns:
            `list[dict]`: for each image `scores` (objects,), best first, `labels` (objects,), `boxes` (objects, 5) as centre x, centre y,
            long axis, short axis (full lengths) in pixels and the angle of the long axis in degrees from +x towards +y, in
            [0, 180), and `circumference` (objects,) of the ellipse in pixels. With a spacing also `boxes_mm` (objects, 5), which
            [`cardiothoracic_ratio`] takes, and `circumference_mm`, `long_axis_mm` and `short_axis_mm`, each (objects,).

        Raises:
            ValueError: for another number of sizes or spacings than images, one that is not positive, or a threshold outside 0 to 1.
        """
        found_objects = self._found_objects(outputs, threshold, target_sizes)
        results = []
        for (found, _), pixel in zip(found_objects, _spacings(spacing, len(found_objects)), strict=True):
            boxes = found["boxes"]
            result = {**found, "circumference": ellipse_circumference(boxes)}
            if pixel is not None:
                in_mm = scale_ellipses(boxes, pixel.to(boxes).expand(len(boxes), 2))
                result["boxes_mm"] = in_mm
                result["circumference_mm"] = ellipse_circumference(in_mm)
                result["long_axis_mm"], result["short_axis_mm"] = in_mm[:, 2], in_mm[:, 3]
            results.append(result)
        return results

    def post_process_keypoint_detection(
        self,
        outputs: Any,
        target_sizes: Sizes | None = None,
        spacing: Spacing | None = None,
        threshold: float = 0.0,
    ) -> list[dict[str, Tensor]]:
        """Landmarks in pixels of the original images, and in millimetres where the spacing is known.

        Args:
            outputs (`EchoCareKeypointDetectionOutput`):
                Output of [`EchoCareForKeypointDetection`].
            target_sizes (`list[tuple[int, int]]` or `torch.Tensor` of shape `(batch, 2)`, *optional*):
                Height and width of each original image, in pixels. Without them positions are in pixels of the model's input.
            spacing (`float`, `tuple[float, float]` or `list` of these, *optional*):
                Millimetres per pixel of the images that `target_sizes` describes: a number, a tuple (row spacing, column spacing),
                or a list with one of these, or None, for each image.
            threshold (`float`, *optional*, defaults to 0.0):
                Smallest score that is reported, 0 to 1; by default every landmark is.

        Returns:
            `list[dict]`: for each image, in the order of the configuration's landmarks, `keypoints` (landmarks, 2) as x and y in pixels, 0
            at the outer edge of the first pixel, `scores` (landmarks,), `labels` (landmarks,), the index of each landmark, and
            `visible` (landmarks,), whether the model takes it to be in the image. With a spacing also `keypoints_mm` (landmarks, 2).

        Raises:
            ValueError: for another number of sizes or spacings than images, one that is not positive, or a threshold outside 0 to 1.
        """
        _check_threshold(threshold)
        sizes = _sizes(target_sizes, outputs.input_sizes)
        results = []
        for index, pixel in enumerate(_spacings(spacing, len(sizes))):
            scores = outputs.scores[index].float()
            kept = (scores >= threshold).nonzero()[:, 0]
            points = outputs.keypoints[index, kept].float()
            if target_sizes is not None:
                points = self._geometry(outputs.input_sizes[index], sizes[index]).to_original(points)
            result = {
                "keypoints": points,
                "scores": scores[kept],
                "labels": kept,
                "visible": outputs.visibility_logits[index, kept] > 0,
            }
            if pixel is not None:
                result["keypoints_mm"] = points * pixel.to(points)
            results.append(result)
        return results

    def _found_objects(
        self, outputs: Any, threshold: float, target_sizes: Sizes | None
    ) -> list[tuple[dict[str, Tensor], tuple[int, int]]]:
        """For each image its objects, boxes as ellipses, and its size (height, width)."""
        _check_threshold(threshold)
        sizes = _sizes(target_sizes, outputs.input_sizes)
        found_objects = []
        mask_logits = getattr(
            outputs, "mask_logits", None
        )  # a head that does not refine, or an older exported graph, has none
        for index, size in enumerate(sizes):
            found = find_objects(outputs.logits[index], outputs.pred_boxes[index], threshold)
            if mask_logits is not None:
                input_size = (int(outputs.input_sizes[index, 0]), int(outputs.input_sizes[index, 1]))
                found["boxes"] = refine_ellipses(found["boxes"], found["labels"], mask_logits[index], input_size)
            if target_sizes is not None:
                boxes = found["boxes"]
                geometry = self._geometry(outputs.input_sizes[index], size)
                scale, offset = (boxes.new_tensor(value[::-1]) for value in (geometry.scale, geometry.offset))
                found["boxes"] = transform_ellipses(boxes, torch.diag(1 / scale), -offset / scale)
            found_objects.append((found, size))
        return found_objects

    def _geometry(self, input_size: Tensor, size: tuple[int, int]) -> Any:
        """Where an image of `size` lies in the model's input. By the input's size, not the processor's: the call may have had its own."""
        return self.resize_geometry(*size, size=dict(zip(("height", "width"), input_size.tolist(), strict=True)))


def find_objects(logits: Tensor, boxes: Tensor, threshold: float) -> dict[str, Tensor]:
    """The objects of one image: the peaks of its heat maps, without those that repeat a better one.

    Args:
        logits (`torch.Tensor` of shape `(num_labels, rows, columns)`): centres of objects, before the sigmoid.
        boxes (`torch.Tensor` of shape `(num_labels, rows, columns, 5)`): the ellipse at each place.
        threshold (`float`): smallest score that is kept.

    Returns:
        `scores` (objects,), best first, `labels` (objects,) and `boxes` (objects, 5).
    """
    logits, boxes = logits.detach().float(), boxes.detach().float()
    scores = logits.sigmoid()
    peaks = (logits == F.max_pool2d(logits, 3, stride=1, padding=1)) & (scores >= threshold)
    labels, row, column = peaks.nonzero(as_tuple=True)
    scores, order = scores[labels, row, column].sort(descending=True, stable=True)
    order = order[:MAXIMUM_OBJECTS]
    scores, labels, boxes = scores[: len(order)], labels[order], boxes[labels[order], row[order], column[order]]

    kept: list[int] = []
    waiting = torch.arange(len(boxes), device=boxes.device)
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        repeats = ellipse_overlap(boxes[None, best], boxes[waiting])[0] > DUPLICATE_OVERLAP
        waiting = waiting[~(repeats & (labels[waiting] == labels[best]))]
    return {"scores": scores[kept], "labels": labels[kept], "boxes": boxes[kept]}


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(f"`threshold` must lie between 0 and 1, got {threshold}")


def _sizes(target_sizes: Sizes | None, input_sizes: Tensor) -> list[tuple[int, int]]:
    """Height and width of each image: the target sizes, or else those of the model's input."""
    sizes = input_sizes if target_sizes is None else target_sizes
    if len(sizes) != len(input_sizes):
        raise ValueError(
            f"`target_sizes` must hold one (height, width) an image, got {len(sizes)} for {len(input_sizes)}"
        )
    pairs = [(int(height), int(width)) for height, width in sizes]
    for pair in pairs:
        if min(pair) < 1:
            raise ValueError(f"`target_sizes` are (height, width) of at least 1 pixel, got {pair}")
    return pairs


def _spacings(spacing: Spacing | None, count: int) -> list[Tensor | None]:
    """Millimetres per pixel along x and y for each image, None where unknown."""
    if spacing is None or isinstance(spacing, (float, int, tuple)):
        each: list[Any] = [spacing] * count
    else:
        each = spacing.tolist() if isinstance(spacing, Tensor) else list(spacing)
        if len(each) != count:
            raise ValueError(
                f"`spacing` is a number, a tuple (row, column), or a list with one of these an image: got {len(each)} for {count}"
            )
    spacings: list[Tensor | None] = []
    for value in each:
        if value is None:
            spacings.append(None)
            continue
        pair = torch.as_tensor(value, dtype=torch.float64)
        pair = pair.flip(0) if pair.ndim else pair.expand(2)  # (row, column) to (x, y)
        if pair.shape != (2,) or not bool(torch.isfinite(pair).all()) or not bool((pair > 0).all()):
            raise ValueError(f"`spacing` is in mm per pixel, above 0: a number or (row, column), got {value}")
        spacings.append(pair)
    return spacings


__all__ = ["PointPostProcessingMixin", "find_objects"]
