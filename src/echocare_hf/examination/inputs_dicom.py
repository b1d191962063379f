"""What a DICOM header says about where a file belongs, and what a DICOMDIR lists (PS3.10 section 8, PS3.3 annex F)."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from echocare_hf.data.labelled.pixels import has_dicom_preamble
from echocare_hf.data.reading_dicom import DAMAGE
from echocare_hf.data.reading_dicom_header import is_image_class

from .dicom_common import MANUFACTURER
from .inputs_found import NamedFile, Problem

missing_reason = "is listed in the DICOMDIR and not there; copy the whole disc again"

_UNDEFINED = 0xFFFFFFFF
_DIRECTORY = pydicom.uid.MediaStorageDirectoryStorage
_MADE_FROM_IMAGES = {
    pydicom.uid.SegmentationStorage,
    pydicom.uid.SurfaceSegmentationStorage,
    pydicom.uid.ParametricMapStorage,
}
_TAGS = ["SOPClassUID", "StudyInstanceUID", "Rows", "Manufacturer"]


class DicomFacts(NamedTuple):
    """What is asked of a header.

    Attributes:
        study: key of the study, None where the file names none.
        kind: name of the SOP class.
        is_image: whether the object is an image, or should be one and is damaged.
        has_no_pixels: whether the object is of a kind that has no pixels.
        is_disc: whether it is a DICOMDIR.
        is_result: whether this package has made it.
    """

    study: str | None
    kind: str
    is_image: bool
    has_no_pixels: bool
    is_disc: bool
    is_result: bool = False


def study_key(uid: str) -> str:
    """12 hexadecimal digits for a Study Instance UID, from which it cannot be read."""
    return hashlib.sha256(uid.encode()).hexdigest()[:12]


def read_facts(path: Path) -> DicomFacts | None:
    """Read the few elements that decide what becomes of a file; None if the header is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)
            header = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_TAGS))
            uid = str(header.get("StudyInstanceUID") or "").strip()
            sop_class = pydicom.uid.UID(str(header.get("SOPClassUID") or ""))
            is_disc = header.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY
            has_rows = bool(header.get("Rows"))
            is_result = header.get("Manufacturer") == MANUFACTURER
    except DAMAGE:
        return None
    has_no_pixels = not has_rows and not is_image_class(sop_class)
    is_image = not has_no_pixels and sop_class not in _MADE_FROM_IMAGES
    return DicomFacts(study_key(uid) if uid else None, sop_class.name, is_image, has_no_pixels, is_disc, is_result)


def is_disc(path: Path) -> bool:
    """Whether a file is a DICOMDIR, whatever it is called."""
    facts = read_facts(path) if has_dicom_preamble(path) else None
    return facts is not None and facts.is_disc


def references(path: Path) -> list[tuple[str, ...]]:
    """The images that a DICOMDIR lists, as parts of paths from the folder that it lies in.

    Raises:
        ValueError: if it is damaged, lists no image, or one outside of its folder; without the name of the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)
            directory = pydicom.dcmread(path)
            stored = directory.get_item("DirectoryRecordSequence") if "DirectoryRecordSequence" in directory else None
            # pydicom takes a sequence that the file ends in for a shorter one.
            if isinstance(stored, RawDataElement) and len(stored.value or b"") < stored.length != _UNDEFINED:
                raise EOFError("the file ends among its records")
            records = directory.get("DirectoryRecordSequence") or []
            listed = [_parts(record) for record in records if record.get("DirectoryRecordType") == "IMAGE"]
    except DAMAGE as error:
        raise ValueError("is a damaged DICOMDIR; give the folder of the disc in its place") from error
    found = [parts for parts in listed if parts]
    if not found:
        raise ValueError("is a DICOMDIR that lists no image; give the folder of the disc in its place")
    if any(part in ("", ".", "..") or "/" in part or "\0" in part for parts in found for part in parts):
        raise ValueError("is a DICOMDIR that points outside of its folder; do not trust it")
    return found


def missing_references(disc: NamedFile, files: Sequence[NamedFile]) -> list[Problem]:
    """What a DICOMDIR lists, found in a folder or an archive, and is not among the files that were found there."""
    folder = str(PurePosixPath(disc.name).parent)
    there = {_folded(file.name) for file in files if file.given == disc.given}
    try:
        names = ["/".join((folder, *parts)) for parts in references(disc.path)]
    except ValueError as error:
        return [Problem(disc.given, disc.name, str(error))]
    return [Problem(disc.given, name, missing_reason) for name in names if _folded(name) not in there]


def same_name(found: str, listed: str) -> bool:
    """Whether a file name is the one that a DICOMDIR lists: in any case, with or without ";1" or "." as some drivers show them."""
    return _folded(found) == _folded(listed)


def _folded(name: str) -> str:
    return name.lower().removesuffix(";1").rstrip(".")


def _parts(record: Dataset) -> tuple[str, ...]:
    value = record.get("ReferencedFileID")
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(part) for part in value)
