"""What the heads that label a whole image or clip share: how their last layer is read, and their losses.

Labels that are not known are left out of every loss, and a batch in which nothing is known has a loss of zero whose gradients are
zero. Where the labels are looked at (which costs a synchronisation on an accelerator) is left out under `torch.compile`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .configuration_echocare import EchoCareConfig
from .encoder_echocare import EchoCarePreTrainedModel

# A class that is not known: -1 as in the anatomy labels, or what torch's cross-entropy ignores by default.
UNKNOWN_CLASSES = (-1, -100)
# The exponent of the beta-NLL, which its authors recommend: between the plain likelihood (0) and squared error (1).
BETA = 0.5


def problem_type_of(config: EchoCareConfig, labels: Tensor | None = None) -> str:
    """The kind of problem: the configuration's own, or as transformers tells it from the number of labels and their type.

    Without `config.problem_type`, one label is a regression, whole-number labels (int32, int64) are classes, and labels of any
    other type are several findings an image (multi-label).
    """
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    if labels is not None and labels.dtype not in (torch.int64, torch.int32):
        return "multi_label_classification"
    return "single_label_classification"


def remember_problem_type(model: EchoCarePreTrainedModel, labels: Tensor) -> None:
    """Writes the kind of problem that a training step has read off its labels to the configuration, where pipelines look for it."""
    config = model.config
    if model.training and config.problem_type is None and not torch.compiler.is_compiling():
        config.problem_type = problem_type_of(config, labels)  # type: ignore[assignment]


def last_layer_size(config: EchoCareConfig) -> int:
    """Outputs of the last layer: one a label, and for ordered classes one a step from a class to the next.

    Raises:
        ValueError: if the configuration has too few labels, or a mean or deviation for another number of regression targets.
    """
    problem, count = problem_type_of(config), config.num_labels or 0
    fewest = 2 if problem == "ordinal_classification" else 1
    if count < fewest:
        raise ValueError(f"{problem} needs `num_labels` of at least {fewest}, got {count}")
    if problem == "regression":
        for name in ("regression_mean", "regression_deviation"):
            values = getattr(config, name)
            if values is not None and len(values) != count:
                raise ValueError(
                    f"`{name}` has {len(values)} values for {count} regression targets: give one a target"
                )
    return count - 1 if problem == "ordinal_classification" else count


def regression_scale(config: EchoCareConfig, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the regression targets, 0 and 1 where the configuration has none.

    Returns:
        Two tensors (num_labels,) of the type and on the device of `like` (batch, num_labels).
    """
    mean = like.new_tensor(config.regression_mean or [0.0] * like.shape[-1])
    deviation = like.new_tensor(config.regression_deviation or [1.0] * like.shape[-1])
    return mean, deviation


def ordinal_log_probabilities(raw: Tensor) -> Tensor:
    """Log-probabilities of ordered classes from one number for each step between neighbouring classes.

    With f_k = raw_k + log(classes - 1 - k), sigmoid(f_k) is P(y > k given y >= k), so that P(y > k) is the product of these up to k:
    it falls with k whatever the weights are. Numbers of zero make all classes equally probable.

    Args:
        raw: (batch, classes - 1).

    Returns:
        (batch, classes), at most 0; their softmax is the probabilities themselves.

    Source: Shi, Cao, Raschka, Deep neural networks for rank-consistent ordinal regression based on conditional probabilities (CORN).
    """
    raw = raw + torch.arange(raw.shape[-1], 0, -1, device=raw.device, dtype=raw.dtype).log()
    above = F.logsigmoid(raw).cumsum(-1)  # log P(y > k)
    stays = F.logsigmoid(-raw)  # log P(y = k given y >= k)
    return F.pad(above, (1, 0)) + F.pad(stays, (0, 1))


