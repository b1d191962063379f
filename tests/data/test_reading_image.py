"""Image files: every mode Pillow writes, against Pillow's own pixels or values worked out by hand."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, features
from reading_helpers import smooth_colour, smooth_grey

from echocare_hf.data.reading import (
    UnreadableFileError,
    UnsupportedFormatError,
    open_ultrasound,
    read_ultrasound,
)


def read_both(path, **options):
    """The record, after a check that reading frame by frame gives the same."""
    record = read_ultrasound(path, **options)
    with open_ultrasound(path, **options) as source:
        frames = list(source)
        assert (source.height, source.width) == record.frames.shape[1:3]
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), record.frames)
    return record


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif"])
def test_lossless_grey(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(smooth_grey()).save(path)
    record = read_ultrasound(path)
    np.testing.assert_array_equal(record.frames, np.repeat(smooth_grey()[None, ..., None], 3, axis=-1))
    assert (record.spacing, record.regions, record.modality, record.frame_times_ms) == (None, (), "unknown", None)
    assert record.metadata["format"] == suffix.upper()
    assert (record.metadata["width"], record.metadata["height"]) == (64, 48)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_lossless_colour(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(smooth_colour()).save(path)
    np.testing.assert_array_equal(read_ultrasound(path).frames[0], smooth_colour())


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(tmp_path, mode):
    path = tmp_path / "image.jpg"
    Image.fromarray(smooth_colour()).convert(mode).save(path, quality=95, subsampling=0, dpi=(72, 72))
    expected = np.asarray(Image.fromarray(smooth_colour()).convert(mode).convert("RGB")).astype(int)
    record = read_ultrasound(path)
    assert np.abs(record.frames[0] - expected).mean() < 2
    assert record.spacing is None  # 72 dots per inch say nothing about tissue


def test_palette_and_one_bit_png(tmp_path):
    palette = Image.fromarray(smooth_colour()).quantize(16)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(
        read_ultrasound(tmp_path / "palette.png").frames[0], np.asarray(palette.convert("RGB"))
    )
    one_bit = Image.fromarray(smooth_grey() > 128)
    one_bit.save(tmp_path / "one_bit.png")
    np.testing.assert_array_equal(
        read_ultrasound(tmp_path / "one_bit.png").frames[0, ..., 0], 255 * (smooth_grey() > 128)
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_black(tmp_path, mode):
    image = Image.new(mode, (8, 8), (200, 100, 50, 255) if mode == "RGBA" else (200, 255))
    image.putpixel((0, 0), (200, 100, 50, 0) if mode == "RGBA" else (200, 0))
    image.putpixel((1, 0), (200, 100, 50, 51) if mode == "RGBA" else (200, 51))  # a fifth
    image.save(tmp_path / "image.png")
    frame = read_ultrasound(tmp_path / "image.png").frames[0]
    expected = [[0, 0, 0], [40, 20, 10], [200, 100, 50]] if mode == "RGBA" else [[0] * 3, [40] * 3, [200] * 3]
    np.testing.assert_allclose(frame[0, :3], expected, atol=1)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_scaled_and_not_truncated(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    values = smooth_grey().astype(np.uint16) * 257
    values[0, :3] = [256, 32768, 65535]  # truncation to a byte would give 0, 0, 255; clipping 255, 255, 255
    Image.fromarray(values).save(path)
    frame = read_ultrasound(path).frames[0, ..., 0]
    assert frame[0, :3].tolist() == [1, 128, 255]
    np.testing.assert_array_equal(frame[1:], smooth_grey()[1:])


def test_16_bit_colour_png(tmp_path):
    """Written chunk by chunk: Pillow cannot write one."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">24H", *[0x8000, 0xFFFF, 0x0100] * 8)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 8, 8, 16, 2, 0, 0, 0))
    content += chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b"")
    (tmp_path / "image.png").write_bytes(content)
    frame = read_ultrasound(tmp_path / "image.png").frames[0]
    np.testing.assert_allclose(frame, np.broadcast_to([128, 255, 1], (8, 8, 3)), atol=1)


def test_float_tiff(tmp_path):
    path = tmp_path / "image.tiff"
    values = smooth_grey().astype(np.float32)
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(read_ultrasound(path).frames[0, ..., 0], smooth_grey())  # whole numbers 0..255
    Image.fromarray(values / 255).save(path)
    np.testing.assert_array_equal(read_ultrasound(path).frames[0, ..., 0], smooth_grey())
    values[0, 0] = np.nan
    Image.fromarray(values).save(path)
    with pytest.raises(UnreadableFileError, match="1 pixels are NaN"):
        read_ultrasound(path)


