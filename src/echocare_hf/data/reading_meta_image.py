"""The text header of a MetaImage file (MHD, MHA) and where its pixels lie: what ITK trusts and this package checks."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .reading_record import UnreadableFileError

_HEADER_BYTES = 8192
_BLOCK = 256 * 1024


def is_meta_image(header: bytes) -> bool:
    """Whether a file is a MetaImage, by its first bytes."""
    return b"ElementDataFile" in header


def first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)


def header_value(header: bytes, key: bytes) -> str | None:
    """The value of `Key = value` in a MetaImage text header."""
    for line in header.splitlines():
        name, separator, value = line.partition(b"=")
        if separator and name.strip() == key:
            return value.decode("ascii", errors="replace").strip()
    return None


def check_data_file(path: Path, header: bytes) -> None:
    """A header may name any file of the machine as its pixels: only the header's own folder is allowed."""
    name = header_value(header, b"ElementDataFile") or ""
    pattern = name.split()[0] if name else ""
    if pattern in ("LOCAL", "Local", "local"):
        return
    if pattern == "LIST" or "%" in pattern:
        raise UnreadableFileError(path, "keeps its slices in a list of files; save it as one .mha file")
    data_file = Path(name)
    if data_file.is_absolute() or ".." in data_file.parts or "\\" in name or not name:
        raise UnreadableFileError(path, "names a data file outside its own folder; put the two side by side")
    if not (path.parent / data_file).is_file():
        raise UnreadableFileError(path, f"its data file {name} is missing; put it beside the .mhd file")


def is_compressed(header: bytes) -> bool:
    return (header_value(header, b"CompressedData") or "").lower() == "true"


def check_data_length(path: Path, header: bytes, reader: Any) -> None:
    """Refuse uncompressed MetaImage data shorter than its header says (ITK would also print to the terminal)."""
    if is_compressed(header):
        return
    data_file, start = _data_place(path, header)
    _check_bytes(path, data_file.stat().st_size - start, _expected_bytes(reader))


def unpack_meta_image(path: Path, header: bytes, reader: Any, folder: Path) -> Path:
    """Unpack compressed pixels into `folder`, at most as many bytes as the header promises.

    Args:
        path: the .mha or .mhd file.
        header: its first bytes.
        reader: SimpleITK's reader of it, header read.
        folder: where an uncompressed .mhd and its pixels go.

    Returns:
        The uncompressed .mhd.

    Raises:
        UnreadableFileError: if there are fewer bytes, or they are damaged.
    """
    data_file, start = _data_place(path, header)
    expected, found = _expected_bytes(reader), 0
    unpacker = zlib.decompressobj(47)  # as MetaIO: zlib or gzip, whichever it is
    with data_file.open("rb") as packed, (folder / "pixels.raw").open("wb") as unpacked:
        packed.seek(start)
        try:
            while found < expected and not unpacker.eof:
                block = unpacker.unconsumed_tail or packed.read(_BLOCK)
                values = unpacker.decompress(block, min(_BLOCK, expected - found))
                if not block and not values:
                    break
                unpacked.write(values)
                found += len(values)
        except zlib.error as error:
            raise UnreadableFileError(path, "its compressed pixels are damaged; copy or export it again") from error
    _check_bytes(path, found, expected)
    lines = header[: header.index(b"ElementDataFile")].splitlines()
    kept = [line for line in lines if not line.strip().startswith(b"CompressedData")]
    stored = folder / "volume.mhd"
    stored.write_bytes(b"\n".join([*kept, b"ElementDataFile = pixels.raw\n"]))
    return stored


def _data_place(path: Path, header: bytes) -> tuple[Path, int]:
    """The file that holds the pixels, and the byte they start at."""
    name = header_value(header, b"ElementDataFile") or ""
    if name.lower() != "local":
        return path.parent / name, 0
    end_of_header = header.find(b"\n", header.index(b"ElementDataFile"))
    return path, end_of_header + 1 if end_of_header >= 0 else path.stat().st_size


def _expected_bytes(reader: Any) -> int:
    import SimpleITK

    bits = {"8": 8, "16": 16, "32": 32, "64": 64}
    sample_type = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())
    sample_bits = next((size for digits, size in bits.items() if f"{digits}-bit" in sample_type), 0)
    return int(np.prod(reader.GetSize(), dtype=np.int64)) * int(reader.GetNumberOfComponents()) * sample_bits // 8


def _check_bytes(path: Path, found: int, expected: int) -> None:
    if found < expected:
        raise UnreadableFileError(path, f"is cut short: {found} of {expected} bytes of pixels; copy it again")
