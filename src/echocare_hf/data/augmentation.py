"""Augmentation on the fly, apt for ultrasound: one affine map for everything that has a place, then changes of brightness.

    augment = Augmentation()
    augmented = augment(image, sample_generator(seed, epoch, index), mask=mask, boxes=boxes, keypoints=keypoints)

Images are floating point in [0, 1], (channels, height, width), or (frames, channels, height, width) for a clip, whose frames all change
in the same way. Coordinates are those of `ResizeGeometry`: continuous pixels, 0 at the outer edge of the first pixel. What black
surrounds the picture stays black: gain is multiplied, not added.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from echocare_hf.model.ellipses_echocare import transform_ellipses

BLACK = 1 / 512
"""Half a grey level of 256: what is darker is black and stays black."""

GAIN_SLIDERS = 5
"""Depths at which the gain over depth is drawn; it is linear in between, like the sliders of a scanner."""


@dataclass(frozen=True)
class AugmentationSettings:
    """How much is changed. 0 switches a change off.

    Attributes:
        flip: probability of mirroring left and right, 0 to 1; 0 where the side matters.
        affine: probability of rotation, scaling and shifting together, 0 to 1.
        rotation: most degrees either way.
        scale: most relative change of size either way, 0 to below 1.
        translation: most shift either way, as a share of the image's side.
        gain: most relative change of brightness either way, 0 to 1.
        contrast: most relative change of contrast about the mean either way, 0 to 1.
        gamma: the exponent lies between 1 / (1 + gamma) and 1 + gamma.
        depth_gain: probability of a gain that changes over depth, 0 to 1.
        depth_gain_range: most relative change of brightness at any depth either way, 0 to 1.
        speckle: probability of multiplicative noise with the grain of speckle, 0 to 1.
        speckle_deviation: its largest standard deviation, as a share of the brightness.
        blur: probability of a Gaussian blur, 0 to 1.
        blur_sigma: its largest standard deviation in pixels.
        erase: probability of blacking out one rectangle, 0 to 1.
        erase_area: its largest share of the image, 0 to 1.
    """

    flip: float = 0.5
    affine: float = 0.8
    rotation: float = 10.0
    scale: float = 0.15
    translation: float = 0.06
    gain: float = 0.2
    contrast: float = 0.2
    gamma: float = 0.25
    depth_gain: float = 0.3
    depth_gain_range: float = 0.25
    speckle: float = 0.25
    speckle_deviation: float = 0.2
    blur: float = 0.15
    blur_sigma: float = 1.0
    erase: float = 0.0
    erase_area: float = 0.1

    def __post_init__(self) -> None:
        unbounded = {"rotation": 180.0, "gamma": 10.0, "speckle_deviation": 10.0, "blur_sigma": 20.0, "scale": 0.99}
        for setting in fields(self):
            value, most = getattr(self, setting.name), unbounded.get(setting.name, 1.0)
            if not 0 <= value <= most:
                raise ValueError(f"augmentation: {setting.name} lies between 0 and {most:g}, not {value}")


@dataclass(frozen=True, eq=False)
class Augmented:
    """A changed example.

    Attributes:
        image: as given, same shape and type, 0 to 1.
        matrix: (2, 3) float64: a point (x, y) of the image as given lies at matrix @ (x, y, 1) in this one.
        mask: (height, width) as given, moved along; the fill value where nothing of the original is.
        boxes: (objects, 5) as given, moved along, also those that left the image (see `points_inside`).
        keypoints: (landmarks, 2) as given, moved along, also those that left the image; NaN stays NaN.
    """

    image: Tensor
    matrix: Tensor
    mask: Tensor | None = None
    boxes: Tensor | None = None
    keypoints: Tensor | None = None


class Augmentation:
    """Changes examples at random.

    Args:
        settings: how much; the defaults suit B-mode images of 128 to 256 pixels.
        mask_fill: value of a mask where nothing of the original is: 0, background, or 255 to leave it out of the loss.
    """

    def __init__(self, settings: AugmentationSettings | None = None, mask_fill: int = 0) -> None:
        self.settings = settings or AugmentationSettings()
        self.mask_fill = mask_fill

    def __call__(
        self,
        image: Tensor,
        generator: torch.Generator,
        *,
        mask: Tensor | None = None,
        boxes: Tensor | None = None,
        keypoints: Tensor | None = None,
    ) -> Augmented:
        """Change one example; the same state of the generator gives the same change.

        Args:
            image: (channels, height, width) or (frames, channels, height, width), floating point, 0 to 1.
            generator: of the random numbers, on the CPU.
            mask: (height, width), whole numbers up to 2^24.
            boxes: (objects, 5): centre x and y, long axis, short axis in pixels, angle in degrees.
            keypoints: (landmarks, 2): x and y in pixels.

        Raises:
            ValueError: for an image of another kind, or a mask of another size.
        """
        check_image(image)
        height, width = image.shape[-2:]
        if mask is not None and mask.shape != (height, width):
            raise ValueError(
                f"the mask has the shape {tuple(mask.shape)}, its image {height} x {width} pixels; resize both alike"
            )
        matrix = draw_affine(self.settings, height, width, generator)
        if not torch.equal(matrix, torch.eye(2, 3, dtype=matrix.dtype)):
            image = warp(image, matrix)
            if mask is not None:
                mask = warp_mask(mask, matrix, self.mask_fill)
            if boxes is not None and len(boxes):
                boxes = transform_ellipses(boxes, matrix[:, :2], matrix[:, 2]).to(boxes.dtype)
            if keypoints is not None:
                keypoints = transform_points(keypoints, matrix)
        return Augmented(change_brightness(image, self.settings, generator), matrix, mask, boxes, keypoints)


def sample_generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """A generator for one example in one epoch: the same whichever worker process draws, and however many there are."""
    state = int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state)


def check_image(image: Tensor) -> None:
    """Raise a ValueError unless an image, or a clip, is floating point with 3 or 4 dimensions."""
    if image.ndim not in (3, 4) or not image.is_floating_point():
        raise ValueError(
            "an image is floating point, (channels, height, width) or (frames, channels, height, width), not "
            f"{image.dtype} of shape {tuple(image.shape)}"
        )


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One random number between `low` and `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def draw_affine(settings: AugmentationSettings, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A random affine map about the centre of the image: mirror, then scale and turn, then shift.

    Returns:
        (2, 3) float64, from points (x, y) of the image as it is to points of the changed one; the identity if nothing shall change.
    """
    flip, affine = (float(torch.rand((), generator=generator)) for _ in range(2))
    angle = scale = shift_x = shift_y = 0.0
    if affine < settings.affine:
        angle = math.radians(uniform(-settings.rotation, settings.rotation, generator))
        scale = uniform(math.log1p(-settings.scale), -math.log1p(-settings.scale), generator)
        shift_x, shift_y = (uniform(-settings.translation, settings.translation, generator) for _ in range(2))
    mirror = -1.0 if flip < settings.flip else 1.0
    cosine, sine = math.exp(scale) * math.cos(angle), math.exp(scale) * math.sin(angle)
    linear = torch.tensor([[cosine * mirror, -sine], [sine * mirror, cosine]], dtype=torch.float64)
    centre = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    shift = torch.tensor([shift_x * width, shift_y * height], dtype=torch.float64)
    return torch.cat((linear, (centre + shift - linear @ centre)[:, None]), 1)


