"""Where the images of a corpus are read from: files, parquet shards, or memory. Each is an array uint8 (height, width, 1 or 3)."""

import io
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn import functional as F

from echocare_hf.data.reading import read_ultrasound
from echocare_hf.data.reading_image import to_rgb

ROW_GROUPS_KEPT = 4


class Images(Protocol):
    """Images by their row."""

    def __len__(self) -> int: ...

    def read(self, row: int) -> np.ndarray:
        """uint8 (height, width, 1) if grey, else (height, width, 3)."""

    def blocks(self) -> Sequence[int]:
        """Sizes of the runs of rows that are read together: an epoch takes one run after another, shuffled within."""


def without_colour(pixels: np.ndarray) -> np.ndarray:
    """(height, width, 3) as (height, width, 1) if all channels are equal, else as it is."""
    grey = (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
    return np.ascontiguousarray(pixels[..., :1]) if grey else pixels


def shrink(pixels: np.ndarray, shorter_side: int) -> np.ndarray:
    """The image, antialiased, with its shorter side at most this; never larger than it was."""
    height, width = pixels.shape[:2]
    factor = shorter_side / min(height, width)
    if factor >= 1:
        return pixels
    size = (max(round(height * factor), 1), max(round(width * factor), 1))
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return F.interpolate(planes, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).contiguous().numpy()


class FileImages:
    """One file an image, in any format that `read_ultrasound` takes; of a clip the first frame."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> np.ndarray:
        return without_colour(read_ultrasound(self.paths[row], max_frames=1).frames[0])

    def blocks(self) -> Sequence[int]:
        return [len(self)]


class ShardImages:
    """Images in parquet shards, as `echocare curate` writes them. The last few row groups stay in memory, as encoded bytes.

    Args:
        shards: the files, in order; a row's number counts through all of them.
        column: of the images, `{"bytes": ..., "path": ...}` as `datasets` stores them.
    """

    def __init__(self, shards: Sequence[Path], column: str = "image") -> None:
        import pyarrow.parquet as parquet

        self.shards, self.column = list(shards), column
        self.groups: list[tuple[int, int]] = []  # shard and number of each row group
        self.sizes: list[int] = []
        for number, shard in enumerate(self.shards):
            facts = parquet.read_metadata(shard)
            for group in range(facts.num_row_groups):
                self.groups.append((number, group))
                self.sizes.append(facts.row_group(group).num_rows)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)]).astype(int).tolist()
        self.kept: OrderedDict[int, list[bytes]] = OrderedDict()

    def __len__(self) -> int:
        return self.starts[-1]

    def blocks(self) -> Sequence[int]:
        return self.sizes

    def read(self, row: int) -> np.ndarray:
        place = bisect_right(self.starts, row) - 1
        encoded = self._row_group(place)[row - self.starts[place]]
        where = Path(f"{self.shards[self.groups[place][0]]}, row {row - self.starts[place]}")
        if not encoded:
            raise ValueError(f"{where}: holds no image; curate the corpus again")
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                return without_colour(to_rgb(where, image))
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
            fault = "of no known format" if isinstance(error, UnidentifiedImageError) else error
            raise ValueError(f"{where}: is no image that can be decoded ({fault}); curate the corpus again") from error

    def _row_group(self, place: int) -> list[bytes]:
        import pyarrow
        import pyarrow.parquet as parquet

        if place not in self.kept:
            shard, group = self.shards[self.groups[place][0]], self.groups[place][1]
            try:
                with parquet.ParquetFile(shard) as file:
                    table = file.read_row_group(group, columns=[self.column])
            except (OSError, pyarrow.ArrowException) as error:
                raise ValueError(
                    f"{shard}: the shard cannot be read any more ({str(error).splitlines()[0]}); put it back and give the same "
                    "command again"
                ) from error
            self.kept[place] = [entry["bytes"] for entry in table.column(self.column).to_pylist()]
            while len(self.kept) > ROW_GROUPS_KEPT:
                self.kept.popitem(last=False)
        self.kept.move_to_end(place)
        return self.kept[place]


class MemoryImages:
    """Decoded images."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays)

    def read(self, row: int) -> np.ndarray:
        return self.arrays[row]

    def blocks(self) -> Sequence[int]:
        return [len(self)]


class ChosenImages:
    """Some rows of several sources, in the given order, which must keep rows that are read together together.

    Args:
        sources: what to choose from.
        chosen: (source, row) of each image.
    """

    def __init__(self, sources: Sequence[Images], chosen: Sequence[tuple[int, int]]) -> None:
        self.sources, self.chosen = sources, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def read(self, row: int) -> np.ndarray:
        source, place = self.chosen[row]
        return self.sources[source].read(place)

    def blocks(self) -> Sequence[int]:
        return list(self._blocks())

    def _blocks(self) -> Iterator[int]:
        ends = [np.cumsum(source.blocks()) for source in self.sources]
        previous, size = None, 0
        for source, place in self.chosen:
            block = (source, int(np.searchsorted(ends[source], place, side="right")))
            if block != previous and size:
                yield size
                size = 0
            previous, size = block, size + 1
        if size:
            yield size
