"""The example gallery: phantoms that the package makes itself, and the ultrasound files that come with pydicom where they are there.

Phantoms are synthetic images with the look of ultrasound. They are written as DICOM with their true spacing, so that measurements are in
millimetres; one is a clip, one a PNG without spacing. They are made once and kept in the user's cache folder.
"""

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, UltrasoundImageStorage, UltrasoundMultiFrameImageStorage

from echocare_hf import __version__
from echocare_hf.data.phantom import Phantom, make_phantom
from echocare_hf.examination.dicom_common import derived_uid
from echocare_hf.examination.frames import open_frames
from echocare_hf.files import written_beside

PHANTOM_SIDE, PHANTOM_SEED = 288, 11
CLIP_FRAMES, FRAME_MILLISECONDS = 24, 40.0
THUMBNAIL = (240, 180)

_STILLS = (
    ("fetal_brain", "Fetal head", ".dcm"),
    ("breast", "Breast lesion", ".dcm"),
    ("thyroid", "Thyroid", ".dcm"),
    ("liver", "Liver", ".dcm"),
    ("kidney", "Kidney, no spacing", ".png"),
)
_CLIP = ("heart_a4c", "Heart, clip")
_PYDICOM = (
    ("examples_rgb_color.dcm", "pydicom: colour"),
    ("examples_ybr_color.dcm", "pydicom: clip"),
    ("examples_palette.dcm", "pydicom: palette"),
)


@dataclass(frozen=True)
class Example:
    """A file of the gallery, its picture, and what stands below that."""

    path: Path
    thumbnail: Path
    caption: str


def examples_folder() -> Path:
    """Where the phantoms of this version are kept."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "echocare" / f"demo-examples-{__version__}"


def make_examples(folder: Path, progress: Callable[[int, int], None] | None = None) -> list[Example]:
    """The gallery; what is not in the folder yet is made.

    Args:
        folder: of the phantoms and thumbnails.
        progress: called with the examples that are done, and all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Example] = []
    jobs = [*_phantom_files(folder), *_pydicom_files()]
    for done, (path, caption, make) in enumerate(jobs):
        if progress is not None:
            progress(done, len(jobs))
        if make is not None and not path.is_file():
            with written_beside(path) as partial:
                make(partial)
        thumbnail = folder / f"{path.stem}.thumbnail.jpg"
        if not thumbnail.is_file():
            with written_beside(thumbnail) as partial:
                _write_thumbnail(path, partial)
        found.append(Example(path, thumbnail, caption))
    return found


def _phantom_files(folder: Path) -> Iterator[tuple[Path, str, Callable[[Path], None]]]:
    def still(kind: str, suffix: str) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            phantom = make_phantom(kind, PHANTOM_SEED, PHANTOM_SIDE)
            if suffix == ".png":
                Image.fromarray(phantom.image).save(path, format="PNG")
            else:
                write_phantom_dicom(path, phantom, [phantom.image])

        return make

    def clip(path: Path) -> None:
        phantom = make_phantom(_CLIP[0], PHANTOM_SEED, PHANTOM_SIDE)
        write_phantom_dicom(path, phantom, beating(phantom))

    for kind, caption, suffix in _STILLS:
        yield folder / f"phantom_{kind}{suffix}", f"Phantom: {caption}", still(kind, suffix)
    yield folder / f"phantom_{_CLIP[0]}_clip.dcm", f"Phantom: {_CLIP[1]}", clip


def _pydicom_files() -> Iterator[tuple[Path, str, None]]:
    for name, caption in _PYDICOM:
        if (path := get_testdata_file(name, download=False)) is not None:
            yield Path(str(path)), caption, None


def beating(phantom: Phantom, frames: int = CLIP_FRAMES, share: float = 0.06) -> list[np.ndarray]:
    """One cycle of a phantom that widens and narrows about the middle of its field of view: uint8 `(height, width)` each."""
    rows, columns = np.nonzero(phantom.field_of_view)
    x, y = columns.mean(), rows.mean()
    image = Image.fromarray(phantom.image)
    moved = []
    for phase in np.linspace(0, 2 * np.pi, frames, endpoint=False):
        scale = 1 + share * np.sin(phase)
        matrix = (scale, 0, x * (1 - scale), 0, scale, y * (1 - scale))
        frame = np.asarray(image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))
        moved.append(frame * phantom.field_of_view)
    return moved


def write_phantom_dicom(path: Path, phantom: Phantom, frames: Sequence[np.ndarray]) -> None:
    """Writes frames of a phantom, uint8 `(height, width)` each, as an ultrasound image, or a multi-frame one, with its spacing."""
    is_clip = len(frames) > 1
    pixels = np.stack(frames)
    height, width = pixels.shape[1:]
    identity = ("phantom", phantom.kind, str(phantom.seed), f"{zlib.crc32(pixels.tobytes()):08x}")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage if is_clip else UltrasoundImageStorage
    dataset.SOPInstanceUID = derived_uid(*identity)
    dataset.StudyInstanceUID = UID(derived_uid(*identity, "study"))
    dataset.SeriesInstanceUID = UID(derived_uid(*identity, "series"))
    dataset.PatientName, dataset.PatientID = "Phantom^Synthetic", f"phantom-{phantom.kind}"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, 1
    dataset.Modality, dataset.Manufacturer = "US", "EchoCare phantom"
    dataset.ImageType = ["DERIVED", "PRIMARY", "", "0001"]
    dataset.LossyImageCompression = "00"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = height, width, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    if is_clip:
        dataset.NumberOfFrames, dataset.FrameTime = len(frames), FRAME_MILLISECONDS
        dataset.FrameIncrementPointer = pydicom.tag.Tag("FrameTime")
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = width - 1, height - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # centimetres
    region.PhysicalDeltaX, region.PhysicalDeltaY = phantom.spacing[1] / 10, phantom.spacing[0] / 10
    dataset.SequenceOfUltrasoundRegions = [region]
    data = pixels.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def _write_thumbnail(path: Path, target: Path) -> None:
    with open_frames(path, max_frames=1) as source:
        pixels = next(iter(source)).pixels
    picture = Image.fromarray(pixels)
    picture.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    card = Image.new("RGB", THUMBNAIL)
    card.paste(picture, ((THUMBNAIL[0] - picture.width) // 2, (THUMBNAIL[1] - picture.height) // 2))
    card.save(target, format="JPEG", quality=88)


__all__ = ["Example", "beating", "examples_folder", "make_examples", "write_phantom_dicom"]
