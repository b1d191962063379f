"""Clips of known frames in every container, for the tests of inputs and of frame sources."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "data"))  # where the makers of DICOM files are


def shaded(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 `(height, width)`: a ramp whose brightness tells its index; the same for the same index."""
    ramp = np.add.outer(np.arange(height), np.arange(width)) * 100 // (height + width - 2)
    return (ramp + index * 7 % 150).astype(np.uint8)


def clip(num_frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 `(num_frames, height, width)`."""
    return np.stack([shaded(index, height, width) for index in range(num_frames)])


def write_video(path: Path, num_frames: int, height: int = 48, width: int = 64, rate: int = 25) -> Path:
    """A clip of MPEG-4 part 2 in the container that the suffix says, made frame by frame."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(shaded(index, height, width), format="gray")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())
    return path


def write_gif(path: Path, num_frames: int) -> Path:
    images = [Image.fromarray(frame) for frame in clip(num_frames)]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=[30 + 10 * (n % 3) for n in range(num_frames)]
    )
    return path
