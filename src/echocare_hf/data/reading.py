"""`read_ultrasound`: one call from any file a clinic, a scanner or a data set gives to frames a model can take.

    record = read_ultrasound("clip.dcm")
    record.frames.shape, record.spacing, record.modality, record.regions

The kind of file is told by its first bytes; only where these say nothing does the suffix count. Each kind has its own
file beside this one; libraries of optional extras are imported only when a file needs them.
"""

import gzip
import os
import zlib
from pathlib import Path
from typing import Literal

from .reading_codecs import HEAD_BYTES, codec_of
from .reading_record import Modality, UltrasoundRecord, UltrasoundRegion, UnreadableFileError
from .reading_stream import FrameSource

__all__ = [
    "FrameSource",
    "Modality",
    "UltrasoundRecord",
    "UltrasoundRegion",
    "UnknownFormatError",
    "UnreadableFileError",
    "UnsupportedFormatError",
    "open_ultrasound",
    "read_ultrasound",
]

Kind = Literal["image", "dicom", "dicom without preamble", "video", "volume"]

_IMAGE_MAGIC = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
)
_VIDEO_MAGIC = (b"\x1a\x45\xdf\xa3", b"\0\0\x01\xba", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")  # Matroska, MPEG, ASF
_ENVELOPED = bytes.fromhex("06092a864886f70d010703")  # the object identifier of CMS enveloped data (RFC 5652), in DER
DICOM_SUFFIXES = (".dcm", ".dicom", ".dic")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg")
_READABLE = "PNG, JPEG, BMP, TIFF, GIF, WebP, AVIF, JPEG 2000, DICOM, MP4, AVI, NIfTI and MHD"


class UnknownFormatError(UnreadableFileError):
    """A file that is in no format of ours."""


class UnsupportedFormatError(UnknownFormatError):
    """A picture in a format that is known and not read."""


def read_ultrasound(
    path: str | os.PathLike[str], *, every: int = 1, max_frames: int | None = None
) -> UltrasoundRecord:
    """Read an ultrasound image, cine loop or volume of any supported format.

    Formats: PNG, JPEG, BMP, TIFF, GIF, WebP, AVIF, JPEG 2000; DICOM (extra `dicom` for compressed ones); MP4, AVI and other containers
    (extra `video`); NIfTI and MetaImage (extra `volumes`).

    Args:
        path: the file.
        every: keep every n-th frame, starting with the first; at least 1.
        max_frames: keep at most this many frames, at least 1; None for all. Decoding stops there.

    Returns:
        An `UltrasoundRecord`: `frames` uint8 RGB `(num_frames, height, width, 3)` in 0..255, `spacing` in mm per pixel
        or None, `regions`, `modality`, `frame_times_ms`, and `metadata` without anything that identifies a person.

    Raises:
        FileNotFoundError: if there is no such file.
        UnreadableFileError: (a ValueError) if the file cannot be read, with one line that names it and the cure.
        ImportError: if the format needs an extra that is not installed.
        ValueError: if `every` or `max_frames` is below 1.

    Example:
        >>> from pydicom.examples import get_path
        >>> record = read_ultrasound(get_path("ybr_color"), every=10)
        >>> record.frames.shape, record.modality
        ((3, 240, 320, 3), 'B-mode')
    """
    _check_options(every, max_frames)
    path = Path(path)
    kind = detect_kind(path)
    if kind == "image":
        from .reading_image import read_image

        return read_image(path, every, max_frames)
    if kind == "video":
        from .reading_video import read_video

        return read_video(path, every, max_frames)
    if kind == "volume":
        from .reading_volume import read_volume

        return read_volume(path, every, max_frames)
    from .reading_dicom import read_dicom

    return read_dicom(path, every, max_frames, force=kind == "dicom without preamble")


def open_ultrasound(path: str | os.PathLike[str], *, every: int = 1, max_frames: int | None = None) -> FrameSource:
    """Open a file of any format of `read_ultrasound` for reading frame by frame, in memory that does not grow with their number.

    Args and errors are those of `read_ultrasound`; only its limit on decoded bytes does not apply. The frames are equal to those of
    `read_ultrasound`. What is damaged behind the header is found while iterating: the frames before come out, then the error.

    Returns:
        A `FrameSource`, to be used in a `with` statement.

    Example:
        >>> from pydicom.examples import get_path
        >>> with open_ultrasound(get_path("ybr_color"), every=10) as source:
        ...     [(frame.index, frame.pixels.shape) for frame in source]
        [(0, (240, 320, 3)), (10, (240, 320, 3)), (20, (240, 320, 3))]
    """
    _check_options(every, max_frames)
    path = Path(path)
    kind = detect_kind(path)
    if kind == "image":
        from .reading_image import open_image

        return open_image(path, every, max_frames)
    if kind == "video":
        from .reading_video import open_video

        return open_video(path, every, max_frames)
    if kind == "volume":
        from .reading_volume import open_volume

        return open_volume(path, every, max_frames)
    from .reading_dicom_stream import open_dicom

    return open_dicom(path, every, max_frames, force=kind == "dicom without preamble")


def _check_options(every: int, max_frames: int | None) -> None:
    if every < 1:
        raise ValueError(f"every must be at least 1, not {every}")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames must be at least 1, not {max_frames}")


def detect_kind(path: Path) -> Kind:
    """Tell the kind of file by its first bytes, then by its suffix.

    Raises:
        FileNotFoundError: if there is no such file.
        UnknownFormatError: (an UnreadableFileError) if it is empty, or of no kind that can be read; an UnsupportedFormatError for HEIC.
        UnreadableFileError: if it cannot be opened, or is damaged or encrypted.
    """
    if path.is_dir():
        raise UnreadableFileError(path, "is a folder; give one file, or call read_ultrasound for each file in it")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: there is no such file; check the path") from error
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be opened ({error.strerror}); check its permissions") from error
    if not head:
        raise UnknownFormatError(path, "is empty; copy or export it again")
    if (kind := _detect_bytes(path, head)) is not None:
        return kind
    if _ENVELOPED in head[:64]:
        raise UnreadableFileError(path, "is encrypted (CMS, as in DICOM PS3.15 annex D); decrypt it first")
    suffix = path.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        return "dicom without preamble"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    raise UnknownFormatError(path, f"is not in a format that can be read: {_READABLE}")


def _detect_bytes(path: Path, head: bytes) -> Kind | None:
    if head[128:132] == b"DICM":
        return "dicom"
    if _is_nifti(_gunzip(path, head)) or _is_meta_image(head):
        return "volume"
    if (codec := codec_of(head)) is not None:
        if (
            codec == "heif"
        ):  # FFmpeg has a stream for each tile of a large one, the first of which would pass for the picture
            raise UnsupportedFormatError(path, "is a HEIC picture, which is not read; convert it to PNG or JPEG")
        return "image"
    if head.startswith(_VIDEO_MAGIC) or head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "video"
    if head.startswith(_IMAGE_MAGIC):
        return "image"
    return None


def _gunzip(path: Path, head: bytes) -> bytes:
    """The first bytes behind gzip compression, or `head` itself if there is none."""
    if head[:2] != b"\x1f\x8b":
        return head
    try:
        with gzip.open(path) as file:
            return file.read(HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFileError(path, "is a damaged or cut-short gzip file; copy it again") from error


def _is_nifti(head: bytes) -> bool:
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


def _is_meta_image(head: bytes) -> bool:
    text = head.partition(b"ElementDataFile")
    return bool(text[1]) and (b"NDims" in text[0] or b"ObjectType" in text[0])
