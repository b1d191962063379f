"""What a report generator must beat to be worth anything: the report of the most similar examination, and the most frequent report.

Both take every text from the training part, among the reports of the language that is asked for.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch

from echocare_hf.model.encoder_echocare import EchoCareModel
from echocare_hf.model.pooling_echocare import pooled_features

from .pairs import ReportPair


def most_frequent_reports(
    training: Sequence[ReportPair], queries: Sequence[ReportPair], per_organ: bool = False
) -> list[str]:
    """The report that occurs most often in the training part, for each query; of several the first in alphabetical order.

    Args:
        training: pairs to take reports from, at least one.
        queries: pairs to answer.
        per_organ (`bool`, *optional*, defaults to `False`): counts the reports of the query's organ alone.
    """
    found: dict[tuple[str, ...], str] = {}
    answers = []
    for query in queries:
        key = (query.language, query.organ) if per_organ else (query.language,)
        if key not in found:
            chosen = _alike(training, query, per_organ)
            counts = Counter(training[index].report for index in chosen)
            found[key] = min(counts, key=lambda text: (-counts[text], text))
        answers.append(found[key])
    return answers


def nearest_reports(
    training: Sequence[ReportPair],
    training_features: np.ndarray,
    queries: Sequence[ReportPair],
    query_features: np.ndarray,
    per_organ: bool = True,
) -> tuple[list[str], list[int]]:
    """The report of the training examination whose features have the highest cosine with those of the query.

    Each feature is first brought to mean 0 and deviation 1 over the training examinations, so that all weigh alike.

    Args:
        training: pairs to take reports from, at least one.
        training_features: `(training, channels)`, see `frozen_features`.
        queries: pairs to answer.
        query_features: `(queries, channels)`.
        per_organ (`bool`, *optional*, defaults to `True`): looks among the examinations of the query's organ alone, which a generator is
            told as well.

    Returns:
        The reports, and the places of their examinations in `training`.
    """
    centre, spread = training_features.mean(0), np.maximum(training_features.std(0), 1e-6)
    scaled = _unit((training_features - centre) / spread)
    places = []
    for query, feature in zip(queries, _unit((query_features - centre) / spread), strict=True):
        chosen = _alike(training, query, per_organ)
        places.append(chosen[int(np.argmax(scaled[chosen] @ feature))])
    return [training[place].report for place in places], places


@torch.inference_mode()
def frozen_features(
    encoder: EchoCareModel,
    images: Callable[[int], torch.Tensor],
    views: Sequence[Sequence[str]],
    slots: Sequence[str],
    batch: int = 16,
) -> np.ndarray:
    """The features of examinations from an encoder that is not trained for this.

    Each image's features are what `pooled_features` takes from the encoder, averaged over the images of a view; the views stand beside
    each other, so that a right side is compared with right sides.

    Args:
        encoder: in evaluation mode.
        images: gives the images of an examination, `(images, channels, height, width)`.
        views: what the images of each examination show.
        slots: the views that are kept apart; with none of them, or for an image of another view, an image counts for all.
        batch (`int`, *optional*, defaults to 16): examinations at a time.

    Returns:
        float32 `(examinations, slots x channels)`.
    """
    slots = list(slots) or [""]
    found = []
    for start in range(0, len(views), batch):
        parts = [images(index) for index in range(start, min(start + batch, len(views)))]
        pooled = (
            pooled_features(encoder, torch.cat(parts).to(encoder.device))[0].float().cpu()
        )  # (images of all, channels)
        for index, part in enumerate(pooled.split([len(part) for part in parts]), start):
            row = torch.zeros(len(slots), part.shape[-1])
            for slot, name in enumerate(slots):
                inside = [place for place, view in enumerate(views[index]) if view == name or view not in slots]
                if inside:
                    row[slot] = part[inside].mean(0)
            found.append(row.flatten())
    return torch.stack(found).numpy()


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _alike(training: Sequence[ReportPair], query: ReportPair, per_organ: bool) -> list[int]:
    """Places of the training pairs of the query's language and organ; of its language, or all, where there are none."""
    of_language = [index for index, pair in enumerate(training) if pair.language == query.language]
    of_organ = [index for index in of_language if training[index].organ == query.organ]
    return (per_organ and of_organ) or of_language or list(range(len(training)))


__all__ = ["frozen_features", "most_frequent_reports", "nearest_reports"]
