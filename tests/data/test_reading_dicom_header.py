"""What a DICOM header says: regions, spacing, modality, times, and that nothing about a person is carried along."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from reading_helpers import make_dicom, make_region, save

from echocare_hf.data.reading import open_ultrasound, read_ultrasound
from echocare_hf.data.reading_dicom_header import clip_box

GREY = np.zeros((40, 60), np.uint8)


def read(tmp_path, pixels=GREY, **elements):
    return read_ultrasound(save(make_dicom(pixels, **elements), tmp_path / "file.dcm"))


@given(
    box=st.tuples(*[st.integers(-50, 150)] * 4), height=st.integers(1, 100), width=st.integers(1, 100), data=st.data()
)
def test_clipping_keeps_exactly_the_pixels_on_the_grid(box, height, width, data):
    grid = np.zeros((height, width), bool)
    rows = [y for y in range(height) if box[1] <= y < box[3]]
    columns = [x for x in range(width) if box[0] <= x < box[2]]
    grid[np.ix_(rows, columns)] = True  # brute force
    result = clip_box(box, height, width)
    if result is None:
        assert not grid.any()
        return
    (x0, y0, x1, y1), clipped = result
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    cut = np.zeros_like(grid)
    cut[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(cut, grid)
    assert clipped == ((box[2] - box[0]) * (box[3] - box[1]) != grid.sum())


def test_region_is_half_open_and_in_mm(tmp_path):
    record = read(tmp_path, SequenceOfUltrasoundRegions=[make_region((5, 4, 50, 30), delta_cm=(0.02, 0.03))])
    (region,) = record.regions
    assert region.box == (5, 4, 51, 31)
    assert region.spacing == pytest.approx((0.3, 0.2))  # row from y, column from x
    assert (region.spatial_format, region.data_type, region.clipped) == ("2D", "Tissue", False)
    assert record.spacing == region.spacing
    assert record.modality == "B-mode"


def test_regions_of_one_spacing_give_it(tmp_path):
    regions = [
        make_region((0, 0, 9, 9), (0.02, 0.02)),
        make_region((10, 0, 39, 29), (0.02, 0.02)),
        make_region((20, 10, 29, 19), (0.0, 0.0), data_type=2),  # a colour box in the image
        make_region((50, 0, 54, 39), (0.05, 0.05)),  # too narrow to be an image
        make_region((0, 30, 59, 39), (0.001, 2.0), units=(4, 7), spatial_format=3, data_type=3),
    ]
    record = read(tmp_path, SequenceOfUltrasoundRegions=regions)
    assert record.spacing == pytest.approx((0.2, 0.2))
    assert record.regions[4].spacing is None
    assert record.regions[4].data_type == "PW Spectral Doppler"


@pytest.mark.parametrize(
    ("left", "right"),
    [(0.02, 0.06), (0.0, 0.06), (0.02, 0.0)],
    ids=["differ", "largest states none", "other states none"],
)
def test_no_one_spacing_where_regions_side_by_side_differ(tmp_path, left, right):
    regions = [make_region((0, 0, 34, 39), (left, left)), make_region((35, 0, 59, 39), (right, right))]
    path = save(make_dicom(GREY, SequenceOfUltrasoundRegions=regions, PixelSpacing=[0.2, 0.2]), tmp_path / "two.dcm")
    assert read_ultrasound(path).spacing is None
    with open_ultrasound(path) as source:
        assert source.spacing is None


@pytest.mark.parametrize("delta", [(0.0, 0.02), (-0.02, 0.02), (float("nan"), 0.02), (0.02, float("inf"))])
def test_impossible_spacing_is_none(tmp_path, delta):
    record = read(tmp_path, SequenceOfUltrasoundRegions=[make_region((0, 0, 59, 39), delta)])
    assert record.spacing is None
    assert record.regions[0].spacing is None


def test_region_of_a_larger_grid_is_clipped_and_gives_no_spacing(tmp_path):
    """Frames that were scaled or cropped after the region was written: its millimetres may not hold any more."""
    record = read(tmp_path, SequenceOfUltrasoundRegions=[make_region((10, 5, 119, 79))])
    assert record.regions[0].box == (10, 5, 60, 40)
    assert record.regions[0].clipped
    assert record.regions[0].spacing == pytest.approx((0.3, 0.2))
    assert record.spacing is None


def test_one_pixel_beyond_the_grid_is_an_exclusive_end(tmp_path):
    record = read(tmp_path, SequenceOfUltrasoundRegions=[make_region((10, 5, 60, 40))])
    assert record.regions[0].box == (10, 5, 60, 40)
    assert record.spacing == pytest.approx((0.3, 0.2))


def test_regions_without_a_place_are_left_out(tmp_path):
    nowhere = make_region((0, 0, 9, 9))
    del nowhere.RegionLocationMaxX1
    record = read(tmp_path, SequenceOfUltrasoundRegions=[make_region((70, 0, 90, 9)), nowhere])
    assert record.regions == ()


@pytest.mark.parametrize("spacing", [[0.3, 0.2], None, [0, 0.2]])
def test_pixel_spacing_is_row_then_column(tmp_path, spacing):
    record = read(tmp_path, PixelSpacing=spacing)
    assert record.spacing == ((0.3, 0.2) if spacing == [0.3, 0.2] else None)


@pytest.mark.parametrize(
    ("elements", "modality"),
    [
        ({}, "unknown"),
        ({"UltrasoundColorDataPresent": 1}, "unknown"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TTE", "0001"]}, "B-mode"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TTE", "0011"]}, "Doppler"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TTE", "0003"]}, "M-mode"),
        ({"ImageType": ["DERIVED", "PRIMARY", "BREAST"]}, "unknown"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "ELASTOGRAPHY"]}, "elastography"),
        ({"ContrastBolusAgent": "SonoVue"}, "CEUS"),
        ({"ContrastBolusAgent": "NONE"}, "unknown"),
        ({"SequenceOfUltrasoundRegions": [make_region((0, 0, 9, 9), spatial_format=2)]}, "M-mode"),
        ({"SequenceOfUltrasoundRegions": [make_region((0, 0, 9, 9), data_type=2)]}, "Doppler"),
        (
            {"SequenceOfUltrasoundRegions": [make_region((0, 0, 9, 9)), make_region((0, 0, 9, 9), spatial_format=3)]},
            "Doppler",
        ),
        ({"SequenceOfUltrasoundRegions": [make_region((0, 0, 9, 9), spatial_format=5, data_type=13)]}, "unknown"),
    ],
)
def test_modality_is_only_what_the_file_tells(tmp_path, elements, modality):
    assert read(tmp_path, **elements).modality == modality


@pytest.mark.parametrize(
    ("elements", "times"),
    [
        ({"FrameTime": "33.5"}, (0, 33.5, 67)),
        ({"FrameTimeVector": [0, 30, 50]}, (0, 30, 80)),
        ({"FrameTimeVector": [0, 30], "FrameTime": "10"}, (0, 10, 20)),
        ({"FrameTimeVector": [0, 30, 50], "FrameTime": "10"}, (0, 30, 80)),
        ({"FrameTimeVector": [0, 30, 50], "FrameTime": "10", "FrameIncrementPointer": 0x00181063}, (0, 10, 20)),
        ({"FrameTimeVector": [0, 30, 50], "FrameTime": "10", "FrameIncrementPointer": 0x00181065}, (0, 30, 80)),
        ({"FrameTimeVector": [0, 30, 50], "FrameTime": "0", "FrameIncrementPointer": 0x00181063}, (0, 30, 80)),
        ({"FrameTimeVector": [0, 30, -50], "CineRate": "50"}, (0, 20, 40)),
        ({"FrameTime": "40", "CineRate": "50", "RecommendedDisplayFrameRate": "10"}, (0, 40, 80)),
        ({"FrameTime": "0", "CineRate": "0", "RecommendedDisplayFrameRate": "10"}, (0, 100, 200)),
        ({"CineRate": "50"}, (0, 20, 40)),
        ({"RecommendedDisplayFrameRate": "25"}, (0, 40, 80)),
        ({"FrameTime": "0", "CineRate": "0"}, None),
        ({}, None),
    ],
)
def test_frame_times(tmp_path, elements, times):
    record = read(tmp_path, np.zeros((3, 40, 60), np.uint8), **elements)
    assert record.frame_times_ms == (None if times is None else pytest.approx(times))


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_nothing_that_identifies_a_person_is_carried_along(tmp_path):
    secrets = {
        "PatientName": "Quixote^Alonso",
        "PatientID": "SECRET-4711",
        "PatientBirthDate": "19470102",
        "PatientSex": "M",
        "PatientComments": "lives at Windmill Lane",
        "StudyDate": "20110525",
        "StudyDescription": "Sancho follow-up",
        "SeriesDescription": "Dulcinea",
        "ImageComments": "Rocinante",
        "InstitutionName": "La Mancha Hospital",
        "StationName": "BARATARIA1",
        "OperatorsName": "Panza^Sancho",
        "ReferringPhysicianName": "Cervantes^Miguel",
        "AccessionNumber": "ACC998877",
        "StudyInstanceUID": "1.2.3.4.998877",
        "DeviceSerialNumber": "SN555444",
        "ProtocolName": "Galatea",
        "TransducerData": ["C5-1", "SN31337", ""],
        "ImageType": ["ORIGINAL", "PRIMARY", "Quixote, Alonso"],  # not a code: left out
        "Manufacturer": "Acme",
    }
    dataset = make_dicom(GREY, SequenceOfUltrasoundRegions=[make_region((0, 0, 9, 9))], **secrets)
    dataset.private_block(0x0029, "ACME PRIVATE", create=True).add_new(0x10, "LO", "Private Quixote")
    folder = tmp_path / "Quixote_19470102"
    folder.mkdir()
    record = read_ultrasound(save(dataset, folder / "SECRET-4711.dcm"))
    carried = repr(record) + repr(record.metadata)
    secret_words = ["Quixote", "Alonso", "SECRET", "4711", "1947", "Windmill", "2011", "Sancho", "Dulcinea"]
    secret_words += ["Rocinante", "Mancha", "BARATARIA", "Cervantes", "998877", "555444", "Galatea", "SN31337"]
    for word in [*secret_words, "Private", "PRIVATE"]:
        assert word not in carried
    assert record.metadata["manufacturer"] == "Acme"
    assert set(record.metadata) <= {
        *("format", "manufacturer", "dicom_modality", "photometric_interpretation", "rows", "columns"),
        *("samples_per_pixel", "bits_allocated", "bits_stored", "pixel_representation"),
        *("transfer_syntax", "num_frames"),
    }


def test_enhanced_volume_groups(tmp_path):
    """Enhanced US volumes keep spacing, window and data type in shared functional groups (PS3.3 C.7.6.16)."""
    measures, voi, kind, shared = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.4, 0.6]
    voi.WindowCenter, voi.WindowWidth = 50, 101
    kind.DataType = "ELASTICITY"
    shared.PixelMeasuresSequence, shared.FrameVOILUTSequence = [measures], [voi]
    shared.ImageDataTypeSequence = [kind]
    pixels = np.zeros((2, 40, 60), np.uint8)
    pixels[0, 0, :3] = [25, 50, 100]
    record = read(tmp_path, pixels, SharedFunctionalGroupsSequence=[shared])
    assert record.spacing == (0.4, 0.6)
    assert record.modality == "elastography"
    assert record.frames[0, 0, :3, 0].tolist() == [65, 129, 255]
