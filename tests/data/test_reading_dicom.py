"""DICOM pixels: every photometric interpretation and transfer syntax against pydicom, Pillow or arithmetic."""

import io

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_windowing, pixel_array
from pydicom.pixels.utils import set_pixel_data
from reading_helpers import make_dicom, save, smooth_colour, smooth_grey

from echocare_hf.data.reading import UnreadableFileError, open_ultrasound, read_ultrasound


def read(dataset, tmp_path, name="file.dcm", **options):
    return read_ultrasound(save(dataset, tmp_path / name), **options)


def recode(path, target, transfer_syntax):
    """Compress a file with GDCM, which shares no encoder with pydicom."""
    gdcm = pytest.importorskip("gdcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(transfer_syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target


# --- grey --------------------


def test_8_bit_monochrome_without_window_is_kept(tmp_path):
    grey = smooth_grey()
    record = read(make_dicom(grey), tmp_path)
    assert record.frames.shape == (1, 48, 64, 3)
    assert record.frames.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(record.frames[0, ..., channel], grey)
    assert record.frame_times_ms is None
    assert np.array_equal(np.asarray(record.image), record.frames[0])


def test_monochrome1_is_inverted(tmp_path):
    grey = smooth_grey()
    record = read(make_dicom(grey, "MONOCHROME1"), tmp_path)
    np.testing.assert_array_equal(record.frames[0, ..., 0], 255 - grey)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("signed", [False, True])
def test_16_bit_window_agrees_with_pydicom(tmp_path, function, signed):
    values = np.linspace(-2000 if signed else 0, 4000, 48 * 64).reshape(48, 64)
    pixels = values.astype(np.int16 if signed else np.uint16)
    dataset = make_dicom(pixels, WindowCenter=[1000, 5], WindowWidth=[800, 5], VOILUTFunction=function)
    expected = apply_windowing(pixels, dataset)  # fills the range of the stored samples
    low, high = (-32768, 32767) if signed else (0, 65535)
    record = read(dataset, tmp_path)
    np.testing.assert_allclose(record.frames[0, ..., 0], 255 * (expected - low) / (high - low), atol=0.51)


def test_window_values_by_hand(tmp_path):
    """PS3.3 C.11.2.1.2.1 with centre 100, width 11: 94.5 and below is black, above 104.5 white."""
    pixels = np.full((8, 8), 94, np.uint16)
    pixels[0, :4] = [95, 99, 100, 105]
    record = read(make_dicom(pixels, WindowCenter=100, WindowWidth=11), tmp_path)
    assert record.frames[0, 0, :5, 0].tolist() == [13, 115, 140, 255, 0]


def test_rescale_comes_before_the_window(tmp_path):
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    plain = read(make_dicom(pixels, WindowCenter=30, WindowWidth=40), tmp_path)
    # With x' = 2x - 501, the ramp (x - 29.5) / 39 is (x' + 442) / 78: centre - 0.5 is -442, width - 1 is 78.
    rescaled = make_dicom(pixels, WindowCenter=-441.5, WindowWidth=79, RescaleSlope=2, RescaleIntercept=-501)
    np.testing.assert_array_equal(read(rescaled, tmp_path).frames, plain.frames)


def test_a_window_of_width_0_counts_as_none(tmp_path):
    grey = smooth_grey()
    record = read(make_dicom(grey, WindowCenter=0, WindowWidth=0), tmp_path)
    np.testing.assert_array_equal(record.frames[0, ..., 0], grey)


def test_12_bit_without_window_spans_the_range_over_all_frames(tmp_path):
    pixels = np.zeros((2, 8, 8), np.uint16)
    pixels[0, 0, :3] = [100, 2000, 4000]
    pixels[1] = 2000
    record = read(make_dicom(pixels, BitsStored=12, HighBit=11), tmp_path)
    assert record.frames[0, 0, :4, 0].tolist() == [6, 128, 255, 0]
    assert (record.frames[1] == 128).all()


def test_voi_lut_is_applied(tmp_path):
    grey = smooth_grey()
    lut = pydicom.Dataset()
    lut.LUTDescriptor = [256, 0, 16]
    lut.add_new("LUTData", "OW", (65535 - 257 * np.arange(256)).astype("<u2").tobytes())
    record = read(make_dicom(grey, VOILUTSequence=[lut]), tmp_path)
    np.testing.assert_array_equal(record.frames[0, ..., 0], 255 - grey)


# --- colour --------------------


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_of_both_planar_configurations(tmp_path, planar):
    colour = smooth_colour()
    stored = colour if planar == 0 else np.moveaxis(colour, -1, 0)
    dataset = make_dicom(colour, "RGB", PlanarConfiguration=planar, PixelData=stored.tobytes())
    np.testing.assert_array_equal(read(dataset, tmp_path).frames[0], colour)


def test_ybr_full_becomes_rgb_as_pillow_converts_it(tmp_path):
    colour = smooth_colour()
    stored = np.asarray(Image.fromarray(colour).convert("YCbCr"))
    record = read(make_dicom(stored, "YBR_FULL"), tmp_path)
    assert np.abs(record.frames[0].astype(int) - colour).max() <= 3


def test_native_ybr_full_422_by_hand(tmp_path):
    """Two pixels share one pair of colour samples: Y1 Y2 Cb Cr (PS3.3 C.7.6.3.1.2)."""
    stored = np.tile(np.array([60, 120, 128, 200], np.uint8), (8, 4))  # 8 rows of 8 pixels
    dataset = make_dicom(np.zeros((8, 8, 3), np.uint8), "YBR_FULL_422", PixelData=stored.tobytes())
    frame = read(dataset, tmp_path).frames[0].astype(int)
    # R = Y + 1.402 (Cr - 128), G = Y - 0.344136 (Cb - 128) - 0.714136 (Cr - 128), B = Y + 1.772 (Cb - 128)
    expected = np.array([[60 + 1.402 * 72, 60 - 0.714136 * 72, 60], [120 + 1.402 * 72, 120 - 0.714136 * 72, 120]])
    np.testing.assert_allclose(frame, np.tile(expected, (8, 4, 1)), atol=1)


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_colour_by_hand(tmp_path, bits):
    indices = np.tile(np.arange(8, dtype=np.uint8) + 10, (8, 1))
    tables = [np.arange(4) * 60 + offset for offset in (0, 20, 40)]  # four entries, the first for value 12
    dataset = make_dicom(indices, "PALETTE COLOR")
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [4, 12, bits])
        entries = table.astype(np.uint8) if bits == 8 else (table * 256).astype("<u2")
        setattr(dataset, f"{name}PaletteColorLookupTableData", entries.tobytes())
    record = read(dataset, tmp_path)
    entry = np.clip(np.arange(8) - 2, 0, 3)  # below and above the table, its first and last entry
    np.testing.assert_array_equal(record.frames[0, 0], np.stack([table[entry] for table in tables], axis=-1))


