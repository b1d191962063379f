"""Frechet distance between two sets of images, as their features have it: FID, with other features than Inception's too."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def frechet_distance(features: ArrayLike, reference_features: ArrayLike) -> float:
    """Frechet distance of the normal distributions with the means m and covariances S of two sets of features.

    |m1 - m2|^2 + trace(S1 + S2 - 2 (S1 S2)^(1/2)), squared as FID is. The number depends on the features, and it is too large for few
    images: name the features and the number of images beside it, and compare no two numbers of which either differs.

    Args:
        features (`array` of shape `(n, dimensions)`): of the images that are measured, finite; at least two.
        reference_features (`array` of shape `(m, dimensions)`): of the images that they should be like; at least two.

    Returns:
        `float`, at least 0, in the squared unit of the features.

    Raises:
        ValueError: for shapes that do not fit, fewer than two images, or features that are not finite.

    Source: Heusel et al. 2017, GANs trained by a two time-scale update rule converge to a local Nash equilibrium (equation 6).
    """
    sets = [
        _checked(values, name) for values, name in ((features, "features"), (reference_features, "reference features"))
    ]
    if sets[0].shape[1] != sets[1].shape[1]:
        raise ValueError(f"both sets need the same features, got {sets[0].shape[1]} and {sets[1].shape[1]} of them")
    means = [values.mean(0) for values in sets]
    # Singular values of X Y^T are the square roots of the eigenvalues of S1 S2, without a root of a nearly singular matrix.
    centred = [(values - mean) / np.sqrt(len(values) - 1) for values, mean in zip(sets, means, strict=True)]
    roots = [np.linalg.qr(values).R for values in centred]  # R^T R = S
    shared = np.linalg.svdvals(roots[0] @ roots[1].T).sum()
    total = sum(np.square(values).sum() for values in centred)
    return max(float(np.square(means[0] - means[1]).sum() + total - 2 * shared), 0.0)


def _checked(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Raises:
    ValueError: for another shape, fewer than two images, or values that are not finite.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2 or len(found) < 2 or not found.shape[1]:
        raise ValueError(f"{name} must be (at least two images, dimensions), got {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} are nan or infinite: check the network that made them")
    return found
