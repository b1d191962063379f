"""Structured reports, read back by highdicom."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_result_helpers import (
    check_standard,
    make_frame,
    make_map,
    make_result,
    make_source,
    read_by_dcmqi,
    sample_files,
)

from echocare_hf.examination.dicom_report import write_report
from echocare_hf.examination.dicom_report_groups import ellipse_points
from echocare_hf.examination.dicom_segmentation import write_segmentation
from echocare_hf.examination.results import Ellipse, FrameResult, Label, Measurement

hd = pytest.importorskip("highdicom", reason="highdicom is not installed")


def read(path):
    report = hd.sr.srread(path)
    groups = [*report.content.get_planar_roi_measurement_groups(), *report.content.get_image_measurement_groups()]
    return report, {group.tracking_identifier: group for group in groups}


def numbers(group):
    return {(each.name.meaning, each.value, each.unit.value) for each in group.get_measurements()}


def references(report):
    """Every reference of the content tree to an image: class, instance and frames."""
    found = set()

    def walk(items):
        for item in items:
            for reference in item.get("ReferencedSOPSequence", []):
                frames = reference.get("ReferencedFrameNumber")
                found.add((reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID, frames))
            walk(item.get("ContentSequence", []))

    walk(report.ContentSequence)
    return found


@pytest.mark.parametrize("place", range(9))
def test_samples(shared_data, tmp_path, place):
    source = sample_files(shared_data)[place]
    header = pydicom.dcmread(source, stop_before_pixels=True)
    is_clip = "NumberOfFrames" in header
    index = 11 if is_clip else 0
    where = "frame 12" if is_clip else "image"
    segmentation = make_map(header.Rows, header.Columns)
    frame, result = make_frame(index, segmentation), make_result(source, (0.5, 0.5), familiarity=0.875)
    write_segmentation(source, [(index, segmentation)], result, tmp_path / "masks.dcm")
    write_report(source, result, [frame], tmp_path / "made.dcm", {"outlines": tmp_path / "masks.dcm"})
    check_standard(tmp_path / "made.dcm", source)
    report, groups = read(tmp_path / "made.dcm")
    assert set(groups) == {
        f"anatomy, {where}, views",
        f"class, {where}, kinds",
        f"head 1, {where}, heads",
        f"head 2, {where}, heads",
        f"bpd_1, {where}, points",
        f"left ventricle, {where}, outlines",
        f"lesion, {where}, outlines",
        f"measurements of bpd, {where}, points",
        "familiarity, image",
    }
    head = groups[f"head 1, {where}, heads"]
    assert numbers(head) == {("Head Circumference", 123.456, "mm"), ("Certainty of Finding", 96.0, "%")}
    assert numbers(groups[f"left ventricle, {where}, outlines"]) == {("Area", 520.125, "mm2")}
    assert numbers(groups["familiarity, image"]) == {("familiarity", 0.875, "1")}
    masks = pydicom.dcmread(tmp_path / "masks.dcm", stop_before_pixels=True)
    own = (header.SOPClassUID, header.SOPInstanceUID)
    assert references(report) == {
        (*own, index + 1 if is_clip else None),
        (*own, None),
        (masks.SOPClassUID, masks.SOPInstanceUID, 1),
        (masks.SOPClassUID, masks.SOPInstanceUID, 2),
    }
    evidence = {
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert evidence == {own, (masks.SOPClassUID, masks.SOPInstanceUID)}


def test_dcmqi_reads_the_same_measurements(tmp_path):
    """A reader of TID 1500 that is neither ours nor highdicom's."""
    source, segmentation = make_source(tmp_path / "source.dcm"), make_map(37, 53)
    result = make_result(source, (0.5, 0.5), familiarity=0.875)
    write_segmentation(source, [(0, segmentation)], result, tmp_path / "masks.dcm")
    segmentations = {"outlines": tmp_path / "masks.dcm"}
    write_report(source, result, [make_frame(0, segmentation)], tmp_path / "made.dcm", segmentations)
    _, groups = read(tmp_path / "made.dcm")
    expected = {
        (name, each.name.meaning, float(each.value), each.unit.value)
        for name, group in groups.items()
        for each in group.get_measurements()
    }
    assert len(expected) >= 8
    assert read_by_dcmqi(tmp_path / "made.dcm") == expected


