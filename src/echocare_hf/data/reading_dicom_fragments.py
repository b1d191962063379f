"""Encapsulated pixel data in a file: where its fragments lie, and which of them make a frame (PS3.5 A.4).

pydicom finds a frame by walking over all fragments before it, once for each frame, and refuses a file that is cut short. Here the
fragments are walked over once, and the frames that are whole are known.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import unpack
from typing import BinaryIO

_ITEM, _DELIMITER = 0xFFFEE000, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_END_OF_IMAGE = b"\xff\xd9"
_BLOCK = 1024**2


@dataclass(frozen=True)
class Fragments:
    """The fragments of one Pixel Data element.

    Attributes:
        places: byte of the file that each item tag is at, and as the last entry the byte after the last whole fragment.
        offsets: Basic Offset Table, empty where the file has none.
        is_complete: whether the element ends as it should; if not, the file is cut short or damaged there.
        remainder: bytes of a fragment that is cut short, behind the last whole one.
    """

    places: Sequence[int]
    offsets: Sequence[int]
    is_complete: bool
    remainder: int

    @property
    def count(self) -> int:
        """Whole fragments."""
        return len(self.places) - 1

    def read(self, file: BinaryIO, fragment: int) -> bytes:
        """The value of a fragment."""
        file.seek(self.places[fragment] + 8)
        return file.read(self.places[fragment + 1] - self.places[fragment] - 8)

    def copy(self, file: BinaryIO, target: BinaryIO) -> None:
        """Write the values of all fragments to `target`, one behind the other, as far as they are there."""
        spans = [(start + 8, end - start - 8) for start, end in zip(self.places, self.places[1:], strict=False)]
        for start, length in [*spans, (self.places[-1] + 8, self.remainder)]:
            file.seek(start)
            while length > 0 and (block := file.read(min(_BLOCK, length))):
                target.write(block)
                length -= len(block)

    def frame_starts(self, file: BinaryIO, num_frames: int, extended_offsets: Sequence[int] = ()) -> Sequence[int]:
        """The first fragment of each frame, and as the last entry the fragment after the last whole frame.

        Args:
            file: the file.
            num_frames: Number of Frames.
            extended_offsets: Extended Offset Table, empty where the file has none.

        Raises:
            ValueError: if an offset table points to where no fragment starts.
        """
        if offsets := extended_offsets or self.offsets:
            starts = array("Q", self._from_offsets(offsets))
        elif num_frames == 1:
            starts = array("Q", [0, self.count] if self.is_complete and self.count else [0])
        elif self.count <= num_frames:
            starts = array("Q", range(self.count + 1))
        else:
            starts = array("Q", self._from_markers(file))
        return starts[: num_frames + 1]

    def _from_offsets(self, offsets: Sequence[int]) -> Iterator[int]:
        for offset in offsets:
            place = self.places[0] + offset
            fragment = bisect_left(self.places, place)
            if fragment == len(self.places):
                if self.is_complete:
                    raise ValueError("its offset table points behind its last frame")
                return
            if self.places[fragment] != place:
                raise ValueError("its offset table points to where no frame starts")
            yield fragment
        if self.is_complete:
            yield self.count

    def _from_markers(self, file: BinaryIO) -> Iterator[int]:
        """Without a table, a frame ends with the fragment that ends with the marker of JPEG."""
        yield 0
        last = 0
        for fragment in range(self.count):
            file.seek(max(self.places[fragment] + 8, self.places[fragment + 1] - 10))
            if _END_OF_IMAGE in file.read(self.places[fragment + 1] - file.tell()):
                last = fragment + 1
                yield last
        if self.is_complete and last < self.count:
            yield self.count


def find_fragments(file: BinaryIO) -> Fragments:
    """Walk over the fragments of encapsulated pixel data.

    Args:
        file: at the first byte of the element's value.

    Raises:
        ValueError: if the value does not start with an offset table.
    """
    start = file.tell()
    size = file.seek(0, 2)
    file.seek(start)
    tag, length = _item(file.read(8))
    if tag != _ITEM or length % 4 or start + 8 + length > size:
        raise ValueError("its compressed pixels do not start with an offset table")
    offsets = array("Q", unpack(f"<{length // 4}L", file.read(length)))
    place = start + 8 + length
    places = array("Q", [place])
    while True:
        file.seek(place)
        tag, length = _item(file.read(8))
        if tag != _ITEM or length == _UNDEFINED:
            return Fragments(places, offsets, tag == _DELIMITER, 0)
        if place + 8 + length > size:
            return Fragments(places, offsets, False, size - place - 8)
        place += 8 + length
        places.append(place)


def _item(head: bytes) -> tuple[int, int]:
    """Tag and length of an item; a tag of 0 at the end of the file."""
    if len(head) < 8:
        return 0, 0
    group, element, length = unpack("<HHL", head)
    return group << 16 | element, length
