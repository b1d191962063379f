"""DICOM frame by frame from the file: the frames of `read_dicom` without its memory.

The header is read once. Native frames are read from their place in the file, compressed ones from their fragments; an MPEG stream and a
deflated data set are first written to a temporary file.
"""

import functools
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from struct import unpack
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from .reading_dicom import DAMAGE, check_header, named_damage, not_dicom
from .reading_dicom_fragments import Fragments, find_fragments
from .reading_dicom_header import read_frame_times, read_metadata, read_modality, read_regions, read_spacing
from .reading_dicom_pixels import check_stream, colour_to_rgb, find_decoder, grey_range, plane_to_rgb, plugin_of
from .reading_intensity import ValueRange
from .reading_record import UnreadableFileError, check_finite, count_invalid, pick_frames
from .reading_stream import Frame, FrameSource, closed_on_error, step_by_step
from .reading_video import open_video

MAX_INFLATED_BYTES = 16 * 1024**3
"""Most bytes of a data set in a deflated transfer syntax: 16 GiB."""

_BLOCK = 256 * 1024
_ELEMENTS = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
_UNDEFINED = 0xFFFFFFFF


def open_dicom(path: Path, every: int = 1, max_frames: int | None = None, force: bool = False) -> FrameSource:
    """Open a DICOM image or cine loop for reading frame by frame; frames and errors are those of `read_dicom`.

    Grey samples that neither a window nor 8 bits explain are decoded twice: their range over all frames comes first.

    Args:
        force: read a file without the DICM preamble; it must then hold pixels.
    """
    resources = ExitStack()
    with named_damage(path), closed_on_error(resources):
        stored, deflated = _inflated(path, resources, force)
        with stored.open("rb") as file:
            dataset = _read_header(path, file, force)
            pixels = _find_pixels(file, dataset)
            if force and pixels is None:
                raise not_dicom(path)
            check_header(path, dataset, has_pixels=pixels is not None)
            assert pixels is not None
            syntax = dataset.file_meta.TransferSyntaxUID
            metadata = read_metadata(dataset) | {"transfer_syntax": (deflated or syntax).name}
            if syntax.name.startswith(("MPEG", "HEVC")):
                # The whole stream is encapsulated as if it were one frame (PS3.5 8.2.7).
                video_path = Path(resources.enter_context(TemporaryDirectory(prefix="echocare-")), "stream")
                with video_path.open("wb") as target:
                    find_fragments(file).copy(file, target)
                video = open_video(path, every, max_frames, stored=video_path)
                header = int(dataset.get("NumberOfFrames") or 0)  # 1 may stand for the one item of the whole stream
                total = video.metadata.get("num_frames") or (header if header > 1 else None)
                height, width, make_frames = video.height, video.width, video.make_frames
            else:
                total = int(dataset.get("NumberOfFrames") or 1)
                height, width = int(dataset.Rows), int(dataset.Columns)
                frames = _Frames(path, stored, dataset, pixels, total, pick_frames(total, every, max_frames))
                make_frames = frames.iterate
        regions, region_spacing = read_regions(dataset, height, width)
        return FrameSource(
            path,
            kind="DICOM",
            height=height,
            width=width,
            num_frames=None if total is None else len(pick_frames(total, every, max_frames)),
            is_clip=total != 1,
            make_frames=make_frames,
            spacing=read_spacing(dataset, regions, region_spacing),
            regions=regions,
            modality=read_modality(dataset),
            metadata=metadata | ({} if total is None else {"num_frames": total}),
            dataset_path=path,
            resources=resources,
        )


@dataclass(frozen=True)
class _Pixels:
    """Where the pixel data of a file lies."""

    keyword: str
    vr: str | None
    start: int
    length: int


