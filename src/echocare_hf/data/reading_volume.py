"""NIfTI and MetaImage (MHD, MHA) through SimpleITK: a stack or a sequence of frames with its spacing."""

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .reading_intensity import ValueRange, grey_to_rgb, value_range, volume_to_uint8
from .reading_meta_image import (
    check_data_file,
    check_data_length,
    first_bytes,
    header_value,
    is_compressed,
    is_meta_image,
    unpack_meta_image,
)
from .reading_nifti import check_nifti_samples
from .reading_record import (
    Spacing,
    UltrasoundRecord,
    UnreadableFileError,
    check_decoded_bytes,
    check_finite,
    check_size,
    clean_spacing,
    count_invalid,
    one_line,
    pick_frames,
)
from .reading_stream import Frame, FrameSource, closed_on_error, step_by_step


def read_volume(path: Path, every: int = 1, max_frames: int | None = None) -> UltrasoundRecord:
    """Read a NIfTI or MetaImage file. Arguments, result and errors are those of `read_ultrasound`.

    The file's first axis becomes columns, its second rows, and every further one frames (the last varies slowest), as
    the slices and time points follow each other in the file; orientation matrices are not applied. Grey values follow
    `volume_to_uint8` over the frames that are returned. Spacing is that of the first two axes in mm: NIfTI units are
    honoured, and the default of 1 that a header holds when nobody set it counts as unknown.

    Raises:
        UnreadableFileError: also if a value is NaN or infinite, or a MetaImage header points outside its own folder.
    """
    sitk = import_simpleitk()
    header = _checked_header(path)
    with _named_damage(path):
        reader = _open_reader(path, header)
        height, width, num_frames = _grid(path, reader)
        indices = pick_frames(num_frames, every, max_frames)
        # SimpleITK decodes the whole file whichever frames are kept.
        check_decoded_bytes(path, num_frames, height, width)
        if is_meta_image(header):
            check_data_length(path, header, reader)
        image = reader.Execute()
    if not indices:
        raise UnreadableFileError(path, "holds no frames; export it again")
    values, components = sitk.GetArrayFromImage(image), image.GetNumberOfComponentsPerPixel()
    trailing = values.shape[-2:] if components == 1 else values.shape[-3:]
    picked = values.reshape(-1, *trailing)[indices.start : indices.stop : indices.step]
    check_finite(path, count_invalid(picked))
    metadata = _metadata(header, height, width, num_frames, image.GetPixelIDTypeAsString())
    return UltrasoundRecord(
        frames=_to_rgb(path, picked, components), spacing=_spacing(reader, header), metadata=metadata
    )


def open_volume(path: Path, every: int = 1, max_frames: int | None = None) -> FrameSource:
    """Open a NIfTI or MetaImage file for reading frame by frame; frames and errors are those of `read_volume`.

    Compressed MetaImage data is first unpacked to a temporary file, because every frame would otherwise be unpacked from the start.
    Samples that are not 8-bit are read twice: their range over all frames comes first.
    """
    sitk = import_simpleitk()
    header = _checked_header(path)
    resources = ExitStack()
    with _named_damage(path), closed_on_error(resources):
        stated = reader = _open_reader(path, header)
        height, width, num_frames = _grid(path, reader)
        stored = path
        if is_meta_image(header):
            check_data_length(path, header, reader)
            if is_compressed(header):
                folder = Path(resources.enter_context(TemporaryDirectory(prefix="echocare-")))
                stored = unpack_meta_image(path, header, reader, folder)
    indices = pick_frames(num_frames, every, max_frames)
    if not indices:
        raise UnreadableFileError(path, "holds no frames; export it again")
    components, pixel_type = stated.GetNumberOfComponents(), sitk.GetPixelIDValueAsString(stated.GetPixelID())

    def slices() -> Iterator[np.ndarray]:
        reader = _open_reader(path, header, stored)
        size = reader.GetSize()
        for index in indices:
            # The first of the further axes varies fastest; one of length 1 is kept, because ITK may not turn oblique axes into 2D.
            place = [int(position) for position in np.unravel_index(index, size[2:], order="F")] if size[2:] else []
            reader.SetExtractIndex([0, 0, *place])
            reader.SetExtractSize([width, height, *(1 for _ in place)])
            values = sitk.GetArrayFromImage(reader.Execute())
            yield values.reshape(1, height, width, *(() if components == 1 else (components,)))

    @functools.cache
    def range_of_file() -> ValueRange:
        over, invalid = None, 0
        for values in slices():
            invalid += count_invalid(values)
            over = value_range(values).joined(over)
        check_finite(path, invalid)
        assert over is not None
        return over

    def pictures() -> Iterator[Frame]:
        for index, values in zip(indices, slices(), strict=True):
            over = None if values.dtype == np.uint8 or np.iscomplexobj(values) else range_of_file()
            yield Frame(index, None, _to_rgb(path, values, components, over)[0])

    return FrameSource(
        path,
        kind="MetaImage" if is_meta_image(header) else "NIfTI",
        height=height,
        width=width,
        num_frames=len(indices),
        is_clip=num_frames > 1,
        make_frames=lambda: step_by_step(pictures(), lambda: _named_damage(path)),
        spacing=_spacing(stated, header),
        metadata=_metadata(header, height, width, num_frames, pixel_type),
        resources=resources,
    )


