"""Images that must not enter a corpus: benchmark sets, held-back data.

    echocare curate benchmarks/ --output unused --hashes benchmarks.txt      # make a list
    echocare curate data/ --output corpus --exclude benchmarks.txt           # keep them out

A list has one hash a line: `pixels:` and 32 hexadecimal digits for images with equal pixels, `looks:` and 16 for images that look the
same. Hashes are taken of the image as it is read and as it would be stored, so that cropped copies are found too.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from echocare_hf.data.labelled.fingerprint import NEAR_DISTANCE

_LINE = re.compile(r"(pixels):([0-9a-f]{32})|(looks):([0-9a-f]{16})")


@dataclass(frozen=True, eq=False)
class ExcludeList:
    """Hashes of images to keep out.

    Attributes:
        pixel_digests: `pixel_digest` of images.
        hashes: uint64 `(images,)`, perceptual hashes.
        distance: most bits in which an image that looks the same may differ.
    """

    pixel_digests: frozenset[str] = frozenset()
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    distance: int = NEAR_DISTANCE

    def __bool__(self) -> bool:
        return bool(self.pixel_digests) or len(self.hashes) > 0

    def lines(self) -> list[str]:
        """The list as text, sorted."""
        return sorted(
            [f"pixels:{digest}" for digest in self.pixel_digests]
            + [f"looks:{int(value):016x}" for value in self.hashes]
        )


def read_exclude(paths: Iterable[Path]) -> ExcludeList:
    """Read lists of hashes; empty lines and what follows a `#` are skipped.

    Raises:
        ValueError: for a line that is no hash.
        OSError: if a list cannot be opened.
    """
    digests: set[str] = set()
    hashes: set[int] = set()
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            content = line.partition("#")[0].strip().lower()
            if not content:
                continue
            match = _LINE.fullmatch(content)
            if match is None:
                raise ValueError(
                    f"{path}: line {number} is no hash (pixels: and 32 hexadecimal digits, or looks: and 16); make the list with --hashes"
                )
            if match[1]:
                digests.add(match[2])
            else:
                hashes.add(int(match[4], 16))
    return ExcludeList(frozenset(digests), np.array(sorted(hashes), np.uint64))


def exclude_from_chunks(chunks: Iterable[Path]) -> ExcludeList:
    """The list of all images that were measured, for `read_exclude` to read."""
    digests: set[str] = set()
    hashes: set[int] = set()
    for path in chunks:
        table = pq.read_table(path, columns=["step", "pixel_digest", "raw_hash", "hash"])
        table = table.filter(pc.is_null(table["step"]))
        digests.update(table["pixel_digest"].to_pylist())
        hashes.update(table["raw_hash"].to_pylist())
        hashes.update(table["hash"].to_pylist())
    return ExcludeList(frozenset(digests), np.array(sorted(hashes), np.uint64))
