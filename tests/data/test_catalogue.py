"""The catalogue of public data sets: what ships is true to its own rules, filters find what a plain search finds, bad files are named."""

import datetime
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from typer.testing import CliRunner

import echocare_hf
from echocare_hf.cli import app
from echocare_hf.data.catalogue import (
    CATALOGUE_FILE,
    COMMERCIAL_USE,
    FINETUNE_TASKS,
    TASKS,
    filter_catalogue,
    find_dataset,
    read_catalogue,
)
from echocare_hf.data.catalogue_text import WIDTH, format_table
from echocare_hf.data.labelled import TASKS as LABELLED_TASKS
from echocare_hf.data.labelled import read_labelled

ENTRIES = read_catalogue()
RAW = yaml.safe_load(CATALOGUE_FILE.read_text(encoding="utf-8"))
PARENTS = {
    node["id"]: node["parent"]
    for node in json.loads(
        (Path(echocare_hf.__file__).parent / "anatomy" / "anatomy_tree.json").read_text(encoding="utf-8")
    )
}
BENCHMARKS = [
    "ddti",
    "musv",
    "abdomenus",
    "thyroid_cineclip",
    "busbra",
    "sysu_fll_ceus",
    "focus",
    "brain_landmarks",
    "camus",
    "usenhance",
    "usreport",
]
GOOD = {
    "key": "some_set",
    "name": "Some set",
    "nodes": ["liver"],
    "tasks": ["segmentation"],
    "sources": ["https://example.org/set"],
    "checked": "2026-11-22",
}


def run(*args):
    return CliRunner().invoke(app, ["catalogue", *map(str, args)])


def keys(entries):
    return [entry.key for entry in entries]


@pytest.fixture
def write(tmp_path):
    def write_catalogue(*rows):
        path = tmp_path / "sets.yaml"
        path.write_text(yaml.safe_dump(list(rows)), encoding="utf-8")
        return path

    return write_catalogue


# What ships


def test_the_catalogue_is_large_and_holds_the_benchmarks_of_the_paper():
    assert len(ENTRIES) == len(RAW) >= 130
    assert keys(ENTRIES) == [row["key"] for row in RAW]
    by_key = {entry.key: entry for entry in ENTRIES}
    for key in BENCHMARKS:
        assert by_key[key].readers[0] == f"eval:{key}"
        assert "https://arxiv.org/abs/2509.11752" in by_key[key].sources


def test_every_node_stands_in_the_tree_and_every_region_is_served():
    shown = {node for row in RAW for node in row["nodes"] or []}
    assert shown <= set(PARENTS)
    for region in (node for node, parent in PARENTS.items() if parent is None):
        assert filter_catalogue(ENTRIES, node=region), region


@pytest.mark.parametrize("row", RAW, ids=lambda row: row["key"])
def test_an_entry_says_where_it_is_from_and_claims_no_more_than_its_licence(row):
    assert row["sources"] and all(source.startswith(("https://", "http://")) for source in row["sources"])
    assert datetime.date.fromisoformat(row["checked"]) <= datetime.date(2100, 1, 1)
    if row["licence"] is None:
        assert row["commercial"] is None
    elif row["licence"] in COMMERCIAL_USE:
        assert row["commercial"] is ("-NC" not in row["licence"])
    words = (row["licence"] or "").lower().replace("-", " ")
    if any(word in words for word in ("by nc", "non commercial", "commercial use prohibited")):
        assert row["commercial"] is not True


def test_the_tasks_are_those_of_fine_tuning_and_two_more():
    assert set(FINETUNE_TASKS) == set(LABELLED_TASKS)
    assert set(TASKS) == {*LABELLED_TASKS, "report", "pretraining"}
    assert {task for entry in ENTRIES for task in entry.tasks} == set(TASKS)


def test_the_file_is_package_data():
    project = Path(echocare_hf.__file__).parents[2] / "pyproject.toml"
    if not project.exists():
        pytest.skip("the package is installed without its source tree")
    patterns = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]["echocare_hf"]
    relative = CATALOGUE_FILE.relative_to(Path(echocare_hf.__file__).parent)
    assert any(relative.match(pattern) for pattern in patterns)


# What is said to read it, on files laid out as the entry says

