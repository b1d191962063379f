"""Perception-based image quality evaluator (PIQE); 0 is best, 100 worst."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from echocare_hf.metrics.piqe import piqe_metric


class Piqe(evaluate.Metric):
    """Learned from or made for photographs: it ranks ultrasound images of one kind and size and has no meaning on its own."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Venkatanath et al. 2015, Blind image quality evaluation using perception based features",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": datasets.Image()}),
        )

    def _compute(self, predictions: Sequence[Any]) -> dict[str, float]:
        """`piqe`, the mean over the images, see `piqe`.

        Args:
            predictions: images as uint8 arrays (height, width, 3) or (height, width), images or paths.
        """
        return piqe_metric([np.asarray(image) for image in predictions])
