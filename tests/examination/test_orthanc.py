"""A study to and from a PACS that is not ours: Orthanc's DICOM node and DICOMweb server, where they are installed."""

import hashlib
import io

import numpy as np
import pydicom
import pytest
from engine_helpers import results_of, save_checkpoint
from network_helpers import STUDY, stored_study
from orthanc_helpers import MISSING, TITLE, running_orthanc, send
from typer.testing import CliRunner

from echocare_hf.cli import app
from echocare_hf.data.reading import read_ultrasound
from echocare_hf.examination.inputs import find_inputs

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
pytest.importorskip("pynetdicom", reason="pynetdicom (extra: network) is not installed")
pytest.importorskip("dicomweb_client", reason="dicomweb-client (extra: network) is not installed")
PROTOCOLS = ["node", "web"]
MADE = ("segmentation.dcm", "report.dcm", "enhanced.dcm")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The files of the study, by SOP Instance UID."""
    folder = tmp_path_factory.mktemp("originals")
    paths = {}
    for number, dataset in enumerate(stored_study()):
        dataset.StudyDate = dataset.StudyTime = ""
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
        paths[str(dataset.SOPInstanceUID)] = folder / f"{number}.dcm"
    return paths


@pytest.fixture(scope="module")
def pacs(tmp_path_factory, originals):
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        server.upload(list(originals.values()))
        yield server


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_images_of_a_study_arrive_as_they_are_stored(pacs, originals, tmp_path, protocol):
    files, problems = find_inputs([pacs.addresses(STUDY)[protocol]], tmp_path)
    assert problems == []
    assert len(files) == 3  # the report is not asked for
    for file in files:
        arrived = pydicom.dcmread(file.path)
        original = originals[str(arrived.SOPInstanceUID)]
        sent = pydicom.dcmread(original)
        assert arrived.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
        for each in (arrived, sent):
            each.pop("DataSetTrailingPadding", None)  # says nothing, and is left out over C-GET
        assert arrived == sent
        np.testing.assert_array_equal(read_ultrasound(file.path).frames, read_ultrasound(original).frames)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_study_of_two_hundred_instances(pacs, tmp_path, protocol):
    """More series and instances than one answer of many servers holds."""
    study = f"{STUDY}.{PROTOCOLS.index(protocol) + 5}"
    dataset = stored_study()[0]
    for number in range(200):
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.{number % 9}"
        uid = pydicom.uid.generate_uid(entropy_srcs=[study, str(number)])
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.SeriesNumber, dataset.InstanceNumber = number % 9, number
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        pacs.ask("/instances", buffer.getvalue())
    files, problems = find_inputs([pacs.addresses(study)[protocol]], tmp_path)
    assert (len(files), problems) == (200, [])
    numbers = [(header.SeriesNumber, header.InstanceNumber) for header in map(_header, files)]
    assert numbers == sorted(numbers)


def _header(file):
    return pydicom.dcmread(file.path, stop_before_pixels=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_study_that_is_not_there(pacs, tmp_path, protocol):
    with pytest.raises(ValueError, match="has no image of this study"):
        find_inputs([pacs.addresses(STUDY + "9")[protocol]], tmp_path)


def test_it_refuses_another_title(pacs, tmp_path):
    address = pacs.addresses(STUDY)["node"].replace(TITLE, "OTHER")
    with pytest.raises(ConnectionError, match="refused our AE title or theirs"):
        find_inputs([address], tmp_path)


def test_it_sends_nothing_to_titles_that_it_does_not_know(originals, tmp_path):
    (tmp_path / "orthanc").mkdir()
    known = {"us": ["SCANNER7", "127.0.0.1", 104]}
    closed = {"DicomAlwaysAllowFind": False, "DicomAlwaysAllowGet": False, "DicomModalities": known}
    with running_orthanc(tmp_path / "orthanc", **closed) as server:
        server.upload(list(originals.values()))
        address = server.addresses(STUDY)["node"]
        with pytest.raises(ConnectionError, match=r"calling=TITLE"):
            find_inputs([address], tmp_path / "work")
        assert len(find_inputs([f"{address}?calling=SCANNER7"], tmp_path / "work")[0]) == 3


def test_a_password(originals, tmp_path):
    (tmp_path / "orthanc").mkdir()
    closed = {"AuthenticationEnabled": True, "RegisteredUsers": {"reader": "a secret"}}
    with running_orthanc(tmp_path / "orthanc", **closed) as server:
        send(server, [pydicom.dcmread(path) for path in originals.values()])
        address = server.addresses(STUDY)["web"]
        files, problems = find_inputs([address.replace("//", "//reader:a%20secret@")], tmp_path / "work")
        assert (len(files), problems) == (3, [])
        for refused in (address, address.replace("//", "//reader:guess@")):
            with pytest.raises(ConnectionError, match="HTTP status 401") as info:
                find_inputs([refused], tmp_path / "other")
            assert "guess" not in str(info.value)


def test_what_predict_makes_of_a_study_is_taken_back(pacs, originals, tmp_path):
    """Segmentations, reports and enhanced images: by C-STORE and by STOW-RS, and as they were sent. The second run passes them over."""
    tasks = ("segmentation", "detection", "enhancement")
    models = [text for task in tasks for text in ("--model", str(save_checkpoint(tmp_path / task, task)))]
    for protocol, address in pacs.addresses(STUDY).items():
        output = tmp_path / protocol
        fixed = ["--precision", "fp32", "--no-familiarity", "--threshold", "0.01", "--max-frames", "2"]
        result = CliRunner().invoke(app, ["predict", address, *models, "--output", str(output), *fixed])
        assert result.exit_code == 0, result.output
        assert len(results_of(output)) == 3
        made = sorted((output / "files").glob("*/*.dcm"))
        assert sorted(path.name for path in made) == sorted(MADE * 3)
        pacs.forget({pydicom.dcmread(path).SOPInstanceUID for path in made})  # what the first run sent
        (send if protocol == "node" else _store_over_web)(pacs, [pydicom.dcmread(path) for path in made])
        for path in made:
            sent = pydicom.dcmread(path)
            assert sent.StudyInstanceUID == STUDY
            assert pydicom.dcmread(io.BytesIO(pacs.stored(sent.SOPInstanceUID))) == sent
    masks = [
        [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((tmp_path / name).rglob("mask.png"))]
        for name in PROTOCOLS
    ]
    assert masks[0] == masks[1]


def _store_over_web(pacs, datasets):
    from dicomweb_client import DICOMwebClient

    answer = DICOMwebClient(pacs.web).store_instances(datasets)
    assert len(answer.ReferencedSOPSequence) == len(datasets) and not answer.get("FailedSOPSequence")
