"""`echocare curate` as a person uses it: help, progress, and one line for whatever is wrong."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from curation_helpers import phantom, save
from typer.testing import CliRunner

from echocare_hf.cli import app

pytest.importorskip("daft", reason="Daft (extra `curate`) is not installed")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("command") / "study"
    for number in range(6):
        save(folder / f"liver/{number}.png", phantom(number, 96))
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["curate", *map(str, arguments), "--workers", "1", "--no-check-ultrasound"])


def test_help_has_examples_and_all_options():
    shown = CliRunner().invoke(app, ["curate", "--help"]).stdout
    assert "Examples:" in shown and "echocare curate breast_busi clips.zip --output corpus" in shown
    for option in ("--seed", "--runner", "--workers", "--marks", "--exclude", "--every"):
        assert option in shown


def test_it_says_what_was_kept_and_dropped(study, tmp_path):
    (study / "broken.png").write_bytes(b"\x89PNG")
    result = run(study, "--output", tmp_path / "corpus", "--contact-images", 0)
    assert result.exit_code == 0, result.output
    assert "corpus: 6 images kept, 1 dropped of 7 found" in result.stdout
    assert "dropped         1  decode: corrupt" in result.stdout
    assert not (tmp_path / "corpus/contact_sheet").exists() and "contact_sheet" not in result.stdout


def test_it_says_what_is_wrong_with_tables_and_marks(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "study")
    (copy / "metadata.csv").write_text("file_name,patient\n0.png,1\n")
    (tmp_path / "marks.csv").write_text("id,note\nx,y\n")
    arguments = ("--output", tmp_path / "corpus", "--contact-images", 0, "--marks", tmp_path / "marks.csv")
    result = run(copy, *arguments)
    assert result.exit_code == 0, result.output
    assert (
        "Note: metadata.csv: 1 of 1 files that it names are no images that were found, such as '0.png'"
        in result.stdout
    )
    assert "Note: marks.csv: 1 of 1 marks name no image" in result.stdout
    report = (tmp_path / "corpus/report.json").read_text()
    assert len(json.loads(report)["problems"]) == 2 and str(tmp_path) not in report


def test_the_seed_decides_split_and_order(study, tmp_path):
    rows = {}
    for seed in (1, 2):
        assert run(study, "--output", tmp_path / f"{seed}", "--seed", seed, "--contact-images", 0).exit_code == 0
        rows[seed] = json.loads((tmp_path / f"{seed}/manifest.json").read_text())["settings"]["seed"]
        rows[seed, "order"] = _order(tmp_path / f"{seed}")
    assert (rows[1], rows[2]) == (1, 2) and rows[1, "order"] != rows[2, "order"]
    assert sorted(rows[1, "order"]) == sorted(rows[2, "order"])


def _order(corpus: Path) -> list[str]:
    import pyarrow.parquet as pq

    shards = sorted((corpus / "data").glob("*.parquet"), reverse=True)
    return [name for path in shards for name in pq.read_table(path)["source_path"].to_pylist()]


def test_stages_have_a_bar(study, tmp_path, monkeypatch):
    from echocare_hf.curation import command

    shown = []

    class Bar:
        def __init__(self, total, desc, unit, delay):
            self.n, self.total = 0, total
            shown.append(self)
            self.desc = desc

        def update(self, more):
            self.n += more

        def close(self):
            self.closed = True

    monkeypatch.setattr(command, "tqdm", Bar)
    assert run(study, "--output", tmp_path / "corpus", "--contact-images", 0).exit_code == 0
    assert [bar.desc for bar in shown] == ["hash", "measure", "write"]
    assert all(bar.n == bar.total and bar.closed for bar in shown)


def tables(folder: Path) -> dict[str, Path]:
    """Files that are not what an option wants."""
    made = {"marks": "image,note\nx,y\n", "hashes": "pixels:no\n", "labels": "text,node\nlever,no_such_node\n"}
    made |= {"list": "a,b\n1,2\n", "json": "{", "taken": "a file"}
    for name, content in made.items():
        (folder / f"{name}{'.json' if name == 'json' else '.csv'}").write_text(content)
    (folder / "empty").mkdir()
    (folder / "marks.jsonl").write_text('{"id": "a"}\n{"note": "b"}\n')
    (folder / "labels.jsonl").write_text('{"text": "lever", "node": "liver"}\n{"text": "hart"}\n')
    (folder / "binary.txt").write_bytes(b"\x89PNG\xff\xfe")
    (folder / "deep.json").write_text("[" * 100_000)
    return {name: folder / f"{name}{'.json' if name == 'json' else '.csv'}" for name in made}


@pytest.mark.parametrize(
    "arguments, line",
    [
        ([], "Missing argument"),
        (["{study}/nowhere"], "nowhere: there is no such file or folder; check the path"),
        (["{made}/empty"], "empty: holds no files; give the folder that holds the images"),
        (["{made}/list.csv"], "list.csv: has no column of files"),
        (["{made}/json.json"], "json.json: is no JSON"),
        (["{study}", "{study}"], "another source is called study too; name one of them"),
        (["{study}", "--output", "{made}/taken.csv"], "taken.csv: is a file; give a folder that is not there yet"),
        (["{study}", "--output", "{study}"], "study: holds something else than a curated corpus"),
        (["{study}", "--output", "{made}/taken.csv/corpus"], "Not a directory"),
        (["{study}", "--runner", "spark"], "runner must be local or ray, not 'spark'"),
        (["{study}", "--every", "0"], "every must be at least 1, not 0"),
        (["{study}", "--validation", "0.9"], "validation must be 0 to 0.5, not 0.9"),
        (["{study}", "--image-format", "webp"], "image_format must be jpeg or png, not 'webp'"),
        (["{study}", "--workers", "-1"], "workers must be at least 1, not -1"),
        (["{study}", "--marks", "{made}/marks.csv"], "marks.csv: has no column id"),
        (["{study}", "--marks", "{made}/none.csv"], "none.csv: No such file or directory"),
        (["{study}", "--exclude", "{made}/hashes.csv"], "hashes.csv: line 1 is no hash"),
        (["{study}", "--labels", "{made}/labels.csv"], "no_such_node"),
        (["{study}", "--marks", "{made}/marks.jsonl"], "marks.jsonl: row 2 has no 'id'"),
        (["{study}", "--labels", "{made}/labels.jsonl"], "labels.jsonl: row 2 has no 'node'"),
        (["{study}", "--exclude", "{made}/binary.txt"], "binary.txt: is no text, so no list of hashes"),
        (["{study}", "--seed", str(2**70)], f"seed must be 0 to 2**64 - 1, not {2**70}"),
        (["{made}/deep.json"], "deep.json: is no JSON"),
        (["{study}", "--hashes", "{made}"], "is a folder; give the name of a file for the hashes"),
        (["http://127.0.0.1:9/a/*.png"], "web servers list no files; give the URL of a file"),
        (["ftp://127.0.0.1/a.zip"], "ftp://127.0.0.1/a.zip: cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(study, tmp_path, arguments, line):
    tables(tmp_path)
    given = [argument.format(study=study, made=tmp_path) for argument in arguments]
    if "--output" not in given:
        given += ["--output", str(tmp_path / "corpus")]
    result = CliRunner().invoke(app, ["curate", *given])
    assert result.exit_code == 2, result.output
    assert line in result.stderr and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "corpus").exists() and (tmp_path / "taken.csv").read_text() == "a file"
    assert [entry.name for entry in tmp_path.glob("corpus.work/*")] != ["lock"]  # a work folder without work goes


def test_a_folder_that_nobody_may_write_to_is_one_line(study):
    result = run(study, "--output", "/sys/corpus")  # not even root may
    assert result.exit_code == 2 and "/sys/corpus.work: " in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("source", ["study", "study.tar"])
def test_a_full_disk_is_one_line_and_a_later_run_goes_on(study, tmp_path, source):
    """The limit on the size of a file stands in for the full disk: the same call fails, with another number."""
    import tarfile

    given = study
    if source == "study.tar":
        given = tmp_path / source
        with tarfile.open(given, "w") as archive:
            archive.add(study, "study")
    limited = f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, resource.RLIM_INFINITY)); "
    limited += "from echocare_hf.cli import main; sys.argv[0] = 'echocare'; main()"
    command = [sys.executable, "-c", limited, "curate", str(given), "--output", str(tmp_path / "corpus")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 2 and "File too large" in result.stderr, result.stderr
    assert str(tmp_path / "corpus.work") in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "corpus").exists()
    assert not [*tmp_path.glob("corpus.work/**/*.partial-*")], "nothing half-written is left"
    assert run(given, "--output", tmp_path / "corpus").exit_code == 0


LIMIT = 4096  # bytes; smaller than an image, and than a chunk
