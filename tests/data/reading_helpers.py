"""Small DICOM files for the tests of `read_ultrasound`, written with pydicom alone."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, UltrasoundMultiFrameImageStorage, generate_uid


def make_dicom(pixels: np.ndarray, photometric: str = "MONOCHROME2", **elements: object) -> Dataset:
    """A native little-endian ultrasound object.

    Args:
        pixels: `(height, width)`, `(num_frames, height, width)`, each with a last axis of 3 for colour.
        photometric: Photometric Interpretation.
        elements: further DICOM elements by keyword.
    """
    is_colour = photometric not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    is_multiframe = pixels.ndim == (4 if is_colour else 3)
    height, width = pixels.shape[is_multiframe : is_multiframe + 2]
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage if is_multiframe else UltrasoundImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "US"
    dataset.Rows, dataset.Columns = height, width
    dataset.PhotometricInterpretation = photometric
    dataset.SamplesPerPixel = 3 if is_colour else 1
    if is_colour:
        dataset.PlanarConfiguration = 0
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    if is_multiframe:
        dataset.NumberOfFrames = pixels.shape[0]
    data = pixels.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def make_region(
    box: tuple[int, int, int, int],
    delta_cm: tuple[float, float] = (0.02, 0.03),
    units: tuple[int, int] = (3, 3),
    spatial_format: int = 1,
    data_type: int = 1,
) -> Dataset:
    """An item of SequenceOfUltrasoundRegions; `box` holds the inclusive corners, `delta_cm` is (x, y)."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = spatial_format, data_type, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = box[:2]
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = box[2:]
    item.PhysicalUnitsXDirection, item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta_cm
    return item


def save(dataset: Dataset, path: Path) -> Path:
    """Write a DICOM file with preamble and file meta header."""
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def smooth_grey(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """uint8 `(height, width)`: a bright blob on a ramp, with every part of 0..255 in it, friendly to JPEG."""
    y, x = np.mgrid[:height, :width]
    blob = 120 * np.exp(-((y - height / 2 - seed) ** 2 + (x - width / 3) ** 2) / 60)
    values = blob + 135 * x / (width - 1)
    return np.rint(255 * (values - values.min()) / np.ptp(values)).astype(np.uint8)


def smooth_colour(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """uint8 `(height, width, 3)`: three different planes, so that a swapped or twice-converted channel shows."""
    grey = smooth_grey(height, width, seed).astype(float)
    y, x = np.mgrid[:height, :width]
    planes = [grey, 40 + 150 * y / (height - 1), 220 - 180 * x / (width - 1)]
    return np.rint(np.stack(planes, axis=-1)).astype(np.uint8)
