"""What lies in or beside the folder of a corpus and is not the corpus: another run leaves it alone."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from curation_helpers import contents, phantom, save

from echocare_hf.curation import CurateOptions, curate, run

pytest.importorskip("daft", reason="Daft (extra `curate`) is not installed")

OPTIONS = CurateOptions(contact_images=2, check_ultrasound=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder `scans`, and the corpus that was made of it."""
    folder = tmp_path_factory.mktemp("made")
    for number in range(4):
        save(folder / f"scans/{number}.png", phantom(number, 96))
    curate([str(folder / "scans")], folder / "corpus", OPTIONS)
    return folder


@pytest.fixture
def study(made, tmp_path) -> Path:
    """The same for a test of its own."""
    return Path(shutil.copytree(made, tmp_path / "study"))


def test_what_a_person_put_into_the_corpus_stays_in_the_next_one(study):
    corpus = study / "corpus"
    first = contents(corpus)
    own = {
        "contact_sheet/marks.csv": "id,note\n",
        "data/notes.txt": "hours of work",
        ".git/HEAD": "ref: refs/heads/main",
        "plots/mine.svg": "<svg/>",
    }
    for name, text in own.items():
        (corpus / name).parent.mkdir(exist_ok=True)
        (corpus / name).write_text(text)
    (corpus / "sources").symlink_to("../scans")
    curate([str(study / "scans")], corpus, OPTIONS, hashes=corpus / "own.txt")
    after = contents(corpus)
    assert {name: after.pop(name).decode() for name in own} == own
    assert after.pop("own.txt").startswith(b"looks:")
    assert (corpus / "sources").readlink() == Path("../scans")
    assert after == first


def test_of_the_old_corpus_itself_nothing_stays(study):
    corpus = study / "corpus"
    (corpus / "data/train-00004-of-00005.parquet").write_bytes(b"of an earlier, larger run")
    (corpus / "contact_sheet/fetal_brain.html").write_text("of another run")
    again = curate([str(study / "scans")], corpus, OPTIONS)
    assert not (corpus / "contact_sheet/fetal_brain.html").exists()
    assert [path.name for path in (corpus / "data").glob("*4-of*")] == []
    assert again.report["kept"] == 4


def test_all_that_a_run_writes_is_known_as_its_own(made):
    assert [name for name in contents(made / "corpus") if not run._WRITTEN.fullmatch(name)] == []


def test_raw_images_inside_the_corpus_are_not_removed(study):
    raw = [save(study / f"corpus/raw/{number}.png", phantom(number, 96)) for number in range(4, 8)]
    before = [path.read_bytes() for path in raw]
    curate([str(study / "corpus/raw")], study / "corpus", OPTIONS)
    assert [path.read_bytes() for path in raw] == before


@pytest.mark.parametrize("inside", ["", "data"])
def test_a_corpus_is_not_made_of_itself(study, inside):
    with pytest.raises(ValueError, match="is the output itself"):
        curate([str(study / "corpus" / inside)], study / "corpus", OPTIONS)


def test_a_backup_beside_the_corpus_is_no_rubbish(study):
    shutil.copytree(study / "corpus", study / "corpus.old")
    before = contents(study / "corpus.old")
    curate([str(study / "scans")], study / "corpus", OPTIONS)
    assert contents(study / "corpus.old") == before


def test_a_link_to_the_corpus_stays_a_link(study):
    (study / "link").symlink_to("corpus")
    curate([str(study / "scans")], study / "link", CurateOptions(check_ultrasound=False, contact_images=0))
    assert (study / "link").is_symlink() and not (study / "corpus/contact_sheet").exists()
    assert not (study / "link.work").exists()


def test_a_run_killed_between_the_two_renames_loses_neither_corpus(study, monkeypatch):
    corpus, rename = study / "corpus", Path.rename
    (corpus / "marks.csv").write_text("id,note\n")
    before = contents(corpus)

    def stop(path, target):
        if path.name == "result":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        curate([str(study / "scans")], corpus, OPTIONS)
    monkeypatch.undo()
    assert not corpus.exists()
    with pytest.raises(ValueError, match="no image is left"):
        curate([str(study / "scans")], corpus, CurateOptions(min_nonzero=10**9))
    assert contents(corpus) == before, "the next run puts the old one back first"


def test_files_are_copied_where_there_are_no_hard_links(study, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    (study / "corpus/marks.csv").write_text("id,note\n")
    monkeypatch.setattr(os, "link", refuse)
    curate([str(study / "scans")], study / "corpus", OPTIONS)
    assert (study / "corpus/marks.csv").read_text() == "id,note\n"


def test_a_mount_point_is_refused_before_the_work(study, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "disk")
    (study / "disk").mkdir()
    with pytest.raises(ValueError, match="disk: is a mount point, which no rename can replace; give a folder in it"):
        curate([str(study / "scans")], study / "disk", OPTIONS)
    assert not (study / "disk.work").exists()