CLAIMS = sorted({(e.key, r.split(":")[1]) for e in ENTRIES for r in e.readers if r.startswith("finetune:")})
PAIRS = {  # key: (images with their masks, what to give to finetune)
    "busi": ([(f"{c}/{c} ({n}).png", f"{c}/{c} ({n})_mask.png") for c in ("benign", "malignant") for n in (1, 2)], ""),
    "hc18": (
        [(f"training_set/00{n}_HC.png", f"training_set/00{n}_HC_Annotation.png") for n in range(4)],
        "training_set",
    ),
    "nerve_kaggle": ([(f"train/{n}_1.tif", f"train/{n}_1_mask.tif") for n in range(1, 5)], "train"),
    "tnscui2020": ([(f"image/0000{n}.png", f"mask/0000{n}.png") for n in range(1, 5)], ""),
    "usgra_seg": ([(f"{f}images/{n}.png", f"{f}masks/{n}.png") for f in ("", "test/") for n in (1, 2)], ""),
    "kidney_quality": ([(f"{c}/{n}.png", None) for c in ("Good", "Bad") for n in (1, 2)], ""),
}
TABLES = {
    "hc18": {
        "training_set_pixel_size_and_HC.csv": "filename,pixel size(mm),head circumference (mm)\n000_HC.png,0.1,50\n"
    },
    "nerve_kaggle": {"sample_submission.csv": "img,pixels\n1,\n"},
    "tnscui2020": {"train.csv": "ID,CATE\n00001.png,1\n"},
}


@pytest.mark.parametrize(("key", "task"), CLAIMS)
def test_finetune_reads_what_is_claimed(tmp_path, key, task):
    pairs, given = PAIRS[key]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8))
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse((16, 12, 48, 36), fill=255)
    root = tmp_path / find_dataset(ENTRIES, key).key
    for picture, drawn in pairs:
        for name, content in ((picture, image), (drawn, mask)):
            if name:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                content.save(root / name)
    for name, text in TABLES.get(key, {}).items():
        (root / name).write_text(text)
    samples = read_labelled(root / given, task).samples
    assert len(samples) == len(pairs)
    if task == "segmentation":
        assert all(sample.mask for sample in samples)
    else:
        assert len({sample.label for sample in samples}) == 2


# Filters, against a plain search of the raw text


def is_below(node, ancestor):
    while node is not None:
        if node == ancestor:
            return True
        node = PARENTS[node]
    return False


@pytest.mark.parametrize("node", sorted(PARENTS))
def test_a_node_finds_what_shows_it_or_something_below_it(node):
    expected = [row["key"] for row in RAW if any(is_below(shown, node) for shown in row["nodes"] or [])]
    assert keys(filter_catalogue(ENTRIES, node=node)) == expected


@pytest.mark.parametrize("task", TASKS)
def test_conditions_are_joined(task):
    expected = [
        row["key"]
        for row in RAW
        if task in row["tasks"]
        and row["commercial"] is True
        and "by" in row["licence"].lower()
        and any(is_below(shown, "thorax") for shown in row["nodes"] or [])
    ]
    found = filter_catalogue(ENTRIES, task=task, commercial=True, licence="by", node="Chest")
    assert keys(found) == expected


def test_text_needs_every_word():
    for words in (
        "phantom",
        "carotid MASKS",
        "png Poly",
        "cc-by-nc",
        "Elastography",
        "CEUS",
        "request heart",
        "keypoints",
    ):
        expected = []
        for row in RAW:
            lists = [*(row["nodes"] or []), *row["tasks"], *(row["modality"] or [])]
            fields = [row["key"], row["name"], *lists, row["licence"], row["access"], row["layout"], row["note"]]
            text = " ".join(value for value in fields if value).lower()
            if all(word in text for word in words.lower().split()):
                expected.append(row["key"])
        assert expected and keys(filter_catalogue(ENTRIES, text=words)) == expected


def test_a_licence_in_another_spelling():
    """Some sources write CC BY 4.0, others CC-BY-4.0."""
    expected = [row["key"] for row in RAW if "CC BY 4.0" in (row["licence"] or "").replace("-", " ")]
    assert {"busbra", "aln_ultra"} <= set(expected)
    for spelling in ("CC BY 4.0", "cc-by-4.0", " Cc  By-4.0 "):
        assert keys(filter_catalogue(ENTRIES, licence=spelling)) == expected


def test_a_task_in_capitals():
    assert filter_catalogue(ENTRIES, task=" Segmentation") == filter_catalogue(ENTRIES, task="segmentation") != []


