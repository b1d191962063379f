"""Frames one after the other: equal to those of `read_ultrasound` on every format, in memory that does not grow."""

import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from input_helpers import clip, shaded, write_gif, write_video
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from reading_helpers import make_dicom, make_region, save, smooth_colour, smooth_grey  # found through the line above

from echocare_hf.data.reading import read_ultrasound
from echocare_hf.examination.frames import UnreadableFileError, open_frames


def frames_of(path, **options):
    with open_frames(path, **options) as source:
        return list(source)


def assert_same(path, **options):
    """Every fact and every pixel as `read_ultrasound` has them; it decodes all frames at once."""
    record = read_ultrasound(path, **options)
    with open_frames(path, **options) as source:
        frames = list(source)
        again = next(iter(source))
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), record.frames)
    np.testing.assert_array_equal(again.pixels, record.frames[0])  # a second iterator starts anew
    assert frames[0].pixels.dtype == np.uint8
    assert (source.height, source.width) == record.frames.shape[1:3]
    assert (source.spacing, source.regions, source.modality) == (record.spacing, record.regions, record.modality)
    untold = set() if "num_frames" in source.metadata else {"num_frames"}  # a container that does not say
    assert source.metadata == {key: value for key, value in record.metadata.items() if key not in untold}
    assert source.num_frames == (None if untold else len(frames))
    every = options.get("every", 1)
    assert [frame.index for frame in frames] == [number * every for number in range(len(frames))]
    times = [frame.time_ms for frame in frames]
    assert (
        times == pytest.approx(list(record.frame_times_ms)) if record.frame_times_ms else times == [None] * len(times)
    )
    return source


def readable_samples(folder):
    """Files of a folder that `read_ultrasound` can read."""
    for path in sorted(folder.glob("*.dcm")):
        try:
            read_ultrasound(path)
        except UnreadableFileError:
            continue
        yield path


# --- the same frames --------------------


def test_real_samples(shared_data):
    paths = sorted((shared_data / "dicom_samples" / "dicom").glob("*.dcm"))
    assert len(paths) == 9
    for path in paths:
        source = assert_same(path)
        assert (source.kind, source.dataset_path) == ("DICOM", path)


def test_all_files_that_come_with_pydicom():
    """Some 60 files: all native encodings, RLE, JPEG, JPEG-LS, JPEG 2000, deflated, big endian, without meta header."""
    count = 0
    for path in readable_samples(Path(pydicom.data.__file__).parent / "test_files"):
        assert_same(path)
        count += 1
    assert count > 40


@pytest.mark.parametrize("options", [{}, {"every": 3}, {"every": 2, "max_frames": 3}, {"max_frames": 1}], ids=str)
@pytest.mark.parametrize(
    "name", ["clip.gif", "clip.mp4", "clip.avi", "clip.mkv", "clip.nii", "clip.nii.gz", "clip.mha"]
)
def test_clips_in_every_container(tmp_path, name, options):
    path = tmp_path / name
    if name.endswith("gif"):
        write_gif(path, 11)
    elif name.endswith((".mp4", ".avi", ".mkv")):
        pytest.importorskip("av")
        write_video(path, 11)
    else:
        sitk = pytest.importorskip("SimpleITK")
        sitk.WriteImage(sitk.GetImageFromArray(clip(11)), str(path))
    source = assert_same(path, **options)
    assert source.is_clip
    kinds = {
        "gif": "GIF",
        "mp4": "MP4",
        "avi": "AVI",
        "mkv": "Matroska",
        "nii": "NIfTI",
        "gz": "NIfTI",
        "mha": "MetaImage",
    }
    assert source.kind == kinds[name.rpartition(".")[2]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "mhd"])
