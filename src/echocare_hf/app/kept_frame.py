"""The frame that a page shows, kept in the request's folder for what a visitor may ask of it later."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echocare_hf.examination.region import Region

from .analysis import Answer

FILE_NAME = "frame.npz"


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
            raise ValueError("this result is not kept any more: analyse the file again") from None
        x0, y0, x1, y1 = map(int, box)
        region = Region(pixels.shape[0], pixels.shape[1], (x0, y0, x1, y1), mask if mask.size else None)
        return cls(pixels, region)


__all__ = ["KeptFrame"]
