"""What an encoder that does not learn makes of the images, computed once for all of training.

Most of a step's time is the encoder's. Where it stays as it is, its maps of the same image are always the same: of each training image
those of the image as it is and of a few augmented copies are kept, and a step draws one of them.
"""

from typing import Any

import torch
from torch import Tensor

from echocare_hf.data.augmentation import sample_generator
from echocare_hf.finetuning.prepared import CACHE_BYTES, PreparedData

Encoded = tuple[Tensor, list[Tensor]]
"""Of an examination: features (images, features), and maps (images, channels, height, width) each."""


@torch.no_grad()
def encode_once(encoder: Any, data: PreparedData, copies: int) -> bool:
    """Puts what the encoder makes of its images beside each example, as `encoded`.

    Args:
        encoder: an `EchoCareReportEncoder`, which must not learn any more.
        data: its examples are kept in memory; with a seed, in training, augmented copies are made too.
        copies: augmented copies an examination.

    Returns:
        Whether there was room.
    """
    if not data.keep:
        return False
    training = encoder.training
    encoder.eval()
    used = 0
    for index in range(len(data)):
        item = data.item(index)
        if "encoded" in item:
            continue
        versions: list[Encoded] = []
        for copy in range(copies + 1 if data.seed is not None else 1):
            chance = sample_generator(data.seed or 0, copy, index) if copy else None
            images = data.task.example(item, chance)["images"].to(encoder.device)
            features, maps = encoder.encode_images(images)
            versions.append((features.float().cpu(), [each.float().cpu() for each in maps]))
        used += sum(part.nbytes for features, maps in versions for part in (features, *maps))
        if used * len(data) > CACHE_BYTES * (index + 1) and index >= 8:
            for row in range(index):
                data.item(row).pop("encoded", None)
            encoder.train(training)
            return False
        item["encoded"] = versions
    encoder.train(training)
    return True


def batched(examples: list[Encoded], mask: Tensor) -> dict[str, Any]:
    """What the model takes of encoded images: `image_features` and `image_maps`, 0 for padding.

    Args:
        examples: of each examination.
        mask: (batch, images), True for images.
    """
    columns = [torch.cat([features for features, _ in examples])]
    columns += [torch.cat(parts) for parts in zip(*(maps for _, maps in examples), strict=True)]
    placed = []
    for column in columns:
        values = column.new_zeros(*mask.shape, *column.shape[1:])
        values[mask] = column
        placed.append(values)
    return {"image_features": placed[0], "image_maps": placed[1:]}


__all__ = ["Encoded", "batched", "encode_once"]