@pytest.mark.parametrize("shape", [(12, 16), (5, 12, 16), (2, 3, 12, 16)], ids=str)
def test_volumes(tmp_path, suffix, dtype, shape):
    """Every axis behind the second is walked in file order; the range is that of all frames; compressed and in two files."""
    sitk = pytest.importorskip("SimpleITK")
    values = (np.random.default_rng(0).normal(50, 90, shape)).clip(0, 250).astype(dtype)
    values = values * 4 if dtype == np.int16 else values
    image = sitk.GetImageFromArray(values, isVector=False)
    image.SetSpacing([0.2, 0.3, 1, 1][: len(shape)])
    if len(shape) == 3:  # oblique axes, which no two of three make a plane of
        image.SetDirection([0, 0, 1, 0, -1, 0, 1, 0, 0])
    sitk.WriteImage(image, str(tmp_path / f"volume.{suffix}"), useCompression=suffix != "mhd")
    source = assert_same(tmp_path / f"volume.{suffix}")
    assert source.is_clip == (len(shape) > 2)


def test_colour_volume(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    colour = np.stack([smooth_colour(12, 16, seed) for seed in range(4)])
    sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(tmp_path / "colour.mha"))
    assert_same(tmp_path / "colour.mha")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff"])
def test_stills(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(smooth_colour()).save(path)
    source = assert_same(path)
    assert (source.is_clip, source.num_frames, source.dataset_path) == (False, 1, None)


def test_turned_photo_and_pages(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth_colour()).save(tmp_path / "turned.jpg", exif=exif)
    assert assert_same(tmp_path / "turned.jpg").height == 64
    pages = [Image.fromarray(smooth_colour(seed=seed)) for seed in range(3)]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    assert_same(tmp_path / "pages.tiff")


# --- DICOM --------------------

GREY_16 = np.stack([smooth_grey(seed=seed).astype(np.uint16) * (3 + seed) for seed in range(4)])


@pytest.mark.parametrize(
    "syntax", [None, uid.RLELossless, uid.JPEG2000Lossless], ids=lambda syntax: getattr(syntax, "name", "native")
)
@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"WindowCenter": 500, "WindowWidth": 600},
        {"RescaleSlope": 2, "RescaleIntercept": -300},
        {"FrameTime": "33.3", "SequenceOfUltrasoundRegions": [make_region((0, 0, 40, 40))]},
    ],
    ids=["range", "window", "rescaled", "times"],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_16_bit_grey_is_scaled_over_all_frames(tmp_path, syntax, elements, photometric):
    dataset = make_dicom(GREY_16, photometric, **elements)
    if syntax is not None:
        dataset.compress(syntax)
    path = save(dataset, tmp_path / "grey.dcm")
    assert_same(path)
    assert_same(path, every=2)  # the range is then that of two frames


def test_frame_time_vector(tmp_path):
    dataset = make_dicom(clip(4), FrameTimeVector=[0, 20, 30, 40], FrameIncrementPointer=0x00181065)
    assert [frame.time_ms for frame in frames_of(save(dataset, tmp_path / "clip.dcm"))] == [0, 20, 50, 90]


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "PALETTE COLOR"])
def test_colour(tmp_path, photometric):
    pixels = clip(3) if photometric == "PALETTE COLOR" else np.stack([smooth_colour(seed=seed) for seed in range(3)])
    dataset = make_dicom(pixels, photometric)
    for name in ("Red", "Green", "Blue") if photometric == "PALETTE COLOR" else ():
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(dataset, f"{name}PaletteColorLookupTableData", bytes(range(256))[:: -1 if name == "Red" else 1])
    assert_same(save(dataset, tmp_path / "colour.dcm"))


def test_float_pixels(tmp_path):
    values = clip(3).astype(np.float32) / 3
    dataset = make_dicom(clip(3))
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.BitsAllocated, dataset.FloatPixelData = 32, values.tobytes()
    path = save(dataset, tmp_path / "float.dcm")
    assert_same(path)
    values[2, 5, 5:8] = np.inf
    dataset.FloatPixelData = values.tobytes()
    with pytest.raises(UnreadableFileError, match="3 pixels are NaN or infinite"):
        frames_of(save(dataset, tmp_path / "float.dcm"))


