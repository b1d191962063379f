"""Accuracy of the cardiothoracic ratio (CTR): mean of max(0, 1 - |c - t| / t) of measured c and true t, 0 to 1."""

from collections.abc import Mapping, Sequence

import datasets
import evaluate
import numpy as np

from echocare_hf.metrics.cardiothoracic import cardiothoracic_metrics


class CardiothoracicRatio(evaluate.Metric):
    """An image in which the thorax or the heart was not found counts as 0."""

    def _info(self) -> evaluate.MetricInfo:
        box = datasets.List(datasets.Value("float64"))
        ellipses = {"thorax": box, "heart": box}
        return evaluate.MetricInfo(
            description=__doc__,
            citation="EchoCare paper, section 2.3.3, which gives no formula",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": ellipses, "references": ellipses}),
        )

    def _compute(
        self,
        predictions: Sequence[Mapping[str, Sequence[float]]],
        references: Sequence[Mapping[str, Sequence[float]]],
        method: str = "diameter",
    ) -> dict[str, float]:
        """`ctr_accuracy`, `ctr_within_5_percent`, `ctr_within_10_percent`, `ctr_mae`, `ctr_bias`, `ctr_found`, see
        `cardiothoracic_metrics`.

        Args:
            predictions: `thorax` and `heart` of each image, each centre x, centre y, long axis, short axis, angle in degrees, in mm or in
                square pixels; empty where none was found.
            references: likewise, none empty.
            method: "diameter" (the short axes, as in the paper), "circumference" or "area".
        """
        thorax, heart, true_thorax, true_heart = (
            np.array([image[part] or [np.nan] * 5 for image in side], dtype=np.float64).reshape(-1, 5)
            for side in (predictions, references)
            for part in ("thorax", "heart")
        )
        return cardiothoracic_metrics(thorax, heart, true_thorax, true_heart, method)
