"""Measured values: their errors, and whether predicted spreads cover them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .common import check_names, mean_known

# Standard deviations on either side of the mean of a normal distribution that hold 95 % of it.
Z_95 = 1.96


def regression_metrics(
    predictions: ArrayLike, references: ArrayLike, target_names: Sequence[str], spreads: ArrayLike | None = None
) -> dict[str, float]:
    """How far predicted values lie from the true ones, for each target on its own: targets may have different units.

    - `mae_<target>`: mean absolute error.
    - `standard_error_<target>`: standard error of that mean over the samples; nan for fewer than two.
    - `rmse_<target>`: root mean square error.
    - `bias_<target>`: mean of prediction minus reference.
    - `correlation_<target>`: Pearson's correlation, -1 to 1; nan if predictions or references are constant.
    - `coverage_<target>`, where `spreads` are given: share of references within 1.96 predicted standard deviations of the prediction,
      0 to 1; about 0.95 if the spreads are right and errors normal.

    All are nan for a target of which no reference is known.

    Args:
        predictions (`array` of shape `(n, targets)`): predicted values; finite wherever there is a reference.
        references (`array` of shape `(n, targets)`): true values, nan where not known.
        target_names (`list[str]` of `targets` names): used in the names of the values.
        spreads (`array` of shape `(n, targets)`, *optional*): predicted standard deviations, at least 0.

    Returns:
        `dict[str, float]`, in the unit of each target.

    Raises:
        ValueError: for shapes or names that do not fit, predictions that are not finite, infinite references, or spreads below 0.
    """
    predicted, true = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.float64)
    if predicted.shape != true.shape or predicted.ndim != 2:
        raise ValueError(
            f"predictions and references must both be (samples, targets), got {predicted.shape} and {true.shape}"
        )
    check_names(target_names, predicted.shape[1], "target_names")
    if np.isinf(true).any():
        raise ValueError("references are infinite: give a value that is not known nan")
    known = ~np.isnan(true)
    if not np.isfinite(predicted[known]).all():
        raise ValueError("predictions are nan or infinite where there is a reference: the model has diverged")
    deviations = None if spreads is None else np.asarray(spreads, dtype=np.float64)
    if deviations is not None and (deviations.shape != true.shape or not (deviations[known] >= 0).all()):
        raise ValueError(f"`spreads` must be {true.shape}, standard deviations of at least 0, got {deviations.shape}")

    found: dict[str, float] = {}
    for index, name in enumerate(target_names):
        rows = known[:, index]
        errors = predicted[rows, index] - true[rows, index]
        sizes = np.abs(errors)
        found |= {
            f"mae_{name}": mean_known(sizes),
            f"standard_error_{name}": float(sizes.std(ddof=1) / np.sqrt(len(sizes)))
            if len(sizes) > 1
            else float("nan"),
            f"rmse_{name}": float(np.sqrt(mean_known(errors**2))),
            f"bias_{name}": mean_known(errors),
            f"correlation_{name}": _correlation(predicted[rows, index], true[rows, index]),
        }
        if deviations is not None:
            found[f"coverage_{name}"] = mean_known(sizes <= Z_95 * deviations[rows, index])
    return found


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Pearson's correlation; nan if either is constant."""
    if not len(first) or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