def test_palette_of_8_bit_entries_in_16_bit_words(tmp_path):
    indices = np.tile(np.arange(8, dtype=np.uint8), (8, 1))
    dataset = make_dicom(indices, "PALETTE COLOR")
    for name in ("Red", "Green", "Blue"):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [8, 0, 16])
        setattr(dataset, f"{name}PaletteColorLookupTableData", (np.arange(8) * 30).astype("<u2").tobytes())
    assert read(dataset, tmp_path).frames[0, 0, :, 0].tolist() == [0, 30, 60, 90, 120, 150, 180, 210]


# --- compressed --------------------


@pytest.mark.parametrize("make", [smooth_grey, smooth_colour], ids=["grey", "colour"])
@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless], ids=lambda syntax: syntax.keyword)
def test_lossless_round_trip_through_pydicom(tmp_path, make, syntax):
    pixels = np.stack([make(seed=seed) for seed in range(3)])
    photometric = "MONOCHROME2" if make is smooth_grey else "RGB"
    dataset = make_dicom(pixels, photometric)
    dataset.compress(syntax)
    record = read(dataset, tmp_path)
    expected = pixels if make is smooth_colour else np.repeat(pixels[..., None], 3, axis=-1)
    np.testing.assert_array_equal(record.frames, expected)
    assert record.metadata["transfer_syntax"] == syntax.name


