"""eval/reports.py: phantom exams from end to end, what is there is not made again, and the flags of other organs."""

import json

import pytest

import reports


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    output = tmp_path_factory.mktemp("reports") / "runs"
    line = ["run", "--output", str(output), "--sets", "phantoms_en", "--model", "tiny", "--seeds", "0"]
    assert reports.main([*line, "--exams", "15", "--minutes", "0.02", "--image_size", "32"]) == 0
    return output, line


def test_a_run_that_is_there_is_not_made_again(runs, capsys):
    output, line = runs
    before = (output / "phantoms_en" / "0" / "metrics.json").read_bytes()
    assert reports.main(line) == 0
    assert "phantoms_en, seed 0: is there" in capsys.readouterr().out
    assert (output / "phantoms_en" / "0" / "metrics.json").read_bytes() == before


def test_the_table_has_the_generator_beside_both_baselines(runs, capsys):
    output, _ = runs
    assert reports.main(["table", "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    record = json.loads((output / "phantoms_en" / "0" / "metrics.json").read_text())
    for method in ("generator", "nearest neighbour", "most frequent"):
        row = next(line for line in shown.splitlines() if line.startswith(f"| {method} |"))
        assert f"{record['test'][method]['score']:.3f}" in row
    assert "1 seeds" in shown and "Check against the findings head" in shown and "Examples of the test part" in shown


def test_flags_of_other_organs_on_written_reports(runs, capsys):
    output, _ = runs
    assert reports.main(["organs", "--output", str(output)]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows] == ["breast", "lung", "thyroid"]
    for place, row in enumerate(rows):
        flagged = [cell.split()[0] for cell in row[3:]]
        assert row[2].startswith("0 of ") and flagged == ["0" if other == place else "5" for other in range(3)]


@pytest.mark.parametrize("action", ["run", "organs"])
def test_wrong_input_ends_with_one_line(tmp_path, capsys, action):
    options = ["--sets", "lung_pocovid", "--data", str(tmp_path)] if action == "run" else []
    assert reports.main([action, "--output", str(tmp_path / "none"), *options]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: ") and "\n" not in told and str(tmp_path) in told


def test_pairs_of_another_split_are_not_used(shared_data, tmp_path, capsys):
    folder = tmp_path / "pairs" / "lung_pocovid"
    folder.mkdir(parents=True)
    pairs = [{**pair, "split": "train"} for pair in reports.lung_pairs(shared_data / "lung_pocovid")]
    (folder / "pairs.json").write_text(json.dumps(pairs))
    line = ["run", "--output", str(tmp_path), "--sets", "lung_pocovid", "--data", str(shared_data / "lung_pocovid")]
    assert reports.main(line) == 2
    told = capsys.readouterr().err
    assert "holds other pairs or another split" in told and "choose another --output" in told
