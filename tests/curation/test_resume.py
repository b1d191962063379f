"""A run that was killed goes on where it stopped, and the corpus is the one of a run that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from curation_helpers import contents, phantom, save

from echocare_hf.curation import CurateOptions, chunks, curate, inventory

pytest.importorskip("daft", reason="Daft (extra `curate`) is not installed")

# Small pieces, so that there are several to stop between: 8 files a chunk, 8 rows a shard.
SMALL = """
import sys
from pathlib import Path
from echocare_hf.curation import CurateOptions, curate, inventory, shards
inventory.FILES_PER_BUCKET = 8
shards.ROWS_PER_GROUP = 8
def progress(stage, done, total):
    print(stage, done, total, flush=True)
    if f"{stage} {done}" == sys.argv[3]:
        sys.stdin.read()  # the test ends it here
workers = int(sys.argv[4])
options = CurateOptions(workers=workers, validation=0.3, check_ultrasound=False)
curate([sys.argv[1]], Path(sys.argv[2]), options, progress=progress)
"""


def run(source: Path, output: Path, stop_after: str = "", workers: int = 1) -> list[str]:
    """Run `curate` in a process of its own, and kill it with SIGKILL after a job of a stage; returns what it said of its progress."""
    command = [sys.executable, "-c", SMALL, str(source), str(output), stop_after, str(workers)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    said = []
    for line in process.stdout:
        said.append(line.rpartition(" ")[0])
        if said[-1] == stop_after:
            process.kill()
            break
    status = process.wait(timeout=300)
    process.stdin.close()
    process.stdout.close()
    assert status == (-signal.SIGKILL if stop_after else 0)
    return said


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of the finished pieces of a folder."""
    found = {path.name: path.stat() for path in folder.glob("*.parquet")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    for number in range(40):
        save(folder / f"study/liver/{number}.png", phantom(number, 96))
    run(folder / "study", folder / "whole/corpus")
    assert (
        len(state(folder / "whole/corpus.work/chunks")) >= 4 and len(state(folder / "whole/corpus.work/shards")) >= 4
    )
    return folder


@pytest.mark.parametrize("stop_after, workers", [("hash 1", 1), ("measure 2", 1), ("write 2", 1), ("measure 1", 2)])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(study, tmp_path, stop_after, workers):
    output = tmp_path / "corpus"
    run(study / "study", output, stop_after, workers)
    assert not output.exists(), "nothing half-made stands in its place"
    pieces = {name: state(tmp_path / "corpus.work" / name) for name in ("contents", "chunks", "shards")}
    stage = stop_after.split()[0]
    assert pieces[{"hash": "contents", "measure": "chunks", "write": "shards"}[stage]], "something was finished"
    left = tmp_path / "corpus.work/chunks/.half.parquet.partial-1"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"of a run that was killed while writing")
    wait_until_free(tmp_path / "corpus.work/lock")
    run(study / "study", output)
    assert contents(output) == contents(study / "whole/corpus")
    for name, before in pieces.items():
        after = state(tmp_path / "corpus.work" / name)
        assert {piece: after[piece] for piece in before} == before, f"finished {name} were not written again"
    assert not left.exists()


def wait_until_free(lock: Path) -> None:
    """The workers of a killed run end when they notice; none of them may hold the lock."""
    import fcntl

    end = time.monotonic() + 20
    while time.monotonic() < end:
        with lock.open("w") as file:
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.2)
    raise AssertionError("the lock of the killed run is still held")


