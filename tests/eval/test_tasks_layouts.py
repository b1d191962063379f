"""eval/tasks on wrong layouts: each gets one line that names the file, what was expected there, and the cure."""

import csv
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / "eval"))
import miniatures
from tasks import TASKS

NEEDS = {"thyroid_cineclip": "h5py", "sysu_fll_ceus": "av", "camus": "SimpleITK"}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return tmp_path_factory.mktemp("originals")


@pytest.fixture
def copy_of(originals, tmp_path):
    """A miniature of one's own."""

    def copy(layout):
        if layout in NEEDS:
            pytest.importorskip(NEEDS[layout])
        if not (originals / layout).exists():
            miniatures.make_miniature(layout, originals / layout)
        return Path(shutil.copytree(originals / layout, tmp_path / layout))

    return copy


def remove(name):
    def change(root):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def rename(name, other):
    return lambda root: (root / name).rename(root / other)


def edit(name, old, new, encoding="utf-8"):
    def change(root):
        text = (root / name).read_text(encoding=encoding)
        assert old in text
        (root / name).write_text(text.replace(old, new, 1), encoding=encoding)

    return change


def without_last_line(name):
    def change(root):
        lines = (root / name).read_text().splitlines()
        (root / name).write_text("\n".join(lines[:-1]) + "\n")

    return change


def cut(name, length):
    """Keeps the first bytes of a file."""
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:length])


def paint(name, value):
    """Gives a pixel of a mask another value."""

    def change(root):
        mask = Image.open(root / name)
        mask.putpixel((0, 0), value)
        mask.save(root / name)

    return change


def without_array(name):
    def change(root):
        import h5py

        with h5py.File(root / "dataset.hdf5", "a") as file:
            del file[name]

    return change