def label_logits(raw: Tensor, config: EchoCareConfig) -> Tensor:
    """The last layer's output as a head returns it.

    Args:
        raw: (batch, `last_layer_size(config)`).

    Returns:
        (batch, num_labels): logits; for ordered classes log-probabilities; for regression values in the targets' unit. The latter two
        in fp32 at least.
    """
    problem = problem_type_of(config)
    if problem == "ordinal_classification":
        return ordinal_log_probabilities(at_least_float32(raw))
    if problem == "regression":
        raw = at_least_float32(raw)
        mean, deviation = regression_scale(config, raw)
        return raw * deviation + mean
    return raw


def label_loss(logits: Tensor, labels: Tensor, config: EchoCareConfig) -> Tensor:
    """The loss of a head's `logits` for the kind of problem that the configuration or the labels tell.

    Args:
        logits: (batch, num_labels), as `label_logits` returns.
        labels: see the functions below, one for each kind.

    Returns:
        A scalar in fp32 at least.
    """
    problem = problem_type_of(config, labels)
    logits, labels = at_least_float32(logits), labels.to(logits.device)
    if problem == "regression":
        return regression_loss(logits, labels, regression_scale(config, logits)[1])
    weights = class_weight_tensor(config, logits)
    if problem == "multi_label_classification":
        return multi_label_loss(logits, labels, weights, class_weight_tensor(config, logits, "positive_weights"))
    return class_loss(logits, labels, weights)


def class_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of one class an image, for unordered and ordered classes alike.

    For ordered classes the log-probabilities make this the likelihood that CORN maximises, each image counted once.

    Args:
        logits: (batch, classes).
        labels: (batch,) or (batch, 1), whole numbers from 0 to classes - 1; -1 or -100 where not known.
        weights: (classes,). As in torch, the loss is the weighted sum over the images divided by the sum of their weights.

    Raises:
        ValueError: for labels of another type or shape, or a class that there is not.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"a class is a whole number, got labels of {labels.dtype}: pass them as torch.int64")
    if labels.shape not in (logits.shape[:1], (logits.shape[0], 1)):
        raise ValueError(f"`labels` must be one class an image, ({logits.shape[0]},), got {tuple(labels.shape)}")
    labels = labels.reshape(-1).long()
    unknown = (labels == UNKNOWN_CLASSES[0]) | (labels == UNKNOWN_CLASSES[1])
    classes = logits.shape[1]
    if not torch.compiler.is_compiling():
        wrong = ((labels < 0) | (labels >= classes)) & ~unknown
        if bool(wrong.any()):
            raise ValueError(
                f"class {int(labels[wrong][0])} does not exist: `labels` run from 0 to {classes - 1}, or -1 where not known "
                "(check `num_labels`)"
            )
    labels = labels.masked_fill(unknown, 0)
    terms = F.cross_entropy(logits, labels, reduction="none")
    return weighted_mean(terms, weights[labels].masked_fill(unknown, 0.0))


def multi_label_loss(logits: Tensor, labels: Tensor, weights: Tensor, positive_weights: Tensor) -> Tensor:
    """Binary cross-entropy of findings that may occur together.

    Args:
        logits: (batch, findings).
        labels: (batch, findings), 1 present, 0 absent, between for a soft label, -1 where not known.
        weights: (findings,), for present and absent alike. The loss is the weighted sum over all known entries divided by the sum
            of their weights.
        positive_weights: (findings,), what "present" counts in the sum, as `pos_weight` of torch's loss.

    Raises:
        ValueError: for labels of another shape, or outside 0 to 1.
    """
    labels = _match_shape(labels, logits, "findings")
    unknown = labels == -1
    if not torch.compiler.is_compiling():
        wrong = ~(((labels >= 0) & (labels <= 1)) | unknown)
        if bool(wrong.any()):
            raise ValueError(
                f"multi-label `labels` are 1 (present), 0 (absent) or -1 (unknown), got {labels[wrong][0].item():g}; for measured "
                'values set problem_type="regression"'
            )
    terms = F.binary_cross_entropy_with_logits(
        logits, labels.masked_fill(unknown, 0.0), reduction="none", pos_weight=positive_weights
    )
    return weighted_mean(terms, weights.expand_as(terms).masked_fill(unknown, 0.0))


