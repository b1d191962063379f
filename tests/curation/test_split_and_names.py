"""What must stay in one split, and file names that are no UTF-8."""

import os
import sys

import pyarrow.parquet as pq
import pytest
from curation_helpers import phantom, save
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

from echocare_hf.curation import CurateOptions, curate

pytest.importorskip("daft", reason="Daft (extra `curate`) is not installed")


def rows(output):
    return [row for path in (output / "data").glob("*.parquet") for row in pq.read_table(path).to_pylist()]


def test_frames_of_one_file_stay_together_however_different_they_are(tmp_path):
    for clip in range(6):
        frames = [Image.fromarray(phantom(10 * clip + number)) for number in range(4)]
        path = tmp_path / f"study/{clip}.gif"
        path.parent.mkdir(exist_ok=True)
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
    options = CurateOptions(validation=0.5, every=1, near_distance=-1, check_ultrasound=False, contact_images=0)
    curate([str(tmp_path / "study")], tmp_path / "corpus", options)
    found = rows(tmp_path / "corpus")
    assert len(found) == 24 and {row["split"] for row in found} == {"train", "validation"}
    for clip in range(6):
        frames = [row for row in found if row["source_path"] == f"{clip}.gif"]
        assert len(frames) == 4
        assert len({row["cluster"] for row in frames}) == len({row["split"] for row in frames}) == 1
    assert len({row["cluster"] for row in found}) == 6


def dicom(path, patient, study, pixels, modality="US", **more):
    """A DICOM file of one frame."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = UltrasoundImageStorage, generate_uid()
    data.PatientID, data.StudyInstanceUID = patient, study
    for name, value in (more | ({"Modality": modality} if modality else {})).items():
        setattr(data, name, value)
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = pixels[..., 0].tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def test_files_of_one_patient_stay_together_and_the_patient_is_not_told(tmp_path):
    for number in range(12):
        dicom(tmp_path / f"study/{number}.dcm", f"MRN{number // 3}77", f"1.2.{number}", phantom(number))
    for number in range(12, 16):  # a placeholder: the study tells
        dicom(tmp_path / f"study/{number}.dcm", "ANONYMOUS", f"1.3.{number // 2}", phantom(number))
    options = CurateOptions(near_distance=-1, check_ultrasound=False, find_region=False, remove_text=False)
    curate([str(tmp_path / "study")], tmp_path / "corpus", options)
    found = {int(row["source_path"].split(".")[0]): row for row in rows(tmp_path / "corpus")}
    clusters = [found[number]["cluster"] for number in range(16)]
    assert [clusters.index(cluster) for cluster in clusters] == [0] * 3 + [3] * 3 + [6] * 3 + [9] * 3 + [12] * 2 + [
        14
    ] * 2
    stored = str(list(found.values())) + (tmp_path / "corpus/README.md").read_text()
    assert "MRN" not in stored and "patient" not in found[0]


def test_pseudonyms_and_headers_that_lack_something_tell_the_patient_too(tmp_path):
    """Each row is a patient whose two files are of two studies."""
    headers = [
        ("ANON0042", {}, {}),
        ("test-7", {}, {}),
        ("MRN100", {"modality": ""}, {}),
        ("MRN200", {"IssuerOfPatientID": "HOSPITAL"}, {}),
    ]
    for number, (patient, *both) in enumerate(headers):
        for study, more in enumerate(both):
            image = 2 * number + study
            dicom(tmp_path / f"study/{patient}_{study}.dcm", patient, f"1.2.{image}", phantom(image), **more)
    options = CurateOptions(near_distance=-1, check_ultrasound=False, find_region=False, remove_text=False)
    curate([str(tmp_path / "study")], tmp_path / "corpus", options)
    clusters: dict[str, set[str]] = {}
    for row in rows(tmp_path / "corpus"):
        clusters.setdefault(row["cluster"], set()).add(row["source_path"])
    assert sorted(map(sorted, clusters.values())) == sorted([f"{p}_0.dcm", f"{p}_1.dcm"] for p, _, _ in headers)


def test_an_exact_copy_that_is_dropped_still_ties_its_patient_to_the_kept_one(tmp_path):
    """Two folders, each with a table, share files: patients a and x are one, b and y, and also z and v, whose copies are both of c."""
    first = {"a0": 0, "a1": 1, "b0": 2, "b1": 3, "z0": 4, "z1": 5}
    second = {"x0": 0, "x1": 10, "y0": 3, "y1": 11, "c0": 4, "c1": 5, "w0": 12}
    for folder, images in (("first", first), ("second", second)):
        for name, number in images.items():
            save(tmp_path / folder / f"{name}.png", phantom(number))
        lines = [f"{name}.png,{name[0]}" if name != "z1" else "z1.png,v" for name in images]
        (tmp_path / folder / "metadata.csv").write_text("\n".join(["file_name,patient", *lines]) + "\n")
    options = CurateOptions(near_distance=-1, check_ultrasound=False, find_region=False, remove_text=False)
    curate([str(tmp_path / "first"), str(tmp_path / "second")], tmp_path / "corpus", options)
    clusters: dict[str, set[str]] = {}
    for row in rows(tmp_path / "corpus"):
        clusters.setdefault(row["cluster"], set()).add(row["source_path"].removesuffix(".png"))
    assert sorted(map(sorted, clusters.values())) == [["a0", "a1", "x1"], ["b0", "b1", "y1"], ["w0"], ["z0", "z1"]]


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_a_name_that_is_no_utf8_is_kept_readable(tmp_path):
    save(tmp_path / "study/liver/a.png", phantom(1))
    save(tmp_path / "study/liver/b.png", phantom(2))
    (tmp_path / "study/liver/a.png").rename(tmp_path / "study/liver" / os.fsdecode(b"caf\xe9.png"))
    (tmp_path / "study" / os.fsdecode(b"notes\xe9.txt")).write_text("x")
    curate([str(tmp_path / "study")], tmp_path / "corpus", CurateOptions(near_distance=-1, check_ultrasound=False))
    assert {row["source_path"] for row in rows(tmp_path / "corpus")} == {"liver/caf\\xe9.png", "liver/b.png"}
    dropped = pq.read_table(tmp_path / "corpus/dropped.parquet").to_pylist()
    assert [row["source_path"] for row in dropped] == ["notes\\xe9.txt"]