def test_exif_orientation_is_honoured(tmp_path):
    path = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # the picture must be turned 90 degrees clockwise to be upright
    Image.fromarray(smooth_colour()).save(path, exif=exif)
    frame = read_ultrasound(path).frames[0]
    np.testing.assert_array_equal(frame, np.rot90(smooth_colour(), k=-1))


def test_animated_gif(tmp_path):
    path = tmp_path / "cine.gif"
    frames = [smooth_grey(seed=seed) for seed in range(6)]
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=[40, 60, 40, 100, 40, 40], loop=0)
    record = read_ultrasound(path)
    np.testing.assert_array_equal(record.frames[..., 0], np.stack(frames))
    assert record.frame_times_ms == (0, 40, 100, 140, 240, 280)
    record = read_ultrasound(path, every=2, max_frames=2)
    np.testing.assert_array_equal(record.frames[..., 0], np.stack(frames[:4:2]))
    assert record.frame_times_ms == (0, 100)
    assert record.metadata["num_frames"] == 6


def test_multi_page_tiff(tmp_path):
    path = tmp_path / "pages.tiff"
    pages = [Image.fromarray(smooth_colour(seed=seed)) for seed in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    record = read_ultrasound(path)
    np.testing.assert_array_equal(record.frames, np.stack([np.asarray(page) for page in pages]))
    assert record.frame_times_ms is None
    pages[0].save(path, save_all=True, append_images=[pages[1].resize((32, 32))])
    with pytest.raises(UnreadableFileError, match="page 2 is 32 x 32"):
        read_ultrasound(path)


def test_a_wrong_suffix_does_not_matter(tmp_path):
    Image.fromarray(smooth_grey()).save(tmp_path / "image.dcm", format="PNG")
    assert read_ultrasound(tmp_path / "image.dcm").metadata["format"] == "PNG"


@pytest.mark.parametrize(("bits", "white"), [(8, 255), (10, 1023 / 4095 * 255), (12, 255)])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_samples_of_fewer_bits_in_16_are_not_black(tmp_path, suffix, bits, white):
    """10 bits are read as 12, so that dark frames of 12 bits in files of their own are as dark as they are."""
    path = tmp_path / f"image.{suffix}"
    values = np.rint(smooth_grey() * ((2**bits - 1) / 255)).astype(np.uint16)
    Image.fromarray(values).save(path)
    np.testing.assert_allclose(
        read_both(path).frames[0, ..., 0], smooth_grey() * (white / 255), atol=0 if white == 255 else 1
    )


def test_a_dark_page_is_scaled_as_the_file_is(tmp_path):
    """Its samples alone would fit 8 bits."""
    path = tmp_path / "pages.tiff"
    pages = np.stack([smooth_grey().astype(np.uint16) * 257, smooth_grey().astype(np.uint16)])
    tifffile.imwrite(path, pages, photometric="minisblack")
    assert read_both(path).frames.max(axis=(1, 2, 3)).tolist() == [255, 1]


def test_pages_of_different_kinds(tmp_path):
    """A whole number beyond 16 bits on the first page, 16 bits on the second: both are scaled from what they can hold."""
    path = tmp_path / "pages.tiff"
    with tifffile.TiffWriter(path) as file:
        file.write(smooth_grey().astype(np.int32) * 1000, photometric="minisblack")
        file.write(smooth_grey().astype(np.uint16) * 257, photometric="minisblack")
    record = read_both(path)
    np.testing.assert_array_equal(record.frames[..., 0], np.stack([smooth_grey(), smooth_grey()]))


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.int16])
def test_pages_are_scaled_together(tmp_path, kind):
    path = tmp_path / "pages.tiff"
    grey = smooth_grey().astype(kind)
    factor = 1 / 255 if kind is np.float32 else 100
    pages = np.stack([grey * kind(factor), np.trunc(grey / 2).astype(kind) * kind(factor)])
    tifffile.imwrite(path, pages, photometric="minisblack")
    record = read_both(path)
    np.testing.assert_array_equal(record.frames[..., 0], np.stack([smooth_grey(), smooth_grey() // 2]))
    np.testing.assert_array_equal(read_both(path, every=2).frames[0, ..., 0], smooth_grey())


@pytest.mark.parametrize(
    ("kind", "low", "step", "photometric"),
    [
        (np.uint16, 0, 257, "miniswhite"),
        (np.uint32, 0, 16843009, "minisblack"),
        (np.int8, -128, 1, "minisblack"),
        (np.int16, -5000, 100, "minisblack"),
        (np.uint8, 0, 1, "miniswhite"),
        (np.float32, 0, 1, "miniswhite"),
    ],
)
def test_tiff_samples_of_every_kind(tmp_path, kind, low, step, photometric):
    path = tmp_path / "image.tiff"
    grey = smooth_grey().astype(np.int64)
    stored = low + step * (grey if photometric == "minisblack" else 255 - grey)
    tifffile.imwrite(path, stored.astype(kind), photometric=photometric)
    np.testing.assert_array_equal(read_both(path).frames[0, ..., 0], grey)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_tiff_that_pillow_does_not_read_is_not_called_damaged_without_doubt(tmp_path, kind):
    tifffile.imwrite(tmp_path / "image.tiff", smooth_grey().astype(kind), photometric="minisblack")
    with pytest.raises(UnreadableFileError, match=r"or of a kind that Pillow does not read, .* save it as PNG"):
        read_ultrasound(tmp_path / "image.tiff")


def test_12_bit_tiff(tmp_path):
    """Two samples in three bytes, written tag by tag; the brightest would fit 10 bits, but the file says how many there are."""
    values = smooth_grey().astype(np.uint32) * 4
    first, second = values[:, 0::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1).astype(np.uint8).tobytes()
    tags = [(256, 64), (257, 48), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 48), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = (
        b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)
    )
    (tmp_path / "image.tiff").write_bytes(content)
    expected = np.rint(values * (255 / 4095))
    np.testing.assert_array_equal(read_both(tmp_path / "image.tiff").frames[0, ..., 0], expected)


@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg", "webp"])
def test_the_size_of_an_opened_picture_is_that_of_the_upright_one(tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth_colour()).save(path, exif=exif)
    assert read_both(path).frames.shape == (1, 64, 48, 3)


STILLS = {"webp": ("webp", {"lossless": True}), "jp2": ("jpg_2000", {}), "j2k": ("jpg_2000", {})}


@pytest.mark.parametrize("suffix", STILLS)
def test_webp_and_jpeg_2000(tmp_path, suffix):
    feature, options = STILLS[suffix]
    if not features.check(feature):
        pytest.skip(f"Pillow was built without {feature}")
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(smooth_colour()).save(path, **options)
    record = read_both(path)
    np.testing.assert_array_equal(record.frames[0], smooth_colour())
    assert record.frame_times_ms is None


def test_16_bit_jpeg_2000(tmp_path):
    Image.fromarray(smooth_grey().astype(np.uint16) * 257).save(tmp_path / "image.jp2")
    np.testing.assert_array_equal(read_both(tmp_path / "image.jp2").frames[0, ..., 0], smooth_grey())


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_avif_is_a_picture_and_no_video(tmp_path):
    Image.fromarray(smooth_colour()).save(tmp_path / "image.avif", quality=100, subsampling="4:4:4")
    record = read_both(tmp_path / "image.avif")
    assert (record.metadata["format"], record.frame_times_ms) == ("AVIF", None)
    assert np.abs(record.frames[0].astype(int) - smooth_colour()).max() <= 3


@pytest.mark.parametrize("suffix", ["webp", "avif"])
def test_animations(tmp_path, suffix):
    if not features.check(suffix):
        pytest.skip(f"Pillow was built without {suffix}")
    images = [Image.fromarray(smooth_colour(seed=seed)) for seed in range(4)]
    path = tmp_path / f"cine.{suffix}"
    images[0].save(path, save_all=True, append_images=images[1:], duration=[40, 60, 40, 40])
    assert read_both(path).frame_times_ms == (0, 40, 100, 140)


def test_a_pillow_without_a_decoder_says_what_to_install(tmp_path, monkeypatch):
    Image.fromarray(smooth_colour()).save(tmp_path / "image.webp")
    monkeypatch.setattr(features, "get_supported", lambda: ["jpg_2000"])
    with pytest.raises(ImportError, match="reading WebP needs a Pillow that has it: pip install"):
        read_ultrasound(tmp_path / "image.webp")
    with pytest.raises(ImportError, match="reading WebP"):
        open_ultrasound(tmp_path / "image.webp")


@pytest.mark.parametrize("brands", [b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic", b"hevc\0\0\0\0msf1hevc"])
@pytest.mark.parametrize("name", ["photo.heic", "photo.jpg"])
def test_heic_is_refused_with_the_cure(tmp_path, name, brands):
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftyp" + brands + b"\0\0\0\x08meta" + bytes(200))
    with pytest.raises(
        UnsupportedFormatError, match="is a HEIC picture, which is not read; convert it to PNG or JPEG"
    ):
        read_ultrasound(tmp_path / name)


def test_an_animation_without_durations_has_no_times(tmp_path):
    images = [Image.fromarray(smooth_grey(seed=seed)) for seed in range(3)]
    for suffix in ("png", "gif"):
        images[0].save(tmp_path / f"cine.{suffix}", save_all=True, append_images=images[1:], duration=0)
        record = read_both(tmp_path / f"cine.{suffix}")
        assert len(record.frames) == 3 and record.frame_times_ms is None
