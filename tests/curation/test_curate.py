"""The whole job on a small corpus with planted trouble: each item is found, nothing else is lost, and the counts add up."""

import csv
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from curation_helpers import phantom, save
from datasets import load_dataset
from PIL import Image
from skimage import data as pictures

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from reading_helpers import make_dicom, make_region
from reading_helpers import save as save_dicom

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.curation import CurateOptions, curate
from echocare_hf.curation.engine import run_jobs, start
from echocare_hf.curation.shards import COLUMNS
from echocare_hf.data.reading import read_ultrasound

pytest.importorskip("daft", reason="Daft (extra `curate`) is not installed")

SECRETS = ("DOE^JANE", "PID-4711", "19700101", "ST ELSEWHERE", "SECRETEXIF")
PATIENTS, IMAGES = 8, 24
OPTIONS = CurateOptions(validation=0.25, contact_images=3, every=2)


def make_corpus(root: Path) -> dict[str, tuple[str, str]]:
    """Write the corpus; returns what has to be dropped: name to step and reason."""
    rows = []
    for number in range(IMAGES):
        save(root / f"images/{number:03d}.png", phantom(number))
        rows.append(
            {
                "file_name": f"images/{number:03d}.png",
                "view": "Apical 4 chamber" if number % 2 else "",
                "organ": "heart" if number % 2 else "Livr",
                "label": "normal",
                "patient": f"patient{number % PATIENTS}",
                "licence": "CC BY 4.0",
                "mask": f"masks/{number:03d}.png" if number == 0 else "",
                "pixel_size_mm": "0.2",
            }
        )
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    trouble = {"metadata.csv": ("discover", "not_an_image"), "masks/000.png": ("discover", "label_file")}
    save(root / "masks/000.png", (phantom(0) > 100).astype(np.uint8) * 255)
    (root / "more").mkdir()

    def plant(name: str, step: str, reason: str) -> Path:
        trouble[name] = (step, reason)
        return root / name

    plant("more/exact.png", "exact_copy", "same_bytes").write_bytes((root / "images/001.png").read_bytes())
    original = Image.fromarray(phantom(2))
    save(plant("more/resized.png", "near_copy", "looks_the_same"), original.resize((120, 120)))
    save(plant("more/recompressed.jpg", "near_copy", "looks_the_same"), original, quality=60)
    brighter = Image.fromarray(np.clip(phantom(3) * 1.15, 0, 255).astype(np.uint8)).resize((190, 190))
    save(plant("more/brighter.png", "near_copy", "looks_the_same"), brighter)
    save(plant("more/black.png", "region", "no_region"), np.zeros((90, 90, 3), np.uint8))
    spots = np.zeros((90, 90, 3), np.uint8)
    spots[40:60, 40:60] = np.arange(20, dtype=np.uint8)[:, None, None] * 10 + 20
    save(plant("more/nearly_black.png", "nonzero", "few_nonzero_pixels"), spots)
    plant("more/corrupt.png", "decode", "corrupt").write_bytes((root / "images/004.png").read_bytes()[:900])
    plant("more/no_image.jpg", "decode", "corrupt").write_text("this is no image")
    save(plant("more/photo.png", "ultrasound", "coloured_all_over"), pictures.coffee())
    save(plant("more/grey_photo.png", "ultrasound", "no_speckle"), np.repeat(pictures.camera()[..., None], 3, axis=2))
    save(plant("more/drawing.png", "ultrasound", "few_grey_levels"), (pictures.horse() * np.uint8(255)))
    ct = make_dicom(phantom(30)[..., 0], PatientName="DOE^JANE")
    ct.Modality = "CT"
    save_dicom(ct, plant("more/slice.dcm", "ultrasound", "other_modality"))
    with zipfile.ZipFile(plant("more/slip.zip", "discover", "unsafe_archive"), "w") as archive:
        archive.writestr("../../escaped.png", (root / "images/005.png").read_bytes())
    with zipfile.ZipFile(plant("more/bomb.zip", "discover", "archive_limit"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(8 * 1024**2))
    return trouble


def make_good_extras(root: Path) -> set[tuple[str, int]]:
    """Good things in other forms; returns names and frames that have to be kept."""
    buffer = io.BytesIO()
    Image.fromarray(phantom(41)).save(buffer, "PNG")
    with zipfile.ZipFile(root / "good.zip", "w") as archive:
        archive.writestr("kidney/inside.png", buffer.getvalue())
    frames = np.stack([phantom(number)[..., 0] for number in (50, 51, 52, 53)])
    cine = make_dicom(
        frames,
        PatientName="DOE^JANE",
        PatientID="PID-4711",
        PatientBirthDate="19700101",
        InstitutionName="ST ELSEWHERE",
        FrameTime="40",
        SequenceOfUltrasoundRegions=[make_region(box=(0, 0, 191, 191))],
    )
    save_dicom(cine, root / "cine.dcm")
    exif = Image.Exif()
    exif[0x010E] = "SECRETEXIF"
    save(root / "exif.jpg", Image.fromarray(phantom(42)), exif=exif, quality=95)
    return {("good.zip!/kidney/inside.png", 0), ("cine.dcm", 0), ("cine.dcm", 2), ("exif.jpg", 0)}


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    """The corpus, curated once: root, output, trouble, extras, result."""
    folder = tmp_path_factory.mktemp("curate")
    root = folder / "study"
    trouble, extras = make_corpus(root), make_good_extras(root)
    result = curate([str(root)], folder / "corpus", OPTIONS, hashes=folder / "hashes.txt")
    return root, folder / "corpus", trouble, extras, result


def rows_of(output: Path) -> list[dict]:
    return [row for path in sorted((output / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def dropped(output: Path) -> dict[tuple[str, int], tuple[str, str]]:
    table = pq.read_table(output / "dropped.parquet").to_pylist()
    return {(row["source_path"], row["frame"]): (row["step"], row["reason"]) for row in table}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_planted_item_is_found_and_nothing_else_is_lost(curated):
    _, output, trouble, extras, _ = curated
    found = {name: what for (name, _), what in dropped(output).items()}
    near = {name for name, (step, _) in trouble.items() if step == "near_copy"}
    # Of an original and its copy the larger is kept, whichever that is after cropping; one of the two has to go.
    pairs = {
        "more/resized.png": "images/002.png",
        "more/recompressed.jpg": "images/002.png",
        "more/brighter.png": "images/003.png",
    }
    for name, what in trouble.items():
        if name not in near:
            assert found.pop(name) == what, name
    for name in near:
        assert any(found.get(place) == trouble[name] for place in (name, pairs[name])), name
    for name in {*near, *pairs.values()}:
        found.pop(name, None)
    assert found == {}
    kept = {(row["source_path"], row["frame"]) for row in rows_of(output)}
    assert extras <= kept
    assert {f"images/{number:03d}.png" for number in range(IMAGES) if number not in (2, 3)} <= {
        name for name, _ in kept
    }


def test_kept_and_dropped_are_what_was_found(curated):
    root, output, _, _, result = curated
    in_archive, second_frame = 1, 1  # good.zip is its one member; the cine gives two of its four frames
    files = sum(path.is_file() for path in root.rglob("*"))
    assert result.report["found"] == files - 1 + in_archive + second_frame
    assert result.report["kept"] == len(rows_of(output))
    assert result.report["dropped"] == len(dropped(output))
    assert result.report["kept"] + result.report["dropped"] == result.report["found"]


def test_datasets_streams_it(curated):
    _, output, _, _, result = curated
    streams = load_dataset(str(output), streaming=True)
    assert set(streams) == {"train", "validation"}
    rows = [row for split in ("train", "validation") for row in streams[split]]
    assert list(rows[0]) == COLUMNS and len(rows) == result.report["kept"]
    tree = AnatomyTree.default()
    for row in rows:
        assert row["image"].size == (row["width"], row["height"]) and max(row["image"].size) <= 512
        assert row["labels"] == tree.labels(row["node"]).tolist()
        assert row["split"] in ("train", "validation")
    assert sum(row["split"] == "validation" for row in rows) == result.report["images"]["split"]["validation"] > 0


def test_datasets_does_not_take_one_corpus_for_another_of_its_name(tmp_path):
    """What `load_dataset` caches goes by the name of the folder and what its card says."""
    found = []
    for number in range(2):
        source, output = tmp_path / f"source{number}", tmp_path / f"place{number}" / "corpus"
        for image in range(4):
            save(source / f"{image}.png", phantom(10 * number + image))
        curate([str(source)], output, CurateOptions(contact_images=0))
        rows = load_dataset(str(output), cache_dir=str(tmp_path / "cache"))
        found.append({row["id"] for split in rows.values() for row in split})
        assert found[-1] == {row["id"] for row in rows_of(output)} and len(found[-1]) == 4
    assert not found[0] & found[1]


def test_labels_licences_groups_and_spacing_come_with_the_image(curated):
    rows = {row["source_path"]: row for row in rows_of(curated[1])}
    odd, even, archived = rows["images/005.png"], rows["images/006.png"], rows["good.zip!/kidney/inside.png"]
    assert odd["node"] == "heart_a4c" and even["node"] == "liver"  # "Livr" is close enough
    assert odd["licence"] == "CC BY 4.0" and odd["label"] == "normal" and odd["source"] == "study"
    assert odd["group"] == "study/patient5" and archived["group"] is None
    assert archived["node"] == "kidney" and archived["label"] == "kidney"
    assert odd["spacing_row_mm"] == pytest.approx(0.2)
    mapped = (curated[1] / "labels.csv").read_text()
    assert "organ,Livr,liver,close,12" in mapped and "label,normal,,unmapped" in mapped


def test_no_patient_and_no_near_copy_is_in_two_splits(curated):
    rows = rows_of(curated[1])
    for column in ("group", "cluster"):
        splits: dict[str, set[str]] = {}
        for row in rows:
            if row[column] is not None:
                splits.setdefault(row[column], set()).add(row["split"])
        assert splits and all(len(found) == 1 for found in splits.values())


def test_nothing_that_identifies_a_person_reaches_the_output(curated):
    root, output, _, _, _ = curated
    everything = {name: content for name, content in contents(output).items() if not name.endswith(".parquet")}
    for path in output.rglob("*.parquet"):  # compressed: the raw bytes would show nothing
        for number, row in enumerate(pq.read_table(path).to_pylist()):
            image = row.pop("image", None)
            everything[f"{path.name} {number}"] = repr(row).encode()
            if image is not None:
                everything[f"{path.name} {number} image"] = image["bytes"] + str(image["path"]).encode()
                assert not Image.open(io.BytesIO(image["bytes"])).getexif()
    assert any(b"unsafe_archive" in content for content in everything.values()), "details of dropped archives are read"
    for secret in SECRETS:
        assert any(secret.encode() in content for content in contents(root).values()), "the test plants it"
        assert not [name for name, content in everything.items() if secret.encode() in content]
    assert not [name for name, content in everything.items() if str(root.parent).encode() in content], (
        "nor a path of this machine"
    )


def test_stored_pixels_are_those_of_the_file(curated):
    root, output, _, _, _ = curated
    (row,) = [row for row in rows_of(output) if row["source_path"] == "cine.dcm" and row["frame"] == 2]
    stored = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("L"), int)
    frame = read_ultrasound(root / "cine.dcm").frames[2][..., 0].astype(int)
    assert stored.shape[0] <= frame.shape[0] and abs(stored.mean() * stored.size / frame.sum() - 1) < 0.03


def test_running_again_changes_nothing_and_reads_nothing(curated, tmp_path):
    root, output, _, _, _ = curated
    before = contents(output)
    again = curate([str(root)], output, OPTIONS)
    assert again.frames == 0, "no chunk was measured anew"
    assert contents(output) == before


def test_another_source_recomputes_only_its_own_files(curated, tmp_path):
    root, output, _, _, first = curated
    for number in range(3):
        save(tmp_path / f"other/breast/{number}.png", phantom(60 + number))
    again = curate([str(root), str(tmp_path / "other")], output, OPTIONS)
    assert again.frames == 3
    assert again.report["kept"] == first.report["kept"] + 3
    assert again.report["images"]["source"]["other"] == 3
    assert curate([str(root)], output, OPTIONS).report["kept"] == first.report["kept"]


def test_excluded_images_do_not_enter(curated, tmp_path):
    root, output, _, _, first = curated
    with zipfile.ZipFile(tmp_path / "bench.zip", "w") as archive:
        for number in (7, 8):
            buffer = io.BytesIO()
            Image.fromarray(phantom(number)).resize((170, 170)).save(buffer, "JPEG", quality=80)
            archive.writestr(f"{number}.jpg", buffer.getvalue())
    curate(
        [str(tmp_path / "bench.zip")],
        tmp_path / "bench",
        CurateOptions(contact_images=0),
        hashes=tmp_path / "list.txt",
    )
    again = curate([str(root)], output, OPTIONS, exclude=[tmp_path / "list.txt"])
    found = {name: what for (name, _), what in dropped(output).items() if what[0] == "excluded"}
    assert set(found) == {"images/007.png", "images/008.png"}
    assert again.report["kept"] == first.report["kept"] - 2


def test_marks_of_the_contact_sheet_are_honoured(curated, tmp_path):
    root, output, _, _, first = curated
    pages = "".join(path.read_text() for path in (output / "contact_sheet").glob("*.html"))
    (row,) = [row for row in rows_of(output) if row["source_path"] == "images/009.png"]
    (tmp_path / "marks.csv").write_text(f'id,note\n{row["id"]},"not a heart, I think"\n')
    again = curate([str(root)], output, OPTIONS, marks=tmp_path / "marks.csv")
    assert dropped(output)["images/009.png", 0] == ("marked", "marked_by_a_person")
    assert again.report["kept"] == first.report["kept"] - 1
    assert pages.count("<figure id=") >= 6 and "marks.csv" in pages


def test_no_images_is_one_line(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("nothing")
    with pytest.raises(ValueError, match="no image is left of 1 found \\(1 not_an_image\\)"):
        curate([str(tmp_path / "texts")], tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    "sources, match", [([], "no source given"), (["missing"], "no such file"), (["a", "b/a"], "other=")]
)
def test_wrong_sources_are_one_line(tmp_path, monkeypatch, sources, match):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b/a"):
        save(tmp_path / name / "x.png", phantom(1))
    with pytest.raises((ValueError, OSError), match=match):
        curate(sources, tmp_path / "corpus")


def test_an_output_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1.txt").write_text("years of work")
    with pytest.raises(ValueError, match="something else than a curated corpus"):
        curate([str(tmp_path)], tmp_path / "thesis")
    assert (tmp_path / "thesis/chapter1.txt").read_text() == "years of work"


def test_two_runs_do_not_mix(tmp_path):
    import fcntl

    (tmp_path / "corpus.work").mkdir()
    save(tmp_path / "a/x.png", phantom(1))
    with (tmp_path / "corpus.work/lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run is writing"):
            curate([str(tmp_path / "a")], tmp_path / "corpus")


def test_jobs_give_back_their_results():
    start("local")
    assert sorted(run_jobs(json.dumps, ["a", "b", "c"], 1)) == ['"a"', '"b"', '"c"']