WRONG = {
    "ddti": [
        (
            lambda root: [path.unlink() for path in root.glob("*.xml")],
            r"ddti/1\.xml: was expected here .*give the folder",
        ),
        (remove("4_2.jpg"), r"4_2\.jpg: was expected here, the image of a <mark> in 4\.xml"),
        (cut("5.xml", 200), r"5\.xml: is damaged XML .*download this case of DDTI again"),
        (edit("5.xml", '"points": [{', '"points": {['), r"5\.xml: <svg> of image 1 is no JSON list of regions"),
        (edit("5.xml", '"x": ', '"z": '), r"5\.xml: image 1 has a point without x and y"),
        (cut("6_1.jpg", 300), r"6_1\.jpg: is no readable image"),
    ],
    "musv": [
        (
            rename("Annotations", "Labels"),
            r"musv/Annotations: was expected here \(Mus-V.*holds Forces, Labels, Videos",
        ),
        (rename("Videos/valid", "Videos/val"), r"Videos/valid: was expected here: the official split .*unpack"),
        (
            rename("Videos/train/subject0_neck_001.png", "Videos/train/frame.png"),
            r"frame\.png: is not named <clip>_<number>",
        ),
        (paint("Annotations/subject1_neck_002.png", 3), r"subject1_neck_002\.png: has the mask values 3"),
        (
            lambda root: [path.unlink() for path in (root / "Annotations").glob("*.png")],
            r"Annotations: no mask has the name",
        ),
    ],
    "abdomenus": [
        (
            rename("masks", "labels"),
            r"abdomenus/masks: was expected here \(AbdomenUS, whose own layout is not published",
        ),
        (paint("masks/case03/1.png", 9), r"masks/case03/1\.png: has the mask values 9"),
        (edit("labelled.csv", "spleen", "heart"), r"labelled\.csv: line 2 names 'heart', which is none of liver"),
        (edit("labelled.csv", "case02/0", "case99/0"), r"labelled\.csv: names case99/0\.png, which has no image"),
    ],
    "thyroid_cineclip": [
        (remove("metadata.csv"), r"metadata\.csv: was expected here \(Thyroid Ultrasound Cine-clip"),
        (cut("dataset.hdf5", 3000), r"dataset\.hdf5: is damaged or cut short .*download it again"),
        (without_array("annot_id"), r"dataset\.hdf5: was expected to hold the array annot_id, but has image, mask"),
        (edit("metadata.csv", "histopath_diagnosis", "diagnosis"), r"metadata\.csv: .*the column histopath_diagnosis"),
        (edit("metadata.csv", "1_,41,F", "1_,41"), r"metadata\.csv: line 2 has 8 cells, its first line 9; download"),
        (edit("metadata.csv", ",4,0\n", ",4,unsure\n"), r"metadata\.csv: line 2 has the histopath_diagnosis 'unsure'"),
        (
            edit("metadata.csv", "2_,42", "99_,42"),
            r"metadata\.csv: line 3 lists 99_, of which dataset\.hdf5 has no frame",
        ),
    ],
    "busbra": [
        (remove("5-fold-cv.csv"), r"5-fold-cv\.csv: was expected here \(BUS-BRA"),
        (rename("Images", "Pictures"), r"busbra/Images: was expected here .*holds 5-fold-cv\.csv"),
        (
            remove("Images/bus_0004-l.png"),
            r"Images/bus_0004-l\.png: was expected here: the image that .*bus_data\.csv: line \d+ lists",
        ),
        (edit("bus_data.csv", "BIRADS", "Category"), r"bus_data\.csv: was expected to have the column BIRADS"),
        (
            edit("bus_data.csv", "bus_0001-l,1,unknown", "bus_0001-l,1"),
            r"bus_data\.csv: line 2 has 9 cells, its first line 10",
        ),
        (
            edit("bus_data.csv", "malignant,4", "malignant,6"),
            r"bus_data\.csv: line \d+: bus_\S+ has the BI-RADS category '6'",
        ),
        (edit("5-fold-cv.csv", "benign,2", "benign,two"), r"5-fold-cv\.csv: line \d+, column kFold, says 'two'"),
        (edit("5-fold-cv.csv", "bus_0001-l", "bus_0099-l"), r"bus_data\.csv: line 2: bus_0001-l stands in no fold of"),
        (cut("Images/bus_0002-l.png", 100), r"bus_0002-l\.png: "),
    ],
    "sysu_fll_ceus": [
        (rename("FNH", "other"), r"sysu_fll_ceus/FNH: was expected here: SYSU-FLL-CEUS has .*holds HCC, HEM, other"),
        (
            lambda root: [path.unlink() for path in (root / "HEM").iterdir()],
            r"HEM/1\.avi: was expected here, a video a case",
        ),
        (cut("HCC/2.avi", 100), r"HCC/2\.avi: "),
    ],
    "focus": [
        (rename("testing", "test"), r"focus/testing: was expected here \(FOCUS"),
        (
            rename("training/annfiles_ellipse", "training/ellipses"),
            r"training/annfiles_ellipse: was expected here: the ellipses",
        ),
        (
            remove("validation/annfiles_ellipse/002.txt"),
            r"annfiles_ellipse/002\.txt: was expected here: the ellipses of .*002\.png",
        ),
        (
            edit("training/annfiles_ellipse/003.txt", "thorax", "lung"),
            r"003\.txt: line 2 is .*expected five numbers and cardiac or thorax",
        ),
        (
            edit("training/annfiles_ellipse/003.txt", ".", ",", "utf-8"),
            r"003\.txt: line 1 says .* where a number was expected",
        ),
    ],
    "brain_landmarks": [
        (remove("landmarks.csv"), r"landmarks\.csv: was expected here .*no CSV file"),
        (edit("landmarks.csv", "skull_1_x", "skull_1"), r"landmarks\.csv: its columns .*: 23 points, expected 24"),
        (edit("landmarks.csv", "file_name", "scan"), r"landmarks\.csv: was expected to have a column of file names"),
        (remove("images/P3_1.png"), r"landmarks\.csv: line \d+ belongs to the image P3_1, which is not in the folder"),
        (edit("landmarks.csv", "P2_1.png,", "P2_1.png,left"), r"landmarks\.csv: line \d+, skull_1, says 'left"),
    ],
    "brain_landmarks_points": [
        (
            edit("points.csv", "P1-1.png,P1,midline_2", "P1-1.png,P1,midline_3"),
            r"points\.csv: P1-1 lacks the point midline_2; add it",
        ),
    ],
    "brain_landmarks_tables": [
        (edit("points/P4_1.csv", "x,y", "a,b"), r"P4_1\.csv: was expected to have the column x, y"),
        (cut("points/P4_1.csv", 60), r"P4_1\.csv"),
    ],
    "camus": [
        (
            remove("database_nifti"),
            r"camus/database_nifti/patient0001: was expected here \(CAMUS",
        ),
        (
            remove("database_nifti/patient0004/Info_4CH.cfg"),
            r"patient0004/Info_4CH\.cfg: was expected here: ejection fraction",
        ),
        (
            remove("database_nifti/patient0004/patient0004_2CH_half_sequence.nii.gz"),
            r"patient0004_2CH_half_sequence\.nii\.gz: was expected here \(or",
        ),
        (
            edit("database_nifti/patient0002/Info_2CH.cfg", "EF: 42", "EF: good"),
            r"Info_2CH\.cfg: EF says 'good' where a number",
        ),
        (
            edit("database_nifti/patient0002/Info_2CH.cfg", "EF: 42", "EF: 142"),
            r"Info_2CH\.cfg: has an ejection fraction of 142 %",
        ),
        (
            edit("database_nifti/patient0002/Info_2CH.cfg", "FrameRate: 50.0", "FrameRate: 0"),
            r"Info_2CH\.cfg: has a FrameRate of 0",
        ),
        (
            remove("database_split/subgroup_testing.txt"),
            r"subgroup_testing\.txt: was expected here: the official split",
        ),
        (
            edit("database_split/subgroup_training.txt", "patient0003\n", ""),
            r"database_split: patient0003 stands in none",
        ),
        (
            edit("database_split/subgroup_testing.txt", "patient0004", "patient0002"),
            r"subgroup_testing\.txt: patient0002 stands in train too",
        ),
        (
            cut("database_nifti/patient0005/patient0005_4CH_half_sequence.nii.gz", 200),
            r"patient0005_4CH_half_sequence\.nii\.gz: ",
        ),
    ],
    "usenhance": [
        (remove("train_datasets/liver"), r"train_datasets/liver: was expected here \(USenhance"),
        (
            rename("train_datasets/kidney/low_quality", "train_datasets/kidney/low"),
            r"kidney/low_quality: was expected here: images of kidney",
        ),
        (
            remove("train_datasets/breast/high_quality/0002.png"),
            r"breast/high_quality/0002\.png: was expected here, the pair",
        ),
    ],
    "usreport": [
        (remove("new_Mammary2.json"), r"new_Mammary2\.json: was expected here \(USData"),
        (rename("Thyroid_report", "pictures"), r"Thyroid_report: was expected here \(or Thyroid"),
        (cut("new_Liver2.json", 300), r"new_Liver2\.json: is damaged JSON at line 1 .*download it again"),
        (
            edit("new_Liver2.json", '"val"', '"dev"', "utf-8-sig"),
            r"new_Liver2\.json: was expected to hold lists named train, val and test",
        ),
        (edit("new_Liver2.json", '"finding"', '"text"', "utf-8-sig"), r"new_Liver2\.json: train 0 has no finding"),
        (
            remove("Liver_report/1003_2.jpeg"),
            r"Liver_report/1003_2\.jpeg: was expected here, an image that .*new_Liver2\.json: train 3 names",
        ),
    ],
    "ovarian": [
        (rename("OTU_2d", "2d"), r"ovarian/OTU_2d: was expected here \(MMOTU"),
        (remove("OTU_2d/val_cls.txt"), r"val_cls\.txt: was expected here: the classes of MMOTU"),
        (
            edit("OTU_2d/train_cls.txt", "3.JPG  2", "3.JPG  9"),
            r"train_cls\.txt: line 3 is '3\.JPG  9', expected a file name and a class",
        ),
        (remove("OTU_2d/images/4.JPG"), r"images/4\.JPG: was expected here: an image that .*line 4 lists"),
    ],
}


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        pytest.param(layout, change, message, id=f"{layout} {number}")
        for layout, cases in WRONG.items()
        for number, (change, message) in enumerate(cases)
    ],
)
def test_a_wrong_layout_names_the_file_and_the_cure(layout, change, message, copy_of):
    root = copy_of(layout)
    change(root)
    key = layout if layout in TASKS else layout.rpartition("_")[0]
    with pytest.raises(ValueError) as caught:
        TASKS[key].read(root)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(str(root.parent)) and ";" in text, text
    assert re.search(message, text), text


