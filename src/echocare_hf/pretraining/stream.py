"""The endless stream of training images: each image once an epoch, in an order and with changes that depend on nothing but the seed.

Position p of the stream is image p mod N of epoch p // N. Batches are slices of it, and may reach from one epoch into the next; so all
processes have equally many images, none waits for another, and where a run goes on is one number. The crop, the mirroring, the mask and
the dropped paths of an image depend on seed, epoch and image alone: any number of processes and workers sees the same.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from echocare_hf.data.augmentation import AugmentationSettings, change_brightness, sample_generator, uniform
from echocare_hf.data.masking import mask_grid

from .corpus import Corpus
from .recipe import Recipe
from .schedule import Schedule

WEAK_JITTER = AugmentationSettings(gain=0.15, contrast=0.15, gamma=0.15, depth_gain=0, speckle=0, blur=0)


@dataclass(frozen=True)
class Changes:
    """How an image is changed on its way in; see the values of the same names in `Recipe`."""

    crop: float = 0.5
    crop_scale: tuple[float, float] = (0.3, 1.0)
    crop_aspect: tuple[float, float] = (0.75, 1.3333)
    flip_horizontal: float = 0.5
    flip_vertical: float = 0.5
    grey: float = 0.2
    jitter: float = 0.2

    @classmethod
    def of(cls, recipe: Recipe) -> "Changes":
        low, high = recipe.crop_scale
        narrow, wide = recipe.crop_aspect
        return cls(
            recipe.crop,
            (low, high),
            (narrow, wide),
            recipe.flip_horizontal,
            recipe.flip_vertical,
            recipe.grey,
            recipe.jitter,
        )

    def __call__(self, pixels: np.ndarray, size: int, generator: torch.Generator) -> Tensor:
        """One image uint8 (height, width, 1 or 3) to (3, size, size), 0 to 1."""
        crop, mirror, turn, grey, jitter = torch.rand(5, generator=generator).tolist()
        if crop < self.crop:
            pixels = pixels[self.draw_crop(pixels.shape[0], pixels.shape[1], generator)]
        planes = resize(pixels, size)
        if mirror < self.flip_horizontal:
            planes = planes.flip(-1)
        if turn < self.flip_vertical:
            planes = planes.flip(-2)
        image = planes.float() / 255
        if jitter < self.jitter:
            image = change_brightness(image, WEAK_JITTER, generator)
        if len(image) == 3 and grey < self.grey:
            image = (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
        return image.expand(3, -1, -1)

    def draw_crop(self, height: int, width: int, generator: torch.Generator) -> tuple[slice, slice]:
        """A random part of the image, of a share of its area and an aspect relative to its own."""
        share = uniform(*self.crop_scale, generator)
        aspect = math.exp(uniform(math.log(self.crop_aspect[0]), math.log(self.crop_aspect[1]), generator))
        rows = min(height, max(round(height * math.sqrt(share / aspect)), 1))
        columns = min(width, max(round(width * math.sqrt(share * aspect)), 1))
        top = int(uniform(0, height - rows + 1, generator))
        left = int(uniform(0, width - columns + 1, generator))
        return slice(top, top + rows), slice(left, left + columns)


def resize(pixels: np.ndarray, size: int) -> Tensor:
    """uint8 (height, width, channels) to uint8 (channels, size, size), antialiased, as the image processor squashes it."""
    planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    if planes.shape[-2:] == (size, size):
        return planes[0]
    return F.interpolate(planes, (size, size), mode="bilinear", antialias=True)[0]


@dataclass(frozen=True)
class Batch:
    """What one process learns from in one part of a step.

    Attributes:
        pixel_values: (batch, 3, size, size), 0 to 1.
        noise: (batch, rows, columns) float64, 0 to 1: of the mask units, the lowest are hidden.
        labels: (batch, nodes) int64: 1, 0 or -1.
        levels: (batch, levels) int64: the node at each level, -1 where unknown.
        branches: (batch, branches), 0 to 1, for drop path.
        rows: (batch,) int64, rows of the corpus.
    """

    pixel_values: Tensor
    noise: Tensor
    labels: Tensor
    levels: Tensor
    branches: Tensor
    rows: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(**{name: getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__})

    def as_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Order:
    """The order of the images in each epoch. Runs of rows that are read together stay together, shuffled among and within."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        self.blocks = list(corpus.images.blocks())
        self.size, self.seed = len(corpus), seed
        self.kept: dict[int, np.ndarray] = {}

    def row(self, position: int) -> tuple[int, int]:
        """Epoch and row of a position of the stream."""
        epoch, place = divmod(position, self.size)
        if epoch not in self.kept:
            self.kept = {number: rows for number, rows in self.kept.items() if number >= epoch - 1}
            self.kept[epoch] = self.epoch(epoch)
        return epoch, int(self.kept[epoch][place])

    def epoch(self, number: int) -> np.ndarray:
        """Every row once."""
        random = np.random.default_rng([self.seed, number])
        starts = np.concatenate([[0], np.cumsum(self.blocks)])
        return np.concatenate(
            [starts[block] + random.permutation(self.blocks[block]) for block in random.permutation(len(self.blocks))]
        )


