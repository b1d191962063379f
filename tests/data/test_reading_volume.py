"""NIfTI and MetaImage: axes, spacing, units and grey values, written by SimpleITK or byte by byte."""

import gzip
import struct

import numpy as np
import pytest

from echocare_hf.data.reading import UnreadableFileError, read_ultrasound

sitk = pytest.importorskip("SimpleITK")

SEQUENCE = np.random.default_rng(0).integers(0, 256, (5, 12, 16)).astype(np.uint8)  # (frames, height, width)


def write(path, values=SEQUENCE, spacing=(0.2, 0.3, 1.5), is_vector=False):
    """`spacing` in the file's order: across, down, between frames."""
    image = sitk.GetImageFromArray(values, isVector=is_vector)
    image.SetSpacing(spacing[: image.GetDimension()])
    sitk.WriteImage(image, str(path))
    return path


def nifti_bytes(values, spacing, unit):
    """A NIfTI-1 file from its specification alone; `values` is uint8 `(frames, height, width)`."""
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *values.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)  # datatype uint8, 8 bits
    struct.pack_into("<8f", header, 76, 1, *spacing, 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, 352, 1, 0)  # vox_offset, slope, intercept
    header[123] = unit
    header[344:348] = b"n+1\0"
    return bytes(header) + bytes(4) + values.tobytes()


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mhd", "mha"])
def test_sequence_round_trip(tmp_path, suffix):
    record = read_ultrasound(write(tmp_path / f"sequence.{suffix}"))
    assert record.frames.shape == (5, 12, 16, 3)
    for channel in range(3):
        np.testing.assert_array_equal(record.frames[..., channel], SEQUENCE)
    assert record.spacing == pytest.approx((0.3, 0.2))
    assert record.metadata["num_frames"] == 5
    record = read_ultrasound(tmp_path / f"sequence.{suffix}", every=2, max_frames=2)
    np.testing.assert_array_equal(record.frames[..., 0], SEQUENCE[:4:2])


@pytest.mark.parametrize("suffix", ["nii", "mha"])
def test_single_image(tmp_path, suffix):
    record = read_ultrasound(write(tmp_path / f"image.{suffix}", SEQUENCE[0]))
    np.testing.assert_array_equal(record.frames[..., 0], SEQUENCE[:1])
    assert record.spacing == pytest.approx((0.3, 0.2))


def test_time_series_of_volumes(tmp_path):
    values = np.random.default_rng(1).integers(0, 256, (2, 3, 12, 16)).astype(np.uint8)
    image = sitk.JoinSeries([sitk.GetImageFromArray(volume) for volume in values])
    sitk.WriteImage(image, str(tmp_path / "series.nii"))
    record = read_ultrasound(tmp_path / "series.nii")
    np.testing.assert_array_equal(record.frames[..., 0], values.reshape(6, 12, 16))


def test_rgb_volume(tmp_path):
    values = np.random.default_rng(2).integers(0, 256, (4, 12, 16, 3)).astype(np.uint8)
    record = read_ultrasound(write(tmp_path / "colour.mha", values, is_vector=True))
    np.testing.assert_array_equal(record.frames, values)


def test_grey_values(tmp_path):
    """Whole numbers within 0..255 stay; anything else goes from its smallest to its largest value."""
    kept = write(tmp_path / "kept.nii", SEQUENCE.astype(np.float32))
    np.testing.assert_array_equal(read_ultrasound(kept).frames[..., 0], SEQUENCE)
    scaled = write(tmp_path / "scaled.nii", SEQUENCE.astype(np.float32) / 100 - 1)
    expected = (SEQUENCE.astype(float) - SEQUENCE.min()) * 255 / np.ptp(SEQUENCE)
    np.testing.assert_allclose(read_ultrasound(scaled).frames[..., 0], expected, atol=0.51)
    wide = np.zeros((1, 8, 8), np.int16)
    wide[0, 0, :3] = [-1000, 1000, 0]
    assert read_ultrasound(write(tmp_path / "wide.mha", wide)).frames[0, 0, :3, 0].tolist() == [0, 255, 128]


