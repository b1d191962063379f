"""Video files: what PyAV encodes here must come back, near enough for a lossy codec and exact for a lossless one."""

import io
import struct
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from reading_helpers import smooth_colour

from echocare_hf.data.reading import UnreadableFileError, open_ultrasound, read_ultrasound

av = pytest.importorskip("av")

FRAMES = np.stack([smooth_colour(seed=seed) for seed in range(12)])


def write_video(path, codec="mpeg4", pixel_format="yuv420p", frames=FRAMES, rate=25, options=None):
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = pixel_format, 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mov", "mkv"])
def test_lossy_round_trip(tmp_path, suffix):
    record = read_ultrasound(write_video(tmp_path / f"cine.{suffix}"))
    assert record.frames.shape == FRAMES.shape
    assert record.frames.dtype == np.uint8
    assert np.abs(record.frames.astype(int) - FRAMES).mean() < 8
    assert record.frame_times_ms == pytest.approx([40 * index for index in range(12)], abs=1)
    assert (record.metadata["codec"], record.metadata["num_frames"]) == ("mpeg4", 12)
    assert record.spacing is None


def test_lossless_avi(tmp_path):
    path = write_video(tmp_path / "cine.avi", "ffv1", "bgr0")
    np.testing.assert_array_equal(read_ultrasound(path).frames, FRAMES)


def test_every_and_max_frames(tmp_path):
    path = write_video(tmp_path / "cine.avi", "ffv1", "bgr0")
    record = read_ultrasound(path, every=5)
    np.testing.assert_array_equal(record.frames, FRAMES[::5])
    assert record.frame_times_ms == pytest.approx([0, 200, 400])
    record = read_ultrasound(path, every=2, max_frames=3)
    np.testing.assert_array_equal(record.frames, FRAMES[:6:2])
    assert len(record.frame_times_ms) == 3


def test_suffix_does_not_matter(tmp_path):
    path = write_video(tmp_path / "cine.mp4").rename(tmp_path / "cine.png")
    assert read_ultrasound(path, max_frames=1).metadata["format"] == "video"


@pytest.mark.parametrize("faststart", [False, True])
def test_truncated_mp4(tmp_path, faststart):
    """Cut in the middle: the index is gone if it stands last, half of the pictures if it stands first."""
    path = write_video(tmp_path / "cine.mp4", options={"movflags": "faststart"} if faststart else {})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(UnreadableFileError, match=r"cut[ -]short") as info:
        read_ultrasound(path)
    assert str(path) in str(info.value)
    assert "\n" not in str(info.value)


def test_video_without_frames(tmp_path):
    path = tmp_path / "empty.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(UnreadableFileError, match="no video"):
        read_ultrasound(path)


@pytest.mark.parametrize("title", ["肝脏 超声".encode("gbk"), b"\xff\xfe\x80"], ids=["gbk", "bytes"])
def test_a_title_in_another_encoding_does_not_matter(tmp_path, title):
    path = write_video(tmp_path / "cine.mp4")
    content = path.read_bytes()
    place = content.index(b"VideoHandler")  # a name field of the container
    path.write_bytes(content[:place] + title + content[place + len(title) :])
    assert len(read_ultrasound(path).frames) == len(FRAMES)


def test_unknown_codec(tmp_path):
    path = write_video(tmp_path / "cine.avi")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"zzzz"))
    with pytest.raises(UnreadableFileError, match="codec that PyAV does not know"):
        read_ultrasound(path)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_bytes(tmp_path, seed):
    """Damage either goes unseen by the codec or is refused with one line; no other error escapes."""
    random = np.random.default_rng(seed)
    path = write_video(tmp_path / "cine.mp4", options={"movflags": "faststart"} if seed % 2 else {})
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    places = random.integers(0, len(content) if seed % 3 else 1200, 1 + seed % 7)
    content[places] = random.integers(0, 256, len(places))
    path.write_bytes(content.tobytes())
    try:
        record = read_ultrasound(path, max_frames=3)
    except UnreadableFileError as error:
        assert "\n" not in str(error)
    else:
        assert 1 <= len(record.frames) <= 3


def test_sound_only(tmp_path):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    path = tmp_path / "sound.mp4"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UnreadableFileError, match="no video stream"):
        read_ultrasound(path)


def test_too_much_to_decode_is_refused_before_decoding(tmp_path, monkeypatch):
    from echocare_hf.data import reading_record

    path = write_video(tmp_path / "cine.mp4")
    monkeypatch.setattr(reading_record, "MAX_DECODED_BYTES", 6 * 48 * 64 * 3)
    with pytest.raises(UnreadableFileError, match=r"12 frames .* every=10 .* max_frames"):
        read_ultrasound(path)
    assert len(read_ultrasound(path, every=2).frames) == 6
    assert len(read_ultrasound(path, max_frames=6).frames) == 6


def read_both(path, **options):
    """The record, after a check that reading frame by frame gives the same."""
    record = read_ultrasound(path, **options)
    with open_ultrasound(path, **options) as source:
        frames = list(source)
        assert (source.height, source.width) == record.frames.shape[1:3]
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), record.frames)
    assert [frame.time_ms for frame in frames] == pytest.approx(record.frame_times_ms)
    assert [frame.index for frame in frames] == list(
        range(0, len(frames) * options.get("every", 1), options.get("every", 1))
    )
    return record


