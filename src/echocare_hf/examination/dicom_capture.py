"""An enhanced picture as a DICOM Secondary Capture, derived from a frame of the source."""

import hashlib
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from .dicom_codes import SOURCE_IMAGE
from .dicom_common import (
    DRAFT,
    code_item,
    find_model,
    import_highdicom,
    one_of,
    quiet,
    set_instance_uid,
)
from .dicom_source import Source
from .results import FileResult

_REGION_CORNERS = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")


def write_enhanced(
    source: Path,
    image: np.ndarray,
    result: FileResult,
    target: Path,
    frame: int | None = None,
    model: str | None = None,
) -> None:
    """Writes an enhanced picture of one frame.

    The calibrated regions of the source that lie on its grid are copied (as an extension of the standard's object), and the spacing, if
    known, stands in Pixel Spacing too. Whether text is burnt in is copied; where the source does not say, neither does the copy. A picture
    whose channels are all alike is stored as MONOCHROME2.

    Args:
        source: the DICOM file that was analysed.
        image: uint8 `(height, width, 3)` or `(height, width)`, of the source's grid.
        result: of the file.
        target: the file to write.
        frame: index of the enhanced frame, from 0; for a clip without it the reference is to the file as a whole.
        model: name of the model; may be left out if the result knows one enhancement model only.

    Raises:
        ValueError: if the source lacks what results need, or the picture is not on its grid or not uint8.
    """
    hd = import_highdicom()
    original = Source(source)
    original.check_grid("the enhanced picture", image.shape)
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"the enhanced picture of {source} is {image.dtype} {image.shape}, not uint8 in grey or RGB")
    if image.ndim == 3 and (image == image[..., :1]).all():
        image = image[..., 0]
    name = one_of((key for key, facts in result.models.items() if facts.task == "enhancement"), model, "enhancement")
    facts = find_model(result, name)
    with quiet():
        dataset = hd.sc.SCImage.from_ref_dataset(
            original.header,
            pixel_array=np.ascontiguousarray(image),
            photometric_interpretation="MONOCHROME2" if image.ndim == 2 else "RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "F"),  # highdicom wants one; the source's takes its place below
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            pixel_spacing=result.spacing,
            specific_character_set="ISO_IR 192",
            contributing_equipment=original.scanner(),
            **original.own_series(result, "enhanced image", 93),
        )
        _describe(dataset, original, frame)
        dataset.DerivationDescription = (
            f"{DRAFT}. Enhanced by {facts.source[:200]}, weights SHA-256 {facts.sha256}, {dataset.ManufacturerModelName} "
            f"{dataset.SoftwareVersions}; for viewing, not for diagnosis"
        )
        content = hashlib.sha256(image.tobytes()).hexdigest()
        set_instance_uid(
            dataset, original.header.SOPInstanceUID, "enhanced", str(frame), facts.name, facts.sha256, content
        )
        original.write(dataset, target)


def _describe(dataset: Dataset, original: Source, frame: int | None) -> None:
    """Puts in what ties the picture to its source."""
    header = original.header
    dataset.copy_patient_and_study_information(header)
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.Modality = header.get("Modality") or "US"
    dataset.PatientOrientation = header.PatientOrientation
    reference = original.reference(frame)
    reference.PurposeOfReferenceCodeSequence = [code_item(SOURCE_IMAGE)]
    dataset.SourceImageSequence = [reference]
    dataset.Laterality = header.get("Laterality", "")
    for keyword in ("BurnedInAnnotation", "LossyImageCompression", "BodyPartExamined"):
        if header.get(keyword):
            dataset[keyword] = header[keyword]
    if dataset.LossyImageCompression == "01":
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if header.get(keyword):
                dataset[keyword] = header[keyword]
    regions = [item for item in header.get("SequenceOfUltrasoundRegions") or [] if _is_on_grid(item, original)]
    if regions:
        dataset.SequenceOfUltrasoundRegions = regions


def _is_on_grid(region: Dataset, original: Source) -> bool:
    """Whether a region was written for this grid; one pixel beyond is forgiven, as scanners write the exclusive end."""
    corners = [region.get(keyword) for keyword in _REGION_CORNERS]
    if not all(isinstance(corner, int) for corner in corners):
        return False
    x0, y0, x1, y1 = corners
    return 0 <= x0 <= x1 <= original.width and 0 <= y0 <= y1 <= original.height
