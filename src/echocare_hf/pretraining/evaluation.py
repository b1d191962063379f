"""What a pretrained network knows, on held-out images: masked error, anatomy by level, kNN and linear probe, each beside a trivial answer.

The masks of the held-out images are the same at every look. With several processes each looks at its part of the images.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from echocare_hf import EchoCareForPreTraining
from echocare_hf.data.augmentation import sample_generator
from echocare_hf.data.masking import mask_grid
from echocare_hf.model.losses_echocare import anatomy_hierarchy_loss, coherent_anatomy_scores, expand_mask
from echocare_hf.model.pooling_echocare import pooled_features

from .corpus import Corpus
from .hard_patches import draw_mask
from .stream import resize

NEIGHBOURS = 10
PROBE_REGULARISATION = 1.0  # C of the logistic regression on standardised features
SEED = 20250911  # of the masks of held-out images, whatever the run's seed


@dataclass(frozen=True, eq=False)
class Seen:
    """One held-out image and what the network made of it. Errors are mean absolute differences over hidden pixels, values 0 to 1.

    Attributes:
        row: of the corpus.
        masked_error: of the reconstruction.
        median_error: of the median of the visible pixels, the trivial answer.
        anatomy_loss: L_HIE of the whole image.
        scores: (nodes,), anatomy scores of the whole image.
        features: (channels,), pooled features of the whole image.
        drawing: what a picture of it needs; None if none is wanted.
    """

    row: int
    masked_error: float
    median_error: float
    anatomy_loss: float
    scores: np.ndarray
    features: np.ndarray
    drawing: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None


def pick(corpus: Corpus, most: int, seed: int = SEED) -> np.ndarray:
    """At most so many rows, in ascending order, the same ones at every call."""
    if len(corpus) <= most:
        return np.arange(len(corpus))
    return np.sort(np.random.default_rng(seed).permutation(len(corpus))[:most])


@torch.inference_mode()
def look(
    model: EchoCareForPreTraining,
    corpus: Corpus,
    rows: np.ndarray,
    accelerator: Accelerator,
    *,
    image_size: int,
    mask_ratio: float = 0.5,
    batch_size: int = 32,
    drawings: Collection[int] = (),
    masked: bool = True,
) -> list[Seen]:
    """Runs the model over images, whole and masked.

    Args:
        model: on the accelerator's device.
        corpus: of which.
        rows: which.
        accelerator: of the run; each process looks at its part.
        image_size: side in pixels.
        mask_ratio: share of the mask units to hide.
        batch_size: images at a time.
        drawings: rows whose pixels are kept.
        masked: whether to run the masked pass too; images that a probe learns from need none.

    Returns:
        What was seen of all rows, in ascending order, on every process.
    """
    was_training = model.training
    model.eval()
    table = torch.from_numpy(corpus.node_labels()).long()
    mine = rows[accelerator.process_index :: accelerator.num_processes]
    seen: list[Seen] = []
    for start in range(0, len(mine), batch_size):
        part = mine[start : start + batch_size]
        images = [resize(corpus.images.read(int(row)), image_size).expand(3, -1, -1) for row in part]
        pixels = torch.stack(images).to(accelerator.device).float() / 255  # (batch, 3, size, size)
        labels = table[corpus.nodes[part]].to(accelerator.device)
        with accelerator.autocast():
            features, outputs = pooled_features(model.echocare, pixels)
            logits = model.anatomy_classifier(outputs.pooler_output).float()
        scores = coherent_anatomy_scores(logits, model.anatomy_ancestors).cpu().numpy()
        errors = np.zeros((len(part), 2))
        mask = torch.zeros(len(part), *mask_grid(image_size, model.config.mask_unit_size), dtype=torch.bool)
        restored = pixels
        if masked:
            mask = _masks(part, (mask.shape[1], mask.shape[2]), mask_ratio).to(pixels.device)
            with accelerator.autocast():
                restored = model(pixels, bool_masked_pos=mask).reconstruction.float()
            errors = _errors(pixels, restored, mask, model.config.mask_unit_size)
        for place, row in enumerate(part.tolist()):
            drawing = None
            if row in drawings:
                pair = [
                    (image[place].clamp(0, 1) * 255).byte().permute(1, 2, 0).cpu().numpy()
                    for image in (pixels, restored)
                ]
                drawing = (pair[0], mask[place].cpu().numpy(), pair[1])
            one = slice(place, place + 1)
            seen.append(
                Seen(
                    row=row,
                    masked_error=float(errors[place, 0]),
                    median_error=float(errors[place, 1]),
                    anatomy_loss=float(anatomy_hierarchy_loss(logits[one], labels[one], model.config.anatomy_tree)),
                    scores=scores[place],
                    features=features[place].float().cpu().numpy(),
                    drawing=drawing,
                )
            )
    model.train(was_training)
    everything: list[Seen] = gather_object(seen) if accelerator.num_processes > 1 else seen
    return sorted(everything, key=lambda entry: entry.row)


def _masks(rows: np.ndarray, grid: tuple[int, int], mask_ratio: float) -> Tensor:
    noise = [torch.rand(grid, generator=sample_generator(SEED, 0, int(row)), dtype=torch.float64) for row in rows]
    return draw_mask(torch.stack(noise), mask_ratio)


def _errors(pixels: Tensor, restored: Tensor, mask: Tensor, unit: int) -> np.ndarray:
    """(batch, 2): mean absolute error over hidden pixels of the reconstruction, and of the median of the visible ones."""
    height, width = pixels.shape[-2:]
    hidden = expand_mask(mask, mask.shape[1] * unit, mask.shape[2] * unit)[:, :height, :width].bool()
    errors = []
    for image, guess, where in zip(pixels, restored, hidden, strict=True):
        truth = image[:, where]
        if not truth.numel():
            errors.append([0.0, 0.0])
            continue
        visible = image[:, ~where]
        median = visible.median(1, keepdim=True).values if visible.numel() else torch.zeros_like(truth[:, :1])
        errors.append([float((guess[:, where] - truth).abs().mean()), float((median - truth).abs().mean())])
    return np.array(errors)


def summarise(
    seen: list[Seen], corpus: Corpus, reconstruction_weight: float = 1.0, anatomy_weight: float = 1.0
) -> dict[str, float]:
    """The figures of held-out images.

    Returns:
        `loss` (weighted sum), `masked_error`, `median_error` (trivial), `anatomy_loss` (of labelled images), and for each level of the
        tree `<level>_accuracy` (highest score of the level's nodes, over images that are labelled there) and `<level>_majority`.
    """
    rows = np.array([entry.row for entry in seen])
    labelled = corpus.nodes[rows] >= 0
    figures = {
        "masked_error": float(np.mean([entry.masked_error for entry in seen])),
        "median_error": float(np.mean([entry.median_error for entry in seen])),
    }
    figures["loss"] = reconstruction_weight * figures["masked_error"]
    if labelled.any():
        figures["anatomy_loss"] = float(
            np.mean([entry.anatomy_loss for entry, known in zip(seen, labelled, strict=True) if known])
        )
        figures["loss"] += anatomy_weight * figures["anatomy_loss"]
    truth = corpus.level_labels()[rows]
    scores = np.stack([entry.scores for entry in seen])
    for level, name in enumerate(corpus.tree.level_names):
        known = truth[:, level] >= 0
        if known.any():
            nodes = np.array(corpus.tree.level_nodes(level))
            guess = nodes[scores[known][:, nodes].argmax(1)]
            figures[f"{name}_accuracy"] = float((guess == truth[known, level]).mean())
            figures[f"{name}_majority"] = float(np.bincount(truth[known, level]).max() / known.sum())
    return figures


def probe(train: list[Seen], train_corpus: Corpus, seen: list[Seen], corpus: Corpus) -> dict[str, float]:
    """How well frozen features tell the deepest known node: kNN and linear probe, accuracy on the held-out images.

    Features are brought to mean 0 and deviation 1 of the training images. kNN: cosine, votes weighted by similarity. The linear probe is
    a logistic regression. Held-out nodes that no training image has are left out. Nothing is returned where fewer than two nodes are
    known.

    Raises:
        ValueError: without scikit-learn.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ValueError("the probes need scikit-learn: pip install scikit-learn, or set probe_images to 0") from error
    known_x, known_y = _labelled(train, train_corpus)
    test_x, test_y = _labelled(seen, corpus)
    usable = np.isin(test_y, known_y)
    if len(set(known_y.tolist())) < 2 or not usable.any():
        return {}
    neighbours = min(NEIGHBOURS, len(known_y))
    methods = {
        "knn": KNeighborsClassifier(neighbours, metric="cosine", weights=lambda distance: 1 / (distance + 1e-6)),
        "linear_probe": LogisticRegression(C=PROBE_REGULARISATION, max_iter=1000),
    }
    return {
        f"{name}_accuracy": float(
            make_pipeline(StandardScaler(), method).fit(known_x, known_y).score(test_x[usable], test_y[usable])
        )
        for name, method in methods.items()
    }


def _labelled(seen: list[Seen], corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    chosen = [entry for entry in seen if corpus.nodes[entry.row] >= 0]
    if not chosen:
        return np.empty((0, 0)), np.empty(0, int)
    return np.stack([entry.features for entry in chosen]), corpus.nodes[[entry.row for entry in chosen]]