@pytest.mark.parametrize("layout", ["basic table", "extended table", "no table", "no table, two fragments a frame"])
def test_fragments_of_every_layout(tmp_path, layout):
    dataset = make_dicom(np.stack([smooth_colour(seed=seed) for seed in range(5)]), "RGB")
    dataset.compress(uid.JPEG2000Lossless)
    streams = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=5))
    if layout == "extended table":
        dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(
            streams
        )
    else:
        fragments = 2 if "two" in layout else 1
        dataset.PixelData = encapsulate(streams, fragments_per_frame=fragments, has_bot=layout == "basic table")
    path = save(dataset, tmp_path / "clip.dcm")
    assert_same(path)
    assert_same(path, every=2)


def test_mpeg_inside_dicom(tmp_path):
    pytest.importorskip("av")
    video = write_video(tmp_path / "clip.mp4", 6).read_bytes()
    dataset = make_dicom(
        np.zeros((6, 48, 64, 3), np.uint8), "YBR_PARTIAL_420", PixelData=encapsulate([video], fragments_per_frame=3)
    )
    dataset.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    dataset["PixelData"].is_undefined_length = True
    path = save(dataset, tmp_path / "clip.dcm")
    source = assert_same(path)
    assert source.kind == "DICOM"
    assert [round(frame.time_ms) for frame in frames_of(path)] == [0, 40, 80, 120, 160, 200]


def test_what_was_unpacked_goes_away_with_the_source(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    dataset = make_dicom(clip(3))
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    path = save(dataset, tmp_path / "deflated.dcm")
    with open_frames(path) as source:
        assert len(list(source)) == 3
        assert list((tmp_path / "temporary").iterdir())
    assert not list((tmp_path / "temporary").iterdir())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UnreadableFileError):
        frames_of(path)
    assert not list((tmp_path / "temporary").iterdir())


# --- spacing --------------------


@pytest.mark.parametrize("stated", [[0, 0], [-1, 0.3], ["nan", 0.3], [0.3, 0]], ids=str)
def test_spacing_that_is_none(tmp_path, stated):
    dataset = make_dicom(smooth_grey())
    dataset.add_new("PixelSpacing", "DS", [str(value) for value in stated])
    with pydicom.config.disable_value_validation():
        path = save(dataset, tmp_path / "image.dcm")
    with open_frames(path) as source:
        assert source.spacing is None
    region = make_region((0, 0, 40, 40), delta_cm=(0, 0))
    with open_frames(save(make_dicom(smooth_grey(), SequenceOfUltrasoundRegions=[region]), path)) as source:
        assert source.spacing is None


# --- trouble --------------------


def message_of(path):
    with pytest.raises(UnreadableFileError) as info:
        frames_of(path)
    assert str(info.value).startswith(str(path))
    assert "\n" not in str(info.value)
    return str(info.value)


def frames_before_the_error(path):
    """The frames that come out before the one line that names the file."""
    frames = []
    with open_frames(path) as source, pytest.raises(UnreadableFileError) as info:
        for frame in source:
            frames.append(frame)
    assert str(info.value).startswith(str(path))
    assert "\n" not in str(info.value)
    return frames


@pytest.mark.parametrize("layout", ["native", "16 bit", "RLE", "RLE without table"])
def test_a_cut_clip_gives_the_frames_before_the_cut(tmp_path, layout):
    stored = clip(10).astype(np.uint16) * 3 if layout == "16 bit" else clip(10)
    dataset = make_dicom(stored)
    if layout.startswith("RLE"):
        dataset.compress(uid.RLELossless)
        if "without" in layout:
            streams = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=10))
            dataset.PixelData = encapsulate(streams, has_bot=False)
    path = save(dataset, tmp_path / "clip.dcm")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.65)])
    frames = frames_before_the_error(path)
    assert 4 <= len(frames) <= 7
    if layout != "16 bit":  # whose range is that of the frames that are there
        for frame in frames:
            np.testing.assert_array_equal(frame.pixels[..., 0], shaded(frame.index))