class _Frames:
    """Decodes the wanted frames of a file, from the first one again each time."""

    def __init__(self, path: Path, stored: Path, dataset: Dataset, pixels: _Pixels, total: int, wanted: range) -> None:
        if not wanted:
            raise UnreadableFileError(path, f"states {total} frames; export it again")
        self.path, self.stored, self.dataset, self.pixels, self.wanted = path, stored, dataset, pixels, wanted
        syntax = dataset.file_meta.TransferSyntaxUID
        self.decoder = find_decoder(path, syntax)
        # raw=False: pydicom turns YBR_FULL and YBR_FULL_422 into RGB, and says what came out.
        self.options: dict[str, Any] = as_pixel_options(dataset) | {"raw": False, "validate": True}
        self.options |= {"pixel_keyword": pixels.keyword}
        if pixels.vr is not None:
            self.options |= {"pixel_vr": pixels.vr}
        times = read_frame_times(dataset, total)
        self.times_ms = None if times is None else np.array(times)
        self.fragments: Fragments | None = None
        with stored.open("rb") as file:
            file.seek(pixels.start)
            if syntax.is_encapsulated:
                extended = self.options.pop("extended_offsets", None)
                table = np.frombuffer(extended[0], "<u8").tolist() if extended else ()
                self.options |= {"decoding_plugin": plugin_of(self.decoder), "number_of_frames": 1}
                self.fragments = find_fragments(file)
                self.starts = self.fragments.frame_starts(file, total, table)
                whole = len(self.starts) - 1
            else:
                whole = self._whole_frames(file.seek(0, 2) - pixels.start, total)
        self.there = range(wanted.start, min(wanted.stop, max(whole, 0)), wanted.step)
        if not self.there:
            raise self._cut_short()

    def iterate(self) -> Iterator[Frame]:
        return step_by_step(self._pictures(), lambda: named_damage(self.path))

    def _pictures(self) -> Iterator[Frame]:
        over = self._file_range if len(self.wanted) > 1 else None
        for index, (array, photometric) in zip(self.wanted, self._decoded(), strict=False):
            if array.ndim == 3:
                pixels = colour_to_rgb(self.path, array, photometric, self.dataset)
            else:
                pixels = plane_to_rgb(self.path, array[np.newaxis], photometric, self.dataset, over)[0]
            yield Frame(index, None if self.times_ms is None else float(self.times_ms[index]), pixels)

    @functools.cached_property
    def _file_range(self) -> ValueRange | None:
        over, invalid = None, 0
        try:
            for array, photometric in self._decoded():
                if array.ndim == 3:
                    return None
                invalid += count_invalid(array)
                found = grey_range(array, photometric, self.dataset)
                if found is None and not np.issubdtype(array.dtype, np.floating):
                    return None
                over = found.joined(over) if found else over
        except DAMAGE:
            pass  # the frames before the damage are scaled by their own range; decoding them again meets it and reports it
        check_finite(self.path, invalid)
        return over

    def _decoded(self) -> Iterator[tuple[np.ndarray, str]]:
        """The wanted frames as they are stored, each with its photometric interpretation.

        Raises:
            UnreadableFileError: after the last whole frame, if more were wanted.
        """
        with self.stored.open("rb") as file:
            file.seek(self.pixels.start)
            decoded = self._native(file) if self.fragments is None else self._encapsulated(file, self.fragments)
            for array, described in decoded:
                yield array, str(described["photometric_interpretation"])
        if len(self.there) < len(self.wanted):
            raise self._cut_short()

    def _native(self, file: BinaryIO) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        return self.decoder.iter_array(file, indices=self.there, **self.options)

    def _encapsulated(self, file: BinaryIO, fragments: Fragments) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        for index in self.there:
            first, last = self.starts[index], self.starts[index + 1]
            stream = b"".join(fragments.read(file, fragment) for fragment in range(first, last))
            if self.options["decoding_plugin"] == "gdcm":
                check_stream(self.dataset, stream)
            yield self.decoder.as_array(encapsulate([stream], has_bot=False), index=0, **self.options)

    def _whole_frames(self, available: int, total: int) -> int:
        """How many native frames the file holds."""
        samples = int(self.dataset.Rows) * int(self.dataset.Columns) * int(self.dataset.SamplesPerPixel)
        frame_bits = samples * int(self.dataset.BitsAllocated)
        if self.dataset.PhotometricInterpretation == "YBR_FULL_422":
            if self.pixels.length != _UNDEFINED and self.pixels.length * 8 >= frame_bits * total:
                raise ValueError("it holds more pixels than YBR_FULL_422 has; it may be YBR_FULL or RGB")
            frame_bits = frame_bits // 3 * 2
        if self.pixels.length != _UNDEFINED:
            available = min(available, self.pixels.length)
        return available * 8 // max(frame_bits, 1)

    def _cut_short(self) -> UnreadableFileError:
        return UnreadableFileError(
            self.path,
            f"is cut short: {len(self.there)} of {len(self.wanted)} frames are there; copy or export it again",
        )


def _read_header(path: Path, file: BinaryIO, force: bool) -> pydicom.FileDataset:
    """The data set without its pixels; the file is then at their element."""
    try:
        return pydicom.dcmread(file, force=force, stop_before_pixels=True)
    except DAMAGE as error:
        if force:
            raise not_dicom(path) from error
        raise


def _find_pixels(file: BinaryIO, dataset: pydicom.FileDataset) -> _Pixels | None:
    """Parse tag, VR and length of the element that the file is at; None if it holds no pixels."""
    order = "<" if dataset.original_encoding[1] else ">"
    head = file.read(8)
    if len(head) < 8:
        return None
    group, element = unpack(f"{order}HH", head[:4])
    keyword = _ELEMENTS.get(group << 16 | element)
    if keyword is None:
        return None
    # Files exist that change to implicit VR within an explicit transfer syntax: the element itself tells.
    is_explicit = not dataset.original_encoding[0] and re.fullmatch(rb"[A-Z]{2}", head[4:6]) is not None
    vr = head[4:6].decode("ascii") if is_explicit else None
    length = file.read(4) if is_explicit else head[4:]
    return _Pixels(keyword, vr, file.tell(), unpack(f"{order}L", length)[0]) if len(length) == 4 else None


def _inflated(path: Path, resources: ExitStack, force: bool) -> tuple[Path, pydicom.uid.UID | None]:
    """`path`, or where it is deflated (PS3.5 A.5) a temporary uncompressed copy and its transfer syntax."""
    meta = None if force else read_file_meta_info(path)
    if meta is None or meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return path, None
    stored = Path(resources.enter_context(TemporaryDirectory(prefix="echocare-")), "inflated.dcm")
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as packed, stored.open("wb") as target:
        packed.seek(128 + 4 + 12 + int(meta.FileMetaInformationGroupLength))
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        target.write(bytes(128) + b"DICM")
        write_file_meta_info(DicomIO(target), meta, enforce_standard=False)
        while not unpacker.eof and (block := unpacker.unconsumed_tail or packed.read(_BLOCK)):
            target.write(unpacker.decompress(block, _BLOCK))
            if target.tell() > MAX_INFLATED_BYTES:
                raise UnreadableFileError(
                    path, f"unpacks to more than {MAX_INFLATED_BYTES // 1024**3} GiB; export it uncompressed"
                )
        target.write(unpacker.flush())
    return stored, DeflatedExplicitVRLittleEndian
