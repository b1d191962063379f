"""Blind/referenceless image spatial quality evaluator (BRISQUE); lower is better."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from echocare_hf.metrics.brisque import brisque_metric


class Brisque(evaluate.Metric):
    """Learned from or made for photographs: it ranks ultrasound images of one kind and size and has no meaning on its own."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Mittal, Moorthy, Bovik 2012, No-reference image quality assessment in the spatial domain",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": datasets.Image()}),
        )

    def _compute(self, predictions: Sequence[Any]) -> dict[str, float]:
        """`brisque`, the mean over the images, see `brisque`.

        Args:
            predictions: images as uint8 arrays (height, width, 3) or (height, width), images or paths.
        """
        return brisque_metric([np.asarray(image) for image in predictions])
