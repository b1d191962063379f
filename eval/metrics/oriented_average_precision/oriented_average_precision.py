"""Average precision (AP) of oriented boxes by the overlap of rotated rectangles or of the ellipses in them, 0 to 1."""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate

from echocare_hf.metrics.rotated_boxes import oriented_average_precision


class OrientedAveragePrecision(evaluate.Metric):
    """Area under the curve of precision over recall, at all points."""

    def _info(self) -> evaluate.MetricInfo:
        objects = {
            "labels": datasets.List(datasets.Value("int64")),
            "boxes": datasets.List(datasets.List(datasets.Value("float64"))),
        }
        scores = {"scores": datasets.List(datasets.Value("float64"))}
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Everingham et al. 2015, The PASCAL visual object classes challenge: a retrospective",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": scores | objects, "references": objects}),
        )

    def _compute(
        self,
        predictions: Sequence[Mapping[str, Any]],
        references: Sequence[Mapping[str, Any]],
        class_names: Sequence[str],
        shape: str = "rectangle",
    ) -> dict[str, float]:
        """`ap50`, `ap75`, `ap` (mean over overlaps 0.5 to 0.95), and each by class, see `oriented_average_precision`.

        Args:
            predictions: `scores` (k,), `labels` (k,) and `boxes` (k, 5) of each image.
            references: `labels` (m,) and `boxes` (m, 5) of each image.
                Boxes are centre x, centre y, long axis, short axis (full lengths), angle in degrees.
            class_names: labels are indices into it.
            shape: "rectangle" or "ellipse".
        """
        return oriented_average_precision(predictions, references, class_names, shape)
