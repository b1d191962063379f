"""Errors of measured values: mean absolute error (MAE) with its standard error, bias, Pearson's correlation."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from echocare_hf.metrics import regression_metrics


class RegressionError(evaluate.Metric):
    """In the unit of the values."""

    def _info(self) -> evaluate.MetricInfo:
        value = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="EchoCare paper, section 2.3.5 (MAE with standard error)",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        """`mae`, `standard_error` (of the MAE), `rmse`, `bias` (prediction minus reference), `correlation`, see `regression_metrics`.

        Args:
            predictions: measured values.
            references: true values; nan where not known.
        """
        predicted, true = (np.array(side, dtype=np.float64)[:, None] for side in (predictions, references))
        found = regression_metrics(predicted, true, ["value"])
        return {name.removesuffix("_value"): value for name, value in found.items()}
