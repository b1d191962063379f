"""Normalized surface Dice (NSD) of segmentations: the share of both outlines that lies within a tolerance of the other, 0 to 1.

The tolerance and its unit are part of the names of the values.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from echocare_hf.metrics.segmentation_sets import normalized_surface_dice_of_set


class NormalizedSurfaceDice(evaluate.Metric):
    """Mean over the images in which a class is present or predicted, then over the classes."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Nikolov et al. 2018, Deep learning to achieve clinically applicable segmentation of head and neck anatomy",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": datasets.Image(), "references": datasets.Image()}),
        )

    def _compute(
        self,
        predictions: Sequence[Any],
        references: Sequence[Any],
        class_names: Sequence[str],
        tolerance: float,
        unit: str,
        spacings: Sequence[Sequence[float]] | None = None,
        known_classes: Sequence[Sequence[int]] | None = None,
        ignore_index: int = 255,
    ) -> dict[str, float]:
        """`nsd_<tolerance><unit>`, the same by class, and the tolerance in px and mm, see `normalized_surface_dice_of_set`.

        Args:
            predictions: masks of classes, 0 for the background, as uint8 arrays (height, width), images or paths of PNG files.
            references: likewise, of the same sizes; `ignore_index` marks pixels that are left out.
            class_names: the background first.
            tolerance: how far an outline may lie off.
            unit: of the tolerance, "px" or "mm".
            spacings: millimetres per pixel between rows and between columns of each image; needed for "mm".
            known_classes: the classes that were looked for in each image, all by default.
            ignore_index: 255 by default.
        """
        predicted, true = ([np.asarray(mask) for mask in side] for side in (predictions, references))
        return normalized_surface_dice_of_set(
            predicted, true, class_names, tolerance, unit, spacings, known_classes, ignore_index
        )
