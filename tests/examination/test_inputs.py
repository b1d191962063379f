"""From what a user names to files with names and studies: folders, globs, archives, discs, links and litter."""

import hashlib
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from input_helpers import clip, shaded
from PIL import Image
from pydicom import uid
from pydicom.fileset import FileSet
from reading_helpers import make_dicom, save, smooth_grey  # found through the line above

from echocare_hf.data.reading import read_ultrasound
from echocare_hf.examination.inputs import InputFile, find_inputs

STUDY = "1.2.826.0.1.3680043.8.498.1"


def key_of(study):
    return hashlib.sha256(study.encode()).hexdigest()[:12]


def ultrasound(study=STUDY, series="1", instance=1, **elements):
    """An ultrasound image of a made-up patient."""
    return make_dicom(
        smooth_grey(),
        PatientName="DOE^JANE",
        PatientID="12345",
        StudyInstanceUID=study,
        SeriesInstanceUID=f"{study}.{series}",
        InstanceNumber=instance,
        **elements,
    )


def png(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(shaded(0)).save(path, format="PNG")
    return path


def find(*given, work, **options):
    return find_inputs([str(text) for text in given], work, **options)


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


# --- files and folders --------------------


def test_a_file(tmp_path, work):
    path = png(tmp_path / "deep" / "image.png")
    assert find(path, work=work) == ([InputFile(path, "image.png", "files")], [])


def test_a_folder_in_natural_order_without_litter(tmp_path, work):
    folder = tmp_path / "PAT1"
    names = ["IM2.png", "IM10.png", "S2/IM1.png", "S10/IM1.png"]
    for name in [*reversed(names), ".hidden.png", "__MACOSX/._IM2.png", ".Trash/IM3.png", "@eaDir/IM2.png"]:
        png(folder / name)
    (folder / "Thumbs.db").write_bytes(b"BM" + bytes(500))
    (folder / "README").write_text("about this folder")
    (folder / "notes.txt").write_text("about this patient")
    (folder / "BMI").write_text("BMI,age\n" * 30)  # begins like a bitmap
    told = []
    files, problems = find(folder, work=work, tell=told.append)
    assert [file.name for file in files] == [f"PAT1/{name}" for name in names]
    assert [file.study for file in files] == ["PAT1", "PAT1", "PAT1_S2", "PAT1_S10"]
    assert all(file.path == folder / name for file, name in zip(files, names, strict=True))
    assert problems == []
    assert told == ["3 files are no images"]


def test_the_folder_that_the_user_is_in(tmp_path, work, monkeypatch):
    png(tmp_path / "scans" / "a.png")
    monkeypatch.chdir(tmp_path / "scans")
    assert [file.name for file in find(".", work=work)[0]] == ["scans/a.png"]
    assert [file.name for file in find("a.png", "../scans/a.png", work=work)[0]] == ["a.png"]


def test_names_are_told_apart_by_their_folders(tmp_path, work):
    paths = [png(tmp_path / name) for name in ("one/x/a.png", "two/x/a.png", "two/b.png")]
    files, _ = find(*paths, work=work)
    assert [file.name for file in files] == ["one/x/a.png", "two/x/a.png", "b.png"]
    files, _ = find(tmp_path / "one" / "x", tmp_path / "two" / "x", work=work)
    assert [file.name for file in files] == ["one/x/a.png", "two/x/a.png"]


def test_a_file_that_is_reached_twice_is_taken_once(tmp_path, work):
    path = png(tmp_path / "scans" / "a.png")
    png(tmp_path / "scans" / "b.png")
    (tmp_path / "scans" / "c.png").symlink_to(path)
    files, _ = find(path, tmp_path / "scans", tmp_path / "scans", work=work)
    assert [file.name for file in files] == ["a.png", "scans/b.png"]


def test_globs_that_no_shell_expanded(tmp_path, work):
    for name in ("a/1.png", "a/2.png", "b/10.png", "b/9.png", "b/c/3.png"):
        png(tmp_path / name)
    (tmp_path / "b" / "list.csv").write_text("no,image\n")
    assert [file.name for file in find(tmp_path / "a" / "*.png", work=work)[0]] == ["1.png", "2.png"]
    assert [file.name for file in find(tmp_path / "b" / "*", work=work)[0]] == ["9.png", "10.png", "c/3.png"]
    assert len(find(tmp_path / "**", work=work)[0]) == 5
    literal = png(tmp_path / "image[1].png")  # a name that looks like a pattern
    assert find(literal, work=work)[0][0].path == literal


def test_the_output_folder_is_not_searched(tmp_path, work):
    png(tmp_path / "scans" / "a.png")
    png(tmp_path / "scans" / "out" / "overlay.png")
    files, _ = find(tmp_path / "scans", work=work, without=[tmp_path / "scans" / "out"])
    assert [file.name for file in files] == ["scans/a.png"]


def test_folders_of_earlier_results_are_not_searched(tmp_path, work):
    png(tmp_path / "scans" / "a.png")
    png(tmp_path / "scans" / "r1" / "files" / "a.png" / "overlay.png")
    (tmp_path / "scans" / "r1" / "run.json").write_text('{"schema": "echocare-examination/1"}')
    png(tmp_path / "scans" / "other" / "b.png")
    (tmp_path / "scans" / "other" / "run.json").write_text('{"schema": "somebody else\'s"}')
    names = ["scans/a.png", "scans/other/b.png"]
    assert [file.name for file in find(tmp_path / "scans", work=work)[0]] == names
    for pattern in ("scans/*", "scans/**"):
        files, _ = find(tmp_path / pattern, work=work)
        assert {file.path.name for file in files} == {"a.png", "b.png"}
    with pytest.raises(ValueError, match="r1: holds results of echocare predict; give the images"):
        find(tmp_path / "scans" / "r1", work=work)


def test_symlink_loops_end(tmp_path, work):
    folder = tmp_path / "scans"
    png(folder / "a" / "1.png")
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (folder / "dead.dcm").symlink_to(tmp_path / "gone.dcm")
    (tmp_path / "elsewhere").mkdir()
    png(tmp_path / "elsewhere" / "2.png")
    (folder / "z").symlink_to(tmp_path / "elsewhere")
    files, problems = find(folder, work=work)
    assert [file.name for file in files] == ["scans/a/1.png", "scans/z/2.png"]
    assert {problem.name for problem in problems} == {"scans/self", "scans/dead.dcm"}
    assert all("link" in problem.reason for problem in problems)


def test_a_folder_that_may_not_be_entered_is_named(tmp_path, work, monkeypatch):
    png(tmp_path / "scans" / "open" / "1.png")
    (tmp_path / "scans" / "shut").mkdir()
    listing = Path.iterdir

    def refuse(path):
        if path.name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    files, problems = find(tmp_path / "scans", work=work)
    assert [file.name for file in files] == ["scans/open/1.png"]
    assert [(problem.name, "Permission denied" in problem.reason) for problem in problems] == [("scans/shut", True)]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_are_left_alone(tmp_path, work):
    png(tmp_path / "scans" / "1.png")
    os.mkfifo(tmp_path / "scans" / "pipe.dcm")
    assert [file.name for file in find(tmp_path / "scans", work=work)[0]] == ["scans/1.png"]
    assert "pipe" in find(tmp_path / "scans" / "pipe.dcm", tmp_path / "scans", work=work)[1][0].reason


def test_names_that_are_no_utf_8_can_be_stored(tmp_path, work):
    folder = tmp_path / "scans"
    folder.mkdir()
    source = png(tmp_path / "a.png")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).write_bytes(source.read_bytes())
    (file,) = find(folder, work=work)[0]
    assert file.name == r"scans/caf\xe9.png"
    assert read_ultrasound(file.path).frames.shape[0] == 1


