"""What a user may choose when curating a corpus, and what of it decides which results may be used again."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from echocare_hf.data.labelled.fingerprint import NEAR_DISTANCE

MEASURE_VERSION = 8
"""Raised whenever a step between reading a file and storing its image changes its result: older intermediate files are then ignored."""

_MEASURING = (
    "every",
    "every_seconds",
    "find_region",
    "remove_text",
    "min_nonzero",
    "check_ultrasound",
    "max_side",
    "image_format",
)

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, jobs done and jobs in all."""

Runner = Literal["local", "ray"]
ImageFormat = Literal["jpeg", "png"]


@dataclass(frozen=True)
class CurateOptions:
    """The settings of one corpus.

    Attributes:
        every: keep every n-th frame of a cine loop, volume or animation, at least 1 (paper section 4.4: 10).
        every_seconds: keep one frame in this many seconds instead, above 0; None to count frames. Files without frame times fall back
            to `every`.
        find_region: whether everything around the ultrasound region is removed.
        remove_text: whether text burnt in near the border of the region is removed.
        min_nonzero: drop images with fewer pixels above 0 than this (paper section 4.4: 1,000).
        check_ultrasound: whether images that do not look like ultrasound are dropped.
        near_distance: drop an image if a hash of a kept one (see `near_duplicates.near_images`) differs in at most this many of 64 bits,
            0 to 8; -1 keeps near-copies. 3 bits are the paper's 95 %.
        max_side: longest side of stored images in pixels, at least 32; larger ones are reduced.
        image_format: "jpeg" (quality 95) or "png".
        validation: share of clusters that go to the validation split, 0 to 0.5.
        seed: of the split and of the order of rows, 0 to 2**64 - 1.
        shard_megabytes: about how large a shard of the output is, at least 1.
        contact_images: images a class on the contact sheet, 0 for none (paper section 4.4: 100).
        workers: processes that read images, at least 1.
        runner: "local", or "ray" to run the same plan on a Ray cluster that shares the file system.
    """

    every: int = 10
    every_seconds: float | None = None
    find_region: bool = True
    remove_text: bool = True
    min_nonzero: int = 1000
    check_ultrasound: bool = True
    near_distance: int = NEAR_DISTANCE
    max_side: int = 512
    image_format: ImageFormat = "jpeg"
    validation: float = 0.05
    seed: int = 0
    shard_megabytes: int = 64
    contact_images: int = 100
    workers: int = 1
    runner: Runner = "local"

    def __post_init__(self) -> None:
        checks = (
            (self.every >= 1, "every must be at least 1"),
            (self.every_seconds is None or self.every_seconds > 0, "every_seconds must be above 0"),
            (self.min_nonzero >= 0, "min_nonzero must be at least 0"),
            (-1 <= self.near_distance <= 8, "near_distance must be 0 to 8, or -1 to keep near-copies"),
            (self.max_side >= 32, "max_side must be at least 32"),
            (self.image_format in ("jpeg", "png"), "image_format must be jpeg or png"),
            (0 <= self.validation <= 0.5, "validation must be 0 to 0.5"),
            (0 <= self.seed < 2**64, "seed must be 0 to 2**64 - 1"),
            (self.shard_megabytes >= 1, "shard_megabytes must be at least 1"),
            (self.contact_images >= 0, "contact_images must be at least 0"),
            (self.workers >= 1, "workers must be at least 1"),
            (self.runner in ("local", "ray"), "runner must be local or ray"),
        )
        for fine, message in checks:
            if not fine:
                name = message.split()[0]
                raise ValueError(f"{message}, not {getattr(self, name)!r}")

    def measuring(self) -> str:
        """A text that two settings share only if they make the same of every file."""
        return json.dumps([MEASURE_VERSION, *(getattr(self, name) for name in _MEASURING)])

    def deciding(self) -> dict[str, object]:
        """The settings that decide the output, which the manifest states: all but how the work is carried out."""
        return {name: value for name, value in asdict(self).items() if name not in ("workers", "runner")}


def digest(*texts: str, size: int = 16) -> str:
    """A hexadecimal BLAKE2b digest of some texts, `size` bytes long."""
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogateescape"), digest_size=size).hexdigest()


def word_number(text: str | None) -> int:
    """64 bits that stand for a text, 0 for none."""
    return 0 if text is None else int(digest(text, size=8), 16)


def no_progress(stage: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""
