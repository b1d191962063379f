"""Ellipses placed by the whole of an object rather than by its centre.

The votes around a centre say where an object is; how large it is to a millimetre they tell from afar. So the detection head also says of
every place how likely it lies inside an object, and the ellipse with the area moments of these places replaces the vote.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .dense_losses_echocare import DICE_SMOOTHING
from .ellipses_echocare import covariance_ellipse, ellipse_bounds, ellipse_covariance, ellipse_overlap
from .label_losses_echocare import at_least_float32

# Places farther from an ellipse than this, in its half axes, belong to something else.
REACH = 1.4
# What is within reach, and what lies beyond the image, depend on the ellipse, so it is found again, this many times at most,
ROUNDS = 12
# until its centre and axes move by less than this, in pixels of the input.
SETTLED = 0.1
# An ellipse that overlaps with its vote by less (intersection over union) is not believed.
AGREEMENT = 0.5
# Looked at are pixels as far as this from the vote's centre, in half widths and heights of it,
AROUND = 2.0
# but none farther beyond the image than this part of its side.
MARGIN = 0.5
# Objects of an image that are placed anew, best first.
MAXIMUM_REFINED = 20


def ellipse_distance(boxes: Tensor, points: Tensor) -> Tensor:
    """How far points lie from the centres of ellipses, in half axes: 1 on the outline.

    Args:
        boxes: (objects, 5), centre x, centre y, long axis, short axis, angle in degrees.
        points: (..., 2), x and y.

    Returns:
        (objects, ...), at least 0.
    """
    return _distance_and_slope(boxes, points)[0]


def inside_shares(boxes: Tensor, points: Tensor, side: float) -> Tensor:
    """How much of a square around each point lies inside ellipses, as if the outline were straight there and met the square head-on.

    Args:
        boxes: (objects, 5), ellipses.
        points: (..., 2), x and y of the middles of squares.
        side: of the squares.

    Returns:
        (objects, ...), 0 to 1.
    """
    distance, slope = _distance_and_slope(boxes, points)
    return (0.5 + (1 - distance) / (slope * side)).clamp(0, 1)


def _distance_and_slope(boxes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """`ellipse_distance`, and how fast it grows with the place, a pixel."""
    inverse = torch.linalg.inv(ellipse_covariance(boxes).double()).to(torch.promote_types(boxes.dtype, torch.float32))
    shape = (-1, *(1,) * (points.ndim - 1))
    dx, dy = (points[..., axis] - boxes[:, axis].view(shape) for axis in (0, 1))
    x = inverse[:, 0, 0].view(shape) * dx + inverse[:, 0, 1].view(shape) * dy
    y = inverse[:, 1, 0].view(shape) * dx + inverse[:, 1, 1].view(shape) * dy
    distance = (dx * x + dy * y).clamp(min=0).sqrt()
    slope = torch.hypot(x, y) / distance.clamp(min=1e-6)
    return distance, slope.clamp(min=1e-6)


def flat_labels(labels: Sequence[dict[str, Tensor]], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """All objects of a batch: the image (objects,) and class (objects,) of each, and the ellipses (objects, 5) in fp32."""
    counts = torch.tensor([len(entry["boxes"]) for entry in labels])
    images = torch.repeat_interleave(torch.arange(len(labels)), counts)
    classes = torch.cat([entry["class_labels"] for entry in labels])
    boxes = torch.cat([entry["boxes"] for entry in labels])
    return images.to(device), classes.to(device).long(), boxes.to(device, torch.float32)


def inside_loss(mask_logits: Tensor, labels: Sequence[dict[str, Tensor]], places: Tensor, stride: int) -> Tensor:
    """Cross-entropy and Dice loss of what lies inside objects.

    Args:
        mask_logits: (batch, classes, rows, columns), before the sigmoid.
        labels: for each image `class_labels` (objects,) and `boxes` (objects, 5) in pixels of the input.
        places: (rows, columns, 2), x and y of the middle of each place, in pixels.
        stride: pixels a place.

    Returns:
        A scalar, at least 0, a mean over the images: the mean cross-entropy of all places, plus the mean of 1 - Dice over the classes that
        occur in the image, 0 where none does.
        Targets are the shares of each place that lie inside an object; of objects of one class that overlap, the larger share.
    """
    images, classes, boxes = flat_labels(labels, mask_logits.device)
    logits = at_least_float32(mask_logits).flatten(2).flatten(0, 1)  # (batch * classes, places)
    shares = inside_shares(boxes, places, stride).flatten(1)
    index = (images * mask_logits.shape[1] + classes)[:, None].expand_as(shares)
    targets = torch.zeros_like(logits).scatter_reduce(0, index, shares, "amax")
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets)
    probability, areas = logits.sigmoid(), targets.sum(1)
    dice = 1 - (2 * (probability * targets).sum(1) + DICE_SMOOTHING) / (probability.sum(1) + areas + DICE_SMOOTHING)
    present = (areas > 0).view(mask_logits.shape[:2])
    per_image = (dice.view_as(present) * present).sum(1) / present.sum(1).clamp(min=1)
    return cross_entropy + per_image.mean()


def refine_ellipses(boxes: Tensor, labels: Tensor, mask_logits: Tensor, input_size: tuple[int, int]) -> Tensor:
    """Each ellipse replaced by that of the area moments of what lies inside its object.

    Every pixel belongs to the object of its class that it is nearest to. Pixels beyond the edge of the image count as the ellipse
    found so far has them, so that an object which is cut off keeps its whole size.

    Args:
        boxes (`torch.Tensor` of shape `(objects, 5)`): ellipses in pixels of the input.
        labels (`torch.Tensor` of shape `(objects,)`): the class of each.
        mask_logits (`torch.Tensor` of shape `(num_labels, rows, columns)`): how likely each place lies inside an object of each class.
        input_size (`tuple[int, int]`): height and width of the input, in pixels.

    Returns:
        `torch.Tensor` of shape `(objects, 5)`; an ellipse that the places do not bear out stays as it is.
    """
    height, width = input_size
    stride = -(-height // mask_logits.shape[1])
    logits = F.interpolate(mask_logits[None].float(), scale_factor=float(stride), mode="bilinear", align_corners=False)
    inside = (logits[0, :, :height, :width] > 0).to(boxes)  # (num_labels, height, width)
    chosen, classes = boxes[:MAXIMUM_REFINED], labels[:MAXIMUM_REFINED]
    refined = boxes.clone()
    for index, label in enumerate(classes.tolist()):
        rivals = chosen[(classes == label) & (torch.arange(len(chosen), device=boxes.device) != index)]
        points, found, seen = _surroundings(boxes[index], inside[label])
        distance = ellipse_distance(boxes[None, index], points)[0]
        if len(rivals):
            found = found * (distance <= ellipse_distance(rivals, points).amin(0))
        ellipse = boxes[index]
        for _ in range(ROUNDS):
            weights = torch.where(seen, found * (distance <= REACH), (distance <= 1).to(boxes))
            last, ellipse = ellipse, _moments_ellipse(weights, points)
            if float((ellipse[:4] - last[:4]).abs().max()) < SETTLED:
                break
            distance = ellipse_distance(ellipse[None], points)[0]
        if float(ellipse_overlap(boxes[None, index], ellipse[None])) >= AGREEMENT:
            refined[index] = ellipse
    return refined


def _surroundings(box: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels around an ellipse, within and beyond the image: where they lie, whether they are inside an object, and in the image.

    Args:
        box: (5,), the ellipse.
        inside: (height, width), 0 or 1 for each pixel of the input.

    Returns:
        Points (y, x, 2), 0 or 1 (y, x), and bool (y, x).
    """
    height, width = inside.shape
    bounds = ellipse_bounds(box)
    middle, half = (bounds[:2] + bounds[2:]) / 2, (bounds[2:] - bounds[:2]) / 2 * AROUND
    sides = torch.tensor([width, height])
    low = torch.maximum((middle - half).floor().long().cpu(), (-MARGIN * sides).long()).tolist()
    high = torch.minimum((middle + half).ceil().long().cpu(), ((1 + MARGIN) * sides).long()).tolist()
    x, y = (torch.arange(low[axis], max(high[axis], low[axis] + 1), device=box.device) for axis in (0, 1))
    points = torch.stack(((x + 0.5).expand(len(y), len(x)), (y + 0.5)[:, None].expand(len(y), len(x))), -1).to(box)
    seen = ((x >= 0) & (x < width)) & ((y >= 0) & (y < height))[:, None]
    found = inside[y.clamp(0, height - 1)[:, None], x.clamp(0, width - 1)]
    return points, found, seen


def _moments_ellipse(weights: Tensor, points: Tensor) -> Tensor:
    """The ellipse (5,) with the area moments of weighted pixels (rows, columns); `points` are their places (rows, columns, 2)."""
    shares = weights / weights.sum().clamp(min=1)
    centre = (shares[..., None] * points).sum((0, 1))
    dx, dy = (points - centre).unbind(-1)
    xx, xy, yy = ((shares * product).sum() for product in (dx * dx, dx * dy, dy * dy))
    # A filled ellipse has a quarter of S as its covariance; each pixel is a square with a variance of 1/12 of its own.
    covariance = torch.stack((xx + 1 / 12, xy, xy, yy + 1 / 12)).view(2, 2)
    return covariance_ellipse(centre, 4 * covariance)


__all__ = ["ellipse_distance", "flat_labels", "inside_loss", "inside_shares", "refine_ellipses"]