def test_a_folder_that_is_not_there():
    with pytest.raises(ValueError, match="nowhere: there is no such folder; --data is the folder that holds busbra"):
        TASKS["busbra"].read("nowhere")


def test_what_cannot_be_read_is_left_out_and_named_if_asked_for(copy_of):
    root = copy_of("ddti")
    cut("5.xml", 200)(root)
    cut("6_1.jpg", 300)(root)
    data = TASKS["ddti"].read(root, strict=False)
    assert not {"5_1.jpg", "6_1.jpg"} & {sample.name for sample in data.samples} and len(data) == 9
    notes = [problem for problem in data.problems if problem.endswith("left out")]
    assert len(notes) == 2 and "5.xml" in notes[0] and "6_1.jpg" in notes[1]
    assert "526 fewer" not in TASKS["ddti"].check(data)[0] and "636 fewer in all" in TASKS["ddti"].check(data)[0]


def test_a_sequence_that_is_cut_short_is_left_out_if_asked_for(copy_of):
    root = copy_of("camus")
    cut("database_nifti/patient0005/patient0005_4CH_half_sequence.nii.gz", 200)(root)
    data = TASKS["camus"].read(root, strict=False)
    assert len(data) == 19 and "patient0005_4CH_half_sequence.nii.gz" in data.problems[-1]