def test_jpeg2000_with_reversible_colour_transform_is_not_converted_twice(tmp_path):
    colour = smooth_colour()
    dataset = make_dicom(colour, "RGB")
    dataset.PhotometricInterpretation = "YBR_RCT"
    dataset.compress(uid.JPEG2000Lossless, colour)
    assert dataset.PhotometricInterpretation == "YBR_RCT"
    np.testing.assert_array_equal(read(dataset, tmp_path).frames[0], colour)


@pytest.mark.parametrize("name", ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless"])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "RGB"])
def test_lossless_round_trip_through_gdcm(tmp_path, name, photometric):
    gdcm = pytest.importorskip("gdcm")
    pixels = smooth_grey() if photometric == "MONOCHROME2" else smooth_colour()
    native = save(make_dicom(pixels, photometric), tmp_path / "native.dcm")
    path = recode(native, tmp_path / "compressed.dcm", getattr(gdcm.TransferSyntax, name))
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(read_ultrasound(path).frames, read_ultrasound(native).frames)


def test_16_bit_jpeg2000_with_window(tmp_path):
    pixels = smooth_grey().astype(np.uint16) * 200
    dataset = make_dicom(pixels, WindowCenter=25500, WindowWidth=51001)
    dataset.compress(uid.JPEG2000Lossless)
    assert np.abs(read(dataset, tmp_path).frames[0, ..., 0].astype(int) - smooth_grey()).max() <= 1


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "RGB"])
def test_jpeg_baseline_is_converted_once_whatever_the_header_says(tmp_path, photometric):
    """Files exist that hold YCbCr JPEG and claim RGB: the JFIF marker of the stream decides."""
    frames = [smooth_colour(seed=seed) for seed in range(2)]
    streams = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=95, subsampling=0)
        streams.append(buffer.getvalue())
    dataset = make_dicom(np.stack(frames), photometric, PixelData=encapsulate(streams))
    dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    dataset["PixelData"].is_undefined_length = True
    record = read(dataset, tmp_path)
    assert np.abs(record.frames.astype(int) - np.stack(frames)).mean() < 2


def test_deflated_transfer_syntax(tmp_path):
    dataset = make_dicom(smooth_grey())
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    np.testing.assert_array_equal(read(dataset, tmp_path).frames[0, ..., 0], smooth_grey())


@pytest.mark.parametrize("stated", [1, 5])
def test_mpeg4_inside_dicom(tmp_path, stated):
    av = pytest.importorskip("av")
    frames = np.stack([smooth_colour(seed=seed) for seed in range(5)])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    dataset = make_dicom(frames, "YBR_PARTIAL_420", PixelData=encapsulate([buffer.getvalue()]))
    dataset.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    dataset.NumberOfFrames = stated  # some writers count the one frame that the stream is encapsulated as
    dataset["PixelData"].is_undefined_length = True
    record = read(dataset, tmp_path)
    assert record.frames.shape == frames.shape
    assert np.abs(record.frames.astype(int) - frames).mean() < 8
    assert record.frame_times_ms == pytest.approx([0, 40, 80, 120, 160], abs=0.1)
    assert record.metadata["num_frames"] == 5
    with open_ultrasound(save(dataset, tmp_path / "clip.dcm")) as source:
        assert source.is_clip and source.num_frames == source.metadata["num_frames"] == 5