def test_without_conditions_all_are_found():
    assert filter_catalogue(ENTRIES) == ENTRIES


@pytest.mark.parametrize("given", ["busbra", "BUS-BRA", " Bus Bra "])
def test_a_key_in_other_spellings(given):
    assert find_dataset(ENTRIES, given).key == "busbra"


# Reading


def test_a_file_of_ones_own(write):
    row = {
        **GOOD,
        "count": {"patients": 3, "images": 12},
        "licence": "CC-BY-4.0",
        "commercial": True,
        "readers": ["curate"],
    }
    (entry,) = read_catalogue(write(row))
    assert entry.nodes == ("liver",) and list(entry.count.items()) == [("images", 12), ("patients", 3)]
    assert entry.checked == datetime.date(2026, 11, 22) and entry.home is None and entry.modality == ()
    assert entry.as_dict()["checked"] == "2026-11-22" and entry.as_dict()["readers"] == ["curate"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": ["livr"]}, "unknown anatomy node 'livr'; closest: liver"),
        ({"tasks": ["segmentaton"]}, "unknown task 'segmentaton'; closest: segmentation"),
        ({"tasks": []}, "the field tasks is missing or blank"),
        ({"sources": None}, "the field sources is missing or blank"),
        ({"sources": ["page 3"]}, "sources must have addresses that begin with https://, got 'page 3'"),
        ({"licens": "MIT"}, "unknown field 'licens'; closest: licence"),
        ({"modality": ["X-ray"]}, "unknown modality 'X-ray'"),
        ({"access": "downlod"}, "unknown access 'downlod'; closest: download"),
        ({"count": {"frames": 3}}, "unknown unit 'frames'"),
        ({"count": {"images": "many"}}, "whole numbers above 0, got 'many' images"),
        ({"count": 780}, "count must be numbers by unit"),
        ({"commercial": True}, "commercial is stated without a licence"),
        ({"commercial": "yes"}, "commercial must be true, false or blank"),
        ({"licence": "CC-BY-NC-4.0", "commercial": True}, "the licence CC-BY-NC-4.0 means commercial: false"),
        ({"licence": "CC-BY-4.0"}, "the licence CC-BY-4.0 means commercial: true"),
        ({"readers": ["finetune:report"]}, "the reader 'finetune:report' must be curate"),
        ({"readers": ["eval:"]}, "or eval: with an evaluation task"),
        ({"readers": ["eval:No task"]}, "or eval: with an evaluation task"),
        ({"nodes": "liver"}, "nodes must be a list of texts"),
        ({"nodes": ["liver", "liver"]}, "nodes names something twice"),
        ({"checked": "yesterday"}, "checked must be a date"),
        ({"key": "Some Set"}, "a key has small letters"),
        ({"name": "two\nlines"}, "name must be text of one line"),
    ],
)
def test_a_bad_entry_is_named(write, change, message):
    row = {**GOOD, **change}
    path = write({**GOOD, "key": "first"}, row)
    with pytest.raises(ValueError) as caught:
        read_catalogue(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: data set {row['key']}: ") and message in said and "\n" not in said


def test_a_key_stands_once(write):
    with pytest.raises(ValueError, match="data set some_set: stands in the catalogue twice"):
        read_catalogue(write(GOOD, GOOD))
    with pytest.raises(ValueError, match="data set 2: must be fields with values"):
        read_catalogue(write(GOOD, "busi"))


@pytest.mark.parametrize(
    ("text", "message"), [("- [", "is no YAML text"), ("key: busi", "must be a list of data sets")]
)
def test_a_file_that_is_no_catalogue(tmp_path, text, message):
    path = tmp_path / "sets.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_catalogue(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# echocare catalogue


def test_the_table_fits_and_counts():
    result = run()
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and max(map(len, lines)) <= WIDTH == 100
    assert [line.split()[0] for line in lines[1 : 1 + len(RAW)]] == [row["key"] for row in RAW]
    assert lines[-1].startswith(f"{len(RAW)} data sets;")
    starts = {line.index(word) for line, word in ((lines[0], "TASKS"), (lines[1], "segmentation"))}
    assert len(starts) == 1  # aligned


def test_the_table_of_none_and_of_one():
    assert run("--text", "nothing has this").stdout.splitlines()[-1].startswith("0 data sets;")
    assert format_table(ENTRIES[:1]).splitlines()[-1].startswith("1 data set;")


@pytest.mark.parametrize("width", [75, 80, 150])
def test_the_table_of_other_widths(width):
    lines = format_table(ENTRIES, width).splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines[1 : 1 + len(RAW)]] == [row["key"] for row in RAW]


