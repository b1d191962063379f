"""DICOM Segmentations, read back by highdicom and by pydicom, pixel for pixel."""

import tracemalloc

import numpy as np
import pydicom
import pytest
from dicom_result_helpers import check_standard, make_map, make_result, make_source, sample_files

from echocare_hf.examination.dicom_segmentation import write_segmentation
from echocare_hf.examination.dicom_segmentation_frames import WrittenSegmentation
from echocare_hf.examination.results import ModelFacts, Segmentation

hd = pytest.importorskip("highdicom", reason="highdicom is not installed")


def numbered(segmentation):
    """The map as segment numbers: the classes in the order of their values, nothing where it was not analysed."""
    expected = np.zeros_like(segmentation.label_map)
    for number, value in enumerate(sorted(segmentation.classes), start=1):
        expected[segmentation.label_map == value] = number
    return expected


def check_pixels(source, target, maps):
    """Against highdicom's own lookup by source frame, and against pydicom's frames beside their references."""
    header = pydicom.dcmread(source, stop_before_pixels=True)
    read = hd.seg.segread(target)
    for index, segmentation in maps:
        if int(header.get("NumberOfFrames") or 1) > 1:
            pixels = read.get_pixels_by_source_frame(
                header.SOPInstanceUID, [index + 1], combine_segments=True, assert_missing_frames_are_empty=True
            )
        else:
            pixels = read.get_pixels_by_source_instance([header.SOPInstanceUID], combine_segments=True)
        np.testing.assert_array_equal(pixels[0], numbered(segmentation))
    plain = pydicom.dcmread(target)
    frames = np.atleast_3d(plain.pixel_array.reshape(-1, plain.Rows, plain.Columns))
    maps = dict(maps)
    for frame, item in zip(frames, plain.PerFrameFunctionalGroupsSequence, strict=True):
        reference = item.DerivationImageSequence[0].SourceImageSequence[0]
        assert reference.ReferencedSOPClassUID == header.SOPClassUID
        assert reference.ReferencedSOPInstanceUID == header.SOPInstanceUID
        index = reference.get("ReferencedFrameNumber", 1) - 1
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        np.testing.assert_array_equal(frame, numbered(maps[index]) == number)
    return plain


@pytest.mark.parametrize("place", range(9))
def test_samples(shared_data, tmp_path, place):
    source = sample_files(shared_data)[place]
    header = pydicom.dcmread(source, stop_before_pixels=True)
    step = 7
    maps = [
        (index, make_map(header.Rows, header.Columns, seed=index))
        for index in range(0, int(header.get("NumberOfFrames") or 1), step)
    ]
    write_segmentation(source, maps, make_result(source), tmp_path / "made.dcm")
    made = check_pixels(source, tmp_path / "made.dcm", maps)
    assert made.NumberOfFrames == 2 * len(maps)
    check_standard(tmp_path / "made.dcm", source)


@pytest.mark.parametrize("order", [(0, 3, 4), (4, 0, 3)])
def test_frames_of_a_clip_whose_masks_are_no_whole_bytes(tmp_path, order):
    source = make_source(tmp_path / "source.dcm", (6, 37, 53))
    maps = [(index, make_map(37, 53, seed=index)) for index in order]
    write_segmentation(source, iter(maps), make_result(source), tmp_path / "made.dcm")
    made = check_pixels(source, tmp_path / "made.dcm", maps)
    check_standard(tmp_path / "made.dcm", source)
    assert len(made.PixelData) % 2 == 0
    items = made.PerFrameFunctionalGroupsSequence
    places = {
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber: tuple(
            item.FrameContentSequence[0].DimensionIndexValues
        )[1]
        for item in items
    }
    assert places == {1: 1, 4: 2, 5: 3}


