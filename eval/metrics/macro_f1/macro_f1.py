"""Accuracy, balanced accuracy and F1 of predicted classes, macro-F1 being the mean of F1 over the classes, 0 to 1."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from echocare_hf.metrics import classification_metrics


class MacroF1(evaluate.Metric):
    """A class that is neither present nor predicted is left out of the mean."""

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="scikit-learn f1_score(average='macro')",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": label, "references": label}),
        )

    def _compute(
        self, predictions: Sequence[int], references: Sequence[int], class_names: Sequence[str]
    ) -> dict[str, float]:
        """`accuracy`, `balanced_accuracy`, `macro_f1`, `f1_<class>`, see `classification_metrics`.

        Args:
            predictions: predicted classes, 0 to classes - 1.
            references: true classes; -1 where not known.
            class_names: of all classes.
        """
        predicted = np.asarray(predictions, dtype=np.int64)
        if not np.isin(predicted, np.arange(len(class_names))).all():
            raise ValueError(f"predictions hold a class outside 0 to {len(class_names) - 1}: check `class_names`")
        found = classification_metrics(np.eye(len(class_names))[predicted], references, class_names)
        return {name: value for name, value in found.items() if not name.startswith("auc")}