def test_frames_without_masks_are_named(copy_of):
    root = copy_of("musv")
    remove("Annotations/subject2_neck_003.png")(root)
    data = TASKS["musv"].read(root)
    assert len(data) == 20 and "1 frames have no mask and are no examples: subject2_neck_003.png" in data.problems[0]


def test_names_in_another_case_and_in_a_folder_of_their_own_will_do(copy_of):
    root = copy_of("busbra")
    (root / "Images").rename(root / "images")
    assert len(TASKS["busbra"].read(root)) == 30


def test_brain_images_whose_names_tell_no_patient_have_no_group(copy_of):
    root = copy_of("brain_landmarks_tables")
    for number, path in enumerate(sorted((root / "images").iterdir())):
        (root / "points" / f"{path.stem}.csv").rename(root / "points" / f"{number}.csv")
        path.rename(path.with_name(f"{number}.png"))
    data = TASKS["brain_landmarks"].read(root)
    assert {sample.group for sample in data.samples} == {None} and {sample.split for sample in data.samples} == {
        "train",
        "test",
    }


EVERY_EDITION = {
    **{name: name for name in TASKS if name in miniatures.LAYOUTS},
    "abdomenus_organs": "abdomenus",
    "brain_landmarks_points": "brain_landmarks",
    "camus_mhd": "camus",
}


def told(data):
    """What a reader found, whatever the case of letters."""
    return sorted(
        (sample.name.lower(), str(sample.group).lower(), sample.split, sample.label, sample.targets)
        for sample in data.samples
    ), sorted(
        (sample.name.lower(), sample.boxes, sample.keypoints, sample.labelled_classes) for sample in data.samples
    )


def files_below(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


def unpacked_elsewhere(root):
    """In four folders that hold nothing else, as unpacking twice makes them, with what macOS and Windows leave beside the files."""
    inside = root.parent / "inside"
    root.rename(inside)
    for folder in [inside, *(path for path in inside.rglob("*") if path.is_dir())]:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).write_bytes(b"\xd0\xcf\x11\xe0")
    for path in files_below(inside):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    home = root / "Archiv" / "Daten für Ärzte 数据" / "v1" / "x"
    home.parent.mkdir(parents=True)
    shutil.copytree(inside, root / "Archiv" / "__MACOSX")
    inside.rename(home)


