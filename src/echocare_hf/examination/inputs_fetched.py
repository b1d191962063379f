"""Instances of a study that come over the network: what is asked for, where each lies, and that none is fetched twice."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from pydicom.dataset import Dataset

from echocare_hf.data.reading_dicom_header import is_image_class

from .inputs_dicom import study_key

EXTRA = 'pip install "echocare-hf[network]"'


class Fetched(NamedTuple):
    """What came of an address: the folder, what it is called in names of files, and name and reason of what could not be fetched."""

    folder: Path
    label: str
    problems: list[tuple[str, str]]


class Instance(NamedTuple):
    """An instance as a query describes it; the numbers are 0 where the answer has none."""

    series_uid: str
    sop_uid: str
    sop_class: str
    series_number: int
    instance_number: int

    @property
    def file_name(self) -> str:
        """In the order of series and instances, and without a UID in clear."""
        key = hashlib.sha256(self.sop_uid.encode()).hexdigest()[:12]
        return f"{self.series_number:04}_{self.instance_number:05}_{key}.dcm"

    @property
    def may_be_image(self) -> bool:
        """Whether the SOP class is one of images, or is not known."""
        return is_image_class(self.sop_class)


def instance_of(answer: Dataset, series_uid: str = "", series_number: int = 0) -> Instance:
    """The instance that an answer to a query describes; the series comes from the answer where that has it."""
    return Instance(
        str(answer.get("SeriesInstanceUID") or series_uid),
        str(answer.get("SOPInstanceUID") or ""),
        str(answer.get("SOPClassUID") or ""),
        int(answer.get("SeriesNumber") or series_number),
        int(answer.get("InstanceNumber") or 0),
    )


def study_folder(work: Path, host: str, study_uid: str, scope: str) -> tuple[Path, str]:
    """Where a study of a host is kept, and what it is called: `host/` and the key of the study.

    Args:
        work: folder of everything that is fetched.
        host: name of the host.
        study_uid: Study Instance UID.
        scope: the rest of the address, so that other addresses get other folders.
    """
    key = study_key(study_uid)
    folder = work / f"{key}-{hashlib.sha256(f'{host} {scope}'.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder, f"{host}/{key}"


def check_uid(address: str, what: str, uid: str) -> None:
    """Refuse what is no UID, wildcards among it.

    Raises:
        ValueError: naming the address.
    """
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)+", uid) or len(uid) > 64:
        raise ValueError(f"{address}: {uid or 'nothing'!r} is no {what}; give the UID in digits and dots")
