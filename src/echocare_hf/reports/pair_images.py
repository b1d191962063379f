"""The pixels of a pair: stills as they are, of clips a few key frames."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from echocare_hf.data.labelled.fingerprint import grey_values, perceptual_hash, pixel_digest
from echocare_hf.data.labelled.pixels import read_source
from echocare_hf.data.labelled.record import ImageSource, RowReference, Sample
from echocare_hf.data.reading import UnreadableFileError, open_ultrasound

Kind = TypeVar("Kind", bound=Sample)


def key_frames(source: ImageSource, count: int) -> list[np.ndarray]:
    """Frames of a file: the image of a still, `count` frames of a clip, in the middle of as many equal parts of it.

    Memory does not grow with the length of the clip.

    Args:
        source: a file of any format of `read_ultrasound`, or an image in a row of a data set.
        count: most frames, at least 1. A clip with fewer gives all it has.

    Returns:
        list of uint8 `(height, width, 3)`, RGB, 0..255, in the order of time.

    Raises:
        UnreadableFileError: if the file cannot be read or holds no frame, naming it.
        FileNotFoundError: if it is gone.
    """
    if count < 1:
        raise ValueError(f"give at least one frame, not {count}")
    if isinstance(source, RowReference):
        return [read_source(source)]
    with open_ultrasound(source) as file:
        if not file.is_clip:
            return [next(iter(file)).pixels]
        total = file.num_frames or sum(1 for _ in file)
        wanted = even_places(total, count)
        last, frames = wanted[-1] if wanted else -1, []
        for index, frame in enumerate(file):
            if index in wanted:
                frames.append(frame.pixels)
            if index >= last:
                break
    if not frames:
        raise UnreadableFileError(source, "holds no frame; export the clip again")
    return frames


def even_places(total: int, count: int) -> list[int]:
    """`count` indices out of `total`, each in the middle of one of as many equal parts; all of them if there are not more."""
    if total <= count:
        return list(range(total))
    return [int((2 * part + 1) * total / (2 * count)) for part in range(count)]


def pair_frames(images: Sequence[ImageSource], views: Sequence[str], limit: int) -> tuple[list[np.ndarray], list[str]]:
    """The images that a model is shown for a report, at most `limit`.

    Of more files than that an even choice is taken; where there is room, clips give several frames each.

    Args:
        images: files of a pair.
        views: what each file shows, or empty.
        limit: most images.

    Returns:
        The images, uint8 `(height, width, 3)`, and the view of each, "" where it is not known.
    """
    chosen = even_places(len(images), limit)
    room = max(1, limit // max(1, len(chosen)))
    frames, marks = [], []
    for index in chosen:
        found = key_frames(images[index], room)
        frames += found
        marks += [views[index] if views else ""] * len(found)
    return frames, marks


def fingerprint(sample: Kind) -> Kind:
    """The sample with the fingerprints of its images, by which a split keeps equal images together.

    Raises:
        UnreadableFileError: for an image that cannot be read.
    """
    digests, first = [], None
    for source in sample.images:
        grey = grey_values(key_frames(source, 1)[0])
        first = grey if first is None else first
        is_clip = isinstance(source, str) and _is_clip(source)
        digests.append(_file_digest(source) if is_clip else pixel_digest(grey))
    assert first is not None  # a pair has at least one image
    return replace(sample, digests=tuple(digests), perceptual_hash=perceptual_hash(first), size=first.shape)


def _is_clip(path: str) -> bool:
    with open_ultrasound(path) as file:
        return file.is_clip


def _file_digest(source: ImageSource) -> str:
    """Of a whole clip: two of them may share a black frame."""
    with Path(str(source)).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


__all__ = ["even_places", "fingerprint", "key_frames", "pair_frames"]