# --- what is an image --------------------


def test_content_counts_where_the_suffix_says_nothing(tmp_path, work):
    folder = tmp_path / "scans"
    png(folder / "IM_0001")
    save(ultrasound(), folder / "IM_0002")
    save(ultrasound(), folder / "1.2.840.113")
    assert [file.name for file in find(folder, work=work)[0]] == [
        "scans/1.2.840.113",
        "scans/IM_0001",
        "scans/IM_0002",
    ]


def test_a_broken_image_is_an_input_that_cannot_be_read(tmp_path, work):
    folder = tmp_path / "scans"
    png(folder / "good.png")
    (folder / "broken.dcm").write_bytes(b"not DICOM")
    (folder / "empty.png").touch()
    (folder / "empty").touch()
    assert [file.name for file in find(folder, work=work)[0]] == [
        f"scans/{n}" for n in ("broken.dcm", "empty.png", "good.png")
    ]


@pytest.mark.parametrize("name", ["report.txt", "table.csv", "README", "volume.raw"])
def test_a_named_file_that_is_no_image_is_a_problem(tmp_path, work, name):
    (tmp_path / name).write_text("Findings: unremarkable.\n" * 30)
    files, problems = find(tmp_path / name, png(tmp_path / "a.png"), work=work)
    assert [file.name for file in files] == ["a.png"]
    assert [problem.name for problem in problems] == [name]
    assert str(tmp_path) not in problems[0].reason


