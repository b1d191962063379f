"""eval/head_start.py: folds, what a table says of records, and both actions on a small data set."""

import json
import sys
from pathlib import Path

import pytest

from echocare_hf.data.labelled import Sample

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "eval"))
import head_start


def people(*sizes):
    names = [f"p{person}" for person, size in enumerate(sizes) for _ in range(size)]
    return [Sample(f"{row}.png", (f"{row}.png",), label=row % 2, group=name) for row, name in enumerate(names)]


def test_folds_hold_whole_people():
    samples = people(*[4, 3, 5, 2, 6] * 4)
    for each in (True, False):
        folds = head_start.folds_of(samples, each)
        assert len(set(folds)) == (20 if each else 5)
        of_person = {}
        for sample, fold in zip(samples, folds, strict=True):
            assert of_person.setdefault(sample.group, fold) == fold
    assert min(folds.count(fold) for fold in range(5)) >= 12


def test_the_next_two_small_people_are_the_validation_part():
    folds = head_start.folds_of(people(9, 9, 60, 9, 9), True)
    found = [head_start.validation_of(fold, folds, True) for fold in range(5)]
    assert found == [{1, 3}, {3, 4}, {3, 4}, {4, 0}, {0, 1}]
    assert [head_start.validation_of(fold, folds, False) for fold in (0, 4)] == [{1}, {0}]


def test_what_a_table_says_of_a_record():
    def record(start, trained, kept):
        values = {
            name: {part: {"auc": one} for part, one in parts.items()}
            for name, parts in (("start", start), ("trained", trained))
        }
        return {"greater_is_better": True, "metric": "auc", "kept": kept, **values}

    better = record({"validation": 0.8, "test": 0.6}, {"validation": 0.7, "test": 0.9}, False)
    assert head_start.chosen(better, "auc", "auc") == (0.6, 0.9, 0.6, 0.9)
    assert head_start.chosen(better | {"kept": True}, "auc", "auc") == (0.6, 0.9, 0.6, 0.6)
    assert head_start.chosen({"trained": better["trained"]}, "auc", "auc") == (None, 0.9, None, None)


@pytest.mark.slow
def test_both_actions(discs, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(head_start.ROWS, "regression_discs", ("regression", discs.name, "--target", "radius_mm"))
    line = [
        "--data",
        str(discs.parent),
        "--rows",
        "regression_discs",
        "--model",
        str(checkpoint),
        "--cpu_minutes",
        "0.005",
    ]
    assert head_start.main(["linear", *line, "--augmented", "1"]) == 0
    rows = [text.split("|") for text in capsys.readouterr().out.splitlines() if text.startswith("| regression_discs")]
    assert [row[2].strip() for row in rows] == ["0", "1"] and all(
        0 < float(value) < 10 for row in rows for value in row[3:7]
    )
    line += ["--output", str(tmp_path)]
    assert head_start.main(["runs", *line]) == 0
    files = sorted(tmp_path.rglob("*.json"))
    assert len(files) == 5
    before = files[0].stat().st_mtime_ns
    assert head_start.main(["runs", *line]) == 0 and files[0].stat().st_mtime_ns == before, "a run was repeated"
    capsys.readouterr()
    assert head_start.main(["table", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"| regression_discs, {Path(checkpoint).name} | error | 5 |" in printed
    assert json.loads(files[0].read_text())["start"]["test"]["error"] > 0