def test_draws_ellipses_and_points_where_they_are(tmp_path):
    source = make_source(tmp_path / "source.dcm")
    write_report(source, make_result(source), [make_frame()], tmp_path / "made.dcm")
    _, groups = read(tmp_path / "made.dcm")
    roi = groups["head 1, image, heads"].roi
    assert roi.GraphicType == "ELLIPSE"
    first, last, top, bottom = roi.value
    np.testing.assert_allclose((first + last) / 2, [25.5, 18.25], atol=1e-5)
    np.testing.assert_allclose((top + bottom) / 2, [25.5, 18.25], atol=1e-5)
    assert np.hypot(*(last - first)) == pytest.approx(20, abs=1e-5)
    assert np.hypot(*(bottom - top)) == pytest.approx(10, abs=1e-5)
    assert np.degrees(np.arctan2(*(last - first)[::-1])) == pytest.approx(
        30, abs=1e-4
    )  # from +x towards +y, which is down
    point = groups["bpd_1, image, points"].roi
    assert point.GraphicType == "POINT"
    np.testing.assert_array_equal(point.value, [[10.25, 20.5]])
    assert not any(name.startswith("bpd_2") for name in groups)  # not visible


@pytest.mark.parametrize("angle", [0, 17, 90, 135, 179])
def test_points_of_an_ellipse_lie_on_it(angle):
    """Against moments of a filled ellipse: the first pair of points spans its long principal axis."""
    ellipse = Ellipse("head", 1, 80.5, 60.25, 90, 40, angle)
    y, x = np.mgrid[:200, :200] + 0.5 - 40
    turn = np.radians(angle)
    along = (x - 80.5) * np.cos(turn) + (y - 60.25) * np.sin(turn)
    across = -(x - 80.5) * np.sin(turn) + (y - 60.25) * np.cos(turn)
    inside = (along / 45) ** 2 + (across / 20) ** 2 < 1
    _, vectors = np.linalg.eigh(np.cov(x[inside], y[inside]))
    points = ellipse_points(ellipse)
    long = points[1] - points[0]
    assert abs(long @ vectors[:, 1]) == pytest.approx(90, rel=1e-3)
    assert np.hypot(*(points[3] - points[2])) == pytest.approx(40)


def test_sites_views_classes_and_algorithms(tmp_path):
    source = make_source(tmp_path / "source.dcm")
    write_report(source, make_result(source), [make_frame()], tmp_path / "made.dcm")
    report, groups = read(tmp_path / "made.dcm")
    anatomy = groups["anatomy, image, views"]
    assert {(each.name.meaning, each.value.value) for each in anatomy.get_qualitative_evaluations()} == {
        ("Target Region", "80891009"),
        ("Image View", "399214001"),
    }
    assert anatomy.get_measurements()[0].value == pytest.approx(70)
    assert [each.value.value for each in anatomy.finding_sites] == ["80891009"]
    assert [each.value.meaning for each in groups["class, image, kinds"].get_qualitative_evaluations()] == ["Benign"]
    head = groups["head 1, image, heads"]
    assert head.finding_type.value == "12738006"
    assert head.finding_sites[0].topographical_modifier.meaning == "Fetus"
    texts = {item.ConceptNameCodeSequence[0].CodeMeaning: item.get("TextValue") for item in head[0].ContentSequence}
    assert (texts["Algorithm Name"], texts["Algorithm Version"]) == ("clinic/heads", "1" * 64)
    assert report.content[0].ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_it_is_an_unverified_draft_and_says_so(tmp_path):
    source = make_source(tmp_path / "source.dcm")
    result = make_result(source, warnings=["spacing is unknown", "σ of the noise is large"])
    write_report(source, result, [make_frame()], tmp_path / "made.dcm")
    report, _ = read(tmp_path / "made.dcm")
    assert (report.VerificationFlag, report.CompletionFlag, report.PreliminaryFlag) == (
        "UNVERIFIED",
        "PARTIAL",
        "PRELIMINARY",
    )
    assert "VerifyingObserverSequence" not in report
    comments = [item.TextValue for item in report.content[0].ContentSequence if item.ValueType == "TEXT"][-4:]
    assert comments == [
        "AI draft, not verified by a clinician",
        "spacing is unknown",
        "σ of the noise is large",
        "the probe may have lost contact",
    ]
    observer = report.content.get_observer_contexts()[0].observer_identifying_attributes
    assert observer.name == f"echocare-hf {report.SoftwareVersions}"
    check_standard(tmp_path / "made.dcm", source)


