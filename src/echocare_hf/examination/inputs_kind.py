"""Whether a file is an image to examine: by its first bytes and its suffix, without decoding it."""

from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

from echocare_hf.data.labelled.folder import IMAGE_FORMATS
from echocare_hf.data.reading import (
    DICOM_SUFFIXES,
    VIDEO_SUFFIXES,
    UnknownFormatError,
    UnreadableFileError,
    detect_kind,
)

from .inputs_dicom import read_facts
from .inputs_found import NamedFile

_IMAGE_SUFFIXES = (*IMAGE_FORMATS, *DICOM_SUFFIXES, *VIDEO_SUFFIXES, ".nii", ".nii.gz", ".mhd", ".mha")
_PIXEL_SUFFIXES = (".raw", ".zraw")
_OTHER_SUFFIXES = (
    ".txt",
    ".csv",
    ".tsv",
    ".md",
    ".json",
    ".jsonl",
    ".xml",
    ".html",
    ".htm",
    ".pdf",
    ".log",
    ".ini",
    ".py",
)


class Judgement(NamedTuple):
    """What a file is.

    Attributes:
        kind: "image", also for one that is damaged; "disc" for a DICOMDIR; "other".
        study: key of its study, for DICOM.
        problem: why it cannot be examined, for "other".
    """

    kind: Literal["image", "disc", "other"]
    study: str | None = None
    problem: str = ""


def judge(file: NamedFile) -> Judgement:
    """Tell what a file is.

    A file with the suffix of an image, and one that cannot be opened, counts as an image: opening its frames says what is wrong.
    """
    name = file.name.lower()
    if name.endswith(_PIXEL_SUFFIXES):
        return Judgement("other", problem="holds the pixels that an .mhd file describes; give the .mhd file")
    if name.endswith(_OTHER_SUFFIXES) and not file.is_named:
        return Judgement("other")
    try:
        kind = detect_kind(file.path)
    except UnknownFormatError as error:
        if name.endswith(_IMAGE_SUFFIXES):
            return Judgement("image")
        return Judgement("other", problem=str(error).removeprefix(f"{file.path}: "))
    except (UnreadableFileError, FileNotFoundError):
        return Judgement("image")
    if kind in ("dicom", "dicom without preamble"):
        facts = read_facts(file.path)
        if facts is None:
            return Judgement("image")
        if facts.is_disc:
            return Judgement("disc")
        if facts.is_result and not file.is_named:  # an enhanced image that went back to the archive
            return Judgement("other", facts.study)
        if not facts.is_image and (facts.has_no_pixels or not file.is_named):
            problem = f"is DICOM without an ultrasound image ({facts.kind}); give the image object instead"
            return Judgement("other", facts.study, problem)
        return Judgement("image", facts.study)
    if kind == "image" and not name.endswith(_IMAGE_SUFFIXES) and not _has_picture(file.path):
        return Judgement("other", problem="is no image in spite of its first bytes; check what it holds")
    return Judgement("image")


def _has_picture(path: Path) -> bool:
    """Whether Pillow finds an image behind the first bytes: two letters, as of BMP, may also begin a text."""
    try:
        with Image.open(path):
            return True
    except OSError:
        return False
