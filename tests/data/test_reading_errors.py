"""Every broken input gives one line that names the file and the cure, and nothing else."""

import builtins
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from reading_helpers import make_dicom, make_region, save, smooth_colour, smooth_grey

from echocare_hf.data.reading import UnreadableFileError, read_ultrasound


def message_of(path, error=UnreadableFileError, **options):
    with pytest.raises(error) as info:
        read_ultrasound(path, **options)
    text = str(info.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


def png_header(width, height):
    """A PNG that claims a size and has no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_missing_file(tmp_path):
    assert "check the path" in message_of(tmp_path / "gone.dcm", FileNotFoundError)


def test_folder(tmp_path):
    assert "folder" in message_of(tmp_path)


def test_empty_file(tmp_path):
    path = tmp_path / "empty.dcm"
    path.touch()
    assert "is empty" in message_of(path)


@pytest.mark.parametrize("name", ["notes.dcm", "notes.txt", "notes.png", "notes", "notes.mp4"])
def test_text_under_any_name(tmp_path, name):
    path = tmp_path / name
    path.write_text("Findings: unremarkable.\n" * 40)
    message_of(path)


def test_text_named_dcm_is_called_what_it_is(tmp_path):
    path = tmp_path / "notes.dcm"
    path.write_text("not an image")
    assert "not a DICOM file" in message_of(path)


@pytest.mark.parametrize("size", [(20_000, 20_000), (11_000, 10_000)])
def test_giant_png_is_refused_by_its_header(tmp_path, size):
    path = tmp_path / "giant.png"
    path.write_bytes(png_header(*size))
    text = message_of(path)
    assert "100 megapixels" in text
    assert "downscale" in text


def test_giant_dicom_is_refused_by_its_header(tmp_path):
    path = save(make_dicom(smooth_grey(), Rows=20_000, Columns=20_000), tmp_path / "giant.dcm")
    assert "100 megapixels" in message_of(path)


def test_giant_cine_names_every_and_max_frames(tmp_path):
    path = save(make_dicom(np.zeros((2, 8, 8), np.uint8), NumberOfFrames=20_000_000), tmp_path / "cine.dcm")
    text = message_of(path)
    assert "every=10" in text
    assert "max_frames" in text


def test_one_pixel(tmp_path):
    Image.new("L", (1, 1)).save(tmp_path / "pixel.png")
    assert "only 1 x 1 pixels" in message_of(tmp_path / "pixel.png")
    assert "only 1 x 1" in message_of(save(make_dicom(np.zeros((1, 1), np.uint8)), tmp_path / "pixel.dcm"))


def test_no_pixels(tmp_path):
    assert "no pixels" in message_of(save(make_dicom(smooth_grey(), Rows=0), tmp_path / "zero.dcm"))
    message_of(save(make_dicom(smooth_grey(), PixelData=b""), tmp_path / "none.dcm"))
    (tmp_path / "zero.png").write_bytes(png_header(0, 0))
    message_of(tmp_path / "zero.png")


def test_structured_report(tmp_path):
    dataset = make_dicom(smooth_grey(), SOPClassUID=uid.BasicTextSRStorage)
    del dataset.PixelData, dataset.Rows, dataset.Columns
    assert "without pixel data (Basic Text SR Storage)" in message_of(save(dataset, tmp_path / "report.dcm"))


@pytest.mark.parametrize("sop_class", [uid.UltrasoundImageStorage, uid.EnhancedUSVolumeStorage])
def test_an_image_that_ends_in_its_header_is_called_cut_short_wherever_it_ends(tmp_path, sop_class):
    whole = save(make_dicom(smooth_grey(), SOPClassUID=sop_class), tmp_path / "whole.dcm").read_bytes()
    header_end = len(whole) - len(pydicom.dcmread(tmp_path / "whole.dcm").PixelData)
    for end in range(133, header_end):
        (tmp_path / "cut.dcm").write_bytes(whole[:end])
        text = message_of(tmp_path / "cut.dcm")
        assert "without pixel data" not in text and "copy or export it again" in text, (end, text)


def test_unknown_transfer_syntax_names_the_extra(tmp_path):
    dataset = make_dicom(smooth_grey())
    dataset.compress(uid.JPEG2000Lossless)
    path = save(dataset, tmp_path / "odd.dcm")
    path.write_bytes(path.read_bytes().replace(uid.JPEG2000Lossless.encode(), b"1.2.840.10008.1.2.4.99"))
    assert 'pip install "echocare-hf[dicom]"' in message_of(path)


def test_missing_decoder_names_the_extra(tmp_path, monkeypatch):
    dataset = make_dicom(smooth_colour(), "RGB")
    dataset.compress(uid.JPEG2000Lossless)
    path = save(dataset, tmp_path / "compressed.dcm")
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", property(lambda self: False))
    assert 'needs optional packages: pip install "echocare-hf[dicom]"' in message_of(path)


@pytest.mark.parametrize(
    ("module", "name", "content", "extra"),
    [
        ("av", "cine.mp4", b"\0\0\0\x18ftypisom" + bytes(64), "video"),
        ("SimpleITK", "volume.mha", b"ObjectType = Image\nElementDataFile = LOCAL\n", "volumes"),
    ],
)
def test_missing_optional_package_names_the_extra(tmp_path, monkeypatch, module, name, content, extra):
    original = builtins.__import__

    def no_such_module(wanted, *arguments, **options):
        if wanted == module:
            raise ImportError(wanted)
        return original(wanted, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", no_such_module)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImportError, match=rf"echocare-hf\[{extra}\]"):
        read_ultrasound(tmp_path / name)


@pytest.mark.parametrize("option", ["every", "max_frames"])
def test_options_below_one(tmp_path, option):
    with pytest.raises(ValueError, match=option):
        read_ultrasound(tmp_path / "any.png", **{option: 0})


def sample_files(folder):
    """One small file of each kind that is read without PyAV or SimpleITK."""
    frames = np.stack([smooth_colour(seed=seed) for seed in range(3)])
    Image.fromarray(frames[0]).save(folder / "image.png")
    Image.fromarray(frames[0]).save(folder / "image.jpg")
    Image.fromarray(frames[0]).save(folder / "image.bmp")
    Image.fromarray(frames[0]).save(folder / "image.tiff", compression="tiff_lzw")
    images = [Image.fromarray(frame[..., 0]) for frame in frames]
    images[0].save(folder / "image.gif", save_all=True, append_images=images[1:])
    elements = {"SequenceOfUltrasoundRegions": [make_region((0, 0, 9, 9))], "Manufacturer": "Acme"}
    save(make_dicom(frames, "RGB", **elements), folder / "native.dcm")
    for name, syntax in {"rle": uid.RLELossless, "j2k": uid.JPEG2000Lossless}.items():
        dataset = make_dicom(frames, "RGB", **elements)
        dataset.compress(syntax)
        save(dataset, folder / f"{name}.dcm")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Path]:
    return sample_files(tmp_path_factory.mktemp("samples"))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=st.integers(0, 7), share=st.floats(0, 0.97))
def test_truncated_anywhere(samples, tmp_path, index, share):
    """A file cut anywhere is refused with one line; what is still whole must be read as it was."""
    source = samples[index]
    content = source.read_bytes()
    path = tmp_path / source.name
    path.write_bytes(content[: int(len(content) * share)])
    try:
        record = read_ultrasound(path)
    except UnreadableFileError as error:
        assert str(error).startswith(str(path))
        assert "\n" not in str(error)
    else:
        np.testing.assert_array_equal(record.frames, read_ultrasound(source).frames)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=st.integers(0, 7), place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_one_damaged_byte(samples, tmp_path, index, place, value):
    """Damage either goes unseen by the format or is refused with one line; no other error escapes."""
    content = bytearray(samples[index].read_bytes())
    # Half of all damage goes to the first 1,500 bytes, where headers are.
    position = int(place * 2 * min(1500, len(content))) if place < 0.5 else int(place * len(content))
    content[min(position, len(content) - 1)] = value
    path = tmp_path / samples[index].name
    path.write_bytes(content)
    try:
        record = read_ultrasound(path)
    except UnreadableFileError as error:
        assert "\n" not in str(error)
    else:
        assert record.frames.dtype == np.uint8
        assert record.frames.ndim == 4


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "native.dcm", "rle.dcm", "j2k.dcm"])
def test_half_a_file_is_never_an_image(samples, tmp_path, name):
    content = next(path for path in samples if path.name == name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: len(content) // 2])
    assert "cut-short" in message_of(path) or "cut short" in message_of(path)
