"""DICOM to RGB frames: every photometric interpretation and transfer syntax that ultrasound comes in.

Decoding is pydicom's (native, RLE, JPEG, JPEG-LS, JPEG 2000, with GDCM, pylibjpeg or Pillow behind it); MPEG and HEVC
streams go through PyAV. `reading_dicom_pixels` says what a decoded sample means.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.utils import as_pixel_options

from .reading_dicom_header import (
    is_image_class,
    read_frame_times,
    read_metadata,
    read_modality,
    read_regions,
    read_spacing,
)
from .reading_dicom_pixels import check_stream, colour_to_rgb, find_decoder, plane_to_rgb, plugin_of
from .reading_record import (
    UltrasoundRecord,
    UnreadableFileError,
    check_decoded_bytes,
    check_size,
    one_line,
    pick_frames,
    times_at,
)
from .reading_video import read_video

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

# What pydicom and its decoders raise for files that do not keep to the standard.
DAMAGE = (
    InvalidDicomError,
    BytesLengthException,
    ArithmeticError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def read_dicom(path: Path, every: int = 1, max_frames: int | None = None, force: bool = False) -> UltrasoundRecord:
    """Read a DICOM image or cine loop. Arguments, result and errors are those of `read_ultrasound`.

    Monochrome samples pass the modality transform, then the VOI LUT or the first window of the file (PS3.3 C.11.1 and
    C.11.2); without one, 8-bit samples stay as they are and others follow `volume_to_uint8`. MONOCHROME1 is inverted.
    Palette and YBR become RGB. Objects of other modalities (CT, ...) are read too, with their modality in `metadata`.

    Args:
        force: read a file without the DICM preamble; it must then hold pixels.
    """
    with named_damage(path):
        dataset = _parse(path, force)
        check_header(path, dataset, has_pixels=any(keyword in dataset for keyword in PIXEL_KEYWORDS))
        return _read_dataset(path, dataset, every, max_frames)


@contextmanager
def named_damage(path: Path) -> Iterator[None]:
    """What pydicom raises for a damaged file becomes one line that names it; what it warns of is left out."""
    with warnings.catch_warnings():
        # pydicom reports every small departure from the standard; those that matter end as errors below.
        warnings.filterwarnings("ignore", category=UserWarning)
        try:
            yield
        except UnreadableFileError:
            raise
        except DAMAGE as error:
            raise UnreadableFileError(
                path, f"is a damaged or cut-short DICOM file ({one_line(error, 100)}); copy or export it again"
            ) from error


def _parse(path: Path, force: bool) -> pydicom.FileDataset:
    if not force:
        return pydicom.dcmread(path)
    try:
        dataset = pydicom.dcmread(path, force=True)
    except DAMAGE as error:
        raise not_dicom(path) from error
    if not any(keyword in dataset for keyword in PIXEL_KEYWORDS):
        raise not_dicom(path)
    return dataset


def not_dicom(path: Path) -> UnreadableFileError:
    return UnreadableFileError(path, "is not a DICOM file in spite of its name; check what it holds")


def check_header(path: Path, dataset: pydicom.FileDataset, has_pixels: bool) -> None:
    """Refuse a data set without pixels or of an impossible size; note the encoding where there is no file meta header."""
    if not has_pixels:
        if "EncryptedAttributesSequence" in dataset:
            raise UnreadableFileError(path, "is encrypted (DICOM PS3.15 annex E), pixels included; decrypt it first")
        sop_class = pydicom.uid.UID(str(dataset.get("SOPClassUID") or ""))
        # pydicom drops what it was parsing when the file ends.
        if "Rows" in dataset or not sop_class or is_image_class(sop_class):
            raise UnreadableFileError(
                path, "is cut short before its pixel data, or was saved without them; copy or export it again"
            )
        raise UnreadableFileError(
            path, f"is DICOM without pixel data ({sop_class.name}); give the image object instead"
        )
    stated = dataset.get("NumberOfFrames")
    if stated is not None and str(stated).strip() == "0":
        raise UnreadableFileError(path, "states 0 frames; export it again")
    if "TransferSyntaxUID" not in dataset.file_meta:
        # No complete file meta header: pixels are then uncompressed, in the encoding pydicom saw while parsing.
        is_implicit, is_little = dataset.original_encoding
        explicit = pydicom.uid.ExplicitVRLittleEndian if is_little else pydicom.uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if is_implicit else explicit
    check_size(path, int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))


def _read_dataset(path: Path, dataset: Dataset, every: int, max_frames: int | None) -> UltrasoundRecord:
    transfer_syntax = dataset.file_meta.TransferSyntaxUID
    metadata = read_metadata(dataset) | {"transfer_syntax": transfer_syntax.name}
    frame_times: tuple[float, ...] | None = None
    if transfer_syntax.name.startswith(("MPEG", "HEVC")):
        # The whole stream is encapsulated as if it were one frame (PS3.5 8.2.7).
        stream = io.BytesIO(b"".join(generate_frames(dataset.PixelData, number_of_frames=1)))
        video = read_video(path, every, max_frames, stream=stream)
        frames, frame_times = video.frames, video.frame_times_ms
        header = int(dataset.get("NumberOfFrames") or 0)  # 1 may stand for the one item of the whole stream
        num_frames = video.metadata.get("num_frames") or (header if header >= len(frames) and header > 1 else None)
    else:
        total = num_frames = int(dataset.get("NumberOfFrames") or 1)
        indices = pick_frames(total, every, max_frames)
        check_decoded_bytes(path, len(indices), int(dataset.Rows), int(dataset.Columns))
        frames = _decode(path, dataset, indices)
        frame_times = times_at(read_frame_times(dataset, total), indices)
    height, width = frames.shape[1:3]
    regions, region_spacing = read_regions(dataset, height, width)
    return UltrasoundRecord(
        frames=frames,
        spacing=read_spacing(dataset, regions, region_spacing),
        regions=regions,
        modality=read_modality(dataset),
        frame_times_ms=frame_times,
        metadata=metadata | ({} if num_frames is None else {"num_frames": num_frames}),
    )


def _decode(path: Path, dataset: Dataset, indices: range) -> np.ndarray:
    """The frames at `indices` as uint8 RGB `(num_frames, height, width, 3)`."""
    decoder = find_decoder(path, dataset.file_meta.TransferSyntaxUID)
    # raw=False: pydicom turns YBR_FULL and YBR_FULL_422 into RGB, and `described` says what came out.
    options: dict[str, Any] = as_pixel_options(dataset) | {"raw": False, "validate": True}
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        options["decoding_plugin"] = plugin_of(decoder)
        if options["decoding_plugin"] == "gdcm":
            num_frames = int(dataset.get("NumberOfFrames") or 1)
            for index, stream in enumerate(generate_frames(dataset.PixelData, number_of_frames=num_frames)):
                if index in indices:
                    check_stream(dataset, stream)
    decoded = decoder.iter_array(dataset, indices=indices, **options)
    samples: list[np.ndarray] = []
    photometric = ""
    for array, described in decoded:
        photometric = str(described["photometric_interpretation"])
        samples.append(colour_to_rgb(path, array, photometric, dataset) if array.ndim == 3 else array)
    if len(samples) != len(indices):
        raise UnreadableFileError(
            path, f"is cut short: {len(samples)} of {len(indices)} frames are there; copy or export it again"
        )
    stacked = np.stack(samples)
    return stacked if stacked.ndim == 4 else plane_to_rgb(path, stacked, photometric, dataset)
