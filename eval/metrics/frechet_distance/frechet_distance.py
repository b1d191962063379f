"""Frechet distance of two sets of images by features that the caller names (FID, where they are Inception's)."""

from collections.abc import Sequence

import datasets
import evaluate

from echocare_hf.metrics.frechet import frechet_distance


class FrechetDistance(evaluate.Metric):
    """The features' name is part of the name of the value: numbers of different features cannot be compared."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Heusel et al. 2017, GANs trained by a two time-scale update rule converge to a local Nash equilibrium",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": datasets.List(datasets.Value("float64"))}),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        reference_features: Sequence[Sequence[float]],
        feature_name: str,
    ) -> dict[str, float]:
        """`frechet_distance_<feature name>`, `images`, `reference_images` and `feature_dimensions`, see `frechet_distance`.

        Args:
            predictions: features of each image that is measured.
            reference_features: features of each image that they should be like; their number may differ.
            feature_name: what made the features, such as "echocare-tiny-pooled".
        """
        if not feature_name.strip():
            raise ValueError("`feature_name` says what made the features: a Frechet distance means nothing without it")
        return {
            f"frechet_distance_{feature_name}": frechet_distance(predictions, reference_features),
            "images": len(predictions),
            "reference_images": len(reference_features),
            "feature_dimensions": len(predictions[0]),
        }