def test_a_cut_avi_gives_the_frames_before_the_cut(tmp_path):
    pytest.importorskip("av")
    path = write_video(tmp_path / "clip.avi", 60)
    whole = frames_of(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])  # the header takes half of so small a file
    frames = frames_before_the_error(path)
    assert 10 < len(frames) < 50
    np.testing.assert_array_equal(frames[9].pixels, whole[9].pixels)


def test_a_cut_gif(tmp_path):
    """Pillow counts the frames of a GIF by its blocks: a cut one is refused, or gives those that are whole."""
    path = write_gif(tmp_path / "clip.gif", 12)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = frames_before_the_error(path)
    assert 0 < len(frames) < 12


def test_a_damaged_frame_ends_the_clip_there(tmp_path):
    dataset = make_dicom(np.stack([smooth_colour(seed=seed) for seed in range(6)]), "RGB")
    dataset.compress(uid.JPEG2000Lossless)
    streams = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=6))
    dataset.PixelData = encapsulate([*streams[:3], bytes(len(streams[3])), *streams[4:]])
    assert len(frames_before_the_error(save(dataset, tmp_path / "clip.dcm"))) == 3


def test_no_frames_at_all(tmp_path):
    assert "cut short: 0 of 1" in message_of(save(make_dicom(smooth_grey(), PixelData=b""), tmp_path / "none.dcm"))
    for pixels in ({}, {"PixelData": b""}):
        zero = make_dicom(clip(2), **pixels, NumberOfFrames=0)
        assert "states 0 frames" in message_of(save(zero, tmp_path / "zero.dcm"))
    message_of(save(make_dicom(clip(2), NumberOfFrames=-3), tmp_path / "negative.dcm"))


def test_a_header_that_claims_too_much(tmp_path):
    giant = save(make_dicom(smooth_grey(), Rows=20_000, Columns=20_000), tmp_path / "giant.dcm")
    with pytest.raises(UnreadableFileError, match="100 megapixels"):
        open_frames(giant)
    path = save(make_dicom(clip(2), NumberOfFrames=20_000_000), tmp_path / "many.dcm")
    assert len(frames_before_the_error(path)) == 2  # the limit on all frames together is not one of a stream


def test_encrypted_dicom_says_so(tmp_path):
    path = tmp_path / "secure.dcm"
    path.write_bytes(bytes.fromhex("3080 06092a864886f70d010703 a080") + bytes(range(256)) * 8)
    assert "is encrypted" in message_of(path)
    item = Dataset()
    item.EncryptedContentTransferSyntaxUID, item.EncryptedContent = uid.ExplicitVRLittleEndian, bytes(64)
    dataset = make_dicom(smooth_grey(), EncryptedAttributesSequence=[item])
    del dataset.PixelData
    assert "is encrypted" in message_of(save(dataset, tmp_path / "attributes.dcm"))


def test_missing_file(tmp_path):
    assert "no such file" in message_of(tmp_path / "gone.dcm")


