"""Random block masks for masked image modelling, as SimMIM draws them (Xie et al., CVPR 2022, `MaskGenerator`).

An image is cut into square units; of every image's units exactly ceil(ratio * count) are masked, chosen by a random
permutation. The mask is kept on the grid of units and enlarged to patches or pixels where it is needed.
"""

import math
from dataclasses import dataclass

import torch


def mask_grid(image_size: int | tuple[int, int], mask_unit_size: int) -> tuple[int, int]:
    """Units down and across an image; a unit that hangs over the edge counts as one.

    Args:
        image_size (`int` or `tuple[int, int]`): height and width in pixels, one number for a square.
        mask_unit_size (`int`): side of a unit in pixels.

    Raises:
        ValueError: when a size is below 1.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width, mask_unit_size) < 1:
        raise ValueError(
            f"image and mask unit need at least 1 pixel a side, got {height}x{width} and {mask_unit_size}"
        )
    return math.ceil(height / mask_unit_size), math.ceil(width / mask_unit_size)


def masked_unit_count(unit_count: int, mask_ratio: float) -> int:
    """ceil(mask_ratio * unit_count), safe from the rounding of the product.

    `0.07 * 100` is 7.000000000000001 in floating point, whose ceiling would be 8.

    Args:
        unit_count (`int`): units of an image.
        mask_ratio (`float`): share to mask, 0 to 1.

    Raises:
        ValueError: when the ratio is not between 0 and 1.
    """
    if not 0 <= mask_ratio <= 1:
        raise ValueError(f"`mask_ratio` must lie between 0 and 1, got {mask_ratio}")
    return min(unit_count, math.ceil(mask_ratio * unit_count - 1e-9))


def random_block_mask(
    image_size: int | tuple[int, int],
    mask_unit_size: int = 16,
    mask_ratio: float = 0.5,
    batch_size: int = 1,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draws the masks of a batch, every one on its own.

    Args:
        image_size (`int` or `tuple[int, int]`): height and width in pixels, one number for a square.
        mask_unit_size (`int`, *optional*, defaults to 16): side of a masked unit in pixels.
        mask_ratio (`float`, *optional*, defaults to 0.5): share of the units to mask, 0 to 1.
        batch_size (`int`, *optional*, defaults to 1): masks to draw.
        generator (`torch.Generator`, *optional*): source of randomness; torch's global one when not given. The mask
            lies on its device.

    Returns:
        `torch.Tensor` of shape `(batch_size, units_down, units_across)`, bool, True where masked.

    Raises:
        ValueError: for a size below 1 or a ratio outside 0 to 1.
    """
    down, across = mask_grid(image_size, mask_unit_size)
    masked = masked_unit_count(down * across, mask_ratio)
    device = generator.device if generator is not None else None
    # In double precision two scores are never equal in practice, so sorting them is a fair permutation.
    scores = torch.rand(batch_size, down * across, generator=generator, device=device, dtype=torch.float64)
    mask = torch.zeros(batch_size, down * across, dtype=torch.bool, device=device)
    mask.scatter_(1, scores.argsort(dim=1)[:, :masked], True)
    return mask.view(batch_size, down, across)


def expand_mask(mask: torch.Tensor, factor: int, size: tuple[int, int] | None = None) -> torch.Tensor:
    """Enlarges a mask from the grid of units to that of patches or pixels.

    Args:
        mask (`torch.Tensor` of shape `(..., units_down, units_across)`): the mask.
        factor (`int`): patches, or pixels, a unit is wide: `mask_unit_size // patch_size`, or `mask_unit_size`.
        size (`tuple[int, int]`, *optional*): height and width to cut the result to, where units hang over the image.

    Returns:
        `torch.Tensor` of shape `(..., units_down * factor, units_across * factor)`, or `(..., *size)`, same type.

    Raises:
        ValueError: when `factor` is below 1, or the units do not reach `size`.
    """
    if factor < 1:
        raise ValueError(f"`factor` must be at least 1, got {factor}")
    expanded = mask.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
    if size is None:
        return expanded
    height, width = size
    if height > expanded.shape[-2] or width > expanded.shape[-1]:
        raise ValueError(f"a mask of {tuple(expanded.shape[-2:])} does not cover {size}")
    return expanded[..., :height, :width]


@dataclass
class RandomBlockMask:
    """Masks for single images, for use inside a data set's transform.

    Args:
        image_size (`int` or `tuple[int, int]`): height and width in pixels, one number for a square.
        mask_unit_size (`int`): side of a masked unit in pixels.
        mask_ratio (`float`): share of the units to mask, 0 to 1.
        generator (`torch.Generator`, *optional*): source of randomness; torch's global one when not given.

    Example:

    ```python
    >>> mask = RandomBlockMask(256, mask_unit_size=16, mask_ratio=0.5)
    >>> mask().shape
    torch.Size([16, 16])
    ```"""

    image_size: int | tuple[int, int] = 256
    mask_unit_size: int = 16
    mask_ratio: float = 0.5
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        mask_grid(self.image_size, self.mask_unit_size)
        masked_unit_count(1, self.mask_ratio)

    def __call__(self) -> torch.Tensor:
        """One mask, `(units_down, units_across)`, bool, True where masked."""
        return random_block_mask(self.image_size, self.mask_unit_size, self.mask_ratio, 1, self.generator)[0]


__all__ = ["RandomBlockMask", "expand_mask", "mask_grid", "masked_unit_count", "random_block_mask"]
