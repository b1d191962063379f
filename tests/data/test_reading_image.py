"""Image files: every mode Pillow writes, against Pillow's own pixels or values worked out by hand."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from reading_helpers import smooth_colour, smooth_grey

from echocare_hf.data.reading import UnreadableFileError, read_ultrasound


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
