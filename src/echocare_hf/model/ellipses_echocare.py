"""Oriented ellipses: their covariance form, how they move and stretch with an image, how large they are, how far two lie apart.

An ellipse is a box of five numbers: centre x, centre y, long axis, short axis (full lengths), and the angle of the long axis in
degrees. Coordinates are those of `ResizeGeometry`: continuous pixels, x to the right, y down, 0 at the outer edge of the first
pixel. The angle runs from +x towards +y, so it turns clockwise on the screen, and lies in [0, 180).

The same five numbers stand for the rectangle around the ellipse. Its covariance form is the matrix
S = R diag((long / 2)^2, (short / 2)^2) R^T, whose outline is (p - c)^T S^-1 (p - c) = 1: it maps exactly under any affine map, and it
has no seam where the angle jumps from 180 to 0 or the axes change places.
"""

import math

import torch
from torch import Tensor

# How a cardiothoracic ratio may be taken, see `cardiothoracic_ratio`.
CARDIOTHORACIC_METHODS = ("diameter", "circumference", "area")

# Steps of the arithmetic-geometric mean: each doubles the correct digits, and eight reach fp64 for axes of 10,000 to 1.
AGM_STEPS = 8

# Vertical chords per pair in `ellipse_overlap`; its error is below 1e-4.
OVERLAP_CHORDS = 256


def _boxes(boxes: Tensor) -> Tensor:
    """The boxes as floating point, in fp32 at least, once they are known to be boxes."""
    if boxes.shape[-1:] != (5,):
        raise ValueError(
            f"an ellipse is (centre x, centre y, long axis, short axis, angle in degrees), got a tensor of shape {tuple(boxes.shape)}"
        )
    return boxes.to(torch.promote_types(boxes.dtype, torch.float32))


def ellipse_covariance(boxes: Tensor) -> Tensor:
    """The matrix S of each ellipse.

    Args:
        boxes (`torch.Tensor` of shape `(..., 5)`): centre x, centre y, long axis, short axis, angle in degrees.

    Returns:
        `torch.Tensor` of shape `(..., 2, 2)`, in squared units of the axes.
    """
    boxes = _boxes(boxes)
    first, second = (boxes[..., 2] / 2).square(), (boxes[..., 3] / 2).square()
    angle = torch.deg2rad(boxes[..., 4])
    cosine, sine = angle.cos(), angle.sin()
    xx = first * cosine.square() + second * sine.square()
    yy = first * sine.square() + second * cosine.square()
    xy = (first - second) * cosine * sine
    return torch.stack((torch.stack((xx, xy), -1), torch.stack((xy, yy), -1)), -2)


def covariance_ellipse(centres: Tensor, covariances: Tensor) -> Tensor:
    """The ellipses of given centres and matrices S: the inverse of `ellipse_covariance`.

    Args:
        centres (`torch.Tensor` of shape `(..., 2)`): x and y.
        covariances (`torch.Tensor` of shape `(..., 2, 2)`): symmetric and positive.

    Returns:
        `torch.Tensor` of shape `(..., 5)`: the long axis first, the angle in [0, 180), 0 for a circle.
    """
    xx, xy, yy = covariances[..., 0, 0], covariances[..., 0, 1], covariances[..., 1, 1]
    mean, half_difference = (xx + yy) / 2, (xx - yy) / 2
    spread = torch.hypot(half_difference, xy)
    # The smaller eigenvalue from the determinant: mean - spread would lose its digits for a flat ellipse.
    larger = mean + spread
    smaller = (xx * yy - xy.square()).clamp(min=0) / larger.clamp(min=torch.finfo(larger.dtype).tiny)
    axes = 2 * torch.stack((larger, torch.minimum(smaller, larger)), -1).sqrt()
    angle = _half_turn(torch.rad2deg(torch.atan2(xy, half_difference)) / 2)
    return torch.cat((centres, axes, angle[..., None]), -1)


def _half_turn(angle: Tensor) -> Tensor:
    """An angle in degrees brought to [0, 180)."""
    angle = torch.remainder(angle, 180)
    return torch.where(angle >= 180, 0.0, angle)  # the remainder of a tiny negative angle rounds to 180


