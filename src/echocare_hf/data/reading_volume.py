"""NIfTI and MetaImage (MHD, MHA) through SimpleITK: a stack or a sequence of frames with its spacing."""

from pathlib import Path
from typing import Any

import numpy as np

from .reading_intensity import grey_to_rgb, volume_to_uint8
from .reading_nifti import check_nifti_samples
from .reading_record import (
    Spacing,
    UltrasoundRecord,
    UnreadableFileError,
    check_decoded_bytes,
    check_size,
    clean_spacing,
    one_line,
    pick_frames,
)

_HEADER_BYTES = 8192


def read_volume(path: Path, every: int = 1, max_frames: int | None = None) -> UltrasoundRecord:
    """Read a NIfTI or MetaImage file. Arguments, result and errors are those of `read_ultrasound`.

    The file's first axis becomes columns, its second rows, and every further one frames (the last varies slowest), as
    the slices and time points follow each other in the file; orientation matrices are not applied. Grey values follow
    `volume_to_uint8` over the frames that are returned. Spacing is that of the first two axes in mm: NIfTI units are
    honoured, and the default of 1 that a header holds when nobody set it counts as unknown.

    Raises:
        UnreadableFileError: also if a value is NaN or infinite, or a MetaImage header points outside its own folder.
    """
    sitk = _import_simpleitk()
    header = path.read_bytes()[:_HEADER_BYTES] if path.stat().st_size <= _HEADER_BYTES else first_bytes(path)
    is_meta_image = b"ElementDataFile" in header
    if is_meta_image:
        _check_data_file(path, header)
    else:
        check_nifti_samples(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("MetaImageIO" if is_meta_image else "NiftiImageIO")
    warns = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK prints its doubts about orientation matrices
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()
        width, height = int(size[0]), int(size[1])
        check_size(path, height, width)
        num_frames = int(np.prod(size[2:], dtype=np.int64))
        indices = pick_frames(num_frames, every, max_frames)
        # SimpleITK decodes the whole file whichever frames are kept.
        check_decoded_bytes(path, num_frames, height, width)
        if is_meta_image:
            _check_data_length(path, header, reader)
        image = reader.Execute()
    except RuntimeError as error:
        reason = one_line(str(error).rsplit("ITK ERROR:", 1)[-1].rsplit("Error:", 1)[-1], 120)
        raise UnreadableFileError(path, f"cannot be read as a volume ({reason}); export it again") from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warns)
    if not indices:
        raise UnreadableFileError(path, "holds no frames; export it again")
    frames = _to_frames(path, sitk.GetArrayFromImage(image), image.GetNumberOfComponentsPerPixel(), indices)
    metadata = {"format": "MetaImage" if is_meta_image else "NIfTI", "width": width, "height": height}
    metadata |= {"num_frames": num_frames, "pixel_type": image.GetPixelIDTypeAsString()}
    return UltrasoundRecord(frames=frames, spacing=_spacing(reader, header, is_meta_image), metadata=metadata)


def _import_simpleitk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise ImportError(
            'reading NIfTI and MetaImage files needs SimpleITK: pip install "echocare-hf[volumes]"'
        ) from error
    return SimpleITK


def first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)


def header_value(header: bytes, key: bytes) -> str | None:
    """The value of `Key = value` in a MetaImage text header."""
    for line in header.splitlines():
        name, separator, value = line.partition(b"=")
        if separator and name.strip() == key:
            return value.decode("ascii", errors="replace").strip()
    return None


def _check_data_file(path: Path, header: bytes) -> None:
    """A header may name any file of the machine as its pixels: only the header's own folder is allowed."""
    name = header_value(header, b"ElementDataFile") or ""
    pattern = name.split()[0] if name else ""
    if pattern in ("LOCAL", "Local", "local"):
        return
    if pattern == "LIST" or "%" in pattern:
        raise UnreadableFileError(path, "keeps its slices in a list of files; save it as one .mha file")
    data_file = Path(name)
    if data_file.is_absolute() or ".." in data_file.parts or "\\" in name or not name:
        raise UnreadableFileError(path, "names a data file outside its own folder; put the two side by side")
    if not (path.parent / data_file).is_file():
        raise UnreadableFileError(path, f"its data file {name} is missing; put it beside the .mhd file")


def _check_data_length(path: Path, header: bytes, reader: Any) -> None:
    """Refuse uncompressed MetaImage data shorter than its header says (ITK would also print to the terminal)."""
    if (header_value(header, b"CompressedData") or "").lower() == "true":
        return
    name = header_value(header, b"ElementDataFile") or ""
    if name.lower() == "local":
        end_of_header = header.find(b"\n", header.index(b"ElementDataFile"))
        found = path.stat().st_size - end_of_header - 1 if end_of_header >= 0 else 0
    else:
        found = (path.parent / name).stat().st_size
    bits = {"8": 8, "16": 16, "32": 32, "64": 64}
    sample_type = _import_simpleitk().GetPixelIDValueAsString(reader.GetPixelID())
    sample_bits = next((size for digits, size in bits.items() if f"{digits}-bit" in sample_type), 0)
    samples = int(np.prod(reader.GetSize(), dtype=np.int64)) * reader.GetNumberOfComponents()
    if found < samples * sample_bits // 8:
        raise UnreadableFileError(
            path, f"is cut short: {found} of {samples * sample_bits // 8} bytes of pixels; copy it again"
        )


def _to_frames(path: Path, values: np.ndarray, components: int, indices: range) -> np.ndarray:
    """SimpleITK's `(..., height, width[, components])` to uint8 `(num_frames, height, width, 3)`."""
    if components not in (1, 3, 4) or np.iscomplexobj(values):
        raise UnreadableFileError(path, f"has {components} values a pixel; save it as grey, RGB or RGBA")
    trailing = values.shape[-2:] if components == 1 else values.shape[-3:]
    picked = values.reshape(-1, *trailing)[indices.start : indices.stop : indices.step]
    if np.issubdtype(picked.dtype, np.floating) and (invalid := int(np.count_nonzero(~np.isfinite(picked)))):
        raise UnreadableFileError(path, f"{invalid} pixels are NaN or infinite; replace them and save again")
    scaled = volume_to_uint8(picked)
    return grey_to_rgb(scaled) if components == 1 else np.ascontiguousarray(scaled[..., :3])


def _spacing(reader: Any, header: bytes, is_meta_image: bool) -> Spacing | None:
    """`(row_mm, column_mm)`, or None if the header left it at its default."""
    column_mm, row_mm = reader.GetSpacing()[:2]
    if is_meta_image:
        stated = any(header_value(header, key) for key in (b"ElementSpacing", b"ElementSize"))
    else:
        # NIfTI-1 `xyzt_units`: the low three bits are the unit of length, 0 unknown, else ITK has converted to mm.
        unit = int(reader.GetMetaData("xyzt_units")) & 7 if reader.HasMetaDataKey("xyzt_units") else 0
        stated = unit != 0 or (column_mm, row_mm) != (1.0, 1.0)
    return clean_spacing(row_mm, column_mm) if stated else None