def regression_loss(values: Tensor, labels: Tensor, deviation: Tensor) -> Tensor:
    """Smooth L1 of standardised errors: squared below one standard deviation of the training set, absolute above.

    Args:
        values: (batch, targets), in the targets' unit.
        labels: (batch, targets) in the same unit, or (batch,) for one target; NaN where not known.
        deviation: (targets,), standard deviation of each target over the training set.

    Returns:
        A scalar, the mean over all known targets.

    Raises:
        ValueError: for labels of another shape, or infinite ones.
    """
    labels, known = _known_targets(labels, values)
    errors = torch.where(known, values - labels, 0.0) / deviation
    return weighted_mean(F.smooth_l1_loss(errors, torch.zeros_like(errors), reduction="none"), known.to(values.dtype))


def gaussian_regression_loss(
    values: Tensor, spread: Tensor, labels: Tensor, deviation: Tensor, beta: float = BETA
) -> Tensor:
    r"""The beta-NLL: a Gaussian's negative log likelihood, weighted so that a wide spread does not excuse a bad mean.

    Over standardised values, the mean of

        var^beta * 1/2 * (log var + error^2 / var)          with no gradient through var^beta

    Args:
        values, spread: (batch, targets), predicted mean and standard deviation in the targets' unit.
        labels: (batch, targets) in the same unit, or (batch,) for one target; NaN where not known.
        deviation: (targets,), standard deviation of each target over the training set.
        beta: 0 is the plain likelihood (without its constant), at 1 the mean learns as from squared error.

    Returns:
        A scalar, the mean over all known targets. It may be negative.

    Raises:
        ValueError: for labels of another shape, or infinite ones.

    Source: Seitzer et al. 2022, On the Pitfalls of Heteroscedastic Uncertainty Estimation with Probabilistic Neural Networks.
    """
    labels, known = _known_targets(labels, values)
    errors = torch.where(known, values - labels, 0.0) / deviation
    variance = (spread / deviation).square()
    terms = 0.5 * (variance.log() + errors.square() / variance) * variance.detach() ** beta
    return weighted_mean(terms, known.to(values.dtype))


def class_weight_tensor(config: EchoCareConfig, logits: Tensor, name: str = "class_weights") -> Tensor:
    """`config.class_weights`, or `config.positive_weights`, as a tensor (num_labels,), ones where there are none.

    Raises:
        ValueError: for another number of weights than classes, or negative ones.
    """
    weights = getattr(config, name)
    count = logits.shape[1]
    if weights is None:
        return logits.new_ones(count)
    if len(weights) != count or not all(weight >= 0 for weight in weights):
        raise ValueError(f"`{name}` must be {count} numbers, none negative, got {weights}")
    return logits.new_tensor(weights)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as fp32; fp32 and fp64 as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _match_shape(labels: Tensor, logits: Tensor, what: str) -> Tensor:
    """The labels as floating point of the shape of `logits`; one label an image may come without its dimension."""
    if labels.ndim == 1 and logits.shape[1] == 1:
        labels = labels[:, None]
    if labels.shape != logits.shape:
        raise ValueError(
            f"`labels` must be (batch, {what}), here {tuple(logits.shape)} (check `num_labels`), got {tuple(labels.shape)}"
        )
    return labels.to(logits.dtype)


def _known_targets(labels: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The targets in the shape of `values`, and where they are known."""
    labels = _match_shape(labels, values, "targets")
    if not torch.compiler.is_compiling() and bool(labels.isinf().any()):
        raise ValueError("a regression target is infinite: mark a target that is not known as NaN")
    return labels, ~labels.isnan()


def weighted_mean(terms: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum divided by the sum of the weights; where that is 0, a zero with gradients of zero."""
    return (terms * weights).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


__all__ = [
    "BETA",
    "at_least_float32",
    "class_loss",
    "gaussian_regression_loss",
    "label_logits",
    "label_loss",
    "last_layer_size",
    "multi_label_loss",
    "ordinal_log_probabilities",
    "problem_type_of",
    "regression_loss",
    "regression_scale",
    "remember_problem_type",
]
