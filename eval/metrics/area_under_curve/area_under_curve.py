"""Area under the receiver operating characteristic (AUC), 0 to 1, with DeLong's interval."""

from collections.abc import Sequence

import datasets
import evaluate

from echocare_hf.metrics.roc import auc_with_interval, delong_test


class AreaUnderCurve(evaluate.Metric):
    """And, of two models on the same cases, DeLong's test of their difference."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="DeLong, DeLong, Clarke-Pearson 1988, Comparing the areas under two or more correlated ROC curves",
            inputs_description=self._compute.__doc__,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self,
        predictions: Sequence[float],
        references: Sequence[int],
        confidence: float = 0.95,
        other_predictions: Sequence[float] | None = None,
    ) -> dict[str, float]:
        """`auc`, `auc_standard_error`, `auc_low`, `auc_high`; with another model also `auc_difference`, `auc_difference_low`,
        `auc_difference_high` and `delong_p`, see `auc_with_interval` and `delong_test`.

        Args:
            predictions: scores.
            references: 1 for a positive case, 0 for a negative one.
            confidence: of the intervals, 0.95 by default.
            other_predictions: scores of another model on the same cases, whose area is subtracted.
        """
        area = auc_with_interval(predictions, references, confidence)
        found = {
            "auc": area.auc,
            "auc_standard_error": area.standard_error,
            "auc_low": area.low,
            "auc_high": area.high,
        }
        if other_predictions is not None:
            test = delong_test(predictions, other_predictions, references, confidence)
            found |= {
                "auc_difference": test.difference,
                "auc_difference_low": test.low,
                "auc_difference_high": test.high,
                "delong_p": test.p,
            }
        return found
