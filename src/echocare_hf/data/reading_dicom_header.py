"""What a DICOM header says besides pixels: regions, spacing, modality, frame times, and facts without identity.

Sources: PS3.3 C.8.5.5 (US Region Calibration), C.8.5.6 (US Image), C.7.6.5 (Cine), C.7.6.6 (Multi-frame),
C.7.6.16 (functional groups). Regions and times are copied as the file states them; nothing is read off the pixels.
"""

import re
from collections.abc import Sequence
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID, EnhancedUSVolumeStorage

from .reading_record import MIN_SIDE, Modality, Spacing, UltrasoundRegion, clean_spacing, one_line, scales_differ

SPATIAL_FORMATS = {0: "None", 1: "2D", 2: "M-Mode", 3: "Spectral", 4: "Waveform", 5: "Graphics"}
DATA_TYPES = {
    0x00: "None",
    0x01: "Tissue",
    0x02: "Color Flow",
    0x03: "PW Spectral Doppler",
    0x04: "CW Spectral Doppler",
    0x05: "Doppler Mean Trace",
    0x06: "Doppler Mode Trace",
    0x07: "Doppler Max Trace",
    0x08: "Volume Trace",
    0x09: "d(volume)/dt Trace",
    0x0A: "ECG Trace",
    0x0B: "Pulse Trace",
    0x0C: "Phonocardiogram Trace",
    0x0D: "Gray bar",
    0x0E: "Color bar",
    0x0F: "Integrated Backscatter",
    0x10: "Area Trace",
    0x11: "d(area)/dt",
    0x12: "Other Physiological",
}
_DOPPLER_DATA_TYPES = {2, 3, 4, 5, 6, 7}
_CENTIMETRES = 3  # PhysicalUnitsXDirection, PhysicalUnitsYDirection (PS3.3 C.8.5.5.1.15)

# Image Type value 4 is a hexadecimal sum of these (PS3.3 C.8.5.6.1.1).
_TYPE_2D, _TYPE_M_MODE = 0x0001, 0x0002
_TYPE_DOPPLER = 0x0004 | 0x0008 | 0x0010 | 0x0020 | 0x0100  # CW, PW, colour, colour M-mode, colour power

_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")
_TEXT_FIELDS = {
    "manufacturer": "Manufacturer",
    "manufacturer_model_name": "ManufacturerModelName",
}
_CODE_FIELDS = {
    "dicom_modality": "Modality",
    "image_type": "ImageType",
    "body_part_examined": "BodyPartExamined",
    "transducer_type": "TransducerType",
    "photometric_interpretation": "PhotometricInterpretation",
    "burned_in_annotation": "BurnedInAnnotation",
    "lossy_image_compression": "LossyImageCompression",
}
_INTEGER_FIELDS = {
    "rows": "Rows",
    "columns": "Columns",
    "samples_per_pixel": "SamplesPerPixel",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "pixel_representation": "PixelRepresentation",
    "ultrasound_color_data_present": "UltrasoundColorDataPresent",
}


def clip_box(box: tuple[int, int, int, int], height: int, width: int) -> tuple[tuple[int, int, int, int], bool] | None:
    """Cut a half-open box `(x0, y0, x1, y1)` to a grid of `height` x `width` pixels.

    Returns:
        The cut box and whether that changed it; None if no pixel of the box lies on the grid.
    """
    x0, y0, x1, y1 = box
    cut = (max(x0, 0), max(y0, 0), min(x1, width), min(y1, height))
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        return None
    return cut, cut != box