def test_a_second_run_into_the_same_output_is_refused(study, tmp_path):
    output = tmp_path / "corpus"
    command = [sys.executable, "-c", SMALL, str(study / "study"), str(output), "hash 1", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        first.stdout.readline()  # it works, and waits
        with pytest.raises(ValueError, match=r"corpus\.work: another run is writing here; wait for it"):
            curate([str(study / "study")], output)
        first.kill()


def curated(sources: list[Path], output: Path, **options: object) -> dict[str, bytes]:
    curate([str(source) for source in sources], output, CurateOptions(validation=0.3, **options))
    return contents(output)


def test_changed_options_measure_anew_and_mix_nothing(study, tmp_path, monkeypatch):
    monkeypatch.setattr(inventory, "FILES_PER_BUCKET", 8)
    first = curated([study / "study"], tmp_path / "a/corpus")
    changed = curated([study / "study"], tmp_path / "a/corpus", max_side=64, image_format="png", seed=3)
    assert (
        changed == curated([study / "study"], tmp_path / "b/corpus", max_side=64, image_format="png", seed=3) != first
    )
    assert curated([study / "study"], tmp_path / "a/corpus") == first, "and back, from the chunks of the first run"


def test_another_source_leaves_the_chunks_of_the_others_alone(study, tmp_path, monkeypatch):
    monkeypatch.setattr(inventory, "FILES_PER_BUCKET", 8)
    curated([study / "study"], tmp_path / "a/corpus")
    before = state(tmp_path / "a/corpus.work/chunks")
    for number in range(3):
        save(tmp_path / f"more/heart/{number}.png", phantom(50 + number, 96))
    (tmp_path / "more/copy.png").write_bytes(
        (study / "study/liver/7.png").read_bytes()
    )  # is dropped, not the first one
    both = curated([study / "study", tmp_path / "more"], tmp_path / "a/corpus")
    after = state(tmp_path / "a/corpus.work/chunks")
    assert {name: after[name] for name in before} == before and len(after) == len(before) + 1
    assert both == curated([study / "study", tmp_path / "more"], tmp_path / "b/corpus")


def test_a_changed_file_is_read_again(tmp_path):
    for number in range(4):
        save(tmp_path / f"study/liver/{number}.png", phantom(number, 96))
    first = curated([tmp_path / "study"], tmp_path / "a/corpus")
    save(tmp_path / "study/liver/2.png", phantom(30, 96))
    second = curated([tmp_path / "study"], tmp_path / "a/corpus")
    assert second == curated([tmp_path / "study"], tmp_path / "b/corpus") != first


def test_an_old_corpus_stays_until_the_new_one_is_whole(study, tmp_path, monkeypatch):
    first = curated([study / "study"], tmp_path / "corpus")

    def full(*_):
        raise OSError(28, "No space left on device", "shard")

    monkeypatch.setattr("echocare_hf.curation.run.write_reports", full)
    with pytest.raises(OSError, match="No space left"):
        curated([study / "study"], tmp_path / "corpus", seed=1)
    assert contents(tmp_path / "corpus") == first


def meta_image(path: Path, number: int) -> Path:
    """A header and, beside it, `scan.raw`; all headers are the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("NDims = 2\nDimSize = 96 96\nElementType = MET_UCHAR\nElementDataFile = scan.raw\n")
    path.with_suffix(".raw").write_bytes(phantom(number, 96)[..., 0].tobytes())
    return path


def dropped(output: Path) -> dict[str, str]:
    rows = pq.read_table(output / "dropped.parquet").to_pylist()
    return {row["source_path"]: row["reason"] for row in rows if row["step"] in ("exact_copy", "decode")}


def test_a_header_is_hashed_with_its_data_file(tmp_path):
    pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    output = tmp_path / "corpus"
    for patient in range(3):
        meta_image(tmp_path / f"study/p{patient}/scan.mhd", min(patient, 1))
    curated([tmp_path / "study"], output, check_ultrasound=False)
    assert dropped(output) == {"p2/scan.mhd": "same_bytes"}, (
        "the pixels of p0 and p1 differ, those of p1 and p2 do not"
    )
    raw = tmp_path / "study/p2/scan.raw"
    raw.write_bytes(phantom(7, 96)[..., 0].tobytes())
    os.utime(raw, ns=(0, 0))
    curated([tmp_path / "study"], output, check_ultrasound=False)
    assert dropped(output) == {}, "the change of the data file alone is noticed"


def test_the_data_file_of_a_header_stays_in_its_folder(tmp_path):
    outside = tmp_path / "outside.raw"
    outside.write_bytes(b"x")
    header = meta_image(tmp_path / "p1/scan.mhd", 1)
    assert chunks._data_files(str(header)) == [tmp_path / "p1/scan.raw"]
    for name in ("../outside.raw", str(outside), "missing.raw", "LOCAL"):
        header.write_text(f"NDims = 2\nElementDataFile = {name}\n")
        assert chunks._data_files(str(header)) == []


def test_a_reader_that_is_installed_later_reads_what_was_dropped(tmp_path, monkeypatch):
    pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    output = tmp_path / "corpus"
    meta_image(tmp_path / "study/p1/scan.mhd", 1)
    save(tmp_path / "study/p2/scan.png", phantom(2, 96))
    readers = chunks.installed_readers()
    assert "SimpleITK" in readers and readers == sorted(readers)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "SimpleITK", None)  # as if it were not installed
        assert chunks.installed_readers() == [name for name in readers if name != "SimpleITK"]
        curated([tmp_path / "study"], output, check_ultrasound=False)
        assert dropped(output) == {"p1/scan.mhd": "missing_reader"}
    curated([tmp_path / "study"], output, check_ultrasound=False)
    assert dropped(output) == {}


def test_a_file_that_could_not_be_read_is_hashed_again(tmp_path, monkeypatch):
    for number in range(3):
        save(tmp_path / f"study/liver/{number}.png", phantom(number, 96))
    output = tmp_path / "corpus"
    real = Path.open

    def fail(path, *arguments, **options):
        if path.name == "1.png":
            raise OSError(5, "Input/output error", str(path))
        return real(path, *arguments, **options)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "open", fail)
        curated([tmp_path / "study"], output, check_ultrasound=False)
    assert dropped(output) == {"liver/1.png": "corrupt"}
    curated([tmp_path / "study"], output, check_ultrasound=False)
    assert dropped(output) == {}
