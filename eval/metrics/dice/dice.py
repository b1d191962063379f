"""Dice of segmentations: twice the shared area over the sum of both areas, by class, 0 to 1."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from echocare_hf.metrics.segmentation_sets import dice_of_set


class Dice(evaluate.Metric):
    """Mean over the images in which a class is present or predicted, then over the classes."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Dice 1945, Measures of the amount of ecologic association between species",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": datasets.Image(), "references": datasets.Image()}),
        )

    def _compute(
        self,
        predictions: Sequence[Any],
        references: Sequence[Any],
        class_names: Sequence[str],
        known_classes: Sequence[Sequence[int]] | None = None,
        ignore_index: int = 255,
    ) -> dict[str, float]:
        """`dice` and `dice_<class>`, see `dice_of_set`.

        Args:
            predictions: masks of classes, 0 for the background, as uint8 arrays (height, width), images or paths of PNG files.
            references: likewise, of the same sizes; `ignore_index` marks pixels that are left out.
            class_names: the background first.
            known_classes: the classes that were looked for in each image, all by default.
            ignore_index: 255 by default.
        """
        predicted, true = ([np.asarray(mask) for mask in side] for side in (predictions, references))
        return dice_of_set(predicted, true, class_names, known_classes, ignore_index)