def read_regions(dataset: Dataset, height: int, width: int) -> tuple[tuple[UltrasoundRegion, ...], Spacing | None]:
    """Regions of `SequenceOfUltrasoundRegions`, and the spacing of the one that shows anatomy.

    Args:
        dataset: the DICOM data set.
        height: rows of the decoded frames, in pixels.
        width: columns of the decoded frames, in pixels.

    Returns:
        The regions in file order, cut to the grid; those wholly outside it and those without whole coordinates are
        left out. Then `(row_mm, column_mm)` of the largest 2D region, tissue before other data; None if that states
        none in centimetres, if 2D regions differ in it (`scales_differ`), since no one number holds for the grid, or
        if the region reached beyond the grid by more than one pixel. Such a region was written for another
        grid: pydicom's `ybr_color` example was halved to 320 x 240 while its region still tells 640 x 480, so its
        stated spacing is half the true one. (One pixel is forgiven: scanners write the exclusive end.)
    """
    regions = []
    candidates = []
    for item in _items(dataset, "SequenceOfUltrasoundRegions"):
        corners = [_integer(item, f"RegionLocation{corner}") for corner in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        x0, y0, x1, y1 = (-1 if value is None else value for value in corners)
        stated = (x0, y0, x1 + 1, y1 + 1)
        clipped = None if None in corners else clip_box(stated, height, width)
        if clipped is None:
            continue
        spatial_format, data_type = _integer(item, "RegionSpatialFormat"), _integer(item, "RegionDataType")
        region = UltrasoundRegion(
            box=clipped[0],
            spacing=_region_spacing(item),
            spatial_format=SPATIAL_FORMATS.get(spatial_format or 0, f"unknown ({spatial_format})"),
            data_type=DATA_TYPES.get(data_type or 0, f"unknown ({data_type})"),
            clipped=clipped[1],
        )
        regions.append(region)
        if spatial_format == 1 and min(x1 + 1 - x0, y1 + 1 - y0) >= MIN_SIDE:
            is_of_this_grid = x1 + 1 <= width + 1 and y1 + 1 <= height + 1
            area = (x1 + 1 - x0) * (y1 + 1 - y0)
            candidates.append((data_type == 1, area, region.spacing if is_of_this_grid else None))
    best = max(candidates, key=lambda candidate: candidate[:2], default=None)
    return tuple(regions), best[2] if best and not scales_differ(regions) else None


def read_pixel_spacing(dataset: Dataset) -> Spacing | None:
    """Pixel Spacing of the data set or of its shared Pixel Measures, `(row_mm, column_mm)` (PS3.3 10.7.1.1)."""
    for source in (dataset, shared_group(dataset, "PixelMeasuresSequence")):
        values = source.get("PixelSpacing") if source is not None else None
        if values is not None and not isinstance(values, str) and len(values) == 2:
            return clean_spacing(values[0], values[1])
    return None


def read_spacing(
    dataset: Dataset, regions: Sequence[UltrasoundRegion], region_spacing: Spacing | None
) -> Spacing | None:
    """The spacing of the whole grid: that of `read_regions`, else Pixel Spacing, unless the 2D regions differ in it."""
    return None if scales_differ(regions) else region_spacing or read_pixel_spacing(dataset)


def is_image_class(sop_class: str) -> bool:
    """Whether a SOP Class UID is one of images, or is not in PS3.6 annex A (a private one, or one that is cut off)."""
    uid = UID(sop_class)
    return uid.name == uid or "Image" in uid.name or uid == EnhancedUSVolumeStorage


def read_modality(dataset: Dataset) -> Modality:
    """The ultrasound mode, as far as the header tells.

    Asked in turn: the data type of an enhanced volume, a contrast agent, region types, Image Type value 4. A screen
    with a Doppler region beside a 2D one is "Doppler", with an M-mode region beside it "M-mode".
    `UltrasoundColorDataPresent` decides nothing: PS3.3 C.8.5.6.1.10 says it of any colour, so also of a tinted image
    or a coloured logo.
    """
    if dataset.get("Modality") != "US":
        return "unknown"
    image_type = [str(value).strip().upper() for value in _values(dataset, "ImageType")]
    volume_type = shared_group(dataset, "ImageDataTypeSequence")
    volume_data = str(volume_type.get("DataType", "")) if volume_type is not None else ""
    if volume_data == "ELASTICITY" or "ELASTOGRAPHY" in image_type:
        return "elastography"
    agent = str(dataset.get("ContrastBolusAgent") or "").strip().upper()
    if agent not in ("", "NO", "NONE") or _items(dataset, "ContrastBolusAgentSequence"):
        return "CEUS"
    items = _items(dataset, "SequenceOfUltrasoundRegions")
    formats = {_integer(item, "RegionSpatialFormat") for item in items}
    data_types = {_integer(item, "RegionDataType") for item in items}
    flags = _image_type_flags(image_type)
    if 3 in formats or data_types & _DOPPLER_DATA_TYPES or flags & _TYPE_DOPPLER or volume_data.startswith("FLOW_"):
        return "Doppler"
    if 2 in formats or flags & _TYPE_M_MODE:
        return "M-mode"
    has_tissue = any(
        _integer(item, "RegionSpatialFormat") == 1 and _integer(item, "RegionDataType") == 1 for item in items
    )
    if has_tissue or flags & _TYPE_2D or volume_data == "TISSUE_INTENSITY":
        return "B-mode"
    return "unknown"


def read_frame_times(dataset: Dataset, num_frames: int) -> list[float] | None:
    """Time of each of the file's frames in ms after the first; None for a still or where the header is silent.

    Frame Time Vector if it has one entry a frame, none of them below 0, else Frame Time, else Cine Rate, else Recommended
    Display Frame Rate (PS3.3 C.7.6.5). Frame Time goes first where Frame Increment Pointer names it (C.7.6.6.1.1).
    """
    if num_frames < 2:
        return None
    vector = [_number(value) for value in _values(dataset, "FrameTimeVector")]
    increments = [value for value in vector if value is not None and value >= 0]
    step = _number(dataset.get("FrameTime"))
    is_even = dataset.get("FrameIncrementPointer") == tag_for_keyword("FrameTime") and step is not None and step > 0
    if len(increments) == len(vector) == num_frames and any(increments) and not is_even:
        times = [0.0]
        for increment in increments[1:]:  # the first increment belongs to the first frame, and is 0
            times.append(times[-1] + increment)
        return times
    if not step or step < 0:
        rates = (_number(dataset.get(keyword)) for keyword in ("CineRate", "RecommendedDisplayFrameRate"))
        rate = next((rate for rate in rates if rate and rate > 0), None)
        if rate is None:
            return None
        step = 1000 / rate
    return [index * step for index in range(num_frames)]


def read_metadata(dataset: Dataset) -> dict[str, Any]:
    """Facts about equipment and encoding, from the pass-list above; whatever is not on it stays in the file."""
    metadata: dict[str, Any] = {"format": "DICOM"}
    for key, keyword in _TEXT_FIELDS.items():
        if text := one_line(dataset.get(keyword) or "", 64):
            metadata[key] = text
    for key, keyword in _CODE_FIELDS.items():
        codes = [str(value).strip() for value in _values(dataset, keyword)]
        if codes and all(_CODE_STRING.fullmatch(code) for code in codes if code):
            metadata[key] = "\\".join(codes)
    for key, keyword in _INTEGER_FIELDS.items():
        if (number := _integer(dataset, keyword)) is not None:
            metadata[key] = number
    return metadata


def shared_group(dataset: Dataset, keyword: str) -> Dataset | None:
    """The functional group `keyword` that all frames of an enhanced multi-frame object share, if there is one."""
    for group in _items(dataset, "SharedFunctionalGroupsSequence"):
        for item in _items(group, keyword):
            return item
    return None


def _region_spacing(item: Dataset) -> Spacing | None:
    if {_integer(item, "PhysicalUnitsXDirection"), _integer(item, "PhysicalUnitsYDirection")} != {_CENTIMETRES}:
        return None
    across, down = _number(item.get("PhysicalDeltaX")), _number(item.get("PhysicalDeltaY"))
    if across is None or down is None:
        return None
    return clean_spacing(10 * down, 10 * across)  # cm to mm


def _image_type_flags(image_type: list[str]) -> int:
    if len(image_type) < 4 or not re.fullmatch(r"[0-9A-F]{4}", image_type[3]):
        return 0
    return int(image_type[3], 16)


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Items of a sequence; none if it is absent or empty, or is no sequence because the file is malformed."""
    return [item for item in dataset.get(keyword) or [] if isinstance(item, Dataset)]


def _values(dataset: Dataset, keyword: str) -> list[Any]:
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def _integer(dataset: Dataset, keyword: str) -> int | None:
    value = _number(dataset.get(keyword))
    return int(value) if value is not None and value == int(value) else None


def _number(value: object) -> float | None:
    """A finite float, or None for anything else, such as an empty or multi-valued element."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None
