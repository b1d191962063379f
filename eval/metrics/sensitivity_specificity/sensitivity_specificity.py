"""Sensitivity and specificity at Youden's cut-off, chosen on validation data, and on the test data, which is optimistic and named so."""

from collections.abc import Sequence

import datasets
import evaluate

from echocare_hf.metrics.roc import sensitivity_specificity, youden_cutoff


class SensitivitySpecificity(evaluate.Metric):
    """A case counts as positive from the cut-off on."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Youden 1950, Index for rating diagnostic tests",
            inputs_description=self._compute.__doc__,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self,
        predictions: Sequence[float],
        references: Sequence[int],
        validation_predictions: Sequence[float],
        validation_references: Sequence[int],
    ) -> dict[str, float]:
        """`cutoff_validation`, `sensitivity_validation_cutoff`, and so on for specificity, accuracy and f1; the same with
        `test_cutoff_optimistic` in their names. See `youden_cutoff` and `sensitivity_specificity`.

        Args:
            predictions: scores of the test cases.
            references: 1 for a positive case, 0 for a negative one.
            validation_predictions: scores of the validation cases.
            validation_references: their labels.
        """
        found: dict[str, float] = {}
        for name, given in (
            ("validation_cutoff", (validation_predictions, validation_references)),
            ("test_cutoff_optimistic", (predictions, references)),
        ):
            chosen = youden_cutoff(*given)
            found[name] = chosen.cutoff
            at = sensitivity_specificity(predictions, references, chosen.cutoff)
            found |= {f"{metric}_{name}": value for metric, value in at.items()}
        return found