def _checked_header(path: Path) -> bytes:
    header = first_bytes(path)
    if is_meta_image(header):
        check_data_file(path, header)
    else:
        check_nifti_samples(path)
    return header


@contextmanager
def _named_damage(path: Path) -> Iterator[None]:
    """What SimpleITK raises becomes one line that names the file."""
    sitk = import_simpleitk()
    warns = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK prints its doubts about orientation matrices
    try:
        yield
    except RuntimeError as error:
        reason = one_line(str(error).rsplit("ITK ERROR:", 1)[-1].rsplit("Error:", 1)[-1], 120)
        raise UnreadableFileError(path, f"cannot be read as a volume ({reason}); export it again") from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warns)


def _open_reader(path: Path, header: bytes, stored: Path | None = None) -> Any:
    """SimpleITK's reader with the header read, of `path` or of what is `stored` in its place."""
    reader = import_simpleitk().ImageFileReader()
    reader.SetFileName(str(stored or path))
    reader.SetImageIO("MetaImageIO" if is_meta_image(header) else "NiftiImageIO")
    reader.ReadImageInformation()
    return reader


def import_simpleitk() -> Any:
    """Import SimpleITK, or say which extra brings it."""
    try:
        import SimpleITK
    except ImportError as error:
        raise ImportError(
            'reading NIfTI and MetaImage files needs SimpleITK: pip install "echocare-hf[volumes]"'
        ) from error
    return SimpleITK


def _grid(path: Path, reader: Any) -> tuple[int, int, int]:
    """Height, width and number of frames."""
    size = reader.GetSize()
    width, height = int(size[0]), int(size[1])
    check_size(path, height, width)
    return height, width, int(np.prod(size[2:], dtype=np.int64))


def _metadata(header: bytes, height: int, width: int, num_frames: int, pixel_type: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"format": "MetaImage" if is_meta_image(header) else "NIfTI"}
    return metadata | {"width": width, "height": height, "num_frames": num_frames, "pixel_type": pixel_type}


def _to_rgb(path: Path, values: np.ndarray, components: int, over: ValueRange | None = None) -> np.ndarray:
    """`(num_frames, height, width[, components])`, with the range of the file, to uint8 `(num_frames, height, width, 3)`."""
    if components not in (1, 3, 4) or np.iscomplexobj(values):
        raise UnreadableFileError(path, f"has {components} values a pixel; save it as grey, RGB or RGBA")
    scaled = volume_to_uint8(values, over)
    return grey_to_rgb(scaled) if components == 1 else np.ascontiguousarray(scaled[..., :3])


def _spacing(reader: Any, header: bytes) -> Spacing | None:
    """`(row_mm, column_mm)`, or None if the header left it at its default."""
    column_mm, row_mm = reader.GetSpacing()[:2]
    if is_meta_image(header):
        stated = any(header_value(header, key) for key in (b"ElementSpacing", b"ElementSize"))
    else:
        # NIfTI-1 `xyzt_units`: the low three bits are the unit of length, 0 unknown, else ITK has converted to mm.
        unit = int(reader.GetMetaData("xyzt_units")) & 7 if reader.HasMetaDataKey("xyzt_units") else 0
        stated = unit != 0 or (column_mm, row_mm) != (1.0, 1.0)
    return clean_spacing(row_mm, column_mm) if stated else None