def transform_ellipses(boxes: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """The ellipses that an affine map p -> matrix p + offset makes of ellipses; exact, whatever it does to the axes.

    Args:
        boxes (`torch.Tensor` of shape `(..., 5)`): ellipses.
        matrix (`torch.Tensor` of shape `(2, 2)` or `(..., 2, 2)`): the linear part, acting on (x, y).
        offset (`torch.Tensor` of shape `(2,)` or `(..., 2)`): the shift, (x, y).

    Returns:
        `torch.Tensor` of shape `(..., 5)`.
    """
    boxes = _boxes(boxes)
    matrix, offset = matrix.to(boxes), offset.to(boxes)
    centres = (matrix * boxes[..., None, :2]).sum(-1) + offset
    covariances = _product(_product(matrix, ellipse_covariance(boxes)), matrix.transpose(-1, -2))
    return covariance_ellipse(centres, covariances)


def _product(first: Tensor, second: Tensor) -> Tensor:
    """`first @ second` of small matrices, which autocast does not round to half precision."""
    return (first[..., :, :, None] * second[..., None, :, :]).sum(-2)


def scale_ellipses(boxes: Tensor, scale: Tensor) -> Tensor:
    """The ellipses after x is multiplied by `scale[..., 0]` and y by `scale[..., 1]`, such as millimetres per pixel."""
    return transform_ellipses(boxes, torch.diag_embed(scale), torch.zeros_like(scale))


def ellipse_bounds(boxes: Tensor) -> Tensor:
    """The tightest axis-aligned rectangles around ellipses.

    Args:
        boxes (`torch.Tensor` of shape `(..., 5)`): ellipses.

    Returns:
        `torch.Tensor` of shape `(..., 4)`: x0, y0, x1, y1.
    """
    boxes = _boxes(boxes)
    half = ellipse_covariance(boxes).diagonal(dim1=-2, dim2=-1).sqrt()
    return torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), -1)


def boxes_from_corners(corners: Tensor) -> Tensor:
    """Axis-aligned rectangles x0, y0, x1, y1 as boxes of angle 0 or 90: the inverse of `ellipse_bounds` for these.

    Args:
        corners (`torch.Tensor` of shape `(..., 4)`): x0 < x1 and y0 < y1.

    Returns:
        `torch.Tensor` of shape `(..., 5)`.
    """
    size = corners[..., 2:] - corners[..., :2]
    angle = torch.where(size[..., 1] > size[..., 0], 90.0, 0.0).to(corners)
    return torch.cat(
        ((corners[..., :2] + corners[..., 2:]) / 2, size.sort(-1, descending=True).values, angle[..., None]), -1
    )


def ellipse_area(boxes: Tensor) -> Tensor:
    """Area of each ellipse, (..., 5) to (...)."""
    boxes = _boxes(boxes)
    return math.pi / 4 * boxes[..., 2] * boxes[..., 3]


def ellipse_circumference(boxes: Tensor) -> Tensor:
    """Length of the outline of each ellipse, exact to rounding (the complete elliptic integral of the second kind).

    Args:
        boxes (`torch.Tensor` of shape `(..., 5)`): ellipses.

    Returns:
        `torch.Tensor` of shape `(...)`, in the unit of the axes.

    Source: Adlaj, An eloquent formula for the perimeter of an ellipse; Abramowitz and Stegun 17.6. With a, b the half axes, a_n and b_n
    their arithmetic-geometric mean and c_n^2 = a_n^2 - b_n^2, the length is 2 pi (a^2 - sum of 2^(n-1) c_n^2) / mean.
    """
    half = _boxes(boxes)[..., 2:4] / 2
    arithmetic, geometric = half.amax(-1), half.amin(-1)
    square = arithmetic.square()
    total = (square - geometric.square()) / 2
    for step in range(AGM_STEPS):
        difference = (arithmetic - geometric) / 2
        arithmetic, geometric = (arithmetic + geometric) / 2, (arithmetic * geometric).sqrt()
        total = total + 2**step * difference.square()
    return 2 * math.pi * (square - total) / arithmetic


