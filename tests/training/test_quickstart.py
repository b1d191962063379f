"""The quickstart, in-process, with a handful of steps: what it makes, what it does not make again, what it says of wrong input."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image
from transformers import AutoModelForPreTraining

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
import quickstart

SHORT = ["--steps", "2", "--minutes", "0.02", "--phantoms", "66", "--test-phantoms", "11"]


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """The folder of one run. Accelerate has one precision a process, which a test before may have chosen."""
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    assert quickstart.main([*SHORT, "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def results(output):
    return json.loads((output / "results.json").read_text())


def test_it_makes_a_page_a_gallery_and_results(output, results):
    with Image.open(output / "gallery.png") as gallery:
        assert gallery.mode == "RGB" and gallery.width > 1000
        assert np.asarray(gallery).std() > 10  # something is drawn
    page = (output / "index.html").read_text()
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 3 * len(results["images"]) + 3  # the heads, and the contact sheet of each
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "Not a medical device" in page and "means nothing" in page and "<script" not in page
    assert 60 <= results["curation"]["kept"] <= 66
    for name in ("masked_l1", "visible_mean_l1", "visible_median_l1", "organ_accuracy", "organ_majority"):
        assert 0 <= results["held_out_phantoms"][name] <= 1
    assert results["run"]["torch"] and results["run"]["machine"]


def test_the_heads_are_measured_on_parts_of_their_own(results):
    for task, metric in (("segmentation", "dice"), ("classification", "auc")):
        figures = results["heads"][task]
        assert set(figures["samples"]) == {"train", "validation", "test"} and figures["samples"]["test"] > 0
        assert 0 <= figures["test"][metric] <= 1


def test_a_process_without_the_package_found_the_same(output, results):
    """What the quickstart itself compares; here that it would notice a difference."""
    assert set(results["fresh_process"]["scores"]) == set(quickstart.PHANTOM_KINDS)
    image = output / results["heads"]["segmentation"]["data"] / "images"
    heads = {task: output / task for task in ("segmentation", "classification")}
    config = json.loads((heads["classification"] / "config.json").read_text())
    assert "auto_map" in config
    before = quickstart.pipeline

    def another(task, model, **options):
        run = before(task, model=model, **options)
        if task == "image-classification":
            return lambda image: [{**found, "score": found["score"] / 2} for found in run(image)]
        return run

    quickstart.pipeline = another
    try:
        with pytest.raises(RuntimeError, match="the fresh process gives"):
            quickstart.fresh_process(heads, sorted(image.iterdir())[0])
    finally:
        quickstart.pipeline = before


def test_the_pretrained_folder_goes_on_from_echocare_tiny(output):
    record = json.loads((output / "pretrained" / "final" / "training.json").read_text())
    assert record["recipe"]["initial_weights"] == "echocare-tiny" and record["step"] == 2
    _, report = AutoModelForPreTraining.from_pretrained(output / "pretrained" / "final", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]


def test_no_half_written_file_is_left(output):
    assert not [path for path in output.rglob("*") if "partial" in path.name]


def test_a_second_run_makes_nothing_again(output, results, monkeypatch):
    for name, module in (("main", quickstart.finetune), ("main", quickstart.pretrain), ("curate", quickstart)):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("made again"))
    assert quickstart.main([*SHORT, "--output", str(output)]) == 0
    again = json.loads((output / "results.json").read_text())
    assert again["held_out_phantoms"] == results["held_out_phantoms"] and again["heads"] == results["heads"]


def test_own_images_are_shown_and_a_corrupt_one_is_named(output, tmp_path, capsys):
    data = tmp_path / "data"
    (data / "below").mkdir(parents=True)
    Image.fromarray(np.tile(np.arange(96, dtype=np.uint8), (64, 1))).save(data / "below" / "good.png")
    (data / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    (data / "notes.txt").write_text("no image, and not tried")
    assert quickstart.main([*SHORT, "--data", str(data), "--output", str(output)]) == 1
    assert "broken.png" in capsys.readouterr().err
    found = json.loads((output / "results.json").read_text())
    assert [image["title"] for image in found["images"] if image["section"] == "Your images"] == ["good.png"]
    assert len(found["failures"]) == 1 and "broken.png" in found["failures"][0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--model", "./no_such_model"], "no_such_model"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_wrong_input_ends_in_one_line_and_exit_code_2(arguments, named, tmp_path, capsys):
    assert quickstart.main([*SHORT, "--output", str(tmp_path / "out"), *arguments]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert named in line and line.startswith("error: ")


def test_a_wrong_option_ends_in_one_line_and_exit_code_2(capsys):
    with pytest.raises(SystemExit) as exit_info:
        quickstart.main(["--steps", "0"])
    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--steps" in line
