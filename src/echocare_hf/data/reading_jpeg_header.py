"""A look at JPEG headers before GDCM sees them: data that contradicts the DICOM header makes GDCM end the process."""

from collections.abc import Iterator

_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}  # F7: JPEG-LS
_START_OF_SCAN = 0xDA


def check_jpeg_header(frame: bytes, height: int, width: int, samples: int, bits_allocated: int) -> None:
    """Compare a JPEG or JPEG-LS stream with what the DICOM header says of it (ITU-T T.81 annex B).

    Args:
        frame: the compressed stream of one frame.
        height: Rows.
        width: Columns.
        samples: Samples per Pixel.
        bits_allocated: Bits Allocated; the stream's precision may be less.

    Raises:
        ValueError: if the stream has no readable header, or one that says otherwise.
    """
    starts = [segment for marker, segment in _segments(frame) if marker in _START_OF_FRAME]
    if len(starts) != 1 or len(starts[0]) < 6:
        raise ValueError("its JPEG header is damaged")
    (start,) = starts
    precision, components = start[0], start[5]
    stated = (int.from_bytes(start[1:3], "big"), int.from_bytes(start[3:5], "big"), components)
    if stated != (height, width, samples) or not 2 <= precision <= bits_allocated or len(start) != 6 + 3 * components:
        raise ValueError("its JPEG header contradicts its DICOM header")
    if not all(factors == 0x11 for factors in start[7::3]):
        raise ValueError("its JPEG header asks for subsampling, which lossless ultrasound does not use")


def _segments(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment up to the start of the scan, that included."""
    position = 2
    if frame[:2] != b"\xff\xd8":
        raise ValueError("its JPEG header is damaged")
    while True:
        head = frame[position : position + 4]
        length = int.from_bytes(head[2:], "big")
        if len(head) < 4 or head[0] != 0xFF or length < 2:
            raise ValueError("its JPEG header is damaged")
        yield head[1], frame[position + 4 : position + 2 + length]
        if head[1] == _START_OF_SCAN:
            return
        position += 2 + length
