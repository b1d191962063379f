"""MP4 files of a clip's pictures, written frame by frame, and single frames read back from them."""

from array import array
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from echocare_hf.data.reading_video import import_av
from echocare_hf.model.video_echocare import NOMINAL_FRAME_RATE

_TICKS = 90_000  # of a second, as MPEG counts time
_NO_COLOUR = 128  # of both chrominance planes
_KEY_EVERY = 30  # frames from which decoding can begin
_CODECS = (("libx264", {"preset": "ultrafast", "crf": "24"}), ("mpeg4", {"qscale": "5"}))


class ClipVideo:
    """An MP4 file in the making; frame times are kept where they rise.

    Args:
        path: of the file.
        size: width and height of the frames, even numbers.

    Attributes:
        path, size: as given.

    Raises:
        ImportError: without PyAV.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        av = import_av()
        self.path, self.size = path, size
        codec, options = next(each for each in _CODECS if each[0] in av.codecs_available)
        self._container = av.open(str(path), "w")
        stream = self._container.add_stream(codec, rate=round(NOMINAL_FRAME_RATE), options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = _KEY_EVERY
        stream.codec_context.thread_count = 1  # the models need the others
        stream.codec_context.time_base = Fraction(1, _TICKS)
        self._stream = stream
        self._times, self._indices = array("q"), array("q")

    def add(self, index: int, time_ms: float | None, picture: Image.Image) -> None:
        """The next frame, of mode RGB or L; `index` is its number in the clip."""
        step = round(_TICKS / NOMINAL_FRAME_RATE)
        last = self._times[-1] if self._times else -step
        time = last + step if time_ms is None else round(time_ms * _TICKS / 1000)
        if time <= last:
            time = last + 1 if time_ms is not None else last + step
        frame = _grey_frame(picture) if picture.mode == "L" else _colour_frame(np.asarray(picture))
        frame.pts, frame.time_base = time, Fraction(1, _TICKS)
        self._times.append(time)
        self._indices.append(index)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Ends the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def discard(self) -> None:
        """Lets go of the file, whatever state it is in."""
        self._container.close()

    def pictures(self, indices: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """Frames of the finished file by their number in the clip, in rising order; each is looked up from the key frame before it."""
        import av

        wanted = sorted(set(indices) & set(self._indices))
        with av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            for index in wanted:
                place = self._indices.index(index)
                seconds = self._times[place] / _TICKS
                container.seek(int(seconds * av.time_base), backward=True)
                for frame in container.decode(stream):
                    if frame.time is not None and frame.time >= seconds - 0.5 / NOMINAL_FRAME_RATE / 100:
                        yield index, frame.to_image()
                        break

    def __enter__(self) -> "ClipVideo":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def _colour_frame(pixels: np.ndarray) -> Any:
    import av

    return av.VideoFrame.from_ndarray(pixels, format="rgb24")


@cache
def _luma() -> np.ndarray:
    """What the library makes of each grey value on the way from RGB to the video's luminance: uint8 `(256,)`."""
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(2, 0).repeat(3, 2)
    return _colour_frame(ramp).to_ndarray(format="yuv420p").ravel()[:256]


def _grey_frame(picture: Image.Image) -> Any:
    """The frame that the library would make of the picture in RGB, without the detour."""
    import av

    height = picture.height
    planes = np.full((height * 3 // 2, picture.width), _NO_COLOUR, np.uint8)
    np.take(_luma(), np.asarray(picture), out=planes[:height])
    return av.VideoFrame.from_ndarray(planes, format="yuv420p")


__all__ = ["ClipVideo"]