@dataclass
class StreamImages(Dataset):
    """The images of a stream by (position, size). `branches` is how many random numbers drop path needs for an image."""

    corpus: Corpus
    changes: Changes
    seed: int
    mask_unit_size: int
    branches: int = 0
    order: Order = field(init=False)

    def __post_init__(self) -> None:
        self.order = Order(self.corpus, self.seed)
        self.labels = torch.from_numpy(self.corpus.node_labels()).long()
        self.levels = torch.from_numpy(self.corpus.level_labels())

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int]:
        position, size = place
        epoch, row = self.order.row(position)
        generator = sample_generator(self.seed, epoch, row)
        noise = torch.rand(mask_grid(size, self.mask_unit_size), generator=generator, dtype=torch.float64)
        try:
            stored = self.corpus.images.read(row)
        except (OSError, ValueError) as error:
            # Of one type and in one line: a worker process can hand on no other.
            raise ValueError(" ".join(str(error).split())) from error
        pixels = self.changes(stored, size, generator)
        branches = torch.rand(self.branches, generator=generator)
        return pixels, noise, self.labels[self.corpus.nodes[row]], self.levels[row], branches, row


def batches(
    images: StreamImages, recipe: Recipe, schedule: Schedule, start: int, rank: int = 0, processes: int = 1
) -> Iterator[list[Batch]]:
    """The batches of one process, from step `start` to the end of the run: for each step one for each accumulated part.

    Raises:
        ValueError: if the batch cannot be cut evenly.
    """
    parts = recipe.accumulation * processes
    if recipe.batch_size % parts:
        raise ValueError(
            f"batch_size ({recipe.batch_size}) must be a multiple of accumulation x processes ({recipe.accumulation} x {processes})"
        )
    size = recipe.batch_size // parts

    def places() -> Iterator[list[tuple[int, int]]]:
        for step in range(start, schedule.steps):
            side = schedule.at(step).image_size
            for part in range(recipe.accumulation):
                first = step * recipe.batch_size + (part * processes + rank) * size
                yield [(position, side) for position in range(first, first + size)]

    loader = DataLoader(
        images,
        batch_sampler=_Places(places()),
        collate_fn=_collate,
        num_workers=recipe.workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if recipe.workers else None,
    )
    step: list[Batch] = []
    for batch in _told_in_one_line(loader):
        step.append(batch)
        if len(step) == recipe.accumulation:
            yield step
            step = []


def _told_in_one_line(loader: Iterable[Batch]) -> Iterator[Batch]:
    """What the loader yields. A ValueError of one of its worker processes comes with a traceback as its text: its last line is kept."""
    try:
        yield from loader
    except ValueError as error:
        raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error


class _Places:
    def __init__(self, places: Iterator[list[tuple[int, int]]]) -> None:
        self.places = places

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.places


def _collate(items: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int]]) -> Batch:
    pixels, noise, labels, levels, branches, rows = zip(*items, strict=True)
    return Batch(
        torch.stack(pixels),
        torch.stack(noise),
        torch.stack(labels),
        torch.stack(levels),
        torch.stack(branches),
        torch.tensor(rows),
    )
