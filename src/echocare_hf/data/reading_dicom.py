"""DICOM to RGB frames: every photometric interpretation and transfer syntax that ultrasound comes in.

Decoding is pydicom's (native, RLE, JPEG, JPEG-LS, JPEG 2000, with GDCM, pylibjpeg or Pillow behind it); MPEG and HEVC
streams go through PyAV. This file decides what a decoded sample means: palette, colour space, window, inversion.
"""

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, convert_color_space, get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.pixels.utils import as_pixel_options

from .reading_dicom_header import (
    read_frame_times,
    read_metadata,
    read_modality,
    read_pixel_spacing,
    read_regions,
    shared_group,
)
from .reading_intensity import grey_to_rgb, range_to_uint8, volume_to_uint8, window_to_uint8
from .reading_jpeg_header import check_jpeg_header
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

# Decoders in the order they are asked; GDCM comes last because damaged data can make it end the process.
_PLUGINS = ("pylibjpeg", "pillow", "pydicom", "pyjpegls", "gdcm")

_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

# What pydicom and its decoders raise for files that do not keep to the standard.
_DAMAGE = (
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
)


def read_dicom(path: Path, every: int = 1, max_frames: int | None = None, force: bool = False) -> UltrasoundRecord:
    """Read a DICOM image or cine loop. Arguments, result and errors are those of `read_ultrasound`.

    Monochrome samples pass the modality transform, then the VOI LUT or the first window of the file (PS3.3 C.11.1 and
    C.11.2); without one, 8-bit samples stay as they are and others follow `volume_to_uint8`. MONOCHROME1 is inverted.
    Palette and YBR become RGB. Objects of other modalities (CT, ...) are read too, with their modality in `metadata`.

    Args:
        force: read a file without the DICM preamble; it must then hold pixels.
    """
    with warnings.catch_warnings():
        # pydicom reports every small departure from the standard; those that matter end as errors below.
        warnings.filterwarnings("ignore", category=UserWarning)
        try:
            dataset = _parse(path, force)
            _check_header(path, dataset)
            return _read_dataset(path, dataset, every, max_frames)
        except UnreadableFileError:
            raise
        except _DAMAGE as error:
            raise UnreadableFileError(
                path, f"is a damaged or cut-short DICOM file ({one_line(error, 100)}); copy or export it again"
            ) from error


def _parse(path: Path, force: bool) -> pydicom.FileDataset:
    if not force:
        return pydicom.dcmread(path)
    not_dicom = UnreadableFileError(path, "is not a DICOM file in spite of its name; check what it holds")
    try:
        dataset = pydicom.dcmread(path, force=True)
    except _DAMAGE as error:
        raise not_dicom from error
    if not any(keyword in dataset for keyword in _PIXEL_KEYWORDS):
        raise not_dicom
    return dataset


def _check_header(path: Path, dataset: pydicom.FileDataset) -> None:
    if not any(keyword in dataset for keyword in _PIXEL_KEYWORDS):
        if "Rows" in dataset or "SOPClassUID" not in dataset:  # pydicom drops what it was parsing when the file ends
            raise UnreadableFileError(path, "is cut short before its pixel data; copy or export it again")
        kind = getattr(dataset.get("SOPClassUID"), "name", "unknown kind")
        raise UnreadableFileError(path, f"is DICOM without pixel data ({kind}); give the image object instead")
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
        num_frames = int(dataset.get("NumberOfFrames") or len(frames))
    else:
        num_frames = int(dataset.get("NumberOfFrames") or 1)
        indices = pick_frames(num_frames, every, max_frames)
        check_decoded_bytes(path, len(indices), int(dataset.Rows), int(dataset.Columns))
        frames = _decode(path, dataset, indices)
        frame_times = times_at(read_frame_times(dataset, num_frames), indices)
    height, width = frames.shape[1:3]
    regions, region_spacing = read_regions(dataset, height, width)
    return UltrasoundRecord(
        frames=frames,
        spacing=region_spacing or read_pixel_spacing(dataset),
        regions=regions,
        modality=read_modality(dataset),
        frame_times_ms=frame_times,
        metadata=metadata | {"num_frames": num_frames},
    )


def _decode(path: Path, dataset: Dataset, indices: range) -> np.ndarray:
    """The frames at `indices` as uint8 RGB `(num_frames, height, width, 3)`."""
    decoder = _find_decoder(path, dataset.file_meta.TransferSyntaxUID)
    # raw=False: pydicom turns YBR_FULL and YBR_FULL_422 into RGB, and `described` says what came out.
    options: dict[str, Any] = as_pixel_options(dataset) | {"raw": False, "validate": True}
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        options["decoding_plugin"] = next((name for name in _PLUGINS if name in decoder.available_plugins), "")
        if options["decoding_plugin"] == "gdcm":
            _check_streams(dataset, indices)
    decoded = decoder.iter_array(dataset, indices=indices, **options)
    samples: list[np.ndarray] = []
    photometric = ""
    for array, described in decoded:
        photometric = str(described["photometric_interpretation"])
        samples.append(_to_rgb(path, array, photometric, dataset) if array.ndim == 3 else array)
    if len(samples) != len(indices):
        raise UnreadableFileError(
            path, f"is cut short: {len(samples)} of {len(indices)} frames are there; copy or export it again"
        )
    stacked = np.stack(samples)
    if stacked.ndim == 4:
        return stacked
    if photometric == "PALETTE COLOR":
        return _apply_palette(stacked, dataset)
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise _unsupported_colour(path, photometric)
    grey = _to_grey(path, stacked, dataset)
    return grey_to_rgb(255 - grey if photometric == "MONOCHROME1" else grey)


