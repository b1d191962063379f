"""What all DICOM results share: the source's patient and study, identities, and sources that are not as they should be."""

import sys

import numpy as np
import pydicom
import pytest
from dicom_result_helpers import make_frame, make_map, make_result, make_source, same_but_for_time

from echocare_hf.examination.dicom_capture import write_enhanced
from echocare_hf.examination.dicom_report import write_report
from echocare_hf.examination.dicom_segmentation import write_segmentation
from echocare_hf.examination.results import ModelFacts

pytest.importorskip("highdicom", reason="highdicom is not installed")

KINDS = {"segmentation": "SEG", "report": "SR", "enhanced": "US"}


def write(kind, source, target, result=None, seed=0):
    result = result or make_result(source)
    if kind == "segmentation":
        write_segmentation(source, [(0, make_map(37, 53, seed))], result, target)
    elif kind == "report":
        write_report(source, result, [make_frame()], target)
    else:
        image = np.random.default_rng(seed).integers(0, 255, (37, 53, 3), np.uint8)
        write_enhanced(source, image, result, target, frame=0)
    return pydicom.dcmread(target)


@pytest.mark.parametrize("kind", KINDS)
def test_files_with_the_study_in_a_series_of_its_own(tmp_path, kind):
    source = make_source(tmp_path / "source.dcm", PatientComments="allergic")
    made, original = write(kind, source, tmp_path / "made.dcm"), pydicom.dcmread(source)
    for keyword in (
        "StudyInstanceUID",
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
    ):
        assert made[keyword].value == original[keyword].value
    assert (made.AccessionNumber, made.StudyID, made.PatientComments) == ("A1", "S1", "allergic")
    assert made.Modality == KINDS[kind]
    assert made.SeriesInstanceUID != original.SeriesInstanceUID
    assert made.SOPInstanceUID == made.file_meta.MediaStorageSOPInstanceUID != original.SOPInstanceUID
    assert (made.SeriesNumber // 100, made.InstanceNumber) == (4, 12)
    assert made.SoftwareVersions and made.ManufacturerModelName == "echocare-hf"
    assert "verified" in made.SeriesDescription
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("source.dcm", "made.dcm")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_again_is_the_same_object(tmp_path, kind):
    source = make_source(tmp_path / "source.dcm")
    first = write(kind, source, tmp_path / "first.dcm")
    again = write(kind, source, tmp_path / "again.dcm")
    assert first.SOPInstanceUID == again.SOPInstanceUID
    assert same_but_for_time(tmp_path / "first.dcm", tmp_path / "again.dcm")


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_or_content_make_another_object(tmp_path, kind):
    source = make_source(tmp_path / "source.dcm")
    other = make_result(source)
    other.models = {name: ModelFacts(name, facts.source, facts.task, "f" * 64) for name, facts in other.models.items()}
    made = [write(kind, source, tmp_path / "a.dcm"), write(kind, source, tmp_path / "b.dcm", other)]
    if kind != "report":
        made.append(write(kind, source, tmp_path / "c.dcm", seed=1))
    else:
        made.append(write(kind, source, tmp_path / "c.dcm", make_result(source, warnings=["another"])))
    assert len({each.SOPInstanceUID for each in made}) == 3
    assert made[0].SeriesInstanceUID == made[2].SeriesInstanceUID != made[1].SeriesInstanceUID


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_that_may_be_empty_may_be_absent(tmp_path, kind):
    absent = dict.fromkeys(
        (
            "PatientID",
            "PatientName",
            "PatientSex",
            "PatientBirthDate",
            "StudyDate",
            "StudyTime",
            "AccessionNumber",
            "StudyID",
        )
    )
    more = dict.fromkeys(("ReferringPhysicianName", "Manufacturer", "SeriesNumber", "InstanceNumber", "Modality"))
    made = write(kind, make_source(tmp_path / "source.dcm", **absent, **more), tmp_path / "made.dcm")
    for keyword in absent:
        assert keyword in made and not made[keyword].value
    assert made.SeriesNumber >= 1 and made.InstanceNumber == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_values_that_are_none_do_not_stop_it(tmp_path):
    dataset = pydicom.dcmread(make_source(tmp_path / "source.dcm"))
    dataset.PatientSex, dataset.StudyDate, dataset.StudyTime = "unknown", "1994.11.05", "11:20:00"
    dataset.PatientBirthDate = "in spring"
    dataset.add_new("PatientSize", "LO", "1,75")  # a reader expects a number here
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    dataset.save_as(tmp_path / "source.dcm", enforce_file_format=True)
    made = write("report", tmp_path / "source.dcm", tmp_path / "made.dcm")
    assert (made.PatientSex, made.PatientBirthDate) == ("", "")
    assert (made.StudyDate, made.StudyTime) == ("19941105", "112000")
    assert "PatientSize" not in made


@pytest.mark.parametrize("kind", KINDS)
def test_names_in_any_script(tmp_path, kind):
    source = make_source(
        tmp_path / "source.dcm",
        SpecificCharacterSet=["ISO 2022 IR 6", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎",
        PatientComments="胎児",
    )
    made = write(kind, source, tmp_path / "made.dcm")
    assert made.SpecificCharacterSet == "ISO_IR 192"
    assert made.PatientName == "Yamada^Tarou=山田^太郎"
    assert made.PatientComments == "胎児"


@pytest.mark.filterwarnings("error::UserWarning")
def test_the_patients_name_is_not_shown_on_the_screen(tmp_path, capfd):
    source = make_source(tmp_path / "source.dcm", PatientName="Anonymized")
    for kind in KINDS:
        write(kind, source, tmp_path / "made.dcm")
    assert "Anonymized" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("keyword", "name"),
    [
        ("StudyInstanceUID", "Study Instance UID"),
        ("SeriesInstanceUID", "Series Instance UID"),
        ("SOPInstanceUID", "SOP Instance UID"),
        ("Rows", "Rows"),
    ],
)
def test_without_an_identity_nothing_can_be_filed(tmp_path, kind, keyword, name):
    source = make_source(tmp_path / "source.dcm")
    result = make_result(source)
    dataset = pydicom.dcmread(source)
    delattr(dataset, keyword)
    dataset.save_as(source)
    with pytest.raises(ValueError, match=f"source.dcm lacks {name}, so DICOM results cannot be filed") as error:
        write(kind, source, tmp_path / "made.dcm", result)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source.dcm"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_highdicom(tmp_path, kind, monkeypatch):
    source = make_source(tmp_path / "source.dcm")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ValueError, match=r'pip install "echocare-hf\[dicom\]"'):
        write(kind, source, tmp_path / "made.dcm")


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_model(tmp_path, kind):
    source = make_source(tmp_path / "source.dcm")
    with pytest.raises(ValueError, match="model"):
        write(kind, source, tmp_path / "made.dcm", make_result(source, models={}))
