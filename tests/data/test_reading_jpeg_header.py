"""JPEG headers: Pillow's streams pass, and every field that disagrees is refused."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from reading_helpers import smooth_colour, smooth_grey

from echocare_hf.data.reading_jpeg_header import check_jpeg_header


def stream(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", subsampling=0)
    return buffer.getvalue()


@pytest.mark.parametrize("pixels", [smooth_grey(), smooth_colour()], ids=["grey", "colour"])
def test_a_whole_stream_passes(pixels):
    check_jpeg_header(stream(pixels), 48, 64, 1 if pixels.ndim == 2 else 3, 8)


@pytest.mark.parametrize("grid", [(47, 64, 1, 8), (48, 65, 1, 8), (48, 64, 3, 8), (48, 64, 1, 7)])
def test_contradiction_is_refused(grid):
    with pytest.raises(ValueError, match="contradicts"):
        check_jpeg_header(stream(smooth_grey()), *grid)


def test_subsampling_is_refused():
    buffer = io.BytesIO()
    Image.fromarray(smooth_colour()).save(buffer, "JPEG", subsampling=2)
    with pytest.raises(ValueError, match="subsampling"):
        check_jpeg_header(buffer.getvalue(), 48, 64, 3, 8)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 20, 100, 160])
def test_cut_header_is_refused(length):
    with pytest.raises(ValueError, match="JPEG header"):
        check_jpeg_header(stream(smooth_grey())[:length], 48, 64, 1, 8)


def test_precision_by_hand():
    start = struct.pack(">BBHBHHB3B", 0xFF, 0xC3, 11, 12, 48, 64, 1, 1, 0x11, 0)  # lossless, 12 bits
    scan = struct.pack(">BBH6B", 0xFF, 0xDA, 8, 1, 1, 0, 1, 0, 0)
    check_jpeg_header(b"\xff\xd8" + start + scan, 48, 64, 1, np.dtype(np.uint16).itemsize * 8)
    with pytest.raises(ValueError, match="contradicts"):
        check_jpeg_header(b"\xff\xd8" + start + scan, 48, 64, 1, 8)
