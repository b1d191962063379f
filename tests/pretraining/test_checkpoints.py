"""Checkpoints: complete or not there, the last good one never lost."""

import errno

import pytest

from echocare_hf.pretraining.checkpoints import Checkpoints


def write(text):
    def do(folder):
        (folder / "part").mkdir()
        (folder / "weights").write_text(text)
        (folder / "part" / "more").write_text(text * 2)

    return do


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def names(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_newest_is_found_and_the_oldest_go(checkpoints):
    assert checkpoints.latest() == (None, {}, [])
    for step in (5, 10, 15):
        checkpoints.save(step, write(str(step)), {"best": 0.5})
    path, facts, damaged = checkpoints.latest()
    assert path.name == "step-00000015" and (facts["step"], facts["best"]) == (15, 0.5) and not damaged
    assert (path / "weights").read_text() == "15"
    assert names(checkpoints) == ["step-00000010", "step-00000015"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def change(path):
    path.write_bytes(b"x" + path.read_bytes()[1:])


@pytest.mark.parametrize(
    ("file", "harm", "told"),
    [
        ("weights", cut, "weights has 4 of 5 bytes"),
        ("part/more", change, "part/more has other contents"),
        ("weights", lambda path: path.unlink(), "weights is missing"),
        ("manifest.json", cut, "manifest"),
        ("manifest.json", lambda path: path.unlink(), "manifest"),
    ],
)
def test_a_damaged_one_is_noticed_and_the_one_before_it_taken(checkpoints, file, harm, told):
    checkpoints.save(5, write("first"), {})
    checkpoints.save(10, write("later"), {})
    place = checkpoints.path(10) / file
    if file == "manifest.json" and harm is cut:
        place.write_text(place.read_text()[:20])
    else:
        harm(place)
    path, facts, damaged = checkpoints.latest()
    assert path == checkpoints.path(5) and facts["step"] == 5
    assert len(damaged) == 1 and told in damaged[0] and "step-00000010" in damaged[0]
    checkpoints.drop_after(5)
    assert names(checkpoints) == ["step-00000005"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("PytorchStreamWriter failed writing file")],
)
def test_a_full_disk_leaves_the_last_one(checkpoints, error):
    checkpoints.save(5, write("first"), {})

    def fail(folder):
        (folder / "weights").write_text("half")
        raise error

    with pytest.raises(ValueError, match=r"step-00000010: the checkpoint cannot be written .*step 5 is intact"):
        checkpoints.save(10, fail, {})
    assert names(checkpoints) == ["step-00000005"] and checkpoints.latest()[0] == checkpoints.path(5)


def test_what_a_killed_run_left_is_cleared(checkpoints):
    checkpoints.save(5, write("first"), {})
    checkpoints.partial(10).mkdir()
    (checkpoints.partial(10) / "weights").write_text("half")
    assert checkpoints.latest()[0] == checkpoints.path(5)
    checkpoints.clear_partial()
    assert names(checkpoints) == ["step-00000005"]


def test_the_same_step_can_be_written_again(checkpoints):
    checkpoints.save(5, write("first"), {})
    checkpoints.save(5, write("again"), {})
    assert (checkpoints.latest()[0] / "weights").read_text() == "again"


def test_one_that_cannot_be_read_for_another_reason_is_not_taken_for_damaged(checkpoints, monkeypatch):
    checkpoints.save(5, write("first"), {})
    checkpoints.save(10, write("later"), {})

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("echocare_hf.pretraining.checkpoints._digest", refuse)
    with pytest.raises(PermissionError, match="step-00000010"):
        checkpoints.latest()
    assert names(checkpoints) == ["step-00000005", "step-00000010"]