def test_what_it_says_of_segments_and_model(tmp_path):
    source = make_source(tmp_path / "source.dcm", BurnedInAnnotation="NO")
    label_map = np.zeros((37, 53), np.uint8)
    label_map[2:9, 3:8], label_map[20:30, 10:40], label_map[31:34, 10:40] = 1, 2, 3
    segmentation = Segmentation(
        label_map, {1: "head", 2: "deep aponeurosis", 3: "left kidney"}, {1: "fetal_brain", 3: "left_kidney"}
    )
    write_segmentation(source, [(0, segmentation)], make_result(source), tmp_path / "made.dcm")
    made = hd.seg.segread(tmp_path / "made.dcm")
    head, aponeurosis, kidney = made.SegmentSequence
    assert (head.SegmentNumber, head.SegmentLabel, head.SegmentAlgorithmType) == (1, "head", "AUTOMATIC")
    assert head.segmented_property_type.value == "12738006"
    assert [code.CodeMeaning for code in head.AnatomicRegionSequence] == ["Fetus"]
    assert aponeurosis.segmented_property_type.scheme_designator == "99ECHOCARE"
    assert (kidney.segmented_property_type.value, kidney.AnatomicRegionSequence[0].CodeMeaning) == (
        "left_kidney",
        "Kidney",
    )
    algorithm = head.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("clinic/outlines", "0" * 64)
    assert made.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99ECHOCARE"
    assert made.ContentDescription == "AI draft, not verified by a clinician"
    assert made.SegmentationType == "BINARY" and (made.Rows, made.Columns) == (37, 53)
    assert "FrameOfReferenceUID" not in made
    assert "PixelMeasuresSequence" not in made.SharedFunctionalGroupsSequence[0]
    check_standard(tmp_path / "made.dcm", source)


def test_nothing_found_is_stored_as_empty(tmp_path):
    source = make_source(tmp_path / "source.dcm", (3, 37, 53))
    empty = Segmentation(np.full((37, 53), 255, np.uint8), {1: "nerve", 2: "artery"})
    write_segmentation(source, [(1, empty), (2, empty)], make_result(source), tmp_path / "made.dcm")
    made = pydicom.dcmread(tmp_path / "made.dcm")
    assert not made.pixel_array.any() and made.NumberOfFrames == 2
    assert [segment.SegmentLabel for segment in made.SegmentSequence] == ["nerve", "artery"]
    assert list(WrittenSegmentation(tmp_path / "made.dcm").shown_on([2])) == []
    check_standard(tmp_path / "made.dcm", source)


def test_where_segments_are_found_again(tmp_path):
    source = make_source(tmp_path / "source.dcm", (6, 37, 53))
    maps = [(index, make_map(37, 53, seed=index)) for index in (5, 1)]
    write_segmentation(source, maps, make_result(source), tmp_path / "made.dcm")
    written = WrittenSegmentation(tmp_path / "made.dcm")
    assert [(segment.number, segment.label, place) for segment, place in written.shown_on([2])] == [
        (1, "left ventricle", 3),
        (2, "lesion", 4),
    ]
    assert written.segments[0].concept.site.value == "87878005"
    assert written.segments[1].concept.site is None
    assert list(written.shown_on([1])) == []


def test_a_long_clip_takes_no_more_memory_than_a_short_one(tmp_path):
    source = make_source(tmp_path / "source.dcm", (2, 37, 53))
    dataset = pydicom.dcmread(source)
    dataset.NumberOfFrames = 3000  # its pixels are not looked at
    dataset.save_as(source)
    segmentation, result = make_map(37, 53), make_result(source)
    peaks = []
    for count in (10, 30, 3000):  # the first fills caches
        tracemalloc.start()
        write_segmentation(source, ((index, segmentation) for index in range(count)), result, tmp_path / "made.dcm")
        WrittenSegmentation(tmp_path / "made.dcm")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[2] - peaks[1]) / 2970 < 2000  # bytes a frame with two segments; masks alone are 3922 pixels
    header = pydicom.dcmread(tmp_path / "made.dcm")
    assert header.NumberOfFrames == len(header.PerFrameFunctionalGroupsSequence) == 6000


def test_trouble(tmp_path):
    source = make_source(tmp_path / "source.dcm")
    good, result = make_map(37, 53), make_result(source)
    cases = {
        "is 54 x 37 pixels, but the file's frames are 53 x 37": [(0, make_map(37, 54))],
        "two label maps of frame 0": [(0, good), (0, good)],
        "has no frame 1": [(1, good)],
        "has no frame -1": [(-1, good)],
        r"holds \[7\] without the name of a class": [(0, Segmentation(good.label_map, {2: "ventricle"}))],
        "there is no label map": [],
    }
    for message, maps in cases.items():
        with pytest.raises(ValueError, match=message):
            write_segmentation(source, maps, result, tmp_path / "made.dcm")
    result.models["second"] = ModelFacts("second", "clinic/second", "segmentation", "9" * 64)
    with pytest.raises(ValueError, match=r"there are 2 \(outlines, second\)"):
        write_segmentation(source, [(0, good)], result, tmp_path / "made.dcm")
    assert [path.name for path in tmp_path.iterdir()] == ["source.dcm"]
    write_segmentation(source, [(0, good)], result, tmp_path / "made.dcm", model="second")
    segments = pydicom.dcmread(tmp_path / "made.dcm").SegmentSequence
    assert segments[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "clinic/second"