@pytest.mark.parametrize(
    ("unit", "spacing", "expected"),
    [
        (2, (0.2, 0.3, 1), (0.3, 0.2)),  # mm
        (1, (0.0002, 0.0003, 1), (0.3, 0.2)),  # metres
        (3, (200, 300, 1), (0.3, 0.2)),  # micrometres
        (2, (1, 1, 1), (1, 1)),
        (0, (0.2, 0.3, 1), (0.3, 0.2)),  # unit unknown, spacing set: mm, as every reader takes it
        (0, (1, 1, 1), None),  # nobody said anything
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_nifti_units(tmp_path, unit, spacing, expected, compressed):
    content = nifti_bytes(SEQUENCE, spacing, unit)
    path = tmp_path / ("file.nii.gz" if compressed else "file.nii")
    path.write_bytes(gzip.compress(content) if compressed else content)
    record = read_ultrasound(path)
    np.testing.assert_array_equal(record.frames[..., 0], SEQUENCE)
    assert record.spacing == (None if expected is None else pytest.approx(expected))


def test_big_endian_nifti(tmp_path):
    values = SEQUENCE.astype(">f4")
    header = bytearray(348)
    struct.pack_into(">i", header, 0, 348)
    struct.pack_into(">8h", header, 40, 3, 16, 12, 5, 1, 1, 1, 1)
    struct.pack_into(">2h", header, 70, 16, 32)  # datatype float32
    struct.pack_into(">8f", header, 76, 1, 0.2, 0.3, 1, 1, 1, 1, 1)
    struct.pack_into(">3f", header, 108, 352, 1, 0)
    header[344:348] = b"n+1\0"
    path = tmp_path / "file.nii"
    path.write_bytes(bytes(header) + bytes(4) + values.tobytes())
    np.testing.assert_array_equal(read_ultrasound(path).frames[..., 0], SEQUENCE)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnreadableFileError, match="3839 of 3840 bytes"):
        read_ultrasound(path)
    values[0, 0, :2] = np.inf
    path.write_bytes(bytes(header) + bytes(4) + values.tobytes())
    with pytest.raises(UnreadableFileError, match="2 pixels are NaN"):
        read_ultrasound(path)


def test_nifti_2_is_refused_by_name(tmp_path):
    path = tmp_path / "file.nii"
    path.write_bytes(struct.pack("<i", 540) + b"n+2\0\r\n\x1a\n" + bytes(600))
    with pytest.raises(UnreadableFileError, match="NIfTI-1"):
        read_ultrasound(path)


def write_mhd(folder, data_file="pixels.raw", spacing_line="ElementSpacing = 0.2 0.3 1"):
    (folder / "pixels.raw").write_bytes(SEQUENCE.tobytes())
    lines = ["ObjectType = Image", "NDims = 3", "DimSize = 16 12 5", "ElementType = MET_UCHAR", spacing_line]
    path = folder / "file.mhd"
    path.write_text("\n".join([*lines, f"ElementDataFile = {data_file}", ""]))
    return path


def test_mhd_without_spacing(tmp_path):
    record = read_ultrasound(write_mhd(tmp_path, spacing_line="BinaryData = True"))
    np.testing.assert_array_equal(record.frames[..., 0], SEQUENCE)
    assert record.spacing is None
    assert read_ultrasound(write_mhd(tmp_path)).spacing == pytest.approx((0.3, 0.2))


@pytest.mark.parametrize(
    ("data_file", "message"),
    [("../secret.raw", "outside"), ("/etc/hosts", "outside"), ("gone.raw", "missing"), ("LIST", "list of files")],
)
def test_mhd_may_only_name_pixels_in_its_own_folder(tmp_path, data_file, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(SEQUENCE.tobytes())
    with pytest.raises(UnreadableFileError, match=message):
        read_ultrasound(write_mhd(folder, data_file))


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mha"])
def test_nan_is_refused_with_its_count(tmp_path, suffix):
    values = SEQUENCE.astype(np.float32)
    values[1, 2, 3:7] = np.nan
    path = write(tmp_path / f"nan.{suffix}", values)
    with pytest.raises(UnreadableFileError, match="4 pixels are NaN") as info:
        read_ultrasound(path)
    assert str(path) in str(info.value)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mha"])
def test_cut_short(tmp_path, suffix, capfd):
    path = write(tmp_path / f"short.{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UnreadableFileError) as info:
        read_ultrasound(path)
    assert "\n" not in str(info.value)
    assert capfd.readouterr() == ("", "")  # nothing of the library's on the terminal


def test_short_data_file_of_an_mhd(tmp_path):
    path = write_mhd(tmp_path)
    (tmp_path / "pixels.raw").write_bytes(SEQUENCE.tobytes()[:-1])
    with pytest.raises(UnreadableFileError, match="959 of 960 bytes"):
        read_ultrasound(path)


def test_compressed_mha(tmp_path):
    image = sitk.GetImageFromArray(SEQUENCE)
    sitk.WriteImage(image, str(tmp_path / "sequence.mha"), useCompression=True)
    np.testing.assert_array_equal(read_ultrasound(tmp_path / "sequence.mha").frames[..., 0], SEQUENCE)


def test_a_header_that_claims_too_much_is_refused_before_reading(tmp_path):
    path = write_mhd(tmp_path)
    path.write_text(path.read_text().replace("16 12 5", "20000 20000 5"))
    with pytest.raises(UnreadableFileError, match="100 megapixels"):
        read_ultrasound(path)
    path.write_text(path.read_text().replace("20000 20000 5", "5000 5000 500"))
    with pytest.raises(UnreadableFileError, match="2 GiB"):
        read_ultrasound(path)
