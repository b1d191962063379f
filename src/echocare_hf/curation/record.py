"""What passes from step to step: files that were found, images in the making, and the reason why one was dropped."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from echocare_hf.data.reading_record import Modality, Spacing, UltrasoundRegion

from .options import digest

STEPS = (
    "discover",
    "exact_copy",
    "decode",
    "region",
    "nonzero",
    "ultrasound",
    "excluded",
    "marked",
    "near_copy",
)
"""The steps that may drop something, in their order."""

ROWS_TABLE = "rows.echocare.jsonl"
"""What the rows of a shard say of their images, written beside them when they are taken out; no file of the source."""


def readable(name: str) -> str:
    r"""A file name as text that can be stored: bytes that are no UTF-8, which Python keeps as surrogates, stand as `\xe9`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True, order=True, slots=True)
class FoundFile:
    r"""A file of a source.

    Attributes:
        source: name of the source it was found in.
        name: its path within the source with forward slashes, `archive.zip!/folder/a.png` for a member of an archive; bytes that are no
            UTF-8 stand as `\xe9`.
        path: where it lies on disk, as text.
        size: bytes.
    """

    source: str
    name: str
    path: str
    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", readable(self.name))

    @property
    def key(self) -> str:
        """128 bits, hexadecimal, that depend on source and name only: the place of the file in shards and chunks."""
        return digest(self.source, self.name)


class Drop(NamedTuple):
    """Something that does not enter the corpus.

    Attributes:
        source: name of the source.
        name: path within the source.
        frame: frame of the file, -1 for the file as a whole.
        step: one of `STEPS`.
        reason: a code, the same for all that were dropped for the same reason.
        detail: what a person wants to know, such as the image that this one is a copy of.
    """

    source: str
    name: str
    frame: int
    step: str
    reason: str
    detail: str = ""


@dataclass
class Item:
    """One image on its way through the steps.

    Attributes:
        file: the file it comes from.
        frame: number of the frame in the file.
        pixels: uint8 `(height, width, 3)`, RGB.
        spacing: mm per pixel down and across, or None.
        regions: the calibrated regions of a DICOM file.
        modality: as far as it is known.
        declared: modality code of a DICOM file ("US", "CT", ...), empty for other formats.
        pixel_digest: of the pixels as they were read.
        raw_hash: perceptual hash of the pixels as they were read.
        hash: perceptual hash of the pixels as they are stored.
        box: `(x0, y0, x1, y1)` that was cut out of the frame, half-open.
        shape: what the region looks like: "dicom", "full", "rectangle" or "sector".
        text_removed: lines of text that were removed.
        text_suspected: lines of text that may be left.
        says_text: whether a DICOM header says that text is burnt in.
        ultrasound_score: decision of the machine that tells ultrasound, None where it was not asked.
    """

    file: FoundFile
    frame: int
    pixels: np.ndarray = field(repr=False)
    spacing: Spacing | None = None
    regions: tuple[UltrasoundRegion, ...] = ()
    modality: Modality = "unknown"
    declared: str = ""
    pixel_digest: str = ""
    raw_hash: int = 0
    hash: int = 0
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    shape: str = "full"
    text_removed: int = 0
    text_suspected: int = 0
    says_text: bool = False
    ultrasound_score: float | None = None

    def drop(self, step: str, reason: str, detail: str = "") -> Drop:
        """The record of dropping this image."""
        return Drop(self.file.source, self.file.name, self.frame, step, reason, detail)


def drop_file(file: FoundFile, step: str, reason: str, detail: str = "") -> Drop:
    """The record of dropping a whole file."""
    return Drop(file.source, file.name, -1, step, reason, detail)
