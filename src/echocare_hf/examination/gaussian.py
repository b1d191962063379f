"""A Gaussian of principal axes, the distance to it, and what share of a calibration lies farther away."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

AXES = 64
SHRINKAGE = 0.01
"""Share of the mean variance in each variance, so that no axis weighs without bound."""

QUANTILES = 401
TAIL = 0.1
"""Share of the calibration that the exponential tail beyond its end is fitted to."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The mean of features, their scale, the principal axes of the scaled features, and the variances along and off the axes.

    Attributes:
        mean, scale: float32 `(features,)`.
        axes: float32 `(axes, features)`, orthonormal.
        variances: float32 `(axes,)`, shrunk.
        rest: float32 `(1,)`, mean variance off the axes, shrunk.
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    rest: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, weights: np.ndarray) -> "Gaussian":
        """From features `(images, features)` and a weight for each image."""
        values = np.asarray(features, np.float64)
        share = np.asarray(weights, np.float64) / np.sum(weights)
        mean = share @ values
        deviation = np.sqrt(share @ (values - mean) ** 2)
        scale = deviation + 1e-3 * deviation.mean() + 1e-12
        scaled = (values - mean) / scale * np.sqrt(share)[:, None]
        _, singular, axes = np.linalg.svd(scaled, full_matrices=False)
        variances = singular**2
        kept = min(AXES, int((variances > 1e-9 * variances.max(initial=1e-30)).sum()))
        dimensions = values.shape[1]
        shrunk = SHRINKAGE * variances.sum() / dimensions
        off = variances[kept:].sum() / max(dimensions - kept, 1)
        return cls(
            mean.astype(np.float32),
            scale.astype(np.float32),
            axes[:kept].astype(np.float32),
            ((1 - SHRINKAGE) * variances[:kept] + shrunk).astype(np.float32),
            np.array([(1 - SHRINKAGE) * off + shrunk], np.float32),
        )

    def log_distance(self, features: np.ndarray) -> np.ndarray:
        """Logarithm of the squared Mahalanobis distance a feature: float64 `(images,)` for `(images, features)`."""
        scaled = (np.asarray(features, np.float64) - self.mean) / self.scale
        along = scaled @ self.axes.T.astype(np.float64)
        off = np.maximum((scaled**2).sum(1) - (along**2).sum(1), 0)
        squared = (along**2 / self.variances).sum(1) + off / float(self.rest[0])
        return np.log(squared / scaled.shape[1] + 1e-12)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """For a file, under `name`."""
        return {f"{name}.{field}": getattr(self, field) for field in self.__dataclass_fields__}

    @classmethod
    def of_arrays(cls, name: str, arrays: Mapping[str, np.ndarray]) -> "Gaussian":
        """What `arrays` gave. Raises KeyError if something is missing."""
        return cls(**{field: arrays[f"{name}.{field}"] for field in cls.__dataclass_fields__})


@dataclass(frozen=True, eq=False)
class Calibration:
    """Evenly spaced quantiles of distances, ascending, float32 `(quantiles,)`."""

    quantiles: np.ndarray

    @classmethod
    def fit(cls, distances: np.ndarray, weights: np.ndarray | None = None) -> "Calibration":
        """From distances `(images,)` and a weight for each."""
        order = np.argsort(distances)
        share = np.ones(len(distances)) if weights is None else np.asarray(weights, np.float64)[order]
        places = (np.cumsum(share) - 0.5 * share) / share.sum()
        wanted = np.linspace(0, 1, QUANTILES)
        return cls(np.interp(wanted, places, np.asarray(distances, np.float64)[order]).astype(np.float32))

    def score(self, distances: np.ndarray) -> np.ndarray:
        """The share of the calibration that lies farther away, float64 `(images,)`, 0 to 1; it falls on beyond the farthest."""
        count = len(self.quantiles)
        ranks = np.linspace(1, 0, count)
        inside = np.interp(distances, self.quantiles.astype(np.float64), ranks)
        start = max(1, int(TAIL * (count - 1)))
        tail = self.quantiles[-start:].astype(np.float64)
        spread = max(float((tail - self.quantiles[-start - 1]).mean()), 1e-6)
        last = 0.5 / (count - 1)
        beyond = last * np.exp(-np.maximum(np.asarray(distances) - float(self.quantiles[-1]), 0) / spread)
        return np.where(distances > self.quantiles[-1], beyond, np.maximum(inside, last))
