"""Cardiothoracic ratio (CTR) of a four-chamber view, as measured by detected ellipses."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..model.ellipses_echocare import cardiothoracic_ratio
from .common import mean_known


def cardiothoracic_metrics(
    thorax_boxes: ArrayLike,
    heart_boxes: ArrayLike,
    reference_thorax_boxes: ArrayLike,
    reference_heart_boxes: ArrayLike,
    method: str = "diameter",
    within: Sequence[float] = (0.05, 0.1),
) -> dict[str, float]:
    """How near measured cardiothoracic ratios come to the true ones.

    With c the ratio of the detected ellipses and t that of the true ones, of each image:

    - `ctr_accuracy`: mean of max(0, 1 - |c - t| / t), 0 to 1. An image in which the thorax or the heart was not found counts as 0. The
      paper gives an accuracy of 94.42 % without its formula: this is one of those it may have meant.
    - `ctr_within_5_percent`, `ctr_within_10_percent`: share of images with |c - t| / t at most that large; one not found counts as wrong.
    - `ctr_mae`, `ctr_bias`: mean of |c - t| and of c - t over the images in which both were found, without unit.
    - `ctr_found`: share of images in which both were found.

    Args:
        thorax_boxes (`array` of shape `(n, 5)`): the detected thorax with the best score: centre x, centre y, long axis, short axis, angle
            in degrees, in millimetres or in pixels that are square; nan where none was found.
        heart_boxes (`array` of shape `(n, 5)`): likewise.
        reference_thorax_boxes (`array` of shape `(n, 5)`): the true ellipses, finite.
        reference_heart_boxes (`array` of shape `(n, 5)`): likewise.
        method (`str`, *optional*, defaults to `"diameter"`): what is compared, see `cardiothoracic_ratio`; the paper's is the short axes.
        within (`list[float]`, *optional*, defaults to `(0.05, 0.1)`): relative errors in whole hundredths.

    Returns:
        `dict[str, float]`, nan without images.

    Raises:
        ValueError: for shapes that differ, references that are not finite or have no size, or another method.
    """
    given = [
        np.asarray(boxes, dtype=np.float64)
        for boxes in (thorax_boxes, heart_boxes, reference_thorax_boxes, reference_heart_boxes)
    ]
    if any(boxes.shape != given[0].shape for boxes in given) or given[0].ndim != 2 or given[0].shape[1] != 5:
        raise ValueError(f"boxes must all be (images, 5), got {', '.join(str(boxes.shape) for boxes in given)}")
    if not all(np.isfinite(boxes).all() and (boxes[:, 2:4] > 0).all() for boxes in given[2:]):
        raise ValueError("reference ellipses must be finite, with axes above 0: leave out images without them")
    measured, true = (
        cardiothoracic_ratio(torch.from_numpy(thorax), torch.from_numpy(heart), method).numpy()
        for thorax, heart in (given[:2], given[2:])
    )
    found = np.isfinite(given[0]).all(1) & np.isfinite(given[1]).all(1) & np.isfinite(measured)
    relative = np.where(found, np.abs(measured - true) / true, np.inf)
    errors = (measured - true)[found]
    return {
        "ctr_accuracy": mean_known(np.maximum(0, 1 - relative)),
        **{f"ctr_within_{round(100 * share)}_percent": mean_known(relative <= share) for share in within},
        "ctr_mae": mean_known(np.abs(errors)),
        "ctr_bias": mean_known(errors),
        "ctr_found": mean_known(found),
    }