def test_a_spread_is_the_range_of_uncertainty_in_the_same_unit(tmp_path):
    source = make_source(tmp_path / "source.dcm")
    write_report(source, make_result(source), [make_frame()], tmp_path / "made.dcm")
    _, groups = read(tmp_path / "made.dcm")
    measured = groups["head 1, image, heads"].get_measurements()[0]
    uncertainty = next(
        item for item in measured[0].ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "371884006"
    )
    value = uncertainty.MeasuredValueSequence[0]
    assert (float(value.NumericValue), value.MeasurementUnitsCodeSequence[0].CodeValue) == (2.5, "mm")


def test_lengths_in_pixels_say_so(tmp_path):
    source = make_source(tmp_path / "source.dcm")
    write_report(source, make_result(source), [make_frame(unit="{pixels}")], tmp_path / "made.dcm")
    _, groups = read(tmp_path / "made.dcm")
    assert ("Head Circumference", 123.456, "{pixels}") in numbers(groups["head 1, image, heads"])
    assert numbers(groups["measurements of left ventricle, image, outlines"]) == {("Area", 520.125, "{pixels}2")}
    check_standard(tmp_path / "made.dcm", source)


def test_a_clip_with_key_frames_and_the_cycle(tmp_path):
    source = make_source(tmp_path / "source.dcm", (6, 37, 53))
    ventricle = {"of": "left ventricle", "node": "left_ventricle"}
    cycle = Measurement("ejection fraction", 55.5, "%", "outlines", spread=3.0, **ventricle)
    peak = Measurement("area, maximum", 900.5, "mm2", "outlines", frame=5, **ventricle)
    frames = [make_frame(2), make_frame(4)]
    result = make_result(
        source,
        clip=FrameResult(-1, classes={"kinds": (Label("malignant", 0.5),)}, measurements=(cycle,)),
        anatomy_path=(Label("Thorax", 0.9, "thorax", ("Thorax",)), Label("Heart", 0.75, "heart", ("Thorax", "Heart"))),
        measurements=[*frames[0].measurements, cycle, peak],
    )
    write_report(source, result, frames, tmp_path / "made.dcm")
    check_standard(tmp_path / "made.dcm", source)
    report, groups = read(tmp_path / "made.dcm")
    assert numbers(groups["measurements of left ventricle, image, outlines"]) == {
        ("Left Ventricular Ejection Fraction by US", 55.5, "%")
    }
    assert numbers(groups["measurements of left ventricle, frame 6, outlines"]) == {("Area", 900.5, "mm2")}
    assert numbers(groups["head 1, frame 3, heads"]) == numbers(groups["head 1, frame 5, heads"])
    assert groups["class, image, kinds"].get_qualitative_evaluations()[0].value.meaning == "Malignant"
    assert numbers(groups["anatomy, image, views"]) == {("Certainty of Finding", 75.0, "%")}
    frames_of = {frame for _, _, frame in references(report)}
    assert frames_of == {None, 3, 5, 6}
    derived = groups["measurements of left ventricle, frame 6, outlines"].get_measurements()[0]
    assert derived.derivation.meaning == "Maximum"
    assert len(groups) == len({group.tracking_uid for group in groups.values()})


def test_nothing_found(tmp_path):
    source = make_source(tmp_path / "source.dcm")
    write_report(source, make_result(source), [FrameResult(0, ellipses={"heads": ()})], tmp_path / "made.dcm")
    _, groups = read(tmp_path / "made.dcm")
    assert groups["finding, image"].get_qualitative_evaluations()[0].value.meaning == "nothing found"
    check_standard(tmp_path / "made.dcm", source)


def test_trouble(tmp_path):
    source = make_source(tmp_path / "source.dcm")
    result, frame = make_result(source), make_frame()
    with pytest.raises(ValueError, match="area is nan"):
        bad = replace(frame, measurements=(Measurement("area", float("nan"), "mm2", "outlines", "lesion"),))
        write_report(source, result, [bad], tmp_path / "made.dcm")
    with pytest.raises(ValueError, match="has no frame 3"):
        write_report(source, result, [make_frame(3)], tmp_path / "made.dcm")
    del result.models["heads"]
    with pytest.raises(ValueError, match="names the model 'heads'"):
        write_report(source, result, [frame], tmp_path / "made.dcm")
    assert [path.name for path in tmp_path.iterdir()] == ["source.dcm"]
