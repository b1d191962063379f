"""The frames of a DICOM Segmentation: masks as bits, their functional groups, and finding them again.

Masks go to a file as they come, and functional groups are encoded once and filled with numbers: pydicom would need 9 kB and a millisecond
for each of them. So a long clip takes no more memory than a short one.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sr.coding import Code

from .dicom_codes import ANATOMICAL_STRUCTURE, FETUS, PRIVATE_SCHEME, SEGMENTATION, SOURCE_IMAGE, Concept, find_concept
from .dicom_common import code_item, quiet
from .dicom_source import Source
from .results import Segmentation

NOT_ANALYSED = 255
NOTHING_FOUND = "empty: nothing was found"
_LARGEST_PIXEL_DATA = 2**32 - 2  # bytes, an even length in 32 bits

# Elements of a frame's functional groups whose values differ: tag, VR and length, as they are encoded.
_NUMBER_LENGTH = 10
_SEGMENT = b"\x62\x00\x0b\x00US\x02\0"  # Referenced Segment Number
_INDEX_OF_STILL = b"\x20\x00\x57\x91UL\x04\0"  # Dimension Index Values
_INDICES_OF_CLIP = b"\x20\x00\x57\x91UL\x08\0"
_ORDINAL = b"\x20\x00\x28\x91UL\x04\0"  # Temporal Position Index
_SOURCE_FRAME = b"\x08\x00\x60\x11IS" + bytes((_NUMBER_LENGTH, 0))  # Referenced Frame Number
_NUMBERS = (_SEGMENT, _INDEX_OF_STILL, _INDICES_OF_CLIP, _ORDINAL, _SOURCE_FRAME)


class Masks:
    """The frames of a segmentation, packed into a file one after the other without gaps, as PS3.5 8.1.1 has single-bit pixels."""

    def __init__(self, image: Source, file: IO[bytes]) -> None:
        self.image, self.file = image, file
        self.segments: dict[str, Concept] = {}  # by label, in the order of their numbers
        self.frames: list[tuple[int, str]] = []  # index of the source's frame and label, as in the file
        self.are_empty = False
        self._seen: set[int] = set()
        self._rest = np.zeros(0, np.bool_)  # fewer than eight pixels that wait for more
        self.size = 0
        self._digest = hashlib.sha256()

    def add(self, frame: int, segmentation: Segmentation) -> None:
        label_map = segmentation.label_map
        self.image.check_grid(f"the label map of frame {frame}", label_map.shape)
        self.image.frame_numbers(frame)
        if frame in self._seen:
            raise ValueError(f"two label maps of frame {frame} of {self.image.path} are to go into one segmentation")
        self._seen.add(frame)
        values = set(np.unique(label_map).tolist()) - {0, NOT_ANALYSED}
        if unnamed := sorted(values - set(segmentation.classes)):
            raise ValueError(
                f"the label map of frame {frame} of {self.image.path} holds {unnamed} without the name of a class"
            )
        for value, label in sorted(segmentation.classes.items()):
            self.segments.setdefault(label, find_concept(label, segmentation.nodes.get(value)))
            if value in values:
                self._append(frame, label, label_map == value)

    def _append(self, frame: int, label: str, mask: np.ndarray) -> None:
        self.frames.append((frame, label))
        pixels = np.concatenate((self._rest, mask.ravel()))
        whole = len(pixels) // 8 * 8
        self._write(np.packbits(pixels[:whole], bitorder="little").tobytes())
        self._rest = pixels[whole:]

    def _write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > _LARGEST_PIXEL_DATA:
            raise ValueError(
                f"the masks of {self.image.path} are larger than the 4 GB of a DICOM object; write key frames, or fewer frames"
            )
        self._digest.update(data)
        self.file.write(data)

    def close(self) -> str:
        """Writes what waits, to an even length, and gives the SHA-256 of all content."""
        if not self.segments:
            raise ValueError(f"there is no label map of {self.image.path} to write")
        if not self.frames:
            self.are_empty = True
            first = min(self._seen)
            for label in self.segments:
                self._append(first, label, np.zeros((self.image.height, self.image.width), np.bool_))
        self._write(np.packbits(self._rest, bitorder="little").tobytes())
        self._write(b"\0" * (self.size % 2))
        self._digest.update(repr((list(self.segments.items()), self.frames)).encode())
        return self._digest.hexdigest()


def _frame_item(image: Source, masks: Masks) -> Dataset:
    """The functional groups of one frame, with zeros for its numbers."""
    item, identification, content = Dataset(), Dataset(), Dataset()
    identification.ReferencedSegmentNumber = 0
    item.SegmentIdentificationSequence = [identification]
    content.DimensionIndexValues = [0, 0] if image.is_multi_frame else [0]
    if image.is_multi_frame:
        content.TemporalPositionIndex = 0
    if masks.are_empty:
        content.FrameComments = NOTHING_FOUND
    item.FrameContentSequence = [content]
    reference = image.reference(0)
    if image.is_multi_frame:
        reference.ReferencedFrameNumber = "0" * _NUMBER_LENGTH
    reference.PurposeOfReferenceCodeSequence = [code_item(SOURCE_IMAGE)]
    reference.SpatialLocationsPreserved = "YES"
    derivation = Dataset()
    derivation.DerivationCodeSequence = [code_item(SEGMENTATION)]
    derivation.SourceImageSequence = [reference]
    item.DerivationImageSequence = [derivation]
    return item


def encode_frames(image: Source, masks: Masks) -> Iterator[bytes]:
    """The last two elements of the object, functional groups of the frames and pixels, in Explicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, _frame_item(image, masks))
    item = bytearray(buffer.getvalue())
    places = {tag: item.index(tag) + len(tag) for tag in _NUMBERS if tag in item}
    numbers = {label: number for number, label in enumerate(masks.segments, start=1)}
    ordinals = {frame: place for place, frame in enumerate(sorted({frame for frame, _ in masks.frames}), start=1)}
    yield b"\x00\x52\x30\x92SQ\0\0" + struct.pack("<L", len(masks.frames) * (len(item) + 8))
    start = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(item))
    for frame, label in masks.frames:
        number, ordinal = numbers[label], ordinals[frame]
        struct.pack_into("<H", item, places[_SEGMENT], number)
        if image.is_multi_frame:
            struct.pack_into("<LL", item, places[_INDICES_OF_CLIP], number, ordinal)
            struct.pack_into("<L", item, places[_ORDINAL], ordinal)
            struct.pack_into(
                f"{_NUMBER_LENGTH}s", item, places[_SOURCE_FRAME], f"{frame + 1:0{_NUMBER_LENGTH}}".encode()
            )
        else:
            struct.pack_into("<L", item, places[_INDEX_OF_STILL], number)
        yield start + item
    yield b"\xe0\x7f\x10\x00OB\0\0" + struct.pack("<L", masks.size)
    masks.file.seek(0)
    while block := masks.file.read(1 << 20):
        yield block


