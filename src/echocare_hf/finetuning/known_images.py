"""What the images of a fine-tuning look like to its encoder, saved beside the checkpoint: `echocare predict` warns of others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from echocare_hf.examination.familiarity import FILE_NAME, FeatureTap, fit_known

from .prepared import PreparedData

MOST_IMAGES = 512  # of a part: enough for means and axes, a few seconds
BATCH = 16


def save_known_images(model: Any, sets: Mapping[str, PreparedData], folder: Path) -> bool:
    """Fits to the training part, calibrates on the validation part, and writes `familiarity.safetensors` into the checkpoint's folder.

    Args:
        model: as it was saved in `folder`.
        sets: with the parts "train" and "validation".
        folder: of the checkpoint.

    Returns:
        Whether there were enough images.
    """
    training, held_out = (_features(model, sets[part]) for part in ("train", "validation"))
    try:
        known = fit_known(training, held_out)
    except ValueError as error:  # a small data set
        print(f"no {FILE_NAME}: {error}", flush=True)
        return False
    known.save(folder)
    return True


@torch.inference_mode()
def _features(model: Any, data: PreparedData) -> np.ndarray:
    """(images, channels): of whole images without augmentation, evenly over the part."""
    rows = np.unique(np.linspace(0, len(data) - 1, min(len(data), MOST_IMAGES)).round().astype(int)).tolist()
    with FeatureTap(model) as tap:
        for start in range(0, len(rows), BATCH):
            images = [data.task.example(data.item(row), None)["pixel_values"] for row in rows[start : start + BATCH]]
            model.echocare(torch.stack(images).to(model.device))
        return tap.take()


__all__ = ["save_known_images"]
