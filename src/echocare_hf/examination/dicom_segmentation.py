"""Label maps as a DICOM Segmentation (PS3.3 A.51), binary, on the grid of the source's own frames.

Ultrasound has no patient coordinate system, so there is no frame of reference here and neither position nor orientation: each frame of the
segmentation names the source's frame that it lies on, pixel for pixel (PS3.3 A.51.5.1 allows this for segmentations that share their
source's grid). Nor is there a pixel spacing: it is the source's, which states it by region, and Pixel Measures would need a slice
thickness for highdicom to read it, which an ultrasound image does not have.

highdicom builds the object, but without a frame of reference for a single source frame only (its issue 284). The frames of a clip are
therefore put in here: one for each frame and class that is not empty, indexed by the segment and by the place in time.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from ..drawing_style import PALETTE
from .dicom_codes import FETUS, Concept
from .dicom_common import (
    DRAFT,
    algorithm_of,
    derived_uid,
    find_model,
    import_highdicom,
    one_of,
    quiet,
    set_instance_uid,
)
from .dicom_segmentation_frames import Masks, encode_frames
from .dicom_source import Source
from .results import FileResult, Segmentation


def write_segmentation(
    source: Path,
    label_maps: Iterable[tuple[int, Segmentation]],
    result: FileResult,
    target: Path,
    model: str | None = None,
) -> None:
    """Writes the label maps of one model as one DICOM Segmentation.

    Args:
        source: the DICOM file that was analysed.
        label_maps: index of the frame in the file, from 0, and its map, each frame once. Pixels of value 0 and 255 are in no segment. If
            all maps are empty, the first frame is stored with empty segments.
        result: of the file; its models are written down.
        target: the file to write; beside it a temporary file of the masks' size.
        model: name of the model that the maps are of; may be left out if the result knows one segmentation model only.

    Raises:
        ValueError: if the source lacks what results need, a map does not lie on its grid or holds values without a name, a frame comes
            twice, there is no map, or the masks are larger than the 4 GB that an object can hold.
    """
    hd = import_highdicom()
    image = Source(source)
    name = one_of((key for key, facts in result.models.items() if facts.task == "segmentation"), model, "segmentation")
    facts = find_model(result, name)
    with quiet(), tempfile.TemporaryFile(dir=target.parent) as bits:
        masks = Masks(image, bits)
        for frame, segmentation in label_maps:
            masks.add(frame, segmentation)
        digest = masks.close()
        series = image.own_series(result, "segmentation", 91)
        dataset = hd.seg.Segmentation(
            source_images=[image.header],
            pixel_array=np.zeros((1, image.height, image.width), np.uint8),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _describe_segment(image, number, label, concept, facts)
                for number, (label, concept) in enumerate(masks.segments.items(), start=1)
            ],
            omit_empty_frames=False,
            content_label="ECHOCARE",
            content_description=DRAFT,
            **series,
        )
        dataset.PatientOrientation = image.header.PatientOrientation
        _index_frames(image, dataset, masks)
        weights = f"{facts.name} {facts.sha256} {facts.revision}"
        set_instance_uid(dataset, image.header.SOPInstanceUID, "segmentation", weights, digest)
        image.write(dataset, target, tail=encode_frames(image, masks))


def _describe_segment(image: Source, number: int, label: str, concept: Concept, facts: Any) -> Any:
    hd = import_highdicom()
    regions = [concept.site] if concept.site is not None and concept.site != concept.kind else []
    tracking = derived_uid(image.header.SOPInstanceUID, "segment", facts.name, facts.sha256, label)
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label[:64],
        segmented_property_category=concept.category,
        segmented_property_type=concept.kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm_of(facts),
        tracking_uid=tracking,
        tracking_id=f"{facts.name} {label}"[:64],
        anatomic_regions=regions + ([FETUS] if concept.is_fetal else []) or None,
        display_color=hd.color.CIELabColor.from_rgb(*PALETTE[(number - 1) % len(PALETTE)]),
    )


def _index_frames(image: Source, dataset: Dataset, masks: Masks) -> None:
    """Replaces what highdicom says of its single source frame. The frames themselves follow in `encode_frames`."""
    organization = derived_uid(image.header.SOPInstanceUID, "dimensions of segments and frames")
    shared = dataset.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" in shared:
        del shared.SegmentIdentificationSequence
    del dataset.PerFrameFunctionalGroupsSequence, dataset.PixelData
    dataset.NumberOfFrames = len(masks.frames)
    dataset.SegmentsOverlap = "NO"
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    dataset.DimensionIndexSequence = [
        _dimension("ReferencedSegmentNumber", "SegmentIdentificationSequence", organization, "Segment Number")
    ]
    if image.is_multi_frame:
        dataset.DimensionIndexSequence.append(
            _dimension("TemporalPositionIndex", "FrameContentSequence", organization, "Place in time")
        )


def _dimension(pointer: str, group: str, organization: str, label: str) -> Dataset:
    item = Dataset()
    item.DimensionIndexPointer, item.FunctionalGroupPointer = Tag(pointer), Tag(group)
    item.DimensionOrganizationUID, item.DimensionDescriptionLabel = organization, label
    return item