@pytest.mark.parametrize(
    ("container", "codec"), [("mpegts", "mpeg2video"), ("mpeg2video", "mpeg2video"), ("h264", "h264")]
)
def test_streams_that_state_no_number_of_frames(container, codec, tmp_path):
    """MPEG-2 and H.264 are mostly encapsulated so, under a header that may count the one item that the whole stream is."""
    av = pytest.importorskip("av")
    frames = np.stack([smooth_colour(seed=seed) for seed in range(5)])
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format=container) as target:
            stream = target.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for frame in frames:
                target.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            target.mux(stream.encode())
    except (av.error.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg does not write it: {error}")
    dataset = make_dicom(frames, "YBR_PARTIAL_420", PixelData=encapsulate([buffer.getvalue()]))
    dataset.file_meta.TransferSyntaxUID = uid.MPEG2MPML if codec == "mpeg2video" else uid.MPEG4HP41
    dataset.NumberOfFrames = 1
    dataset["PixelData"].is_undefined_length = True
    path = save(dataset, tmp_path / "clip.dcm")
    assert read_ultrasound(path).metadata["num_frames"] == len(read_ultrasound(path).frames) == 5
    assert "num_frames" not in read_ultrasound(path, max_frames=2).metadata
    with open_ultrasound(path) as source:
        assert source.is_clip and "num_frames" not in source.metadata and len(list(source)) == 5


# --- frames and files --------------------


def test_every_and_max_frames(tmp_path):
    pixels = np.stack([np.full((8, 8), index, np.uint8) for index in range(10)])
    path = save(make_dicom(pixels, FrameTime="20"), tmp_path / "cine.dcm")
    record = read_ultrasound(path, every=3)
    assert record.frames[:, 0, 0, 0].tolist() == [0, 3, 6, 9]
    assert record.frame_times_ms == (0, 60, 120, 180)
    record = read_ultrasound(path, every=4, max_frames=2)
    assert record.frames[:, 0, 0, 0].tolist() == [0, 4]
    assert record.metadata["num_frames"] == 10


def test_content_decides_before_the_suffix(tmp_path):
    path = save(make_dicom(smooth_grey()), tmp_path / "IM_0001")
    assert read_ultrasound(path).metadata["format"] == "DICOM"
    path = save(make_dicom(smooth_grey()), tmp_path / "wrong.png")
    assert read_ultrasound(str(path)).metadata["format"] == "DICOM"


@pytest.mark.parametrize("implicit", [False, True])
def test_dicom_without_preamble(tmp_path, implicit):
    dataset = make_dicom(smooth_grey())
    del dataset.file_meta
    path = tmp_path / "bare.dcm"
    pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=True)
    np.testing.assert_array_equal(read_ultrasound(path).frames[0, ..., 0], smooth_grey())
    path.rename(tmp_path / "bare.bin")
    with pytest.raises(UnreadableFileError, match="not in a format"):
        read_ultrasound(tmp_path / "bare.bin")


@pytest.mark.parametrize("name", ["rgb_color", "ybr_color", "jpeg2k"])
def test_pydicom_examples_agree_with_its_own_pixel_array(name):
    from pydicom.examples import get_path

    path = get_path(name)
    expected = pixel_array(path)
    expected = expected if expected.ndim == 4 else expected[None]
    np.testing.assert_array_equal(read_ultrasound(path).frames, expected)


def test_pydicom_palette_example_agrees_with_a_plain_look_up():
    from pydicom.examples import get_path

    dataset = pydicom.dcmread(get_path("palette_color"))
    names = ("Red", "Green", "Blue")
    tables = [np.frombuffer(dataset[f"{name}PaletteColorLookupTableData"].value, "<u2") >> 8 for name in names]
    expected = np.stack([table[dataset.pixel_array] for table in tables], axis=-1)
    record = read_ultrasound(get_path("palette_color"))
    np.testing.assert_array_equal(record.frames[0], expected)
    assert len(np.unique(record.frames.reshape(-1, 3), axis=0)) > 50  # it is a colour picture


def test_another_modality_is_read_and_named(tmp_path):
    pixels = (np.arange(64, dtype=np.int16) * 10).reshape(8, 8)
    record = read(make_dicom(pixels, Modality="CT", PixelSpacing=[0.7, 0.5]), tmp_path)
    assert (record.modality, record.metadata["dicom_modality"]) == ("unknown", "CT")
    assert record.spacing == (0.7, 0.5)


def test_float_pixels_with_nan_are_refused(tmp_path):
    dataset = make_dicom(np.zeros((8, 8), np.float32))
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    del dataset.PixelData
    dataset.FloatPixelData = values.tobytes()
    assert read(dataset, tmp_path).frames.max() == 255
    values[0, :3] = np.nan
    dataset.FloatPixelData = values.tobytes()
    with pytest.raises(UnreadableFileError, match="3 pixels are NaN"):
        read(dataset, tmp_path)


def test_set_pixel_data_of_pydicom_reads_back(tmp_path):
    """A file whose pixel header pydicom itself wrote."""
    dataset = make_dicom(np.zeros((8, 8), np.uint8))
    set_pixel_data(dataset, smooth_colour(), "RGB", 8)
    np.testing.assert_array_equal(read(dataset, tmp_path).frames[0], smooth_colour())
