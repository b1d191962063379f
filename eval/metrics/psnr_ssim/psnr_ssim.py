"""Peak signal-to-noise ratio (PSNR, dB) and structural similarity (SSIM) of images to their references."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from echocare_hf.metrics import image_metrics


class PsnrSsim(evaluate.Metric):
    """For pairs that show the same, pixel by pixel: images that are not aligned score low however good they are."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Wang et al. 2004, Image quality assessment: from error visibility to structural similarity",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": datasets.Image(), "references": datasets.Image()}),
        )

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        """`psnr` and `ssim`, the mean over the images, see `image_metrics`.

        Args:
            predictions: images as uint8 arrays (height, width, 3) or (height, width), images or paths.
            references: likewise, of the same sizes.
        """
        images, originals = ([np.asarray(image) for image in side] for side in (predictions, references))
        return image_metrics(images, originals)
