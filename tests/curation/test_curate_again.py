"""Runs over what is there already: the own output below a source, marks, links, copies with and without a label, what headers say."""

import csv
import errno
import json
import os
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from curation_helpers import contents, phantom, save
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from reading_helpers import make_dicom
from reading_helpers import save as save_dicom

from echocare_hf.curation import CurateOptions, curate

pytest.importorskip("daft", reason="Daft (extra `curate`) is not installed")

OPTIONS = CurateOptions(contact_images=2, check_ultrasound=False, validation=0.25)


def rows_of(output: Path) -> dict[str, dict]:
    tables = [pq.read_table(path) for path in sorted((output / "data").glob("*.parquet"))]
    return {row["source_path"]: row for table in tables for row in table.to_pylist()}


def dropped(output: Path) -> dict[str, tuple[str, str]]:
    rows = pq.read_table(output / "dropped.parquet").to_pylist()
    return {row["source_path"]: (row["step"], row["reason"]) for row in rows}


def test_a_corpus_below_its_source_does_not_feed_itself(tmp_path):
    for number in range(4):
        save(tmp_path / f"scans/{number}.png", phantom(number))
    output = tmp_path / "scans/corpus"
    first = curate([str(tmp_path / "scans")], output, OPTIONS)
    before = contents(output)
    again = curate([str(tmp_path / "scans")], output, OPTIONS)
    assert first.report["found"] == again.report["found"] == 4
    assert contents(output) == before
    with pytest.raises(ValueError, match="is the output itself"):
        curate([str(output)], output, OPTIONS)


def test_a_near_copy_of_a_marked_image_does_not_take_its_place(tmp_path):
    large = Image.fromarray(phantom(0, 256))
    save(tmp_path / "scans/large.png", large)
    save(tmp_path / "scans/small.png", large.resize((192, 192), Image.Resampling.BOX))
    save(tmp_path / "scans/other.png", phantom(1))
    output = tmp_path / "corpus"
    curate([str(tmp_path / "scans")], output, OPTIONS)
    assert set(rows_of(output)) == {"large.png", "other.png"}
    marks = tmp_path / "marks.csv"
    marks.write_text(f"id,note\n{rows_of(output)['large.png']['id']},blurred\n0123,of another corpus\n")
    again = curate([str(tmp_path / "scans")], output, OPTIONS, marks=marks)
    assert set(rows_of(output)) == {"other.png"}
    assert dropped(output) == {
        "large.png": ("marked", "marked_by_a_person"),
        "small.png": ("marked", "looks_like_a_marked_one"),
    }
    assert (output / "report.json").read_text().count("1 of 2 marks name no image") == 1
    assert again.report["kept"] == 1


def test_links_that_are_not_followed_are_counted(tmp_path):
    save(tmp_path / "scans/a.png", phantom(0))
    save(tmp_path / "elsewhere/b.png", phantom(1))
    (tmp_path / "scans/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "scans/nothing.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "scans/b.png").symlink_to(tmp_path / "elsewhere/b.png")
    result = curate([str(tmp_path / "scans")], tmp_path / "corpus", OPTIONS)
    assert set(rows_of(tmp_path / "corpus")) == {"a.png", "b.png"}
    assert dropped(tmp_path / "corpus") == {
        "link": ("discover", "linked_folder"),
        "nothing.png": ("discover", "broken_link"),
    }
    assert result.report["found"] == 4


def forbid(monkeypatch, owner: object, name: str, forbidden: Path) -> None:
    """What an account without permission meets; the tests may run as one that may do everything."""
    function = getattr(owner, name)

    def guarded(path, *arguments, **options):
        if str(path) == str(forbidden):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return function(path, *arguments, **options)

    monkeypatch.setattr(owner, name, guarded)


def test_what_may_not_be_opened_is_counted(tmp_path, monkeypatch):
    for name in ("a.png", "b.png", "locked/c.png", "listed/d.png"):
        save(tmp_path / "scans" / name, phantom(ord(name[-5])))
    forbid(monkeypatch, os, "scandir", tmp_path / "scans/locked")
    forbid(monkeypatch, Path, "stat", tmp_path / "scans/listed/d.png")
    result = curate([str(tmp_path / "scans")], tmp_path / "corpus", OPTIONS)
    assert set(rows_of(tmp_path / "corpus")) == {"a.png", "b.png"}
    assert dropped(tmp_path / "corpus") == {
        "locked": ("discover", "unreadable_folder"),
        "listed/d.png": ("discover", "unreadable_file"),
    }
    assert result.report["found"] == 4


def test_a_source_that_may_not_be_opened_is_said_so(tmp_path, monkeypatch):
    (tmp_path / "scans").mkdir()
    forbid(monkeypatch, os, "scandir", tmp_path / "scans")
    with pytest.raises(PermissionError, match="scans"):
        curate([str(tmp_path / "scans")], tmp_path / "corpus", OPTIONS)


def test_of_two_exact_copies_the_one_in_a_named_folder_is_kept(tmp_path):
    save(tmp_path / "mix/aaa/x.png", phantom(0))
    save(tmp_path / "mix/breast/benign/x.png", phantom(0))
    curate([str(tmp_path / "mix")], tmp_path / "corpus", OPTIONS)
    ((name, row),) = rows_of(tmp_path / "corpus").items()
    assert (name, row["node"]) == ("breast/benign/x.png", "breast")


def test_a_header_that_says_burnt_in_text_puts_the_file_on_the_audit_sheet(tmp_path):
    (tmp_path / "scans").mkdir()
    for name, says in (("said", "YES"), ("not_said", "NO")):
        file = make_dicom(phantom(len(name))[..., 0], BurnedInAnnotation=says)
        save_dicom(file, tmp_path / f"scans/{name}.dcm")
    curate([str(tmp_path / "scans")], tmp_path / "corpus", OPTIONS)
    with (tmp_path / "corpus/audit.csv").open(newline="") as file:
        found = [row["source_path"] for row in csv.DictReader(file) if row["why"] == "text"]
    assert found == ["said.dcm"]


@pytest.mark.parametrize("name", ["manifest.json", "metadata.jsonl"])
def test_half_a_surrogate_pair_in_json_is_replaced_and_ends_nothing(tmp_path, name):
    rows = [
        {"file_name": f"{number}.png", "label": label, "group": f"g{number}\udc00"}
        for number, label in enumerate(("liver", "kidney \ud800", "\ud83d\ude00"))
    ]
    for number in range(3):
        save(tmp_path / f"scans/{number}.png", phantom(number))
    lines = json.dumps(rows) if name.endswith("json") else "\n".join(map(json.dumps, rows))
    (tmp_path / "scans" / name).write_text(lines, encoding="ascii")
    curate([str(tmp_path / "scans" / ("" if name == "metadata.jsonl" else name))], tmp_path / "corpus", OPTIONS)
    found = {
        Path(path).name: (row["label"], row["group"].rpartition("/")[2])
        for path, row in rows_of(tmp_path / "corpus").items()
    }
    assert found == {
        "0.png": ("liver", "g0\ufffd"),
        "1.png": ("kidney \ufffd", "g1\ufffd"),
        "2.png": ("\U0001f600", "g2\ufffd"),
    }
