"""Images that must not enter a corpus: benchmark sets, held-back data.

    echocare curate benchmarks/ --output unused --hashes benchmarks.txt      # make a list
    echocare curate data/ --output corpus --exclude benchmarks.txt           # keep them out

A list has one hash a line: `pixels:` and 32 hexadecimal digits for images with equal pixels, `looks:` and 16 for images that look the
same. Hashes are taken of the image as it is read and as it would be stored, cut to its ultrasound region; an image is kept out if one
of its own two is near any on the list. So copies are found that were resized, compressed anew, brightened, or put on another screen.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .inventory import key_bytes
from .tables import whole_file

EXCLUDE_DISTANCE = 8
"""An image with a hash within this many of 64 bits of a listed one is kept out: more than for near-copies, since an evaluation image that
enters costs more than a training image that does not. Of real images on a black screen with text it finds most, where 3 bits find a
third; images of unrelated data sets are 20 bits and more apart (eval/curation/excluded.py)."""

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
    distance: int = EXCLUDE_DISTANCE

    def __bool__(self) -> bool:
        return bool(self.pixel_digests) or len(self.hashes) > 0


def read_exclude(paths: Iterable[Path]) -> ExcludeList:
    """Read lists of hashes; empty lines and what follows a `#` are skipped.

    Raises:
        ValueError: for a line that is no hash, a file that is no text, or a list without a hash, which would keep nothing out.
        OSError: if a list cannot be opened.
    """
    digests: set[str] = set()
    hashes: set[int] = set()
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: is no text, so no list of hashes; make the list with --hashes") from error
        is_empty = True
        for number, line in enumerate(lines, 1):
            content = line.partition("#")[0].strip().lower()
            if not content:
                continue
            match = _LINE.fullmatch(content)
            if match is None:
                raise ValueError(
                    f"{path}: line {number} is no hash (pixels: and 32 hexadecimal digits, or looks: and 16); make the list with --hashes"
                )
            is_empty = False
            if match[1]:
                digests.add(match[2])
            else:
                hashes.add(int(match[4], 16))
        if is_empty:
            raise ValueError(f"{path}: holds no hash, so it would keep nothing out; make the list with --hashes")
    return ExcludeList(frozenset(digests), np.array(sorted(hashes), np.uint64))


def write_hashes(chunks: Iterable[Path], path: Path) -> None:
    """Write the list of all images that were measured, sorted, for `read_exclude` to read."""
    digests: list[np.ndarray] = []
    hashes: list[np.ndarray] = []
    for place in chunks:
        with pq.ParquetFile(place) as file:
            table = file.read(columns=["step", "pixel_digest", "raw_hash", "hash"])
        table = table.filter(pc.is_null(table["step"]))
        digests.append(key_bytes(table["pixel_digest"]))
        hashes += [table["raw_hash"].to_numpy(), table["hash"].to_numpy()]
    looks = np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]))
    pixels = np.unique(np.concatenate([np.empty(0, "S16"), *digests]))
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(f"looks:{value:016x}\n" for value in looks.tolist())
        file.writelines(f"pixels:{value.tobytes().hex()}\n" for value in pixels.view("V16"))
