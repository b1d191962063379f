"""Enhanced pictures as Secondary Captures, read back by pydicom."""

import numpy as np
import pydicom
import pytest
from dicom_result_helpers import check_standard, make_result, make_source, sample_files
from reading_helpers import make_region  # its folder is put on the path by the line above

from echocare_hf.examination.dicom_capture import write_enhanced

pytest.importorskip("highdicom", reason="highdicom is not installed")


def make_picture(height, width):
    return np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("place", range(9))
def test_samples(shared_data, tmp_path, place):
    source = sample_files(shared_data)[place]
    header = pydicom.dcmread(source, stop_before_pixels=True)
    picture = make_picture(header.Rows, header.Columns)
    is_clip = "NumberOfFrames" in header
    write_enhanced(source, picture, make_result(source), tmp_path / "made.dcm", frame=4 if is_clip else 0)
    made = pydicom.dcmread(tmp_path / "made.dcm")
    np.testing.assert_array_equal(made.pixel_array, picture)
    reference = made.SourceImageSequence[0]
    assert (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID) == (
        header.SOPClassUID,
        header.SOPInstanceUID,
    )
    assert reference.get("ReferencedFrameNumber") == (5 if is_clip else None)
    assert made.get("BurnedInAnnotation") == header.get("BurnedInAnnotation")
    # The clip was halved after its regions were written, so they are not of its grid.
    expected = None if source.stem == "examples_ybr_color" else header.get("SequenceOfUltrasoundRegions")
    if source.stem == "examples_palette":  # cut, and the second region is below the cut
        expected = None
    if source.stem != "examples_palette":
        assert made.get("SequenceOfUltrasoundRegions") == expected
    check_standard(tmp_path / "made.dcm", source)


def test_what_it_says(tmp_path):
    inside, outside = make_region((3, 4, 50, 36)), make_region((3, 4, 90, 36))
    source = make_source(
        tmp_path / "source.dcm",
        BurnedInAnnotation="YES",
        LossyImageCompression="01",
        LossyImageCompressionRatio=8.5,
        LossyImageCompressionMethod="ISO_10918_1",
        SequenceOfUltrasoundRegions=[inside, outside],
    )
    write_enhanced(source, make_picture(37, 53), make_result(source, (0.125, 0.25)), tmp_path / "made.dcm")
    made = pydicom.dcmread(tmp_path / "made.dcm")
    assert made.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert list(made.ImageType) == ["DERIVED", "SECONDARY"]
    assert (made.BurnedInAnnotation, made.LossyImageCompression, made.LossyImageCompressionRatio) == ("YES", "01", 8.5)
    assert list(made.PixelSpacing) == [0.125, 0.25]
    assert list(made.SequenceOfUltrasoundRegions) == [inside]
    assert "AI draft" in made.DerivationDescription and "5" * 64 in made.DerivationDescription
    assert made.ConversionType == "DI" and "ReferencedFrameNumber" not in made.SourceImageSequence[0]
    check_standard(tmp_path / "made.dcm", source)


def test_without_spacing_there_is_none(tmp_path):
    source = make_source(tmp_path / "source.dcm", PixelSpacing=[1, 1])
    write_enhanced(source, make_picture(37, 53), make_result(source, None), tmp_path / "made.dcm")
    made = pydicom.dcmread(tmp_path / "made.dcm")
    assert "PixelSpacing" not in made and "BurnedInAnnotation" not in made


@pytest.mark.parametrize("axes", [2, 3])
def test_a_grey_picture_is_stored_as_one_channel(tmp_path, axes):
    source = make_source(tmp_path / "source.dcm")
    grey = make_picture(37, 53)[..., 0]
    picture = grey if axes == 2 else np.repeat(grey[..., None], 3, axis=2)
    write_enhanced(source, picture, make_result(source), tmp_path / "made.dcm")
    made = pydicom.dcmread(tmp_path / "made.dcm")
    assert made.PhotometricInterpretation == "MONOCHROME2"
    np.testing.assert_array_equal(made.pixel_array, grey)
    check_standard(tmp_path / "made.dcm", source)


def test_trouble(tmp_path):
    source = make_source(tmp_path / "source.dcm")
    picture, result = make_picture(37, 53), make_result(source)
    with pytest.raises(ValueError, match="is 37 x 53 pixels"):
        write_enhanced(source, picture.transpose(1, 0, 2), result, tmp_path / "made.dcm")
    with pytest.raises(ValueError, match="float64"):
        write_enhanced(source, picture / 255, result, tmp_path / "made.dcm")
    with pytest.raises(ValueError, match="has no frame 2"):
        write_enhanced(source, picture, result, tmp_path / "made.dcm", frame=2)
    assert [path.name for path in tmp_path.iterdir()] == ["source.dcm"]
