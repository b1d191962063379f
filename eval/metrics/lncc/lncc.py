"""Local normalized cross-correlation (LNCC) of images with their references, -1 to 1."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from echocare_hf.metrics.local_correlation import local_correlation_metrics


class Lncc(evaluate.Metric):
    """For pairs that show the same, pixel by pixel: images that are not aligned score low however good they are."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Avants et al. 2008, Symmetric diffeomorphic image registration with cross-correlation",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": datasets.Image(), "references": datasets.Image()}),
        )

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any], window: int = 9) -> dict[str, float]:
        """`lncc` and `lncc_squared`, the mean over the images, see `local_correlation_metrics`.

        Args:
            predictions: images as uint8 arrays (height, width, 3) or (height, width), images or paths.
            references: likewise, of the same sizes.
            window: side of the windows in pixels, odd, 9 by default.
        """
        images, originals = ([np.asarray(image) for image in side] for side in (predictions, references))
        return local_correlation_metrics(images, originals, window)
