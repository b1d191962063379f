"""`echocare predict` without permission: as a user who is not root, in a process that gives root up where the tests have it.

Root may read and write everywhere, so permissions alone would show nothing.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from engine_helpers import results_of, save_checkpoint, save_png

import echocare_hf

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX systems")

# One process for all tests, since each takes seconds to start: a list of arguments a line, an answer a line.
RUN = """
import json, os, sys
from typer.testing import CliRunner
from echocare_hf.cli import app

def run(arguments):
    result = CliRunner().invoke(app, arguments)
    return [result.exit_code, result.stdout, result.stderr, repr(result.exception)]

first = run(json.loads(sys.stdin.readline()))  # brings in all modules, which others may have no permission to read
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
print(json.dumps(first), flush=True)
for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)
"""


def open_folder():
    """A folder that everybody may read and write, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="echocare-test-"))
    folder.chmod(0o777)
    return folder


def remove(folder):
    for inside, folders, _ in os.walk(folder):
        for name in folders:
            Path(inside, name).chmod(0o777)
    shutil.rmtree(folder)


def save_scans(folder):
    random = np.random.default_rng(0)
    for number in range(3):
        save_png(folder / f"{number}.png", random.integers(30, 200, (64, 80, 1), dtype=np.uint8).repeat(3, 2))
    return folder


@pytest.fixture
def place():
    folder = open_folder()
    yield folder
    remove(folder)


@pytest.fixture
def scans(place):
    return save_scans(place / "scans")


@pytest.fixture(scope="module")
def user():
    """An ordinary user: its folder, with a checkpoint, and what runs a command, which answers exit code, stdout and stderr."""
    folder = open_folder()
    for path in save_checkpoint(folder / "model", "segmentation").iterdir():
        path.chmod(0o644)
    # The checkout may lie where only root comes.
    package = Path(echocare_hf.__file__).parent
    shutil.copytree(package, folder / "package" / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(folder / "package"), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        umask=0o022,
        env=environment,
    )

    def run(*arguments):
        fixed = ["--model", folder / "model", "--precision", "fp32", "--no-familiarity"]
        process.stdin.write(json.dumps(["predict", *map(str, [*arguments, *fixed])]) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    first = run(save_scans(folder / "scans"), "--output", folder / "warm-up")
    assert first[0] == 0, first
    yield folder, lambda *arguments: run(*arguments)[:3]
    process.stdin.close()
    process.wait(timeout=60)
    process.stdout.close()
    remove(folder)


@pytest.fixture
def predict(user):
    return user[1]


def one_line(code, stdout, stderr):
    """The message of a run that was refused."""
    assert (code, stdout) == (2, ""), (stdout, stderr)
    assert stderr.startswith("error: ") and stderr.count("\n") == 1
    return stderr


@pytest.mark.parametrize("is_archive", [False, True])
def test_an_output_that_cannot_be_written(place, scans, predict, is_archive):
    """A folder of somebody else, a new one in it, and one in a folder that cannot even be looked into."""
    for name, mode in (("closed", 0o555), ("secret", 0o700 if os.getuid() == 0 else 0o000)):
        (place / name).mkdir()
        (place / name).chmod(mode)
    given = shutil.make_archive(str(place / "scans"), "zip", place, "scans") if is_archive else scans
    for output in ("closed", "closed/new/deeper", "secret/new"):
        message = one_line(*predict(given, "--output", place / output))
        assert message.startswith(
            f"error: {place / output}: cannot be written (Permission denied); check its permissions"
        )
    assert not list((place / "closed").iterdir())


def test_results_that_became_read_only_stay_as_they_are(place, scans, predict):
    results = place / "results"
    code, stdout, _ = predict(scans, "--output", results)
    assert code == 0 and "3 files analysed" in stdout
    for path in [results, *results.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
        if os.getuid() == 0:  # not even theirs
            os.chown(path, 0, 0)
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    (scans / "3.png").write_bytes((scans / "1.png").read_bytes())
    assert "(Permission denied)" in one_line(*predict(scans, "--output", results))
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before


def test_a_folder_of_results_whose_parts_belong_to_somebody_else(place, scans, predict):
    """As where a colleague has run the command before: the folder may be written to, what is in it may not."""
    results = place / "results"
    assert predict(scans / "0.png", "--output", results)[0] == 0
    (results / "files").chmod(0o555)
    if os.getuid() == 0:
        os.chown(results / "files", 0, 0)
    answer = predict(scans, "--output", results)
    assert "cannot be written (Permission denied); check its permissions" in one_line(*answer)
    assert list(results_of(results)) == ["0.png"]


def test_files_that_cannot_be_read_are_named_and_the_others_done(place, scans, predict):
    (scans / "1.png").chmod(0o000)
    (scans / "IM1").write_bytes(bytes(128) + b"DICM")
    (scans / "IM1").chmod(0o000)
    (scans / "more.zip").write_bytes(b"PK\3\4")
    (scans / "more.zip").chmod(0o000)
    (scans / "inner").mkdir()
    (scans / "inner").chmod(0o000)
    code, stdout, stderr = predict(scans, "--output", place / "a")
    assert code == 1 and "2 files analysed" in stdout and "4 problems" in stdout
    lines = stderr.splitlines()
    assert len(lines) == 4
    for name in ("1.png", "IM1", "more.zip", "inner"):
        assert any(line.startswith(f"scans/{name}: ") and "permission" in line.lower() for line in lines), (
            name,
            lines,
        )
    assert set(results_of(place / "a")) == {"scans/0.png", "scans/2.png"}
    code, _, stderr = predict(scans / "1.png", "--output", place / "b")
    assert code == 1 and stderr.startswith("1.png: ") and "permission" in stderr.lower()


@pytest.mark.parametrize("closed", ["", "model.safetensors", "config.json"])
def test_a_checkpoint_that_cannot_be_read(user, place, scans, predict, closed):
    model = shutil.copytree(user[0] / "model", place / "heads")
    (model / closed).chmod(0o000)
    message = one_line(*predict(scans, "--model", model, "--output", place / "out"))
    assert str(model) in message and closed in message and "Permission denied" in message
    assert not (place / "out").exists()