@pytest.mark.parametrize("option", ["every", "max_frames"])
def test_options_below_one(tmp_path, option):
    with pytest.raises(ValueError, match=option):
        open_frames(tmp_path / "any.png", **{option: 0})


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Clips of three frames, one of each way that frames are stored, and a still."""
    folder = tmp_path_factory.mktemp("samples")
    frames = np.stack([smooth_colour(seed=seed) for seed in range(3)])
    save(make_dicom(frames, "RGB", Manufacturer="Acme"), folder / "native.dcm")
    for name, syntax in {"rle": uid.RLELossless, "j2k": uid.JPEG2000Lossless}.items():
        dataset = make_dicom(frames, "RGB")
        dataset.compress(syntax)
        save(dataset, folder / f"{name}.dcm")
    dataset = make_dicom(frames, "RGB")
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    save(dataset, folder / "deflated.dcm")
    write_gif(folder / "clip.gif", 3)
    Image.fromarray(frames[0]).save(folder / "image.png")
    return [(path, frames_of(path)) for path in sorted(folder.iterdir())]


def come_out(path):
    """The frames of a file up to where it ends or is damaged; any other error than ours escapes."""
    frames = []
    try:
        with open_frames(path) as source:
            for frame in source:
                frames.append(frame)
    except UnreadableFileError as error:
        assert str(error).startswith(str(path))
        assert "\n" not in str(error)
        return frames, True
    return frames, False


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=st.integers(0, 5), share=st.floats(0, 0.97))
def test_truncated_anywhere(samples, tmp_path, index, share):
    """What comes out of a file that is cut anywhere is what was there; unless all is there, the end is an error.

    A GIF does not say how many frames it has: cut between two of them, it is a shorter one.
    """
    source, whole = samples[index]
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
    frames, failed = come_out(path)
    assert failed == (len(frames) < len(whole)) or (source.suffix == ".gif" and frames and not failed)
    for frame, expected in zip(frames, whole, strict=False):
        np.testing.assert_array_equal(frame.pixels, expected.pixels)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=st.integers(0, 5), place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_one_damaged_byte(samples, tmp_path, index, place, value):
    """Damage either goes unseen by the format or ends the clip with one line; no other error escapes."""
    source, _ = samples[index]
    content = bytearray(source.read_bytes())
    # Half of all damage goes to the first 1,500 bytes, where headers are.
    position = int(place * 2 * min(1500, len(content))) if place < 0.5 else int(place * len(content))
    content[min(position, len(content) - 1)] = value
    path = tmp_path / source.name
    path.write_bytes(content)
    frames, _ = come_out(path)
    assert all(frame.pixels.dtype == np.uint8 and frame.pixels.ndim == 3 for frame in frames)


# --- memory --------------------


def peak_bytes(path):
    """Most memory that Python and numpy held while all frames were read, and the number of frames."""
    frames_of(path, max_frames=1)  # imports and tables of the libraries
    tracemalloc.start()
    try:
        with open_frames(path) as source:
            count = sum(1 for _ in source)
        return tracemalloc.get_traced_memory()[1], count
    finally:
        tracemalloc.stop()


def write_long(path, kind, num_frames):
    """A clip of 120 x 160 pixels, 19 KB a frame as it is stored."""
    if kind in ("mp4", "avi"):
        pytest.importorskip("av")
        return write_video(path, num_frames, 120, 160)
    if kind == "mha":
        sitk = pytest.importorskip("SimpleITK")
        sitk.WriteImage(
            sitk.GetImageFromArray(clip(num_frames, 120, 160).astype(np.int16)), str(path), useCompression=True
        )
        return path
    dataset = make_dicom(clip(num_frames, 120, 160))
    if kind == "rle.dcm":
        dataset.compress(uid.RLELossless)
    elif kind == "deflated.dcm":
        dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    return save(dataset, path)


@pytest.mark.parametrize("kind", ["mp4", "avi", "mha", "native.dcm", "rle.dcm", "deflated.dcm"])
def test_memory_does_not_grow_with_the_clip(tmp_path, kind):
    num_frames = 400 if kind in ("rle.dcm", "mha") else 2000  # these take long to write, or to read twice
    short, _ = peak_bytes(write_long(tmp_path / f"short.{kind}", kind, 40))
    long, count = peak_bytes(write_long(tmp_path / f"long.{kind}", kind, num_frames))
    assert count == num_frames
    assert long < short + 1_000_000  # all frames would be 38 MB stored and 115 MB in RGB; 400 a fifth of it