def test_volumes_in_two_files_are_one_input(tmp_path, work):
    sitk = pytest.importorskip("SimpleITK")
    (tmp_path / "scans").mkdir()
    image = sitk.GetImageFromArray(clip(4))
    sitk.WriteImage(image, str(tmp_path / "scans" / "plain.mhd"))
    sitk.WriteImage(image, str(tmp_path / "scans" / "packed.mhd"), useCompression=True)
    sitk.WriteImage(image, str(tmp_path / "scans" / "volume.nii.gz"))
    files, problems = find(tmp_path / "scans", work=work)
    assert [file.name for file in files] == ["scans/packed.mhd", "scans/plain.mhd", "scans/volume.nii.gz"]
    assert problems == []


def test_reports_of_a_study_are_passed_over(tmp_path, work):
    folder = tmp_path / "study"
    folder.mkdir()
    save(ultrasound(), folder / "image.dcm")
    report = ultrasound(SOPClassUID=uid.ComprehensiveSRStorage)
    del report.PixelData, report.Rows, report.Columns
    save(report, folder / "report.dcm")
    save(ultrasound(SOPClassUID=uid.SegmentationStorage), folder / "segmentation.dcm")
    told = []
    assert [file.name for file in find(folder, work=work, tell=told.append)[0]] == ["study/image.dcm"]
    assert told == ["2 files are no images"]
    (problem,) = find(folder / "report.dcm", work=work)[1]
    assert "Comprehensive SR Storage" in problem.reason


# --- studies --------------------


def test_studies_of_many_series_stay_together_without_identity(tmp_path, work):
    folder = tmp_path / "export"
    for number, (study, series) in enumerate([(STUDY, "1"), (STUDY, "2"), (f"{STUDY}9", "1")]):
        (folder / f"S{number}").mkdir(parents=True)
        save(ultrasound(study, series), folder / f"S{number}" / "IM1")
    png(folder / "S0" / "extra.png")
    files, _ = find(folder, work=work)
    studies = {file.name: file.study for file in files}
    assert studies == {
        "export/S0/extra.png": "export_S0",
        "export/S0/IM1": key_of(STUDY),
        "export/S1/IM1": key_of(STUDY),
        "export/S2/IM1": key_of(f"{STUDY}9"),
    }
    assert not any(secret in repr(files) for secret in (STUDY, "DOE", "12345"))


def test_an_image_without_study_goes_by_its_folder(tmp_path, work):
    (tmp_path / "Room 4").mkdir()
    save(make_dicom(smooth_grey()), tmp_path / "Room 4" / "a.dcm")
    assert find(tmp_path / "Room 4", work=work)[0][0].study == "Room_4"


# --- archives --------------------


def test_archives(tmp_path, work):
    images = [png(tmp_path / "images" / f"IM{number}.png") for number in (1, 2)]
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.write(images[0], "PAT/IM1.png")
        archive.write(images[1], "PAT/.hidden.png")
        archive.writestr("PAT/notes.txt", "no image")
    with tarfile.open(tmp_path / "more.tar.gz", "w:gz") as archive:
        archive.add(images[1], "IM2.png")
        archive.add(tmp_path / "study.zip", "inner.zip")
    told = []
    files, problems = find(tmp_path / "study.zip", tmp_path / "more.tar.gz", work=work, tell=told.append)
    assert [file.name for file in files] == [
        "study.zip/PAT/IM1.png",
        "more.tar.gz/IM2.png",
        "more.tar.gz/inner.zip/PAT/IM1.png",
    ]
    assert [file.study for file in files] == ["study.zip_PAT", "more.tar.gz", "more.tar.gz_inner.zip_PAT"]
    assert all(file.path.is_relative_to(work) and file.path.is_file() for file in files)
    assert (problems, told) == ([], ["2 files are no images"])
    assert find(tmp_path / "study.zip", tmp_path / "more.tar.gz", work=work)[0] == files  # from what lies there


def test_a_shard_in_an_archive(tmp_path, work):
    picture = png(tmp_path / "a.png").read_bytes()
    pq.write_table(pa.table({"image": [picture, None], "label": ["cyst", "cyst"]}), tmp_path / "s.parquet")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(tmp_path / "s.parquet", "s.parquet")
    files, problems = find(tmp_path / "set.zip", work=work)
    assert [file.name for file in files] == ["set.zip/s.parquet/0000000.png"]  # without the table made of its rows
    assert [problem.reason for problem in problems] == ["1 row without an image; check the archive"]


def test_bad_archives_are_problems_with_a_cure(tmp_path, work):
    folder = tmp_path / "scans"
    png(folder / "a.png")
    (folder / "cut.zip").write_bytes(b"PK\3\4 cut short")
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr("../../evil.png", "x")
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(20_000_000))
    files, problems = find(folder, work=work)
    assert [file.name for file in files] == ["scans/a.png"]
    reasons = {problem.name: problem.reason for problem in problems}
    assert set(reasons) == {"scans/cut.zip", "scans/evil.zip", "scans/bomb.zip"}
    assert "damaged" in reasons["scans/cut.zip"]
    assert "outside" in reasons["scans/evil.zip"]
    assert "above the limit" in reasons["scans/bomb.zip"]
    assert not any(str(tmp_path) in reason for reason in reasons.values())


