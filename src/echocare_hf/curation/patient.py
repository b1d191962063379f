"""Which files are of one patient, as DICOM headers tell. It serves to keep them in one split, and goes no further than the work folder."""

import re

from .options import digest

_NO_ID = re.compile(
    r"[\W_0]*|.*(anon|unknown|none|no.?id|test|phantom|deleted|removed|x{3,}).*", re.IGNORECASE | re.DOTALL
)
_TAGS = ["PatientID", "IssuerOfPatientID", "StudyInstanceUID"]


def patient_of(path: str) -> str | None:
    """A digest of who a DICOM file shows, 32 hexadecimal digits; None if its header does not say.

    Args:
        path: a DICOM file that can be read. Where its patient ID is empty or a placeholder, which whole collections may share, the
            study stands for the patient.
    """
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)
    known, issuer, study = (str(header.get(tag) or "").strip() for tag in _TAGS)
    if not _NO_ID.fullmatch(known):
        return digest("patient", issuer, known)
    return digest("study", study) if study else None