def warp(image: Tensor, matrix: Tensor) -> Tensor:
    """Move an image, bilinearly, black where nothing of the original is.

    Args:
        image: (channels, height, width) or (frames, channels, height, width), floating point.
        matrix: (2, 3), from points of the image to points of the result.

    Returns:
        The same shape and type.
    """
    planes = image.reshape(1, -1, *image.shape[-2:])  # (1, frames * channels, height, width)
    grid = _sampling_grid(matrix, image.shape[-2], image.shape[-1]).to(image.dtype)
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False).reshape(image.shape)


def warp_mask(mask: Tensor, matrix: Tensor, fill: int = 0) -> Tensor:
    """Move a mask by nearest neighbour.

    Args:
        mask: (height, width), whole numbers up to 2^24 or booleans.
        matrix: (2, 3), from points of the mask to points of the result.
        fill: value where nothing of the original is.

    Returns:
        The same shape and type.
    """
    grid = _sampling_grid(matrix, *mask.shape).float()
    planes = (mask.float() - fill)[None, None]
    moved = F.grid_sample(planes, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return (moved[0, 0] + fill).to(mask.dtype)


def _sampling_grid(matrix: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel of the result comes from, (1, height, width, 2), in the coordinates of `grid_sample`, -1 to 1 edge to edge."""
    (a, b, shift_x), (c, d, shift_y) = matrix.tolist()
    inverse = torch.tensor([[d, -b], [-c, a]], dtype=torch.float64) / (a * d - b * c)
    offset = -inverse @ torch.tensor([shift_x, shift_y], dtype=torch.float64)
    size = torch.tensor([width, height], dtype=torch.float64)
    x, y = ((torch.arange(side, dtype=torch.float64) + 0.5) for side in (width, height))
    across = x[:, None] * inverse[:, 0] * 2 / size  # (width, 2)
    down = (y[:, None] * inverse[:, 1] + offset) * 2 / size - 1  # (height, 2)
    return (across.float()[None] + down.float()[:, None])[None]


def transform_points(points: Tensor, matrix: Tensor) -> Tensor:
    """Move points (..., 2) by a matrix (2, 3); the same type, NaN stays NaN."""
    moved = points.double() @ matrix[:, :2].double().T + matrix[:, 2].double()
    return moved.to(points.dtype)


def points_inside(points: Tensor, height: int, width: int) -> Tensor:
    """Which points (..., 2) lie in the image, (...) bool; NaN does not."""
    x, y = points[..., 0], points[..., 1]
    return (x >= 0) & (x <= width) & (y >= 0) & (y <= height)


def change_brightness(image: Tensor, settings: AugmentationSettings, generator: torch.Generator) -> Tensor:
    """Change everything that has no place: gain, contrast, gamma, gain over depth, speckle, blur, and one blacked-out rectangle.

    Args:
        image: (..., height, width), 0 to 1; all channels and frames change alike.

    Returns:
        The same shape and type, 0 to 1.
    """
    height, width = image.shape[-2:]
    depth_gain, speckle, blur, erase = torch.rand(4, generator=generator).tolist()
    gain = 1 + uniform(-settings.gain, settings.gain, generator)
    contrast = 1 + uniform(-settings.contrast, settings.contrast, generator)
    exponent = math.exp(uniform(-1, 1, generator) * math.log1p(settings.gamma))
    field: Tensor | float = gain * contrast  # what the brightness is multiplied with
    if depth_gain < settings.depth_gain:
        sliders = 1 + settings.depth_gain_range * (2 * torch.rand(1, 1, GAIN_SLIDERS, generator=generator) - 1)
        ramp = F.interpolate(sliders, height, mode="linear", align_corners=True)  # (1, 1, height)
        field = field * ramp[0, 0, :, None].to(image.dtype)
    if speckle < settings.speckle:
        field = field * (
            1 + uniform(0, settings.speckle_deviation, generator) * grain(height, width, generator).to(image.dtype)
        )
    lit = image > BLACK
    image = image * field
    image.add_(lit * (image.mean() * (1 - contrast) / contrast)).clamp_(0, 1)
    if exponent != 1:
        image.pow_(exponent)
    if blur < settings.blur:
        image = gaussian_blur(image, uniform(0.2, 1, generator) * settings.blur_sigma)
    if erase < settings.erase:
        image = _erase(image, settings.erase_area, generator)
    return image


def grain(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Random numbers of mean 0 and standard deviation 1 with the grain of speckle, about two pixels: (height, width)."""
    coarse = torch.randn(1, 1, height // 2 + 1, width // 2 + 1, generator=generator)
    fine = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[0, 0, :height, :width]
    return fine / 0.625  # halfway interpolation with weights 3/4 and 1/4 leaves 0.625 of the deviation


def gaussian_blur(image: Tensor, sigma: float | tuple[float, float]) -> Tensor:
    """Blur (..., height, width) with a Gaussian of `sigma` pixels (or down and across), the edge repeated outwards."""
    sigmas = (sigma, sigma) if isinstance(sigma, int | float) else sigma
    planes = image.reshape(1, -1, *image.shape[-2:])
    for axis, deviation in zip((-2, -1), sigmas, strict=True):
        if deviation <= 0:
            continue
        radius = max(1, math.ceil(3 * deviation))
        weights = [math.exp(-0.5 * (place / deviation) ** 2) for place in range(radius + 1)]
        total = 2 * sum(weights) - weights[0]
        padding = (0, 0, radius, radius) if axis == -2 else (radius, radius, 0, 0)
        padded = F.pad(planes, padding, mode="replicate")
        size = planes.shape[axis]
        # Sums of shifted images take a third of the time that a convolution of single channels takes on a CPU.
        planes = padded.narrow(axis, radius, size) * (weights[0] / total)
        for place in range(1, radius + 1):
            both = padded.narrow(axis, radius - place, size) + padded.narrow(axis, radius + place, size)
            planes.add_(both, alpha=weights[place] / total)
    return planes.reshape(image.shape)


def _erase(image: Tensor, area: float, generator: torch.Generator) -> Tensor:
    """Black out one rectangle of at most this share of the image, its sides at most three to one."""
    height, width = image.shape[-2:]
    share = uniform(0.1, 1, generator) * area
    aspect = math.exp(uniform(-1, 1, generator) * math.log(3))
    rows = min(height, max(1, round(height * math.sqrt(share * aspect))))
    columns = min(width, max(1, round(width * math.sqrt(share / aspect))))
    top = int(uniform(0, height - rows + 1, generator))
    left = int(uniform(0, width - columns + 1, generator))
    erased = image.clone()
    erased[..., top : top + rows, left : left + columns] = 0
    return erased


__all__ = [
    "Augmentation",
    "AugmentationSettings",
    "Augmented",
    "change_brightness",
    "draw_affine",
    "gaussian_blur",
    "grain",
    "points_inside",
    "sample_generator",
    "transform_points",
    "warp",
    "warp_mask",
]
