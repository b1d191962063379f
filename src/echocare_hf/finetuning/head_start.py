"""The head of a trained encoder starts from a linear model on its features, not from random weights.

A random head sends random gradients into the encoder, which forget what it knows before the head has learned anything. So features of all
training images are computed, as they are and augmented, a linear model is fitted to both, its strength chosen on the validation part, and
its weights become the head's. Then all is trained. What was there at the start is kept if training clearly made it worse.

Source: Kumar et al. 2022, Fine-tuning can distort pretrained features and underperform out-of-distribution (LP-FT).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from echocare_hf.model.label_losses_echocare import label_logits
from echocare_hf.model.pooling_echocare import EchoCareFeatureNorm, pooled_features
from echocare_hf.model.video_echocare import EchoCareVideoClassifierOutput, check_clips

from .job import Job
from .memory import memory_advice

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # C of the logistic regression, 1 / alpha of the ridge regression
BATCH = 32  # images at a time, if that is no more than an evaluation takes
SETTLED = 100  # batches that the running statistics count as: further ones move them by a tenth each

Array = NDArray[np.float64]
Fit = Callable[
    [Array, float], tuple[Array, Array]
]  # features, strength -> weights (outputs, features), biases (outputs,)


@dataclass(frozen=True)
class HeadStart:
    """The model as it was before training.

    Attributes:
        metric: the deciding one, on the validation part.
        weights: all of them.
        predictions: of the samples of the validation part.
    """

    metric: float
    weights: dict[str, Tensor]
    predictions: tuple[Any, ...] = ()

    @classmethod
    def of(cls, model: nn.Module, metric: float, predictions: Sequence[Any] = ()) -> "HeadStart":
        """The model as it is now."""
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        return cls(metric, weights, tuple(predictions))

    def restore_if_better(self, model: nn.Module, best: float | None, greater_is_better: bool) -> bool:
        """Puts the weights back unless training found something better; says whether it did."""
        better = best is None or (self.metric > best if greater_is_better else self.metric < best)
        if better:
            model.load_state_dict(self.weights)
        return better


@dataclass(frozen=True)
class LinearPath:
    """What is a linear model of pooled features inside a head.

    Attributes:
        norm: scales the features; None where the head takes them as they are.
        layer: its weights are the linear model's.
        bias: the linear model's constants.
        scale: what the head multiplies the answer of `layer` by.
        silent: layers whose answer is added to that of `layer`, and shall be nothing at first.
    """

    norm: EchoCareFeatureNorm | None
    layer: nn.Linear
    bias: Tensor
    scale: float = 1.0
    silent: tuple[nn.Linear, ...] = ()

    @classmethod
    def of(cls, model: Any) -> "LinearPath | None":
        """That of a model for images or clips; None for heads that have no such path."""
        head = getattr(model, "video_head", None)
        if head is not None:
            layer = head.frame_classifier
            return cls(head.feature_norm, layer, head.classifier.bias, layer.in_features**-0.5, (head.classifier,))
        layer = getattr(model, "classifier", None)
        if isinstance(layer, nn.Linear) and hasattr(model, "classifier_norm"):
            return cls(model.classifier_norm, layer, layer.bias)
        return None

    @torch.no_grad()
    def set(self, weight: Array, bias: Array, mean: Array, deviation: Array) -> None:
        """Makes it a linear model of features minus `mean`, over `deviation`; without a norm the scaling goes into the weights."""
        if self.norm is None:
            weight = weight / deviation
            bias = bias - weight @ mean
        else:
            self.norm.running_mean.copy_(torch.from_numpy(mean))
            self.norm.running_variance.copy_(torch.from_numpy(deviation**2))
            self.norm.num_batches.fill_(SETTLED)
        for layer in self.silent:
            nn.init.zeros_(layer.weight)
        self.layer.weight.copy_(torch.from_numpy(weight / self.scale))
        self.bias.copy_(torch.from_numpy(bias))

    @torch.inference_mode()
    def answer(self, features: Array) -> Tensor:
        """(images, features) to (images, outputs)."""
        values: Tensor = torch.from_numpy(features).float()
        if self.norm is not None:
            training = self.norm.training
            values = self.norm.eval()(values)
            self.norm.train(training)
        return F.linear(values, self.layer.weight) * self.scale + self.bias


def start_head(job: Job, model: Any) -> HeadStart | None:
    """Gives the model a head that knows what the encoder's features tell, where that is wanted and can be done.

    Args:
        job: with a trained checkpoint and `head_start` among its arguments.
        model: for images or clips; the heads of other tasks hold no linear model of pooled features and stay as they are.

    Returns:
        The start, or None where nothing was changed.

    Raises:
        ValueError: out of memory, with what to try.
    """
    path = LinearPath.of(model)
    if job.checkpoint is None or not job.arguments.head_start or path is None:
        return None
    with memory_advice(job.task, job.arguments):
        metric, predictions = fit_head(job, model, path)
    print(
        f"the head starts from a linear model of the features: validation {job.task.best_metric} {metric:.3f}",
        flush=True,
    )
    return HeadStart.of(model, metric, predictions)


def fit_head(job: Job, model: Any, path: LinearPath) -> tuple[float, list[Any]]:
    """Fits the linear model in a head to the features that the encoder has now: of a clip, the mean of its frames'.

    Each training image counts twice, as it is and as its first augmentation makes it, if there is any: on people, clips and images that
    were left out the model errs less so (docs/results.md, "The start of a head").

    Args:
        job: a classification or regression of images or clips.
        model: its encoder makes the features.
        path: of the model, is set.

    Returns:
        The task's deciding metric on the validation part, and the predictions that have it.
    """
    known, labels = features_of(job, model, "train"), _labels(job)
    if job.arguments.augmentation > 0:
        known = np.concatenate((known, features_of(job, model, "train", augmented=True)))
        labels = np.concatenate((labels, labels))
    validation = features_of(job, model, "validation")
    mean, deviation = known.mean(0), known.std(0) + 1e-6
    scaled = (known - mean) / deviation
    fit = _fit_for(job, labels)
    best: tuple[float, list[Any], Array, Array] | None = None
    for strength in STRENGTHS:
        weight, bias = fit(scaled, strength)
        path.set(weight, bias, mean, deviation)
        value, predictions = _measure(job, path, validation)
        better = best is None or (value > best[0] if job.task.greater_is_better else value < best[0])
        if better or (best is not None and np.isnan(best[0])):
            best = value, predictions, weight, bias
    assert best is not None
    path.set(*best[2:], mean, deviation)
    return best[:2]


@torch.inference_mode()
def features_of(job: Job, model: Any, part: str, augmented: bool = False) -> Array:
    """Pooled features of all images or clips of a part, as they are or augmented: (images, features)."""
    data = job.sets[part]
    size = min(BATCH, 2 * job.arguments.batch_size)
    training = model.training
    model.eval()
    found = []
    for start in range(0, len(data), size):
        rows = range(start, min(start + size, len(data)))
        examples = [data[row] if augmented else data.task.example(data.item(row), None) for row in rows]
        batch = data.task.collate(examples)
        found.append(_pooled(model, batch).double())
    model.train(training)
    return torch.cat(found).numpy()


def _pooled(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """(images, features) of a batch of images or clips."""
    pixels = batch["pixel_values"]
    if pixels.ndim == 4:
        return pooled_features(model.echocare, pixels)[0]
    clips, mask = check_clips(pixels, batch.get("frame_mask"))
    counts = mask.sum(1)
    features = pooled_features(model.echocare, clips[mask])[0].split(counts.tolist())
    return torch.stack([frames.mean(0) for frames in features])


def _labels(job: Job) -> Array:
    """(images, columns) of the training part: a class, findings, or measured values."""
    data = job.sets["train"]
    labels = torch.stack([data.item(row)["label"] for row in range(len(data))])
    return labels.double().reshape(len(data), -1).numpy()


def _fit_for(job: Job, labels: Array) -> Fit:
    """What fits the last layer for the kind of problem that the configuration names."""
    config = job.config
    problem = config.problem_type
    weight = "balanced" if config.class_weights is not None or config.positive_weights is not None else None
    if problem == "regression":
        targets = (labels - np.array(config.regression_mean)) / np.array(config.regression_deviation)
        return lambda features, strength: _ridge(features, targets, strength)
    if problem == "multi_label_classification":
        columns = [(labels[:, index] >= 0, labels[:, index] > 0, 0.0) for index in range(labels.shape[1])]
        return lambda features, strength: binary_columns(features, columns, strength, weight)
    classes = labels[:, 0].astype(int)
    if problem == "ordinal_classification":
        # The head adds log(classes - 1 - k) to the number of step k, which says whether y > k among those with y >= k.
        steps = (config.num_labels or 0) - 1
        columns = [(classes >= step, classes > step, float(np.log(steps - step))) for step in range(steps)]
        return lambda features, strength: binary_columns(features, columns, strength, weight)
    return lambda features, strength: _classes(features, classes, config.num_labels or 0, strength, weight)


def _classes(features: Array, classes: Any, count: int, strength: float, weight: str | None) -> tuple[Array, Array]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, class_weight=weight, max_iter=2000).fit(features, classes)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps the difference of two classes only
        coefficients = np.concatenate((-coefficients, coefficients)) / 2
        intercepts = np.concatenate((-intercepts, intercepts)) / 2
    weights, biases = np.zeros((count, features.shape[1])), np.full(count, intercepts.min() - 10.0)
    weights[model.classes_], biases[model.classes_] = coefficients, intercepts
    return weights, biases


def binary_columns(
    features: Array, columns: list[tuple[Any, Any, float]], strength: float, weight: str | None
) -> tuple[Array, Array]:
    """One logistic regression a column: which rows count, which of them are positive, and what the head itself adds."""
    from sklearn.linear_model import LogisticRegression

    weights, biases = np.zeros((len(columns), features.shape[1])), np.zeros(len(columns))
    for index, (known, positive, added) in enumerate(columns):
        wanted = positive[known]
        if wanted.any() and not wanted.all():
            model = LogisticRegression(C=strength, class_weight=weight, max_iter=2000).fit(features[known], wanted)
            weights[index], biases[index] = model.coef_[0], model.intercept_[0]
        biases[index] -= added
    return weights, biases


def _ridge(features: Array, targets: Array, strength: float) -> tuple[Array, Array]:
    """One ridge regression a target, on the rows where it is known."""
    from sklearn.linear_model import Ridge

    weights, biases = np.zeros((targets.shape[1], features.shape[1])), np.zeros(targets.shape[1])
    for index in range(targets.shape[1]):
        known = np.isfinite(targets[:, index])
        if known.any():
            model = Ridge(alpha=1 / strength).fit(features[known], targets[known, index])
            weights[index], biases[index] = model.coef_, model.intercept_
    return weights, biases


def _measure(job: Job, path: LinearPath, features: Array) -> tuple[float, list[Any]]:
    """The deciding metric of the head on features of the validation part, and its predictions."""
    outputs = EchoCareVideoClassifierOutput(logits=label_logits(path.answer(features), job.config))
    samples = job.parts["validation"]
    data = job.sets["validation"]
    predictions = job.task.predict(outputs, samples, [data.item(row) for row in range(len(data))])
    return float(job.task.metrics(predictions, samples, last=False)[job.task.best_metric]), predictions


__all__ = [
    "SETTLED",
    "STRENGTHS",
    "HeadStart",
    "LinearPath",
    "binary_columns",
    "features_of",
    "fit_head",
    "start_head",
]
