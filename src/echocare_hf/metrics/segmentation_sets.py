"""Dice and normalized surface Dice of a whole test set, with organs that were not looked for in an image left out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .common import mean_known
from .segmentation import dice_score, normalized_surface_dice, segmentation_metrics

UNITS = ("px", "mm")


def dice_of_set(
    predictions: Sequence[ArrayLike],
    references: Sequence[ArrayLike],
    class_names: Sequence[str],
    known_classes: Sequence[Sequence[int]] | None = None,
    ignore_index: int = 255,
) -> dict[str, float]:
    """`dice` (the mean over the classes) and `dice_<class>`, as `segmentation_metrics` has them.

    Args:
        predictions (`list[array]`, each of shape `(height, width)`): predicted classes, 0 to classes - 1.
        references (`list[array]`, likewise): true classes, or `ignore_index` for pixels that are left out.
        class_names (`list[str]`): the background first.
        known_classes (`list[list[int]]`, *optional*): the classes that were looked for in each image; others are left out of its
            score, as an organ that nobody outlined is not absent. All by default.
        ignore_index (`int`, *optional*, defaults to 255): label of pixels that are left out.

    Returns:
        `dict[str, float]`, 0 to 1; nan for a class that is in no image and predicted in none.

    Raises:
        ValueError: for another number of images, or what `dice_score` and `segmentation_metrics` raise.
    """
    _check_count(predictions, references, known_classes)
    rows = [
        dice_score(prediction, reference, len(class_names), ignore_index)
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    return _means("dice", rows, class_names, known_classes)


def normalized_surface_dice_of_set(
    predictions: Sequence[ArrayLike],
    references: Sequence[ArrayLike],
    class_names: Sequence[str],
    tolerance: float,
    unit: str,
    spacings: ArrayLike | None = None,
    known_classes: Sequence[Sequence[int]] | None = None,
    ignore_index: int = 255,
) -> dict[str, float]:
    """Normalized surface Dice (NSD), with the tolerance in its name.

    - `nsd_2px` (for a tolerance of 2 pixels) or `nsd_1mm` (of 1 mm): the mean over the classes; `nsd_2px_<class>`, `nsd_1mm_<class>`.
    - `tolerance_px` and `tolerance_mm`: the tolerance in both units, the mean over the images and both directions; nan where the spacing
      is not known.

    Args:
        predictions (`list[array]`, each of shape `(height, width)`): predicted classes, 0 to classes - 1.
        references (`list[array]`, likewise): true classes, or `ignore_index` for pixels that are left out.
        class_names (`list[str]`): the background first.
        tolerance (`float`): how far an outline may lie off, at least 0.
        unit (`str`): of the tolerance, `"px"` or `"mm"`.
        spacings (`array` of shape `(n, 2)`, *optional*): millimetres per pixel between rows and between columns; needed for `"mm"`.
        known_classes (`list[list[int]]`, *optional*): as in `dice_of_set`.
        ignore_index (`int`, *optional*, defaults to 255): label of pixels that are left out.

    Returns:
        `dict[str, float]`, 0 to 1 apart from the tolerances; nan for a class that is in no image and predicted in none.

    Raises:
        ValueError: for another unit or number of images, spacings that are missing, or what `normalized_surface_dice` raises.
    """
    _check_count(predictions, references, known_classes)
    if unit not in UNITS:
        raise ValueError(f"`unit` of the tolerance is one of {', '.join(UNITS)}, got {unit!r}")
    pixel = np.full((len(references), 2), np.nan) if spacings is None else np.asarray(spacings, dtype=np.float64)
    if pixel.shape != (len(references), 2):
        raise ValueError(f"`spacings` must be ({len(references)}, 2), between rows and columns, got {pixel.shape}")
    if unit == "mm" and not (np.isfinite(pixel).all() and (pixel > 0).all()):
        raise ValueError(
            "a tolerance in mm needs the millimetres per pixel of every image: give `spacings`, or use px"
        )
    rows = [
        normalized_surface_dice(
            prediction,
            reference,
            len(class_names),
            tolerance,
            (1, 1) if unit == "px" else (spacing[0], spacing[1]),
            ignore_index,
        )
        for prediction, reference, spacing in zip(predictions, references, pixel, strict=True)
    ]
    found = _means(f"nsd_{tolerance:g}{unit}", rows, class_names, known_classes)
    given = unit == "px"
    found["tolerance_px"] = float(tolerance) if given else mean_known(tolerance / pixel)
    found["tolerance_mm"] = mean_known(tolerance * pixel) if given else float(tolerance)
    return found


def _check_count(
    predictions: Sequence[ArrayLike],
    references: Sequence[ArrayLike],
    known_classes: Sequence[Sequence[int]] | None,
) -> None:
    """Raises:
    ValueError: for another number of either.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references: give one of each an image")
    if known_classes is not None and len(known_classes) != len(references):
        raise ValueError(f"`known_classes` has {len(known_classes)} entries for {len(references)} images")


def _means(
    metric: str,
    rows: list[NDArray[np.float64]],
    class_names: Sequence[str],
    known_classes: Sequence[Sequence[int]] | None,
) -> dict[str, float]:
    """The means of scores (n, classes) over the images in which a class was looked for, by the name of the metric."""
    table = np.array(rows, dtype=np.float64).reshape(-1, len(class_names))
    for row, known in zip(table, known_classes or (), strict=False):
        row[~np.isin(np.arange(len(class_names)), known)] = np.nan
    found = segmentation_metrics(table, np.full_like(table, np.nan), class_names)
    return {name.replace("dice", metric, 1): value for name, value in found.items() if name.startswith("dice")}