class Segment(NamedTuple):
    """A segment of a segmentation that was written: its number, its label cut to 64 characters, and what it stands for."""

    number: int
    label: str
    concept: Concept


class WrittenSegmentation:
    """A segmentation that `write_segmentation` wrote, without its pixels: what a report needs to point into it.

    Attributes:
        header: the data set.
        segments: in the order of their numbers.
    """

    def __init__(self, path: Path) -> None:
        with quiet():
            self.header = pydicom.dcmread(path, stop_before_pixels=True)
        self.segments = [
            Segment(item.SegmentNumber, item.SegmentLabel, _read_concept(item)) for item in self.header.SegmentSequence
        ]
        groups = self.header.get_item(
            "PerFrameFunctionalGroupsSequence"
        ).value  # bytes, as nothing has asked for its items
        del self.header.PerFrameFunctionalGroupsSequence
        self._places: dict[tuple[int | None, int], int] = {}
        if NOTHING_FOUND.encode() in groups:
            return
        step = len(groups) // int(self.header.NumberOfFrames)
        segment = groups.index(_SEGMENT) + len(_SEGMENT)
        source = groups.index(_SOURCE_FRAME) + len(_SOURCE_FRAME) if _SOURCE_FRAME in groups[:step] else None
        for place, start in enumerate(range(0, len(groups), step), start=1):
            (number,) = struct.unpack_from("<H", groups, start + segment)
            frame = None if source is None else int(groups[start + source : start + source + _NUMBER_LENGTH])
            self._places[frame, number] = place

    def shown_on(self, source_frames: Sequence[int] | None) -> Iterator[tuple[Segment, int]]:
        """The segments on a source frame, by its number from 1 (None for a still), each with the number of its frame here."""
        for segment in self.segments:
            place = self._places.get((source_frames[0] if source_frames else None, segment.number))
            if place is not None:
                yield segment, place


def _read_concept(segment: Dataset) -> Concept:
    category, kind = (
        _read_code(segment[f"SegmentedProperty{name}CodeSequence"].value[0]) for name in ("Category", "Type")
    )
    regions = [_read_code(item) for item in segment.get("AnatomicRegionSequence", [])]
    sites = [code for code in regions if code != FETUS]
    if not sites and category == ANATOMICAL_STRUCTURE and kind.scheme_designator != PRIVATE_SCHEME:
        sites = [kind]
    return Concept(category, kind, sites[0] if sites else None, is_fetal=FETUS in regions)


def _read_code(item: Dataset) -> Code:
    return Code(item.get("CodeValue") or item.LongCodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
