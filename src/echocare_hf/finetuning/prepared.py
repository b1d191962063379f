"""Samples as tensors, ready for training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from echocare_hf.data.augmentation import sample_generator
from echocare_hf.data.labelled import Sample

from .tasks import Task

CACHE_BYTES = 6e9  # prepared images up to this size are kept in memory


class PreparedData(Dataset):
    """Samples as tensors at the model's input size; kept in memory once prepared, where there is room.

    Args:
        task: what turns a sample into tensors.
        samples: the samples.
        seed: of the augmentation; None for none. Each example has its own random numbers for each epoch, whatever the order.
    """

    def __init__(self, task: Task, samples: Sequence[Sample], seed: int | None) -> None:
        self.task, self.samples, self.seed = task, samples, seed
        self.epoch = 0
        self.items: list[Any] = [None] * len(samples)
        self.keep = True

    def prepare_all(self, name: str) -> "PreparedData":
        """Prepares every sample once, so that a file that fails does so before training."""
        used = 0
        for index in tqdm(range(len(self.samples)), desc=f"reading {name}", unit="image", leave=False):
            item = self.item(index)
            used += sum(value.nbytes for value in item.values() if isinstance(value, torch.Tensor))
            if used * len(self.samples) > CACHE_BYTES * (index + 1) and index >= 8:
                self.keep, self.items = False, [None] * len(self.samples)
                break
        return self

    def item(self, index: int) -> dict[str, Any]:
        if self.items[index] is not None:
            return self.items[index]
        item = self.task.prepare(self.samples[index])
        if self.keep:
            self.items[index] = item
        return item

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = None if self.seed is None else sample_generator(self.seed, self.epoch, index)
        return self.task.example(self.item(index), generator)
