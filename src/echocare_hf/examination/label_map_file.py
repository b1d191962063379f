"""Label maps of a clip's frames on disk, compressed, while they wait for what is written of them at the end."""

import zlib
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from .results import Segmentation


class LabelMapFile:
    """The label maps of one model, frame by frame.

    Args:
        path: of the file, removed by `close`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w+b")
        self._indices, self._starts = array("q"), array("q", [0])
        self._last: Segmentation | None = None

    def add(self, index: int, segmentation: Segmentation) -> None:
        """The map of the next frame; all have one size and one set of classes."""
        self._last = segmentation
        self._indices.append(index)
        size = self._file.write(zlib.compress(segmentation.label_map.tobytes(), 1))
        self._starts.append(self._starts[-1] + size)

    def __iter__(self) -> Iterator[tuple[int, Segmentation]]:
        """Index and map of each frame, in order."""
        return (self._read(place) for place in range(len(self._indices)))

    def read(self, index: int) -> Segmentation | None:
        """The map of one frame, None if it has none."""
        return self._read(self._indices.index(index))[1] if index in self._indices else None

    def _read(self, place: int) -> tuple[int, Segmentation]:
        assert self._last is not None
        self._file.seek(self._starts[place])
        raw = zlib.decompress(self._file.read(self._starts[place + 1] - self._starts[place]))
        label_map = np.frombuffer(raw, np.uint8).reshape(self._last.label_map.shape)
        return self._indices[place], replace(self._last, label_map=label_map)

    def close(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


__all__ = ["LabelMapFile"]