def in_capitals(root):
    for path in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
        if path.suffix != ".raw":  # the header of its volume names it
            path.rename(path.with_name(path.name.upper()))


def with_windows_lines(root):
    for path in files_below(root):
        if path.suffix in (".csv", ".txt", ".xml", ".cfg", ".json"):
            text = path.read_bytes().decode("utf-8-sig").replace("\n", "\r\n")
            path.write_bytes(b"\xef\xbb\xbf" + text.encode())


def in_utf_16(root):
    for path in files_below(root):
        if path.suffix in (".csv", ".txt", ".json"):
            path.write_bytes(path.read_bytes().decode("utf-8-sig").encode("utf-16"))


@pytest.mark.parametrize(
    ("layout", "change"),
    [
        *((layout, change) for layout in EVERY_EDITION for change in (unpacked_elsewhere, in_capitals)),
        *(
            (layout, with_windows_lines)
            for layout in EVERY_EDITION
            if layout not in ("musv", "sysu_fll_ceus", "usenhance")
        ),
        *((layout, in_utf_16) for layout in ("busbra", "focus", "camus", "usreport", "ovarian")),
    ],
)
def test_what_unpacking_and_other_systems_make_of_a_layout_is_read_as_before(layout, change, copy_of):
    root = copy_of(layout)
    task = TASKS[EVERY_EDITION[layout]]
    before = told(task.read(root))
    change(root)
    assert told(task.read(root)) == before


@pytest.mark.parametrize(
    ("layout", "delimiter"),
    [("busbra", "\t"), ("thyroid_cineclip", ";"), ("brain_landmarks", ";"), ("brain_landmarks_points", "\t")],
)
def test_tables_as_spreadsheets_save_them_are_read_as_before(layout, delimiter, copy_of):
    root, task = copy_of(layout), TASKS[EVERY_EDITION[layout]]
    before = told(task.read(root))
    for path in root.rglob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        if delimiter == ";":  # 12,0 for 12
            rows = [
                [f"{cell},0" if cell.isdigit() and layout == "brain_landmarks" else cell for cell in row]
                for row in rows
            ]
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file, delimiter=delimiter).writerows(rows)
    assert told(task.read(root)) == before


@pytest.mark.parametrize(
    ("layout", "change", "words"),
    [
        (
            "musv",
            remove("Videos/train/subject1_neck_001.png"),
            ("1 masks belong to no image", "subject1_neck_001.png"),
        ),
        ("abdomenus", remove("images/case05/1.png"), ("1 masks belong to no image", "case05/1.png")),
        ("abdomenus_organs", remove("images/case08_1.png"), ("belong to no image", "case08_1_")),
        ("focus", remove("training/images/003.png"), ("1 files of ellipses belong to no image", "training/003.txt")),
        (
            "focus",
            lambda root: (root / "testing/annfiles_ellipse/001.txt").write_text("40 40 20 10 30 thorax\n"),
            ("1 images have not both a heart and a thorax", "testing/001.png"),
        ),
        ("busbra", without_last_line("bus_data.csv"), ("1 images have no row in bus_data.csv", "bus_")),
        ("ovarian", without_last_line("OTU_2d/val_cls.txt"), ("1 images stand in neither list", "24.JPG")),
    ],
)
def test_labels_without_images_and_images_without_labels_are_named(layout, change, words, copy_of):
    root, task = copy_of(layout), TASKS[EVERY_EDITION[layout]]
    before = task.read(root).problems
    change(root)
    (new,) = set(task.read(root).problems) - set(before)
    assert all(word in new for word in words), new


def test_pairs_are_asked_for_with_true_or_false(copy_of):
    with pytest.raises(ValueError, match="paired is true or false, not 'maybe'"):
        TASKS["usenhance"].read(copy_of("usenhance"), paired="maybe")
