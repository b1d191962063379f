"""Frames in an HDF5 file as images of samples, read one by one when they are wanted."""

import io
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from echocare_hf.data.labelled.record import RowReference


def import_h5py() -> Any:
    """h5py, or an error that says how to get it."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError("reading HDF5 needs h5py: pip install h5py") from error
    return h5py


@dataclass(frozen=True)
class Hdf5Frames:
    """An array `(frames, height, width)` or `(frames, height, width, 3)` of uint8, in the form of a `datasets.Dataset` in "arrow" format:
    `frames[row][column][0].as_py()` is the cell of an image. It holds no open file and no pixels, so that it can be pickled.

    Attributes:
        path: the HDF5 file.
    """

    path: str

    def __getitem__(self, row: int) -> "_Row":
        return _Row(self.path, row)

    def reference(self, row: int, array: str) -> RowReference:
        """The frame of a row as a source of a sample."""
        return RowReference(self, row, array, None, f"{self.path}: {array} {row}")


@dataclass(frozen=True)
class _Row:
    path: str
    row: int

    def __getitem__(self, array: str) -> list["_Cell"]:
        return [_Cell(self.path, array, self.row)]


@dataclass(frozen=True)
class _Cell:
    path: str
    array: str
    row: int

    def as_py(self) -> dict[str, Any]:
        """The frame as the bytes of an uncompressed image file."""
        try:
            with import_h5py().File(os.fspath(self.path), "r") as file:
                pixels = np.asarray(file[self.array][self.row], np.uint8)
        except (OSError, KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"{self.path}: {self.array} {self.row} cannot be read ({error}); download it again"
            ) from error
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PPM")
        return {"bytes": content.getvalue(), "path": None}