def cardiothoracic_ratio(thorax_box: Tensor, heart_box: Tensor, method: str = "diameter") -> Tensor:
    """How much of the thorax the heart takes up in a four-chamber view.

    Args:
        thorax_box (`torch.Tensor` of shape `(..., 5)`): the thorax, in millimetres, or in pixels that are square.
        heart_box (`torch.Tensor` of shape `(..., 5)`): the heart, in the same unit.
        method (`str`, *optional*, defaults to `"diameter"`):
            `"diameter"`: heart over thorax, each by its short axis, as EchoCare's paper measures FOCUS; `"circumference"`: by the
            outline, normal about 0.5; `"area"`: by the area, normal about 0.25 to 0.35. The three give different numbers.

    Returns:
        `torch.Tensor` of shape `(...)`, heart over thorax, without unit.

    Raises:
        ValueError: for another method.

    Examples:

    ```python
    >>> found = processor.post_process_oriented_detection(outputs, target_sizes=[(600, 800)], spacing=0.2)[0]
    >>> best = {int(label): box for label, box in zip(found["labels"].flip(0), found["boxes_mm"].flip(0))}  # scores fall
    >>> ratio = cardiothoracic_ratio(best[model.config.label2id["thorax"]], best[model.config.label2id["heart"]])
    ```
    """
    if method not in CARDIOTHORACIC_METHODS:
        raise ValueError(f"`method` is one of {', '.join(CARDIOTHORACIC_METHODS)}, got {method!r}")
    if method == "diameter":
        return _boxes(heart_box)[..., 2:4].amin(-1) / _boxes(thorax_box)[..., 2:4].amin(-1)
    measure = ellipse_circumference if method == "circumference" else ellipse_area
    return measure(heart_box) / measure(thorax_box)


def ellipse_overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of ellipses, with an error below 1e-4.

    The intersection is summed over vertical chords, which lie denser towards both ends of what the pair has in common.

    Args:
        boxes (`torch.Tensor` of shape `(..., n, 5)`): ellipses.
        others (`torch.Tensor` of shape `(..., m, 5)`): ellipses.

    Returns:
        `torch.Tensor` of shape `(..., n, m)`, 0 to 1.
    """
    first, second = _boxes(boxes)[..., :, None, :], _boxes(others)[..., None, :, :]
    bounds = [ellipse_bounds(side) for side in (first, second)]
    low = torch.maximum(bounds[0][..., 0], bounds[1][..., 0])
    high = torch.minimum(bounds[0][..., 2], bounds[1][..., 2])
    angle = (torch.arange(OVERLAP_CHORDS, device=low.device, dtype=low.dtype) + 0.5) * (math.pi / OVERLAP_CHORDS)
    half = ((high - low) / 2).clamp(min=0)[..., None]
    x = (low + high)[..., None] / 2 - half * angle.cos()  # (..., n, m, chords)
    ends = [_chord(side, x) for side in (first, second)]
    length = torch.minimum(ends[0][1], ends[1][1]) - torch.maximum(ends[0][0], ends[1][0])
    shared = (length.clamp(min=0) * half * angle.sin()).sum(-1) * (math.pi / OVERLAP_CHORDS)
    union = ellipse_area(first) + ellipse_area(second) - shared
    return (shared / union.clamp(min=torch.finfo(union.dtype).tiny)).clamp(max=1)


def _chord(boxes: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest y of the ellipses (..., 5) at the given x (..., chords)."""
    covariance = ellipse_covariance(boxes)[..., None, :, :]
    xx, xy, yy = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    tiny = torch.finfo(x.dtype).tiny
    place = (x - boxes[..., 0, None]) / xx.sqrt().clamp(min=tiny)  # -1 to 1 across the ellipse
    middle = boxes[..., 1, None] + place * xy / xx.sqrt().clamp(min=tiny)
    half = ((yy - xy.square() / xx.clamp(min=tiny)).clamp(min=0) * (1 - place.square()).clamp(min=0)).sqrt()
    return middle - half, middle + half


def ellipse_from_mask(mask: Tensor) -> Tensor:
    """The ellipse with the area moments of a filled mask: centre and covariance of its pixels.

    Args:
        mask (`torch.Tensor` of shape `(height, width)`): non-zero or True inside.

    Returns:
        `torch.Tensor` of shape `(5,)`, fp64.

    Raises:
        ValueError: for an empty mask or another shape.
    """
    if mask.ndim != 2 or not bool(mask.any()):
        raise ValueError(f"an ellipse needs a mask (height, width) with pixels inside, got shape {tuple(mask.shape)}")
    points = mask.nonzero().flip(-1).double() + 0.5  # (pixels, 2) as x, y
    centre = points.mean(0)
    offsets = points - centre
    # A filled ellipse has a quarter of S as its covariance; each pixel is a square with a variance of 1/12 of its own.
    covariance = offsets.T @ offsets / len(points) + torch.eye(2, dtype=torch.float64, device=mask.device) / 12
    return covariance_ellipse(centre, 4 * covariance)


