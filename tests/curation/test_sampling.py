"""Cine loops are sampled by frames and by time: which frames come out, told by the grey level that each one carries."""

import numpy as np
import pytest
from PIL import Image

from echocare_hf.curation import CurateOptions
from echocare_hf.curation import decode as decoding
from echocare_hf.curation.decode import decode
from echocare_hf.curation.record import FoundFile
from echocare_hf.data import reading_record

FRAMES = 40


def levels(count: int = FRAMES) -> list[np.ndarray]:
    """Frames of one grey level each: frame n has the level 6 n."""
    return [np.full((24, 32, 3), 6 * number, np.uint8) for number in range(count)]


def sampled(path, **options) -> list[int]:
    """The numbers of the frames that come out; their pixels say the same."""
    items, drops = decode(FoundFile("source", path.name, str(path), 1), CurateOptions(**options))
    assert not drops
    assert [round(float(item.pixels.mean()) / 6) for item in items] == [item.frame for item in items]
    return [item.frame for item in items]


@pytest.fixture
def loop(tmp_path):
    """An animation whose frames are shown for 40, 80 and 120 ms in turn."""
    path = tmp_path / "loop.gif"
    first, *others = [Image.fromarray(frame) for frame in levels()]
    first.save(path, save_all=True, append_images=others, duration=[40, 80, 120] * 13 + [40], loop=0)
    return path


@pytest.mark.parametrize("every", [1, 7, 10, 100])
def test_every_nth_frame(loop, every):
    assert sampled(loop, every=every) == list(range(0, FRAMES, every))


def test_ten_frames_apart_unless_told_otherwise(loop):
    assert sampled(loop) == [0, 10, 20, 30]


@pytest.mark.parametrize("seconds", [0.01, 0.24, 0.3, 1.0, 60])
def test_frames_that_are_some_seconds_apart(loop, seconds):
    starts = np.cumsum([0, *[40, 80, 120] * 13])  # milliseconds
    expected, last = [], -np.inf
    for number, start in enumerate(starts):
        if start - last >= 1000 * seconds:
            expected.append(number)
            last = start
    assert sampled(loop, every_seconds=seconds) == expected


def test_a_video_is_sampled_by_its_clock(tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path / "loop.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 32, 32, "yuv420p", 4_000_000
        for grey in (40 + 4 * np.arange(FRAMES)).tolist():
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), grey, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    items, _ = decode(FoundFile("source", path.name, str(path), 1), CurateOptions(every_seconds=0.5))
    assert [item.frame for item in items] == [0, 10, 20, 30]
    assert np.abs([item.pixels.mean() - 40 - 4 * item.frame for item in items]).max() < 4
    items, _ = decode(FoundFile("source", path.name, str(path), 1), CurateOptions(every=16))
    assert [item.frame for item in items] == [0, 16, 32]


def test_a_video_that_wrongly_states_one_frame_is_sampled_by_its_clock(tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path / "loop.avi"
    with av.open(path, "w") as container:
        stream = container.add_stream("rawvideo", rate=20)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "bgr24"
        for frame in levels():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    for place in (content.index(b"avih") + 24, content.index(b"strh") + 40):  # dwTotalFrames, dwLength
        content[place : place + 4] = (1).to_bytes(4, "little")
    path.write_bytes(content)
    assert sampled(path, every_seconds=0.5) == [0, 10, 20, 30]


def test_an_animation_that_states_no_duration_falls_back_to_frames(tmp_path):
    path = tmp_path / "loop.png"
    first, *others = [Image.fromarray(frame) for frame in levels(25)]
    first.save(path, save_all=True, append_images=others)  # a delay of 0 in APNG: as fast as can be
    assert sampled(path, every_seconds=0.5) == [0, 10, 20]


def test_files_without_times_fall_back_to_frames(tmp_path):
    path = tmp_path / "stack.tif"
    first, *others = [Image.fromarray(frame) for frame in levels(25)]
    first.save(path, save_all=True, append_images=others)
    assert sampled(path, every_seconds=0.5) == [0, 10, 20]


@pytest.fixture
def even_loop(tmp_path):
    """An animation of 25 frames a second."""
    path = tmp_path / "even.gif"
    first, *others = [Image.fromarray(frame) for frame in levels()]
    first.save(path, save_all=True, append_images=others, duration=40, loop=0)
    return path


@pytest.mark.parametrize("seconds, stride", [(0.01, 1), (0.2, 5), (0.3, 8), (60, 1500)])
def test_a_long_clip_is_decoded_with_a_stride(even_loop, monkeypatch, seconds, stride):
    whole = sampled(even_loop, every_seconds=seconds)
    assert whole == list(range(0, FRAMES, stride))
    monkeypatch.setattr(decoding, "WHOLE_BYTES", 5 * 24 * 32 * 3)  # five frames
    asked = []

    def read(path, **arguments):
        asked.append(arguments)
        record = read_ultrasound(path, **arguments)
        assert len(record.frames) <= max(6, len(whole)), "memory follows the frames that are kept"
        return record

    read_ultrasound = decoding.read_ultrasound
    monkeypatch.setattr(decoding, "read_ultrasound", read)
    assert sampled(even_loop, every_seconds=seconds) == whole
    assert asked[-1]["every"] == stride


def test_frames_of_a_long_uneven_clip_are_about_that_far_apart(loop, monkeypatch):
    starts = np.cumsum([0, *[40, 80, 120] * 13])
    monkeypatch.setattr(decoding, "WHOLE_BYTES", 6 * 24 * 32 * 3)
    numbers = sampled(loop, every_seconds=0.4)
    assert len(numbers) > 3 and np.diff(starts[numbers]).min() >= 400 - 120


@pytest.mark.parametrize("options", [{"every": 1}, {"every_seconds": 0.04}])
def test_a_clip_above_the_limit_of_reading_is_too_large_and_not_corrupt(even_loop, monkeypatch, options):
    monkeypatch.setattr(decoding, "WHOLE_BYTES", 5 * 24 * 32 * 3)
    monkeypatch.setattr(reading_record, "MAX_DECODED_BYTES", 20 * 24 * 32 * 3)
    items, (drop,) = decode(FoundFile("source", even_loop.name, str(even_loop), 1), CurateOptions(**options))
    assert not items and (drop.step, drop.reason) == ("decode", "too_large")
    assert "40 frames of 32 x 24" in drop.detail
    assert sampled(even_loop, every_seconds=0.08) == list(range(0, FRAMES, 2)), (
        "what is kept counts, not what is there"
    )


def test_a_frame_of_too_many_pixels_is_too_large(even_loop, monkeypatch):
    monkeypatch.setattr(reading_record, "MAX_FRAME_PIXELS", 100)
    _, (drop,) = decode(FoundFile("source", even_loop.name, str(even_loop), 1), CurateOptions())
    assert drop.reason == "too_large"
