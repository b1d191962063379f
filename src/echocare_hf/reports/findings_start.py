"""The findings head of a trained encoder starts from a linear model on its features, as the heads of fine-tuning do.

A head that is learned by gradient beside the text needs many steps until it tells more than how frequent a finding is, and what it tells
is what the decoder goes by. So one logistic regression a finding is fitted to the features of all training examinations.

Source: Kumar et al. 2022, Fine-tuning can distort pretrained features and underperform out-of-distribution (LP-FT).
"""

from typing import Any

import numpy as np
import torch

from echocare_hf.finetuning.head_start import SETTLED, binary_columns
from echocare_hf.finetuning.prepared import PreparedData

from .job import ReportJob

EPSILON = 1e-6
STRENGTH = 1e-2  # C of the logistic regression, of 1e-3 and 1e-2 the better one by cross-validation (docs/results.md)


@torch.no_grad()
def start_findings_head(job: ReportJob) -> bool:
    """Fits the findings head to the features that the encoder has now; findings weigh as in its loss.

    Args:
        job: of the run; its model is changed.

    Returns:
        Whether the model has such a head.
    """
    model = job.model
    if not job.task.findings:
        return False
    training = model.training
    model.eval()
    images = _features(model.encoder, job.sets["train"])
    norm = model.encoder.feature_norm
    if norm is not None:
        every = torch.cat(images)
        norm.running_mean.copy_(every.mean(0))
        norm.running_variance.copy_(every.var(0, unbiased=False) + EPSILON)
        norm.num_batches.fill_(SETTLED)
    pooled = torch.stack([_pooled(norm, each) for each in images]).double().numpy()
    mean, deviation = pooled.mean(0), pooled.std(0) + EPSILON
    labels = job.targets("train")
    columns = [(labels[:, index] >= 0, labels[:, index] > 0, 0.0) for index in range(labels.shape[1])]
    balance = "balanced" if model.config.findings_positive_weights else None
    weight, bias = binary_columns((pooled - mean) / deviation, columns, STRENGTH, balance)
    weight = weight / deviation
    model.findings_head.weight.copy_(torch.from_numpy(weight))
    model.findings_head.bias.copy_(torch.from_numpy(bias + _one_sided(labels) - weight @ mean))
    model.train(training)
    return True


def _features(encoder: Any, data: PreparedData) -> list[torch.Tensor]:
    """Of each examination the features of its images as they are, (images, features)."""
    found = []
    for index in range(len(data)):
        example = data.task.example({**data.item(index)}, None)
        given = example["encoded"][0] if "encoded" in example else encoder.encode_images(example["images"])[0]
        found.append(given.float().cpu())
    return found


def _pooled(norm: Any, features: torch.Tensor) -> torch.Tensor:
    """What the findings head sees: mean and maximum over the images."""
    features = features if norm is None else norm(features.to(norm.running_mean.device)).cpu()
    return torch.cat((features.mean(0), features.amax(0)))


def _one_sided(labels: np.ndarray) -> np.ndarray:
    """Logits of findings that all training examinations have, or none, of which there is no regression: by the rule of succession."""
    present, absent = (labels > 0).sum(0), (labels == 0).sum(0)
    return np.where((present == 0) | (absent == 0), np.log(present + 1.0) - np.log(absent + 1.0), 0.0)


__all__ = ["start_findings_head"]