# Display matrices as cameras and phones write them (a, b, c, d of ISO/IEC 14496-12), and what numpy makes of the pixels.
TURNS = {
    "quarter": ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
    "half": ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
    "three quarters": ((0, -1, 1, 0), lambda frame: np.rot90(frame, 1)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "upside down": ((1, 0, 0, -1), np.flipud),
    "transposed": ((0, 1, 1, 0), lambda frame: frame.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("turn", TURNS)
def test_the_display_matrix_is_honoured(tmp_path, turn):
    path = write_video(tmp_path / "cine.mp4")
    stored = read_ultrasound(path).frames
    content = path.read_bytes()

    def matrix(a, b, c, d):
        return struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)

    place = content.index(matrix(1, 0, 0, 1), content.index(b"tkhd"))
    path.write_bytes(content[:place] + matrix(*TURNS[turn][0]) + content[place + 36 :])
    expected = np.stack([TURNS[turn][1](frame) for frame in stored])
    record = read_both(path)
    np.testing.assert_array_equal(record.frames, expected)
    assert (record.metadata["height"], record.metadata["width"]) == expected.shape[1:3]


def test_what_an_edit_list_leaves_out_is_no_loss(tmp_path):
    """A clip that was trimmed without encoding it anew still holds all pictures and shows some of them."""
    trimmed = tmp_path / "trimmed.mp4"
    with (
        av.open(str(write_video(tmp_path / "cine.mp4"))) as whole,
        av.open(str(trimmed), "w", options={"avoid_negative_ts": "disabled"}) as container,
    ):
        stream = container.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                shift = round(7 / 25 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                container.mux(packet)
    with av.open(str(trimmed)) as container:
        assert container.streams.video[0].frames == 12
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    record = read_both(trimmed)
    assert len(shown) == 5
    np.testing.assert_array_equal(record.frames, np.stack(shown))
    assert record.metadata["num_frames"] == read_ultrasound(trimmed, max_frames=2).metadata["num_frames"] == 5
    with open_ultrasound(trimmed) as source:
        assert source.num_frames == 5


def test_avi_with_frames_out_of_order(tmp_path):
    """AVI has no presentation times: with B-frames FFmpeg gives each frame the place of another."""
    path = write_video(tmp_path / "cine.avi", "libx264", options={})
    with av.open(str(path)) as container:
        seconds = [frame.time for frame in container.decode(video=0)]
    assert seconds != sorted(seconds)
    assert read_both(path).frame_times_ms == pytest.approx([40 * index for index in range(12)])
    assert read_both(path, every=5).frame_times_ms == pytest.approx([0, 200, 400])


@pytest.mark.parametrize("every", [1, 5])
def test_times_of_joined_recordings_go_on(tmp_path, every):
    one = write_video(tmp_path / "one.mpg", "mpeg2video")
    joined = tmp_path / "joined.mpg"
    joined.write_bytes(one.read_bytes() * 2)
    assert read_both(joined, every=every).frame_times_ms == pytest.approx(list(range(0, 24 * 40, 40 * every)))


def test_a_frame_that_is_out_of_order_by_a_little_has_the_time_of_the_one_before():
    from echocare_hf.data.reading_video import _Clock

    container, video = SimpleNamespace(format=SimpleNamespace(name="matroska,webm")), SimpleNamespace(average_rate=25)
    clock = _Clock(container, video)
    seconds = [5.0, 5.08, 5.04, 5.12, None, 5.2, None]
    assert [clock.tell(*each) for each in enumerate(seconds)] == pytest.approx([0, 80, 80, 120, 160, 200, 240])


@pytest.mark.parametrize("stated", [1, 13])
def test_a_number_of_frames_that_is_not_true(tmp_path, stated):
    path = write_video(tmp_path / "cine.avi", "rawvideo", "bgr24")
    content = bytearray(path.read_bytes())
    for place in (content.index(b"avih") + 24, content.index(b"strh") + 40):  # dwTotalFrames, dwLength
        assert content[place : place + 4] == struct.pack("<I", 12)
        content[place : place + 4] = struct.pack("<I", stated)
    path.write_bytes(content)
    assert read_both(path).metadata["num_frames"] == 12
    assert read_ultrasound(path, max_frames=1).metadata.get("num_frames") != 1
    with open_ultrasound(path) as source:
        assert source.is_clip and source.num_frames != 1


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_one_frame(tmp_path, suffix):
    record = read_both(write_video(tmp_path / f"cine.{suffix}", frames=FRAMES[:1]))
    assert (record.frame_times_ms, record.metadata["num_frames"]) == ((0,), 1)


def test_a_rate_that_varies(tmp_path):
    path = tmp_path / "cine.mkv"
    times = [0, 40, 80, 500, 540, 1500, 1540, 1580, 2600, 2640]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "bgr0"
        stream.codec_context.time_base = Fraction(1, 1000)
        for frame, time_ms in zip(FRAMES, times, strict=False):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    assert read_both(path).frame_times_ms == pytest.approx(times)
    assert read_both(path, every=3).frame_times_ms == pytest.approx(times[::3])