@pytest.mark.parametrize("columns", [80, 200])
def test_the_table_is_as_wide_as_the_terminal(columns):
    pty = pytest.importorskip("pty", reason="the system has no pseudo-terminals")
    main, terminal = pty.openpty()
    try:
        command = [sys.executable, "-m", "echocare_hf.cli", "catalogue", "--node", "eye"]
        environment = {**os.environ, "COLUMNS": str(columns)}
        assert subprocess.run(command, stdout=terminal, env=environment, timeout=120).returncode == 0
        lines = os.read(main, 65536).decode().splitlines()
    finally:
        os.close(terminal)
        os.close(main)
    expected = format_table(filter_catalogue(ENTRIES, node="eye"), columns).splitlines()
    assert lines[0] == expected[0] and len(lines[0]) <= columns


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gbk", "ascii", "utf-8"])
def test_letters_that_the_terminal_lacks(encoding):
    def printed(*args):
        command = [sys.executable, "-m", "echocare_hf.cli", "catalogue", *args]
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        result = subprocess.run(command, capture_output=True, env=environment, timeout=120)
        assert (result.returncode, result.stderr) == (0, b"")
        # Click writes UTF-8 where Python says ASCII.
        return result.stdout.decode("utf-8" if encoding == "ascii" else encoding)

    assert json.loads(printed("--json")) == [entry.as_dict() for entry in ENTRIES]
    assert len(printed().splitlines()) == len(RAW) + 3


def test_options_that_are_given_twice_must_all_be_met():
    result = run("--task", "segmentation", "--task", "detection", "--node", "thorax", "--node", "breast", "--json")
    expected = [
        row["key"]
        for row in RAW
        if {"segmentation", "detection"} <= set(row["tasks"])
        and any(is_below(shown, "breast") for shown in row["nodes"] or [])
    ]
    assert [row["key"] for row in json.loads(result.stdout)] == expected != []
    twice = json.loads(run("--licence", "CC", "--licence", "SA", "--text", "png", "--text", "masks", "--json").stdout)
    assert twice == [
        entry.as_dict()
        for entry in filter_catalogue(ENTRIES, text="png masks")
        if "CC" in (entry.licence or "").upper() and "SA" in (entry.licence or "").upper()
    ]


def test_options_filter():
    result = run("--node", "liver", "--task", "segmentation", "--commercial", "--json")
    expected = filter_catalogue(ENTRIES, node="liver", task="segmentation", commercial=True)
    assert result.exit_code == 0 and [row["key"] for row in json.loads(result.stdout)] == keys(expected) != []
    assert json.loads(run("--licence", "cc0", "--json").stdout) == [
        entry.as_dict() for entry in filter_catalogue(ENTRIES, licence="cc0")
    ]


def test_one_data_set():
    result = run("busbra")
    row = next(row for row in RAW if row["key"] == "busbra")
    assert result.exit_code == 0 and result.stdout.startswith("BUS-BRA\n")
    for value in (
        row["licence"],
        row["home"],
        row["layout"],
        row["checked"],
        "Thorax -> Breast [breast]",
        *row["sources"],
    ):
        assert value in result.stdout
    assert "python eval/run.py --task busbra" in result.stdout
    assert json.loads(run("busbra", "--json").stdout)["count"] == row["count"]


def test_what_is_unknown_is_said():
    (licence,) = (line for line in run("abdomenus").stdout.splitlines() if line.strip().startswith("licence"))
    assert licence.split() == ["licence", "unknown"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["busbr"], "no data set 'busbr' in the catalogue; closest: busbra"),
        (["--task", "segmentaton"], "unknown task 'segmentaton'; closest: segmentation"),
        (["--node", "livr"], "livr"),
        (["busbra", "--node", "breast"], "KEY names one data set"),
    ],
)
def test_bad_input_ends_in_one_line(args, message):
    result = run(*args)
    assert result.exit_code == 2 and result.stdout == ""
    assert message in result.stderr and result.stderr.count("\n") == 1
