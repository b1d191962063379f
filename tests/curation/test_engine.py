"""The same corpus comes out on this machine and on Ray, from one process and from several, and errors of jobs keep their line."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from curation_helpers import contents, phantom, save

from echocare_hf.curation import CurateOptions, curate
from echocare_hf.curation.engine import run_jobs, start

pytest.importorskip("daft", reason="Daft (extra `curate`) is not installed")
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray (extra `ray`) is not installed")

IMAGES = 9


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder of images, a broken one and a copy among them, and the corpus that one process on this machine makes of it."""
    folder = tmp_path_factory.mktemp("engine")
    for number in range(IMAGES):
        save(folder / f"study/{('liver', 'heart')[number % 2]}/{number}.png", phantom(number, 128))
    (folder / "study/copy.png").write_bytes((folder / "study/liver/0.png").read_bytes())
    (folder / "study/broken.png").write_bytes(b"\x89PNG and no more")
    curate([str(folder / "study")], folder / "local/corpus", CurateOptions())
    return folder


def echocare(*arguments, **environment):
    """A run of the command in a process of its own: Daft can be started only once in a process."""
    return subprocess.run(
        [sys.executable, "-m", "echocare_hf.cli", "curate", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def processes_below(directory: Path) -> list[str]:
    """Command lines of the processes of this machine that mention a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended in the meantime
    return [line for line in lines if str(directory) in line]


@needs_ray
def test_ray_gives_the_same_bytes_as_this_machine(study):
    with tempfile.TemporaryDirectory(prefix="ray-") as place:  # Ray's sockets bear no path as long as pytest's
        ray_folder = Path(place)
        result = echocare(
            study / "study",
            "--output",
            study / "ray/corpus",
            "--runner",
            "ray",
            "--workers",
            1,
            RAY_TMPDIR=place,
        )
        assert result.returncode == 0, result.stderr
        assert contents(study / "ray/corpus") == contents(study / "local/corpus")
        assert list(ray_folder.iterdir()), "Ray was started there"
        assert not processes_below(ray_folder), "and has ended with the run"


@needs_ray
def test_no_cluster_at_the_address_is_one_line(study):
    result = echocare(
        study / "study",
        "--output",
        study / "none",
        "--runner",
        "ray",
        RAY_ADDRESS="127.0.0.1:1",
    )
    assert result.returncode == 2 and "RAY_ADDRESS=127.0.0.1:1: no Ray cluster answers" in result.stderr
    assert "Traceback" not in result.stderr


def test_two_workers_give_the_same_bytes_as_one(study):
    result = echocare(study / "study", "--output", study / "two/corpus", "--workers", 2)
    assert result.returncode == 0, result.stderr
    assert contents(study / "two/corpus") == contents(study / "local/corpus")


def test_jobs_give_back_their_results():
    start("local")
    assert sorted(run_jobs(json.dumps, ["a", "b", "c"], 1)) == ['"a"', '"b"', '"c"']


@pytest.mark.parametrize(
    "text, error, line", [("1", ValueError, "1: is no list"), ("/nowhere", OSError, "/nowhere: No such")]
)
def test_the_error_of_a_job_keeps_its_line(text, error, line):
    start("local")
    with pytest.raises(error, match=line) as caught:
        list(run_jobs(_fail, [text], 1))
    assert "\n" not in str(caught.value)


def _fail(text: str) -> str:
    if text == "1":
        raise ValueError("1: is no list")
    return Path(text).read_text()


def test_another_runner_in_the_same_process_is_refused():
    start("local")
    with pytest.raises(ValueError, match="Daft already runs as local"):
        start("ray")


def test_somebody_may_have_used_daft_before():
    code = "import daft; daft.from_pydict({'a': [1]}).to_pydict(); from echocare_hf.curation import engine; "
    code += "engine.start('local'); print(list(engine.run_jobs(str.upper, ['a'], 1)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.stdout.strip() == "['A']", result.stderr


def test_too_little_memory_ends_the_run_with_one_line(study, tmp_path, monkeypatch):
    def read(*_, **__):
        raise MemoryError

    start("local")
    monkeypatch.setattr("echocare_hf.curation.decode.read_ultrasound", read)
    with pytest.raises(OSError, match=r"\.png: the memory does not suffice to read it; use fewer --workers") as caught:
        curate([str(study / "study")], tmp_path / "corpus")
    assert "\n" not in str(caught.value) and not (tmp_path / "corpus").exists()
    assert not list((tmp_path / "corpus.work").glob("chunks/*.parquet")), "nothing is kept of it"
