"""The real DICOM samples beside the repository: what their headers say, their frames, and their own rulers."""

import numpy as np
import pytest
from PIL import Image

from echocare_hf.data.reading import read_ultrasound

EXPECTED = {
    # name: frames shape, spacing in mm (rows and columns alike), modality, boxes of the regions
    "GREYSCALE_IMAGE": ((1, 768, 1024, 3), 0.064905, "B-mode", [(14, 38, 1011, 759)]),
    "JPGLosslessP14SV1_1s_1f_8b": ((1, 768, 1024, 3), 0.254767, "B-mode", [(14, 38, 1011, 759)]),
    "OBXXXX1A": ((1, 600, 800, 3), 0.262288, "B-mode", [(120, 60, 800, 519), (176, 522, 744, 577)]),
    "US1_UNCI": ((1, 480, 640, 3), None, "unknown", []),
    "color-px": ((1, 120, 256, 3), None, "Doppler", []),
    "examples_jpeg2k": ((1, 480, 640, 3), None, "unknown", []),
    "examples_palette": ((1, 350, 800, 3), None, "B-mode", [(120, 60, 800, 350)]),
    "examples_rgb_color": ((1, 240, 320, 3), None, "unknown", []),
    "examples_ybr_color": ((30, 240, 320, 3), None, "B-mode", [(84, 31, 320, 240)]),
}


@pytest.fixture
def samples(shared_data):
    return shared_data / "dicom_samples"


def test_every_sample_is_expected(samples):
    assert {path.stem for path in (samples / "dicom").glob("*.dcm")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_sample(samples, name):
    shape, spacing, modality, boxes = EXPECTED[name]
    record = read_ultrasound(samples / "dicom" / f"{name}.dcm")
    assert record.frames.shape == shape
    assert record.spacing == (None if spacing is None else pytest.approx((spacing, spacing), abs=1e-6))
    assert record.modality == modality
    assert [region.box for region in record.regions] == boxes
    assert record.frames.max() > 200
    assert "TEST PATIENT" not in repr(record.metadata)


def test_frames_agree_with_the_jpegs_made_from_them(samples):
    """The JPEGs were made by another decoder; those not resized must match but for their own compression."""
    for name in ("examples_rgb_color", "color-px"):
        frame = read_ultrasound(samples / "dicom" / f"{name}.dcm").frames[0]
        jpeg = np.asarray(Image.open(samples / "frames" / f"{name}.jpg").convert("RGB")).astype(int)
        assert np.abs(jpeg - frame).mean() < 4, name
    cine = read_ultrasound(samples / "dicom" / "examples_ybr_color.dcm")
    for index, frame in enumerate(cine.frames):
        jpeg = np.asarray(Image.open(samples / "frames" / f"examples_ybr_color_{index:03}.jpg").convert("RGB"))
        assert np.abs(jpeg.astype(int) - frame).mean() < 0.5
    assert cine.frame_times_ms == pytest.approx([index * 33.333 for index in range(30)])


def test_jpeg_2000_copy_shows_the_uncompressed_picture(samples):
    """`examples_jpeg2k` (reversible) and `US1_UNCI` (from the irreversible series) are one scan of NEMA's test set."""
    plain = read_ultrasound(samples / "dicom" / "US1_UNCI.dcm").frames.astype(int)
    compressed = read_ultrasound(samples / "dicom" / "examples_jpeg2k.dcm").frames
    difference = np.abs(compressed - plain)
    assert difference.mean(axis=(0, 1, 2)).max() < 4  # in each of red, green and blue


def test_spacing_agrees_with_the_caliper_burnt_into_the_picture(samples):
    """`OBXXXX1A` shows two crosses, the centres at (460, 291) and (499, 302), and the words "Cist Mag 1.06 cm"."""
    row_mm, column_mm = read_ultrasound(samples / "dicom" / "OBXXXX1A.dcm").spacing
    assert np.hypot((302 - 291) * row_mm, (499 - 460) * column_mm) == pytest.approx(10.6, abs=0.1)


def test_a_region_of_a_larger_grid_tells_the_wrong_millimetres(samples):
    """Why a clipped region gives no spacing: the halved cine shows 19 cm of depth on about 186 rows.

    The region says 0.51 mm, which would make that 9.5 cm; the true spacing is twice as large.
    """
    record = read_ultrasound(samples / "dicom" / "examples_ybr_color.dcm")
    region = record.regions[0]
    assert region.clipped
    assert region.spacing == pytest.approx((0.5105, 0.5105), abs=1e-4)
    assert 186 * 2 * region.spacing[0] == pytest.approx(190, abs=4)
    assert record.spacing is None
