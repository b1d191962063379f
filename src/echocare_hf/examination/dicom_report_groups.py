"""What a frame shows, as the measurement groups of a structured report (TID 1410 and TID 1501 of DICOM PS3.16).

Coordinates are DICOM's image coordinates, whose origin is the outer corner of the first pixel (PS3.3 C.18.6.1.2): those of `results.py`.
A score becomes "Certainty of Finding" in percent, a `spread` the range of measurement uncertainty (one standard deviation).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom.sr.coding import Code

from .dicom_codes import (
    CERTAINTY,
    FETUS,
    IMAGE_VIEW,
    PERCENT_UNIT,
    TARGET_REGION,
    Concept,
    find_class,
    find_concept,
    find_measurement,
    find_unit,
    private_code,
)
from .dicom_common import derived_uid, find_model, import_highdicom, weights_of
from .dicom_segmentation_frames import Segment, WrittenSegmentation
from .dicom_source import Source
from .results import Ellipse, FileResult, FrameResult, Label, Landmark, Measurement

UNCERTAINTY = Code("371884006", "SCT", "+/-, range of measurement uncertainty")


@dataclass(eq=False)
class Groups:
    """Collects the groups of one report.

    Attributes:
        image: the source.
        result: of the file.
        segmentations: DICOM Segmentations of the file that the report may point to, by the name of their model.
        found: the groups so far, as highdicom's templates.
    """

    image: Source
    result: FileResult
    segmentations: Mapping[str, WrittenSegmentation] = field(default_factory=dict)
    found: list[Any] = field(default_factory=list)

    def add_frame(self, frame: FrameResult, measurements: Iterable[Measurement]) -> None:
        """Adds what was found in a frame, or in the clip as a whole (index -1); `measurements` are those of the frame."""
        index = frame.index if frame.index >= 0 else None
        waiting = list(measurements)
        for model, labels in frame.anatomy.items():
            self.add_anatomy(model, labels, index)
        for model, labels in frame.classes.items():
            self._add_class(model, labels, index)
        for model, ellipses in frame.ellipses.items():
            for number, ellipse in enumerate(ellipses, start=1):
                alike = [other for other in ellipses if other.label == ellipse.label]
                own = [
                    one
                    for one in waiting
                    if (one.model, one.of) == (model, ellipse.label)
                    and (len(alike) == 1 or one.score == ellipse.score)
                ]
                waiting = [one for one in waiting if one not in own]
                self._add_ellipse(model, ellipse, f"{ellipse.label} {number}", index, own)
        for model, landmarks in frame.landmarks.items():
            for landmark in landmarks:
                if landmark.visible:
                    self._add_landmark(model, landmark, index)
        for model, segmentation in self.segmentations.items() if index is not None else ():
            for segment, place in segmentation.shown_on(self.image.frame_numbers(index)):
                own = [one for one in waiting if one.model == model and (one.of or "")[:64] == segment.label]
                waiting = [one for one in waiting if one not in own]
                self._add_segment(model, segmentation, segment, place, index, own)
        self.add_measurements(waiting, index)

    def add_anatomy(self, model: str | None, labels: Sequence[Label], frame: int | None) -> None:
        """Adds the last node of the best path: its region as Target Region, the plane, if it is one, as Image View."""
        if not labels:
            return
        best = labels[0]
        for label in labels[1:]:
            if label.path[: len(best.path)] == best.path and len(label.path) > len(best.path):
                best = label
        concept = find_concept(best.label, best.node)
        evaluations = [(TARGET_REGION, concept.site or concept.kind)]
        if concept.view is not None:
            evaluations.append((IMAGE_VIEW, concept.view))
        finding = concept.kind if concept.view is None else None
        self._add_group("anatomy", model, frame, concept, finding, evaluations=evaluations, score=best.score)

    def add_measurements(self, measurements: Iterable[Measurement], frame: int | None) -> None:
        """Adds measurements that belong to no drawn region: one group for what each model measured of one thing."""
        groups: dict[tuple[str, str | None, str | None], list[Measurement]] = {}
        for one in measurements:
            groups.setdefault((one.model, one.of, one.node), []).append(one)
        for (model, of, node), members in groups.items():
            concept = find_concept(of, node) if of is not None else None
            finding = concept.kind if concept is not None else None
            self._add_group(f"measurements of {of or 'the image'}", model, frame, concept, finding, members)

    def add_familiarity(self, familiarity: float) -> None:
        """Adds how much the file looks like what the models know, from 0 to 1."""
        value = Measurement("familiarity", familiarity, "1", "")
        self._add_group("familiarity", None, None, None, private_code("familiarity"), [value])

    def add_nothing(self) -> None:
        """Adds that nothing was found, as a report needs one group."""
        self._add_group(
            "finding", None, None, None, evaluations=[(private_code("result"), private_code("nothing found"))]
        )

    def _add_class(self, model: str, labels: Sequence[Label], frame: int | None) -> None:
        if labels:
            evaluations = [(private_code("class"), find_class(labels[0].label))]
            self._add_group("class", model, frame, None, evaluations=evaluations, score=labels[0].score)

    def _add_ellipse(
        self, model: str, ellipse: Ellipse, name: str, frame: int | None, measurements: Sequence[Measurement]
    ) -> None:
        concept = find_concept(ellipse.label, ellipse.node)
        region = self._region("ELLIPSE", ellipse_points(ellipse), frame)
        self._add_group(
            name, model, frame, concept, concept.kind, measurements, score=ellipse.score, referenced_region=region
        )

    def _add_landmark(self, model: str, landmark: Landmark, frame: int | None) -> None:
        concept = find_concept(landmark.label, None)
        region = self._region("POINT", np.array([[landmark.x, landmark.y]]), frame)
        self._add_group(
            landmark.label, model, frame, concept, concept.kind, score=landmark.score, referenced_region=region
        )

    def _add_segment(
        self,
        model: str,
        segmentation: WrittenSegmentation,
        segment: Segment,
        place: int,
        frame: int | None,
        measurements: Sequence[Measurement],
    ) -> None:
        hd = import_highdicom()
        reference = hd.sr.ReferencedSegmentationFrame(
            sop_class_uid=segmentation.header.SOPClassUID,
            sop_instance_uid=segmentation.header.SOPInstanceUID,
            frame_number=place,
            segment_number=segment.number,
            source_image=hd.sr.SourceImageForSegmentation(*self._image(frame)),
        )
        # A frame of a binary segmentation is of one segment; PS3.3 C.17.3 allows the number of either, highdicom writes both.
        del reference[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
        concept = segment.concept
        self._add_group(segment.label, model, frame, concept, concept.kind, measurements, referenced_segment=reference)

    def _region(self, kind: str, points: np.ndarray, frame: int | None) -> Any:
        hd = import_highdicom()
        return hd.sr.ImageRegion(kind, points, source_image=hd.sr.SourceImageForRegion(*self._image(frame)))

    def _image(self, frame: int | None) -> tuple[str, str, list[int] | None]:
        header = self.image.header
        return header.SOPClassUID, header.SOPInstanceUID, self.image.frame_numbers(frame)

    def _add_group(
        self,
        name: str,
        model: str | None,
        frame: int | None,
        concept: Concept | None,
        finding: Code | None = None,
        measurements: Sequence[Measurement] = (),
        evaluations: Sequence[tuple[Code, Code]] = (),
        score: float | None = None,
        **region: Any,
    ) -> None:
        hd = import_highdicom()
        values = [self._measurement(one) for one in measurements]
        if score is None and measurements and measurements[0].score is not None:
            score = measurements[0].score
        if score is not None:
            values.append(hd.sr.Measurement(CERTAINTY, _finite(100 * score, name), PERCENT_UNIT))
        where = f"frame {frame + 1}" if frame is not None and self.image.is_multi_frame else "image"
        identifier = ", ".join(part for part in (name, where, model) if part)
        place = str(len(self.found))
        uid = derived_uid(self.image.header.SOPInstanceUID, "group", weights_of(self.result), place, identifier)
        kind = (
            hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations
            if region
            else hd.sr.MeasurementsAndQualitativeEvaluations
        )
        if not region:
            region = {"source_images": [hd.sr.SourceImageForMeasurementGroup(*self._image(frame))]}
        self.found.append(
            kind(
                tracking_identifier=hd.sr.TrackingIdentifier(uid=uid, identifier=identifier),
                finding_type=finding,
                algorithm_id=None if model is None else self._algorithm(model),
                finding_sites=None if concept is None or concept.site is None else [_site(concept)],
                measurements=values or None,
                qualitative_evaluations=[hd.sr.QualitativeEvaluation(*pair) for pair in evaluations] or None,
                **region,
            )
        )

    def _algorithm(self, model: str) -> Any:
        facts = find_model(self.result, model)
        return import_highdicom().sr.AlgorithmIdentification(
            name=facts.source,
            version=facts.sha256,
            parameters=[f"task: {facts.task}"] + ([f"revision: {facts.revision}"] if facts.revision else []),
        )

    def _measurement(self, one: Measurement) -> Any:
        hd = import_highdicom()
        code, derivation = find_measurement(one)
        unit = find_unit(one.unit)
        item = hd.sr.Measurement(code, _finite(one.value, one.name), unit, derivation=derivation)
        if one.spread is not None:
            uncertainty = hd.sr.NumContentItem(
                UNCERTAINTY, _finite(one.spread, one.name), unit, relationship_type="HAS PROPERTIES"
            )
            if "ContentSequence" not in item[0]:
                item[0].ContentSequence = hd.sr.ContentSequence()
            item[0].ContentSequence.append(uncertainty)
        return item


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}, which a DICOM report cannot hold; leave it out")
    return float(value)


def _site(concept: Concept) -> Any:
    return import_highdicom().sr.FindingSite(concept.site, topographical_modifier=FETUS if concept.is_fetal else None)


def ellipse_points(ellipse: Ellipse) -> np.ndarray:
    """The ends of the long axis, then of the short one, as `(4, 2)` x and y (PS3.3 C.18.6.1.2, ELLIPSE)."""
    angle = math.radians(ellipse.angle)
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-along[1], along[0]])
    centre = np.array([ellipse.centre_x, ellipse.centre_y])
    long, short = along * ellipse.long_axis / 2, across * ellipse.short_axis / 2
    return np.array([centre - long, centre + long, centre - short, centre + short])