def ellipse_to_log(boxes: Tensor) -> Tensor:
    """Ellipses as five numbers without seams or bounds, in which they can be averaged and regressed.

    Size and angle are the matrix logarithm of S: with a and b the half axes, the mean log half axis log(a b) / 2 and the pair
    log(a / b) (cos 2 angle, sin 2 angle). A circle, whose angle has no meaning, has the pair (0, 0).

    Args:
        boxes (`torch.Tensor` of shape `(..., 5)`): ellipses with positive axes.

    Returns:
        `torch.Tensor` of shape `(..., 5)`: centre x, centre y, mean log half axis, and the pair.

    Source: Arsigny et al., Log-Euclidean metrics for fast and simple calculus on diffusion tensors.
    """
    boxes = _boxes(boxes)
    logs = (boxes[..., 2:4] / 2).log()
    angle = 2 * torch.deg2rad(boxes[..., 4])
    elongation = logs[..., 0] - logs[..., 1]
    parts = (logs.mean(-1), elongation * angle.cos(), elongation * angle.sin())
    return torch.cat((boxes[..., :2], torch.stack(parts, -1)), -1)


def log_to_ellipse(logs: Tensor) -> Tensor:
    """The inverse of `ellipse_to_log`, (..., 5) to (..., 5); the long axis first, the angle in [0, 180)."""
    elongation = torch.hypot(logs[..., 3], logs[..., 4])
    axes = 2 * torch.stack((logs[..., 2] + elongation / 2, logs[..., 2] - elongation / 2), -1).exp()
    angle = _half_turn(torch.rad2deg(torch.atan2(logs[..., 4], logs[..., 3])) / 2)
    return torch.cat((logs[..., :2], axes, angle[..., None]), -1)


def gaussian_divergence(logs: Tensor, target_logs: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the Gaussians N(centre, S), predicted from true: centre, size and angle in one number.

    Independent of the scale of the object, smooth where the angle jumps, and blind to the angle of a circle.

    Args:
        logs (`torch.Tensor` of shape `(..., 5)`): predicted ellipses, as `ellipse_to_log` returns them.
        target_logs (`torch.Tensor` of shape `(..., 5)`): true ellipses, likewise.

    Returns:
        `torch.Tensor` of shape `(...)`, at least 0, in nats.

    Source: Yang et al., Learning high-precision bounding box for rotated object detection via Kullback-Leibler divergence.
    """
    inverse = _matrix_exponential(-2 * target_logs[..., 2], -target_logs[..., 3:])
    predicted = _matrix_exponential(2 * logs[..., 2], logs[..., 3:])
    dx, dy = (logs[..., :2] - target_logs[..., :2]).unbind(-1)
    distance = inverse[0] * dx.square() + 2 * inverse[1] * dx * dy + inverse[2] * dy.square()
    trace = inverse[0] * predicted[0] + 2 * inverse[1] * predicted[1] + inverse[2] * predicted[2]
    # log det S is four times the mean log half axis
    divergence = (distance + trace) / 2 - 1 + 2 * (target_logs[..., 2] - logs[..., 2])
    return divergence.clamp(min=0)


def _matrix_exponential(mean: Tensor, pair: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """xx, xy and yy of exp([[mean + u, v], [v, mean - u]]) with (u, v) = pair (..., 2)."""
    # The small term keeps the gradient of the root finite at a circle.
    radius = (pair.square().sum(-1) + 1e-12).sqrt()
    scale = mean.exp()
    diagonal, ratio = scale * radius.cosh(), scale * radius.sinh() / radius
    return diagonal + ratio * pair[..., 0], ratio * pair[..., 1], diagonal - ratio * pair[..., 0]


__all__ = [
    "CARDIOTHORACIC_METHODS",
    "boxes_from_corners",
    "cardiothoracic_ratio",
    "covariance_ellipse",
    "ellipse_area",
    "ellipse_bounds",
    "ellipse_circumference",
    "ellipse_covariance",
    "ellipse_from_mask",
    "ellipse_overlap",
    "ellipse_to_log",
    "gaussian_divergence",
    "log_to_ellipse",
    "scale_ellipses",
    "transform_ellipses",
]
