"""The frame that a page shows, and what models of clips saw, kept in the request's folder for what a visitor may ask later."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from echocare_hf.examination.events import SeenClip
from echocare_hf.examination.region import Region

from .analysis import Answer

FILE_NAME, CLIP_NAME = "frame.npz", "clip_{}.npz"
GONE = "this result is not kept any more: analyse the file again"


@dataclass(frozen=True, eq=False)
class KeptFrame:
    """A frame, uint8 `(height, width, 3)`, and what of it is analysed."""

    pixels: np.ndarray
    region: Region

    @property
    def crop(self) -> np.ndarray:
        """The analysed region alone."""
        return self.region.crop(self.pixels)

    @classmethod
    def of(cls, answer: Answer) -> "KeptFrame":
        return cls(answer.pixels, answer.region)

    def save(self, folder: Path) -> None:
        """Writes it into a folder."""
        mask = np.zeros((0, 0), bool) if self.region.mask is None else self.region.mask
        np.savez(folder / FILE_NAME, pixels=self.pixels, box=np.array(self.region.box), mask=mask)

    @classmethod
    def load(cls, folder: Path) -> "KeptFrame":
        """Reads what `save` wrote.

        Raises:
            ValueError: if it is gone.
        """
        try:
            with np.load(folder / FILE_NAME) as file:
                pixels, box, mask = file["pixels"], file["box"], file["mask"]
        except FileNotFoundError:
            raise ValueError(GONE) from None
        x0, y0, x1, y1 = map(int, box)
        region = Region(pixels.shape[0], pixels.shape[1], (x0, y0, x1, y1), mask if mask.size else None)
        return cls(pixels, region)


def save_clips(answer: Answer, folder: Path) -> None:
    """Writes what the models of clips saw into a folder, a file for each, in the order of the answer's models."""
    for number, seen in enumerate(answer.seen.values()):
        times = () if seen.times_ms is None else seen.times_ms
        np.savez(folder / CLIP_NAME.format(number), frames=seen.frames.numpy(), times=np.array(times, float))


def load_clip(folder: Path, number: int) -> SeenClip:
    """Reads what the model of clips with this number saw.

    Raises:
        ValueError: if it is gone.
    """
    try:
        with np.load(folder / CLIP_NAME.format(number)) as file:
            frames, times = file["frames"], file["times"].tolist()
    except FileNotFoundError:
        raise ValueError(GONE) from None
    return SeenClip(torch.from_numpy(frames), times or None)


__all__ = ["KeptFrame", "load_clip", "save_clips"]