def _check_streams(dataset: Dataset, indices: range) -> None:
    """Refuse JPEG streams that contradict the header."""
    grid = (int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel), int(dataset.BitsAllocated))
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    for index, stream in enumerate(generate_frames(dataset.PixelData, number_of_frames=num_frames)):
        if index in indices:
            check_jpeg_header(stream, *grid)


def _find_decoder(path: Path, transfer_syntax: pydicom.uid.UID) -> Decoder:
    extra = 'pip install "echocare-hf[dicom]"'
    try:
        decoder = get_decoder(transfer_syntax)
    except NotImplementedError as error:
        raise UnreadableFileError(
            path,
            f"transfer syntax {transfer_syntax.name} is not supported; export it uncompressed (the compressed"
            f" ones that are supported need {extra})",
        ) from error
    if not decoder.is_available:
        raise UnreadableFileError(path, f"decoding {transfer_syntax.name} needs optional packages: {extra}")
    return decoder


def _to_rgb(path: Path, array: np.ndarray, photometric: str, dataset: Dataset) -> np.ndarray:
    """One decoded colour frame `(height, width, 3)` to uint8 RGB."""
    if array.dtype != np.uint8:
        array = range_to_uint8(array, 0, 2 ** int(dataset.BitsStored) - 1)
    if photometric in ("YBR_FULL", "YBR_FULL_422"):
        return convert_color_space(array, "YBR_FULL", "RGB")
    if photometric != "RGB":
        raise _unsupported_colour(path, photometric)
    return array


def _unsupported_colour(path: Path, photometric: str) -> UnreadableFileError:
    return UnreadableFileError(path, f"photometric interpretation {photometric} is not supported; export it as RGB")


def _apply_palette(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Palette indices `(num_frames, height, width)` to uint8 RGB (PS3.3 C.7.6.3.1.5 and C.7.6.3.1.6)."""
    num_entries, first_mapped, bits = (int(value) for value in dataset.RedPaletteColorLookupTableDescriptor)
    num_entries = num_entries or 2**16
    table = apply_color_lut(np.arange(first_mapped, first_mapped + num_entries, dtype=np.int32), dataset)
    table = table[:, :3]  # an alpha table, if any, is dropped
    if table.dtype == np.uint8 and num_entries > 256:
        raise ValueError("a palette of 8-bit entries is longer than 256")  # apply_color_lut would wrap its indices
    # Some writers put 8-bit entries into 16-bit words: only a table that uses its high byte is 16-bit.
    if table.dtype != np.uint8 and bits > 8 and int(table.max()) > 255:
        table = table >> 8
    # Values outside the table take its first or last entry.
    return table.astype(np.uint8)[np.clip(stored.astype(np.int32) - first_mapped, 0, num_entries - 1)]


def _to_grey(path: Path, stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Monochrome samples to uint8, dark to bright as a MONOCHROME2 file shows them, of the same shape."""
    if np.issubdtype(stored.dtype, np.floating) and (invalid := int(np.count_nonzero(~np.isfinite(stored)))):
        raise UnreadableFileError(path, f"{invalid} pixels are NaN or infinite; replace them and save again")
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        looked_up = [apply_voi(np.rint(_modality(frame, dataset)).astype(np.int32), dataset) for frame in stored]
        return np.stack([range_to_uint8(frame, 0, 2**bits - 1) for frame in looked_up])
    window = _window(dataset)
    if window is not None:
        return np.stack([window_to_uint8(_modality(frame, dataset), *window) for frame in stored])
    return volume_to_uint8(_modality(stored, dataset))


def _modality(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Stored values to the units of the window (PS3.3 C.11.1); untouched, dtype and all, if that changes nothing."""
    is_identity = float(dataset.get("RescaleSlope") or 1) == 1 and float(dataset.get("RescaleIntercept") or 0) == 0
    if is_identity and not dataset.get("ModalityLUTSequence"):
        return values
    return apply_modality_lut(values, dataset)


def _window(dataset: Dataset) -> tuple[float, float, str] | None:
    """First window `(centre, width, function)` of the file, or None if it has none that the standard allows."""
    for source in (dataset, shared_group(dataset, "FrameVOILUTSequence")):
        if source is None or source.get("WindowCenter") is None or source.get("WindowWidth") is None:
            continue
        centre, width = (
            float(value[0]) if isinstance(value, list | pydicom.multival.MultiValue) else float(value)
            for value in (source.WindowCenter, source.WindowWidth)
        )
        function = str(source.get("VOILUTFunction") or "LINEAR")
        if width >= 1 or (width > 0 and function != "LINEAR"):  # a width of 0 is a common way of saying "none"
            return centre, width, function
    return None
