"""Two runs never write to one folder: of the same command given twice, the second ends with one line and touches nothing."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from echocare_hf.files import only_run

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
import finetune
import pretrain
import report

SMOKE = str(Path(__file__).resolve().parents[2] / "training" / "recipes" / "smoke.yaml")
HELD = """
import sys
from pathlib import Path
from echocare_hf.files import only_run
with only_run(Path(sys.argv[1]), {}):
    print("held", flush=True)
    input()
"""


@pytest.fixture
def held(tmp_path, request):
    """A folder that another process holds."""
    output = tmp_path / "parent" / "out"
    line = [sys.executable, "-c", HELD.format(request.param), str(output)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        yield output
        other.kill()


@pytest.mark.parametrize(
    ("main", "held", "line"),
    [
        (finetune.main, False, ["segmentation", "--data", "nowhere", "--output"]),
        (report.main, False, ["--data", "nowhere", "--output"]),
        (pretrain.main, True, [SMOKE, "--data", "nowhere", "--output_dir"]),
    ],
    indirect=["held"],
)
def test_a_second_run_in_a_folder_is_refused(main, held, line, capsys):
    assert main([*line, str(held)]) == 2
    told = capsys.readouterr().err.strip()
    assert told == f"error: {held}: another run is writing to it; wait for it, or give another folder"


@pytest.mark.parametrize("inside", [False, True])
def test_the_lock_ends_with_its_run(tmp_path, monkeypatch, inside):
    monkeypatch.chdir(tmp_path)
    with only_run(Path("out"), inside), pytest.raises(ValueError, match="another run"), only_run(Path("out"), inside):
        pass
    with pytest.raises(KeyError), only_run(Path("out"), inside):
        raise KeyError
    with only_run(Path("out"), inside):
        pass
    with only_run(Path("new") / "parent" / "out", inside):
        pass
    assert not list(tmp_path.iterdir())  # nothing was made, so nothing is left
    with only_run(Path("new") / "out", inside):
        Path("new").joinpath("result").mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "result"]


def test_a_killed_run_holds_nothing(tmp_path):
    output = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HELD.format(False), str(output)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "held\n"
        other.kill()
    assert (tmp_path / ".out.lock").is_file()
    with only_run(output):
        pass


def test_where_a_file_system_has_no_locks_a_run_goes_on(tmp_path, monkeypatch):
    def no_locks(*each):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with only_run(tmp_path / "out"), only_run(tmp_path / "out"):
        pass