# --- DICOMDIR --------------------


@pytest.fixture
def disc(tmp_path):
    """A disc with a study of two series of two images each, as pydicom writes it: the folder, and its files in their order."""
    files = FileSet()
    for series in "12":
        for instance in (1, 2):
            needed = {"SeriesNumber": int(series), "StudyID": "1", "StudyDate": "20200101", "StudyTime": "120000"}
            files.add(ultrasound(series=series, instance=instance, **needed))
    files.write(tmp_path / "disc")
    return tmp_path / "disc", sorted(
        path for path in (tmp_path / "disc").rglob("*") if path.is_file() and path.name != "DICOMDIR"
    )


def test_dicomdir(disc, work):
    folder, paths = disc
    files, problems = find(folder / "DICOMDIR", work=work)
    assert sorted(file.path for file in files) == paths
    assert [file.name for file in files] == [f"disc/{file.path.relative_to(folder).as_posix()}" for file in files]
    assert {file.study for file in files} == {key_of(STUDY)}
    assert problems == []
    by_folder, problems = find(folder, work=work)
    assert {file.name for file in by_folder} == {file.name for file in files}
    assert problems == []


@pytest.mark.parametrize("named", [True, False])
def test_what_a_dicomdir_lists_and_is_not_there(disc, work, named):
    folder, paths = disc
    paths[1].unlink()
    files, problems = find(folder / "DICOMDIR" if named else folder, work=work)
    assert len(files) == 3
    assert [problem.name for problem in problems] == [f"disc/{paths[1].relative_to(folder).as_posix()}"]
    assert "DICOMDIR" in problems[0].reason


def test_a_disc_whose_names_became_lower_case(disc, work):
    folder, paths = disc
    lower = folder.parent / "lower"
    for path in [*paths, folder / "DICOMDIR"]:
        target = lower / str(path.relative_to(folder)).lower()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    for given in (lower / "dicomdir", lower):
        files, problems = find(given, work=work)
        assert len(files) == 4
        assert problems == []


def test_a_disc_in_an_archive(disc, work):
    folder, paths = disc
    with zipfile.ZipFile(folder.parent / "disc.zip", "w") as archive:
        for path in [*paths[:-1], folder / "DICOMDIR"]:
            archive.write(path, f"CD/{path.relative_to(folder)}")
    files, problems = find(folder.parent / "disc.zip", work=work)
    assert len(files) == 3
    assert [problem.name for problem in problems] == [f"disc.zip/CD/{paths[-1].relative_to(folder).as_posix()}"]


def test_a_dicomdir_that_points_elsewhere(disc, tmp_path, work):
    folder, paths = disc
    content = (folder / "DICOMDIR").read_bytes()
    name = paths[0].name.encode()
    (folder / "DICOMDIR").write_bytes(content.replace(b"\\" + name, b"\\" + b"..".ljust(len(name))))
    _, problems = find(folder / "DICOMDIR", png(tmp_path / "a.png"), work=work)
    assert "outside" in problems[0].reason
    (folder / "DICOMDIR").write_bytes(content[: len(content) // 2])
    files, problems = find(folder / "DICOMDIR", tmp_path / "a.png", work=work)
    assert [file.name for file in files] == ["a.png"]
    assert "damaged DICOMDIR" in problems[0].reason


# --- nothing --------------------


def test_an_empty_folder_is_named(tmp_path, work):
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"empty: holds no files"):
        find(tmp_path / "empty", png(tmp_path / "a.png"), work=work)


def test_a_folder_without_images_is_named(tmp_path, work):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    (tmp_path / "texts" / "b.csv").write_text("x")
    with pytest.raises(ValueError, match=r"texts: holds no image \(2 other files\)"):
        find(tmp_path / "texts", work=work)


def test_what_is_not_there(tmp_path, work):
    with pytest.raises(FileNotFoundError, match="gone: there is no such file"):
        find(tmp_path / "gone", work=work)
    with pytest.raises(FileNotFoundError, match=r"\*\.dcm: no file matches"):
        find(tmp_path / "*.dcm", work=work)
    with pytest.raises(ValueError, match="no input"):
        find(work=work)
    with pytest.raises(ValueError, match="ftp://: this kind of address"):
        find("ftp://host/file.dcm", work=work)


def test_real_samples(shared_data, work):
    files, problems = find(shared_data / "dicom_samples", work=work)
    assert problems == []
    assert sum(file.name.endswith(".dcm") for file in files) == 9
    assert all(np.prod(read_ultrasound(file.path, max_frames=1).frames.shape) > 0 for file in files[:12])
