"""Pictures that Pillow reads only where it was built with their decoder, or does not read at all, told by their first bytes."""

from pathlib import Path
from typing import Literal

from .reading_record import UnreadableFileError

Codec = Literal["webp", "jpg_2000", "avif", "heif"]
"""Names of Pillow's features, and "heif" for HEIC, of which it has none."""

HEAD_BYTES = 4096

_NAMES: dict[Codec, str] = {"webp": "WebP", "jpg_2000": "JPEG 2000", "avif": "AVIF"}
_JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")  # the file format; the bare codestream
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")


def codec_of(head: bytes) -> Codec | None:
    """The decoder that a picture needs, by its first bytes, `HEAD_BYTES` of them if there are as many; None for a file of another kind."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(_JPEG_2000):
        return "jpg_2000"
    if head[4:8] != b"ftyp":
        return None
    # Box length, "ftyp", the brand, its version, and further brands (ISO/IEC 14496-12, 4.3).
    length = min(int.from_bytes(head[:4]), len(head))
    brands = {head[8:12], *(head[place : place + 4] for place in range(16, length, 4))}
    if not brands.isdisjoint(_AVIF_BRANDS):
        return "avif"
    return None if brands.isdisjoint(_HEIC_BRANDS) else "heif"


def check_codec(path: Path) -> None:
    """Refuse a picture that this Pillow has no decoder for.

    Raises:
        ImportError: with what to install.
        UnreadableFileError: if the file cannot be opened.
    """
    from PIL import features

    try:
        with path.open("rb") as file:
            codec = codec_of(file.read(HEAD_BYTES))
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be opened ({error.strerror}); check its permissions") from error
    if codec in _NAMES and codec not in features.get_supported():
        raise ImportError(f"reading {_NAMES[codec]} needs a Pillow that has it: pip install --upgrade pillow")
