"""Expected calibration error (ECE) and Brier score of class probabilities."""

from collections.abc import Sequence

import datasets
import evaluate

from echocare_hf.metrics.calibration import calibration_metrics


class Calibration(evaluate.Metric):
    """The number of bins is part of the name of the ECE."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Guo et al. 2017, On calibration of modern neural networks; Brier 1950",
            inputs_description=self._compute.__doc__,
            features=datasets.Features(
                {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[int], bins: int = 15
    ) -> dict[str, float]:
        """`ece_<bins>bins` and `brier`, see `calibration_metrics`.

        Args:
            predictions: probabilities of all classes of each case.
            references: true classes.
            bins: of equal width, 15 by default.
        """
        found = calibration_metrics(predictions, references, bins)
        return {f"ece_{bins}bins": found["ece"], "brier": found["brier"]}
