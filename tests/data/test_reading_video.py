"""Video files: what PyAV encodes here must come back, near enough for a lossy codec and exact for a lossless one."""

import io

import numpy as np
import pytest
from reading_helpers import smooth_colour

from echocare_hf.data.reading import UnreadableFileError, read_ultrasound

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
