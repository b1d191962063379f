"""Ultrasound files that come with pydicom, as a PACS would hold them: one study of two series."""

from pathlib import Path

import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.examples import get_path
from pydicom.uid import ComprehensiveSRStorage, UltrasoundImageStorage, UltrasoundMultiFrameImageStorage, generate_uid

STUDY = "1.2.826.0.1.3680043.8.498.77"


def stored_study() -> list[Dataset]:
    """An image in RGB, one in JPEG 2000, a clip in JPEG, and a report, with Series and Instance Numbers."""
    sources: list[tuple[str | Path, str]] = [
        (get_path("rgb_color"), UltrasoundImageStorage),
        (get_path("jpeg2k"), UltrasoundImageStorage),
        (get_path("ybr_color"), UltrasoundMultiFrameImageStorage),
        (get_testdata_file("reportsi.dcm"), ComprehensiveSRStorage),
    ]
    datasets = []
    for number, (path, sop_class) in enumerate(sources):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, f"{STUDY}.{number // 2 + 1}"
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=[str(number)]
        )
        dataset.SeriesNumber, dataset.InstanceNumber = number // 2 + 1, number % 2 + 1
        dataset.PatientName, dataset.PatientID = "DOE^JANE", "12345"
        datasets.append(dataset)
    return datasets
