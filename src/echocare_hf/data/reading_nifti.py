"""Checks of NIfTI data that its readers leave out.

ITK's NIfTI library fills what is missing of a cut-short file with zeros and turns NaN into 0, both without an error:
a damaged volume would pass for a dark one. The samples are therefore counted here, straight from the file
(https://nifti.nimh.nih.gov, nifti1.h).
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from .reading_record import UnreadableFileError

_CHUNK_BYTES = 1 << 24
_FLOAT_TYPES = {16: "f4", 64: "f8"}  # NIfTI datatype codes


def check_nifti_samples(path: Path) -> None:
    """Refuse a single-file NIfTI (`.nii`, `.nii.gz`) that is cut short or holds NaN or infinite values.

    Raises:
        UnreadableFileError: naming the number of bytes there and expected, or of invalid pixels; also for NIfTI-2,
            which ITK does not read.
    """
    with path.open("rb") as raw:
        is_compressed = raw.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if is_compressed else path.open("rb") as file:
            header = file.read(348)
            if header[4:8] == b"n+2\0":
                raise UnreadableFileError(path, "is NIfTI-2, which is not supported; save it as NIfTI-1")
            order, dimensions, datatype, bits, offset = _parse_header(header)
            file.seek(offset)
            expected = int(np.prod(dimensions, dtype=np.int64)) * bits // 8
            dtype = np.dtype(order + _FLOAT_TYPES[datatype]) if datatype in _FLOAT_TYPES else None
            found = invalid = 0
            while found < expected and (chunk := file.read(min(_CHUNK_BYTES, expected - found))):
                found += len(chunk)
                if dtype is not None:
                    whole = len(chunk) - len(chunk) % dtype.itemsize
                    invalid += int(np.count_nonzero(~np.isfinite(np.frombuffer(chunk[:whole], dtype))))
    except (EOFError, OSError, OverflowError, zlib.error, struct.error) as error:
        raise UnreadableFileError(path, "is a damaged or cut-short NIfTI file; copy or export it again") from error
    if found < expected:
        raise UnreadableFileError(path, f"is cut short: {found} of {expected} bytes of pixels; copy it again")
    if invalid:
        raise UnreadableFileError(path, f"{invalid} pixels are NaN or infinite; replace them and save again")


def _parse_header(header: bytes) -> tuple[str, tuple[int, ...], int, int, int]:
    """Byte order, dimensions, datatype code, bits per sample and offset of the samples."""
    order = "<" if struct.unpack_from("<i", header)[0] == 348 else ">"
    dim = struct.unpack_from(f"{order}8h", header, 40)
    datatype, bits = struct.unpack_from(f"{order}2h", header, 70)
    (offset,) = struct.unpack_from(f"{order}f", header, 108)
    if not 0 <= offset < 2**31:  # also False for NaN
        raise EOFError(f"samples at byte {offset}")
    return order, tuple(max(length, 1) for length in dim[1 : dim[0] + 1]), datatype, bits, int(offset)
