"""Segmentation: overlap of areas (Dice) and agreement of outlines (normalized surface Dice, NSD)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .common import check_names, mean_known


def dice_score(
    prediction: ArrayLike, reference: ArrayLike, num_classes: int, ignore_index: int = 255
) -> NDArray[np.float64]:
    """Dice of each class in one image: twice the shared area over the sum of both areas.

    Args:
        prediction (`array` of shape `(height, width)`): predicted classes, 0 to num_classes - 1.
        reference (`array` of shape `(height, width)`): true classes, or `ignore_index` for pixels that are left out.
        num_classes (`int`): number of classes, the background (0) included.
        ignore_index (`int`, *optional*, defaults to 255): label of pixels that are left out.

    Returns:
        `array` of shape `(num_classes,)`: 0 to 1; nan for a class that is in neither, 0 for one that is in only one of them.

    Raises:
        ValueError: for shapes that differ, or a class that there is not.

    Source: Dice 1945; the same numbers as MONAI's `DiceMetric(ignore_empty=False)` where the class occurs.
    """
    predicted, true = _checked(prediction, reference, num_classes, ignore_index)
    known = true != ignore_index
    pairs = np.where(known, true * num_classes + predicted, num_classes**2)
    confusion = np.bincount(pairs.ravel(), minlength=num_classes**2 + 1)[:-1].reshape(num_classes, num_classes)
    areas = confusion.sum(0) + confusion.sum(1)
    return np.where(areas > 0, 2 * np.diag(confusion) / np.maximum(areas, 1), np.nan)


def normalized_surface_dice(
    prediction: ArrayLike,
    reference: ArrayLike,
    num_classes: int,
    tolerance: float,
    spacing: Sequence[float] = (1, 1),
    ignore_index: int = 255,
) -> NDArray[np.float64]:
    """Normalized surface Dice of each class in one image: the share of both outlines that lies within a tolerance of the other.

    An outline is made of the pixels of a class with a side on another class or on the edge of the image; each counts once, and lies at
    the middle of the pixel. Pixels that are left out belong to no class in either mask, so that an object cut off by them has an
    outline there, the same in both.

    The number depends on the tolerance: state it, with its unit, wherever you state the number.

    Args:
        prediction (`array` of shape `(height, width)`): predicted classes, 0 to num_classes - 1.
        reference (`array` of shape `(height, width)`): true classes, or `ignore_index` for pixels that are left out.
        num_classes (`int`): number of classes, the background (0) included.
        tolerance (`float`): distance up to which an outline counts as right, in the unit of the spacing; at least 0.
        spacing (`tuple[float, float]`, *optional*, defaults to `(1, 1)`): distance between rows and between columns: (1, 1) for a
            tolerance in pixels, or millimetres per pixel.
        ignore_index (`int`, *optional*, defaults to 255): label of pixels that are left out.

    Returns:
        `array` of shape `(num_classes,)`: 0 to 1; nan for a class that is in neither, 0 for one that is in only one of them.

    Raises:
        ValueError: for shapes that differ, a class that there is not, or a tolerance or spacing that is not a length.

    Source: Nikolov et al. 2018, Deep learning to achieve clinically applicable segmentation of head and neck anatomy; Seidlitz et al.
    2022; the same numbers as MONAI's `compute_surface_dice(use_subvoxels=False)`.
    """
    from scipy.spatial import KDTree

    predicted, true = _checked(prediction, reference, num_classes, ignore_index)
    scale = np.asarray(spacing, dtype=np.float64)
    if scale.shape != (2,) or not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError(
            f"`spacing` is the distance between rows and between columns, two positive numbers, got {spacing}"
        )
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"`tolerance` is a distance of at least 0 in the unit of the spacing, got {tolerance}")
    known = true != ignore_index
    scores = np.full(num_classes, np.nan)
    for index in range(num_classes):
        outlines = [_outline((mask == index) & known) * scale for mask in (predicted, true)]
        lengths = [len(outline) for outline in outlines]
        if all(lengths):
            distances = [KDTree(outlines[1 - side]).query(outlines[side])[0] for side in (0, 1)]
            # In fp32, as MONAI: three pixels of 0.1 mm are then within 0.3 mm, which rounding denies in fp64.
            within = np.concatenate(distances).astype(np.float32) <= np.float32(tolerance)
            scores[index] = within.mean()
        elif any(lengths):
            scores[index] = 0
    return scores


def segmentation_metrics(
    per_image_dice: ArrayLike, per_image_nsd: ArrayLike, class_names: Sequence[str]
) -> dict[str, float]:
    """Dice and NSD of a data set, from those of its images.

    - `dice_<class>`, `nsd_<class>`, for every class but the background: the mean over the images in which it is present or predicted;
      nan if there are none.
    - `dice`, `nsd`: the mean of these over the classes.

    Args:
        per_image_dice (`array` of shape `(n, classes)`): what `dice_score` returns for each image; nan is left out.
        per_image_nsd (`array` of shape `(n, classes)`): what `normalized_surface_dice` returns for each image; nan is left out.
        class_names (`list[str]` of `classes` names): the background first.

    Returns:
        `dict[str, float]`, 0 to 1.

    Raises:
        ValueError: for shapes or names that do not fit, or no class beside the background.
    """
    tables = {"dice": np.asarray(per_image_dice, dtype=np.float64), "nsd": np.asarray(per_image_nsd, dtype=np.float64)}
    if tables["dice"].shape != tables["nsd"].shape or tables["dice"].ndim != 2:
        shapes = " and ".join(str(table.shape) for table in tables.values())
        raise ValueError(f"Dice and NSD must both be (images, classes), got {shapes}")
    check_names(class_names, tables["dice"].shape[1], "class_names")
    if len(class_names) < 2:
        raise ValueError(
            "a segmentation is measured on the classes after the background, and there are none: name them too"
        )
    by_class = {
        metric: {name: mean_known(table[:, index]) for index, name in enumerate(class_names) if index > 0}
        for metric, table in tables.items()
    }
    means = {metric: mean_known(list(values.values())) for metric, values in by_class.items()}
    return means | {f"{metric}_{name}": value for metric, values in by_class.items() for name, value in values.items()}


def _checked(
    prediction: ArrayLike, reference: ArrayLike, num_classes: int, ignore_index: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both masks as int64 (height, width).

    Raises:
        ValueError: for other shapes, or a class that there is not.
    """
    masks = np.asarray(prediction), np.asarray(reference)
    if masks[0].shape != masks[1].shape or masks[0].ndim != 2:
        shapes = " and ".join(str(mask.shape) for mask in masks)
        raise ValueError(f"prediction and reference must both be (height, width) of one size, got {shapes}")
    known = masks[1] != ignore_index
    for name, mask in zip(("prediction", "reference"), masks, strict=True):
        whole = mask.dtype.kind in "biu"
        wrong = known & ((mask < 0) | (mask >= num_classes) if whole else ~np.isin(mask, np.arange(num_classes)))
        if wrong.any():
            raise ValueError(
                f"the {name} holds class {mask[wrong].min()}, but classes run from 0 to {num_classes - 1}"
            )
    return masks[0].astype(np.int64), masks[1].astype(np.int64)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Row and column (pixels, 2) of the pixels of a mask with a neighbour across a side that is outside the mask or the image."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inside)
