"""Tables as hospitals write them: a table that cannot serve is said so, since without it nobody knows which images are of one patient."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from curation_helpers import save

from echocare_hf.curation.drops import Drops
from echocare_hf.curation.facts import Facts, read_facts
from echocare_hf.curation.sources import discover, open_source, sort_by_type

BLACK = np.zeros((16, 16, 3), np.uint8)


def facts_of(place: Path, work: Path) -> tuple[dict[str, Facts], list[str]]:
    """What is known of each image of a source, and what is wrong with its tables."""
    source, drops, problems = open_source(str(place), work), Drops(work / "drops"), []
    files, tables = sort_by_type(discover(source, work, drops), work, drops)
    found = read_facts(source.name, source.root, files, tables, source.table, problems)
    return {file.name: facts for file, facts in found}, problems


@pytest.fixture
def scans(tmp_path):
    for name in ("images/a.png", "images/b.png"):
        save(tmp_path / "scans" / name, BLACK)
    return tmp_path / "scans"


@pytest.mark.parametrize(
    "header",
    [
        "file_name,patient_id,label",
        "File Name,Patient ID,Class",
        "file-name;PatientID;diagnosis",
        "image path\tSubject-ID\tLabel",
    ],
)
def test_columns_are_known_however_their_words_are_parted(scans, tmp_path, header):
    mark = next(mark for mark in ",;\t" if mark in header)
    lines = [header, mark.join(("images/a.png", "7", "liver")), mark.join(("images/b.png", "7", "liver"))]
    (scans / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    facts, problems = facts_of(scans, tmp_path / "work")
    assert {(one.group, one.label) for one in facts.values()} == {("scans/7", "liver")} and problems == []


def test_a_column_of_the_exact_name_goes_first(scans, tmp_path):
    (scans / "metadata.csv").write_text("file_name,Patient ID,patient_id\nimages/a.png,no,yes\nimages/b.png,no,yes\n")
    facts, _ = facts_of(scans, tmp_path / "work")
    assert {one.group for one in facts.values()} == {"scans/yes"}


@pytest.mark.parametrize(
    "name, content, problem",
    [
        (
            "metadata.csv",
            "file_name,patient\nA.PNG,1\nb.png,1\n",
            "2 of 2 files that it names are no images that were found, such as 'A.PNG'",
        ),
        (
            "metadata.csv",
            "file_name,patient\nimages/a.png,1\nimages/b,1\n",
            "1 of 2 files that it names are no images",
        ),
        ("metadata.csv", "name,patient\nimages/a.png,1\n", "has no column of files (file_name, image, "),
        (
            "patients.csv",
            "file_name,patient\nimages/a.png,1\n",
            "names images, but tables of this name are not read; call it metadata.csv",
        ),
        ("tables/labels.csv", "file_name,patient\n../images/a.png,1\n", "there is no image in its folder or below"),
    ],
)
def test_a_table_that_tells_nothing_of_the_images_is_named(scans, tmp_path, name, content, problem):
    (scans / name).parent.mkdir(exist_ok=True)
    (scans / name).write_text(content)
    facts, problems = facts_of(scans, tmp_path / "work")
    assert sorted(facts) == ["images/a.png", "images/b.png"] and len(problems) == 1
    assert problems[0].startswith(f"{name}: ") and problem in problems[0] and str(tmp_path) not in problems[0]


@pytest.mark.parametrize(
    "others",
    [
        {"measurements.csv": "time,force\n1,2\n"},
        {"metadata.csv": "file_name\nimages/a.png\nimages/b.png\n", "clips.csv": "file_name,patient\nx.mp4,1\n"},
    ],
)
def test_tables_of_other_things_are_not_worth_a_word(scans, tmp_path, others):
    for name, content in others.items():
        (scans / name).write_text(content)
    assert facts_of(scans, tmp_path / "work")[1] == []


@pytest.mark.parametrize("table", ["list.csv", "metadata.csv"])
def test_what_a_table_says_of_an_archive_counts_for_all_in_it(tmp_path, table):
    inner = tmp_path / "inner.zip"
    with zipfile.ZipFile(inner, "w") as archive:
        archive.write(save(tmp_path / "picture/c.png", BLACK), "c.png")
    (tmp_path / "study").mkdir()
    for patient in ("p1", "p2"):
        with zipfile.ZipFile(tmp_path / f"study/{patient}.zip", "w") as archive:
            archive.write(tmp_path / "picture/c.png", "view/a.png")
            archive.write(inner, "more.zip")
    (tmp_path / "study" / table).write_text("file_name,patient,organ\np1.zip,1,liver\np2.zip,2,kidney\n")
    facts, problems = facts_of(tmp_path / "study" / (table if table == "list.csv" else ""), tmp_path / "work")
    told = {name: (one.group.rpartition("/")[2], one.texts[0]) for name, one in facts.items()}
    first, second = ("1", ("organ", "liver")), ("2", ("organ", "kidney"))
    assert told == {
        "p1.zip!/view/a.png": first,
        "p1.zip!/more.zip!/c.png": first,
        "p2.zip!/view/a.png": second,
        "p2.zip!/more.zip!/c.png": second,
    }
    assert problems == []
