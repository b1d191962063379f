"""Errors of landmarks: mean radial error (MRE), mean squared radial error (MSE), successful detection rate (SDR)."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from echocare_hf.metrics import keypoint_metrics


class LandmarkError(evaluate.Metric):
    """In mm where the spacing of every image is known, else in pixels; names say which."""

    def _info(self) -> evaluate.MetricInfo:
        points = datasets.List(datasets.List(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Wang et al. 2016, A benchmark for comparison of dental radiography analysis algorithms (MRE and SDR)",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": points, "references": points}),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[Sequence[float]]],
        references: Sequence[Sequence[Sequence[float]]],
        spacing: Sequence[Sequence[float]] | None = None,
        pairs: Sequence[Sequence[int]] = (),
        radii: Sequence[float] = (2, 4, 10),
        keypoint_names: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """`mre_px`, `mse_px2`, `sdr_2px`, ... or the same in mm, and `mre_<landmark>_px`, see `keypoint_metrics`.

        Args:
            predictions: x and y in pixels of each landmark of each image.
            references: likewise; nan where not labelled.
            spacing: millimetres per pixel between rows and between columns of each image.
            pairs: landmarks whose order has no meaning.
            radii: distances that count as found.
            keypoint_names: of the landmarks, their numbers by default.
        """
        counts = sorted({len(image) for side in (predictions, references) for image in side})
        if len(counts) > 1 or any(
            len(point) != 2 for side in (predictions, references) for image in side for point in image
        ):
            raise ValueError(
                f"every image needs x and y of the same landmarks, nan where not labelled; got {' or '.join(map(str, counts))} of them"
            )
        names = len(keypoint_names or ())
        predicted, true = (
            np.array(side, dtype=np.float64).reshape(len(side), counts[0] if counts else names, 2)
            for side in (predictions, references)
        )
        return keypoint_metrics(predicted, true, spacing, pairs, radii, keypoint_names)
