"""The image that DICOM results are made from: what they copy from it, how they refer to it, and how they are written.

Results file with the study of the image: attributes of the patient and the study are copied, those that the standard wants to be there at
least empty are added empty, and values that cannot be read, such as dates that are none, are left out. Text is UTF-8 (ISO_IR 192).
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)
from pydicom.valuerep import DA, TM

from .. import __version__
from ..files import written_beside
from .dicom_codes import PRIVATE_SCHEME
from .dicom_common import MANUFACTURER, PRODUCT, derived_uid, import_highdicom, quiet, weights_of
from .results import FileResult

_REQUIRED = {
    "SOPClassUID": "SOP Class UID",
    "SOPInstanceUID": "SOP Instance UID",
    "StudyInstanceUID": "Study Instance UID",
    "SeriesInstanceUID": "Series Instance UID",
    "Rows": "Rows",
    "Columns": "Columns",
}
_AT_LEAST_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "PatientOrientation",
)
# How each is read, and the separator that ACR-NEMA put into it.
_DATES = {
    "PatientBirthDate": (DA, "."),
    "StudyDate": (DA, "."),
    "StudyTime": (TM, ":"),
}
_MULTI_FRAME = (UltrasoundMultiFrameImageStorage, "1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.6.2")
_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
_LARGEST_SERIES_NUMBER = 10_000_000


class Source:
    """The header of an image that results are made from.

    Attributes:
        path: of the file.
        header: its data set without pixels, with what results copy in order; it bears the SOP class of an ultrasound still, which every
            tool knows. `write` puts the true one into references.
        sop_class: the true SOP Class UID.
        is_multi_frame: whether references have to say which frame they mean.
        height, width: of the frames, in pixels.
    """

    def __init__(self, path: Path) -> None:
        """Reads the header of the file at `path`.

        Raises:
            ValueError: if a UID or the size is missing, without which nothing can be filed beside the image.
            OSError: if the file cannot be read.
        """
        with quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            for tag in list(header.keys()):
                if not _is_readable(header, tag):
                    del header[tag]  # so it is copied nowhere
            missing = [name for keyword, name in _REQUIRED.items() if not header.get(keyword)]
            if missing:
                raise ValueError(
                    f"{path} lacks {', '.join(missing)}, so DICOM results cannot be filed with it; "
                    "export it again from the scanner or the PACS"
                )
            header.decode()
        self.path = path
        self.header = header
        self.sop_class = UID(header.SOPClassUID)
        num_frames = int(header.get("NumberOfFrames") or 1)
        self.is_multi_frame = num_frames > 1 or self.sop_class in _MULTI_FRAME
        self.height, self.width = int(header.Rows), int(header.Columns)
        self._tidy()

    def _tidy(self) -> None:
        header = self.header
        for keyword in _AT_LEAST_EMPTY:
            if keyword not in header:
                setattr(header, keyword, "")
        for keyword, (kind, old_separator) in _DATES.items():
            try:
                header[keyword].value = kind(str(header.get(keyword) or "").replace(old_separator, ""))
            except ValueError:
                header[keyword].value = ""
        if header.PatientSex not in ("M", "F", "O"):
            header.PatientSex = ""
        if header.get("LossyImageCompression") not in ("00", "01"):
            syntax = header.file_meta.get("TransferSyntaxUID")
            header.LossyImageCompression = "01" if syntax in _LOSSY or _is_video(syntax) else "00"
        # What a file says of frames and of the patient's coordinate system is of no use to results: they lie on the source's own grid.
        for keyword in ("NumberOfFrames", "FrameOfReferenceUID", "PositionReferenceIndicator", "PixelSpacing"):
            if keyword in header:
                del header[keyword]
        header.SOPClassUID = UltrasoundImageStorage
        header.SpecificCharacterSet = "ISO_IR 192"

    def _positive(self, keyword: str) -> int:
        """A whole number of the header, 0 where it is none or not positive."""
        value = self.header.get(keyword)
        return int(value) if isinstance(value, int) and value > 0 else 0

    def frame_numbers(self, frame: int | None) -> list[int] | None:
        """DICOM's numbers, from 1, of the frame at an index from 0; None where the reference is to the file as a whole.

        Raises:
            ValueError: if the file has no such frame.
        """
        if frame is not None and (frame < 0 or (frame > 0 and not self.is_multi_frame)):
            raise ValueError(f"{self.path} has no frame {frame}")
        return [frame + 1] if frame is not None and self.is_multi_frame else None

    def reference(self, frame: int | None) -> Dataset:
        """An item of Source Image Sequence that refers to a frame, or to the file as a whole."""
        item = Dataset()
        item.ReferencedSOPClassUID = self.sop_class
        item.ReferencedSOPInstanceUID = self.header.SOPInstanceUID
        numbers = self.frame_numbers(frame)
        if numbers is not None:
            item.ReferencedFrameNumber = numbers
        return item

    def scanner(self) -> list[Any] | None:
        """The equipment that took the image, as highdicom's `ContributingEquipment`; None if the file does not name its manufacturer."""
        if not self.header.get("Manufacturer"):
            return None
        return [import_highdicom().ContributingEquipment.for_image_acquisition(self.header)]

    def check_grid(self, what: str, shape: tuple[int, ...]) -> None:
        """Raises `ValueError` if a picture of `shape` does not lie on the file's grid."""
        if shape[:2] != (self.height, self.width):
            raise ValueError(
                f"{what} of {self.path} is {shape[1]} x {shape[0]} pixels, but the file's frames are {self.width} x {self.height}"
            )

    def own_series(self, result: FileResult, kind: str, number: int) -> dict[str, Any]:
        """Keywords for highdicom's constructors: UIDs and numbers of the series of one kind of result, and who made it.

        Args:
            result: of the file.
            kind: "segmentation", "report", ...
            number: 0 to 99, the last digits of the series' number; the first ones are the source's.
        """
        weights = weights_of(result)
        series = self._positive("SeriesNumber")
        series = series if series < _LARGEST_SERIES_NUMBER else 0
        return {
            "series_instance_uid": derived_uid(self.header.SeriesInstanceUID, kind, weights),
            "series_number": 100 * series + number,
            "sop_instance_uid": derived_uid(self.header.SOPInstanceUID, kind, weights),
            "instance_number": self._positive("InstanceNumber") or 1,
            "series_description": f"EchoCare {kind} (AI draft, not verified)",
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": PRODUCT,
            "software_versions": __version__,
            "device_serial_number": f"weights {derived_uid(weights)[5:21]}",
        }

    def write(self, dataset: Dataset, target: Path, tail: Iterable[bytes] = ()) -> None:
        """Writes an object beside `target` and renames it; `tail` holds its last elements, encoded.

        References get the true SOP class, private codes their scheme's name.
        """
        for item in _all_items(dataset):
            if item.get("ReferencedSOPInstanceUID") == self.header.SOPInstanceUID:
                item.ReferencedSOPClassUID = self.sop_class
        if any(item.get("CodingSchemeDesignator") == PRIVATE_SCHEME for item in _all_items(dataset)):
            scheme = Dataset()
            scheme.CodingSchemeDesignator = PRIVATE_SCHEME
            scheme.CodingSchemeName = "Names of echocare-hf without a published code"
            scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
            dataset.CodingSchemeIdentificationSequence = [scheme]
        with quiet(), written_beside(target) as partial:
            dataset.save_as(partial, enforce_file_format=True)
            with partial.open("ab") as file:
                file.writelines(tail)


def _is_video(syntax: UID | None) -> bool:
    return syntax is not None and syntax.name.startswith(("MPEG", "HEVC"))


def _all_items(dataset: Dataset) -> Iterator[Dataset]:
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _all_items(item)


def _is_readable(header: Dataset, tag: BaseTag) -> bool:
    """Whether pydicom can make of an element what the standard says it is; of "1,75" for a number it makes a text."""
    try:
        element = header[tag]
    except (ValueError, TypeError, ArithmeticError, NotImplementedError, struct.error):
        return False
    values = element.value if element.VM > 1 else [element.value]
    if element.VR in ("DS", "IS") and any(isinstance(value, str) and value for value in values):
        return False
    return not dictionary_has_tag(tag) or element.VR == "UN" or element.VR in dictionary_VR(tag)
