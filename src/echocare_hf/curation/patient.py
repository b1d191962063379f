"""Which files are of one patient, as DICOM headers tell. It serves to keep them in one split, and goes no further than the work folder."""

import re
from pathlib import Path

from echocare_hf.data.reading import detect_kind

from .options import digest

_NO_ID = re.compile(
    r"[\W_0]*|[^1-9]*(anon|unknown|none|no.?id|test|phantom|deleted|removed|x{3,})[^1-9]*", re.IGNORECASE | re.DOTALL
)  # ANON-0042 is the pseudonym of one patient, ANONYMOUS a placeholder
_TAGS = ["PatientID", "StudyInstanceUID"]


def is_dicom(path: str) -> bool:
    """Whether a file that can be read is DICOM, whatever its name and whether or not its header states a modality."""
    return detect_kind(Path(path)).startswith("dicom")


def patient_of(path: str) -> str | None:
    """A digest of who a DICOM file shows, 32 hexadecimal digits; None if its header does not say.

    Args:
        path: a DICOM file that can be read. Where its patient ID is empty or a placeholder, which whole collections may share, the
            study stands for the patient. Who issued the ID does not count: one export states it, another of the same patient does not.
    """
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)
    known, study = (str(header.get(tag) or "").strip() for tag in _TAGS)
    if not _NO_ID.fullmatch(known):
        return digest("patient", known)
    return digest("study", study) if study else None
