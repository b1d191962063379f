"""Findings as a DICOM structured report: Comprehensive SR with TID 1500, Measurement Report.

Groups point to the image and frame that they are about; ellipses and landmarks are drawn as SCOORD, segments are pointed to in the file's
DICOM Segmentation. The report is a draft and says so: CompletionFlag PARTIAL, PreliminaryFlag PRELIMINARY, VerificationFlag UNVERIFIED and
a comment. Numbers of a regression head come in as measurements with their unit.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from .dicom_codes import COMMENT, IMAGING_PROCEDURE
from .dicom_common import (
    DRAFT,
    MANUFACTURER,
    PRODUCT,
    derived_uid,
    import_highdicom,
    quiet,
    set_instance_uid,
    weights_of,
)
from .dicom_report_groups import Groups
from .dicom_segmentation_frames import WrittenSegmentation
from .dicom_source import Source
from .results import FileResult, FrameResult


def write_report(
    source: Path,
    result: FileResult,
    frames: Sequence[FrameResult],
    target: Path,
    segmentations: Mapping[str, Path] | None = None,
) -> None:
    """Writes a report of what was found in one file.

    Args:
        source: the DICOM file that was analysed.
        result: of the file: what it says of the clip, its measurements that no frame has, its familiarity and warnings are reported too.
        frames: the still, or the key frames.
        target: the file to write.
        segmentations: DICOM Segmentations that `write_segmentation` wrote of the same file, by the name of their model. Without one, what
            was measured of a segment is reported of the image.

    Raises:
        ValueError: if the source lacks what results need, has no such frame, or a number is not finite.
    """
    hd = import_highdicom()
    image = Source(source)
    with quiet():
        evidence = {name: WrittenSegmentation(path) for name, path in (segmentations or {}).items()}
        groups = _collect(image, result, frames, evidence)
        content = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(observer_device_context=observer(result)),
            procedure_reported=IMAGING_PROCEDURE,
            imaging_measurements=groups.found,
        )
        for text in (
            DRAFT,
            *dict.fromkeys((*result.warnings, *(line for frame in frames for line in frame.warnings))),
        ):
            content[0].ContentSequence.append(hd.sr.TextContentItem(COMMENT, text, relationship_type="CONTAINS"))
        dataset = hd.sr.ComprehensiveSR(
            evidence=[image.header, *(each.header for each in evidence.values())],
            content=content[0],
            is_complete=False,
            is_final=False,
            is_verified=False,
            **image.own_series(result, "report", 92),
        )
        dataset.CompletionFlagDescription = DRAFT
        digest = hashlib.sha256(content[0].to_json(suppress_invalid_tags=True).encode()).hexdigest()
        set_instance_uid(dataset, image.header.SOPInstanceUID, "report", weights_of(result), digest)
        image.write(dataset, target)


def _collect(
    image: Source, result: FileResult, frames: Sequence[FrameResult], evidence: Mapping[str, WrittenSegmentation]
) -> Groups:
    """All groups: of each frame, of the clip, and what the file's result lists beyond that."""
    groups = Groups(image, result, evidence)
    listed = dict.fromkeys(result.measurements)
    for frame in frames:
        own = dict.fromkeys(frame.measurements) | {one: None for one in listed if one.frame == frame.index}
        groups.add_frame(frame, own)
        listed = {one: None for one in listed if one not in own}
    if result.clip is not None:
        own = dict.fromkeys(result.clip.measurements)
        groups.add_frame(result.clip, own)
        listed = {one: None for one in listed if one not in own}
    if result.anatomy_path and image.is_multi_frame:
        models = [name for name, facts in result.models.items() if facts.task == "anatomy"]
        groups.add_anatomy(models[0] if len(models) == 1 else None, result.anatomy_path, None)
    for frame_index in dict.fromkeys(one.frame for one in listed):
        groups.add_measurements([one for one in listed if one.frame == frame_index], frame_index)
    if not groups.found:
        groups.add_nothing()
    if result.familiarity is not None:
        groups.add_familiarity(result.familiarity)
    return groups


def observer(result: FileResult) -> Any:
    """This package as the device that observed (TID 1004)."""
    hd = import_highdicom()
    return hd.sr.ObserverContext(
        observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", weights_of(result)),
            name=f"{PRODUCT} {__version__}",
            manufacturer_name=MANUFACTURER,
            model_name=PRODUCT,
        ),
    )
