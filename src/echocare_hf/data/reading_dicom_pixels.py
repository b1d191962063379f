"""What a decoded DICOM sample means: palette, colour space, window, inversion; and which decoder is asked for it."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, convert_color_space, get_decoder
from pydicom.pixels.decoders.base import Decoder

from .reading_dicom_header import shared_group
from .reading_intensity import ValueRange, grey_to_rgb, range_to_uint8, value_range, volume_to_uint8, window_to_uint8
from .reading_jpeg_header import check_jpeg_header
from .reading_record import UnreadableFileError, check_finite, count_invalid

# Decoders in the order they are asked; GDCM comes last because damaged data can make it end the process.
_PLUGINS = ("pylibjpeg", "pillow", "pydicom", "pyjpegls", "gdcm")


def find_decoder(path: Path, transfer_syntax: pydicom.uid.UID) -> Decoder:
    """pydicom's decoder of a transfer syntax.

    Raises:
        UnreadableFileError: if there is none, naming the extra that may bring it.
    """
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


def plugin_of(decoder: Decoder) -> str:
    """The plugin that decodes an encapsulated transfer syntax: the first of our order that is installed."""
    return next((name for name in _PLUGINS if name in decoder.available_plugins), "")


def check_stream(dataset: Dataset, stream: bytes) -> None:
    """Refuse the JPEG stream of a frame if it contradicts the header.

    Raises:
        ValueError: saying so.
    """
    grid = (int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel), int(dataset.BitsAllocated))
    check_jpeg_header(stream, *grid)


def colour_to_rgb(path: Path, array: np.ndarray, photometric: str, dataset: Dataset) -> np.ndarray:
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


def _palette_to_rgb(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
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


def plane_to_rgb(
    path: Path, stored: np.ndarray, photometric: str, dataset: Dataset, over: ValueRange | None = None
) -> np.ndarray:
    """Decoded samples of one plane to uint8 RGB.

    Args:
        path: names the file in messages.
        stored: `(num_frames, height, width)`, as the decoder gives them.
        photometric: Photometric Interpretation of `stored`.
        dataset: the header.
        over: what `grey_range` says of all frames of the file; by default that of `stored`.

    Returns:
        `(num_frames, height, width, 3)`.

    Raises:
        UnreadableFileError: for another Photometric Interpretation, and for NaN or infinite samples.
    """
    if photometric == "PALETTE COLOR":
        return _palette_to_rgb(stored, dataset)
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise _unsupported_colour(path, photometric)
    check_finite(path, count_invalid(stored))
    grey = _to_grey(stored, dataset, over)
    return grey_to_rgb(255 - grey if photometric == "MONOCHROME1" else grey)


def grey_range(stored: np.ndarray, photometric: str, dataset: Dataset) -> ValueRange | None:
    """The range that the brightness of monochrome samples is scaled by; None where the header or 8 bits decide."""
    if not photometric.startswith("MONOCHROME") or dataset.get("VOILUTSequence") or _window(dataset) is not None:
        return None
    values = _modality(stored, dataset)
    return None if values.dtype == np.uint8 else value_range(values)


def _to_grey(stored: np.ndarray, dataset: Dataset, over: ValueRange | None) -> np.ndarray:
    """Monochrome samples to uint8, dark to bright as a MONOCHROME2 file shows them, of the same shape."""
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        looked_up = [apply_voi(np.rint(_modality(frame, dataset)).astype(np.int32), dataset) for frame in stored]
        return np.stack([range_to_uint8(frame, 0, 2**bits - 1) for frame in looked_up])
    window = _window(dataset)
    if window is not None:
        return np.stack([window_to_uint8(_modality(frame, dataset), *window) for frame in stored])
    return volume_to_uint8(_modality(stored, dataset), over)


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
