"""Natural image quality evaluator (NIQE) of images without a reference; lower is more natural."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from echocare_hf.metrics import niqe
from echocare_hf.metrics.common import mean_known


class Niqe(evaluate.Metric):
    """Learned from or made for photographs: it ranks ultrasound images of one kind and size and has no meaning on its own."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation='Mittal, Soundararajan, Bovik 2013, Making a "completely blind" image quality analyzer',
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": datasets.Image()}),
        )

    def _compute(self, predictions: Sequence[Any]) -> dict[str, float]:
        """`niqe`, the mean over the images, see `niqe`.

        Args:
            predictions: images as uint8 arrays (height, width, 3) or (height, width), images or paths.
        """
        return {"niqe": mean_known([niqe(np.asarray(image)) for image in predictions])}
