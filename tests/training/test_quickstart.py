"""The quickstart, in-process, with a handful of steps: what it writes, what it reuses, what it says of wrong input."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "training" / "quickstart.py"


def load_script():
    spec = importlib.util.spec_from_file_location("quickstart", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["quickstart"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


quickstart = load_script()
SHORT = ["--steps", "2", "--test-phantoms", "11"]


@pytest.fixture(autouse=True)
def few_phantoms(monkeypatch):
    """A corpus of one phantom a kind, so that a run takes seconds."""
    small = quickstart.Recipe.__init__

    def initialise(self, **settings):
        small(self, **{"phantoms": 11, "batch_size": 4, **settings})

    monkeypatch.setattr(quickstart.Recipe, "__init__", initialise)


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("quickstart")


@pytest.fixture
def first_run(output, few_phantoms):
    """The results of a run; the first test that asks makes it."""
    if not (output / "results.json").exists():
        assert quickstart.main([*SHORT, "--output", str(output)]) == 0
    return json.loads((output / "results.json").read_text())


def test_it_writes_a_gallery_a_page_and_results(first_run, output):
    with Image.open(output / "gallery.png") as gallery:
        assert gallery.mode == "RGB" and gallery.width > 1000
        assert np.asarray(gallery).std() > 10  # something is drawn
    page = (output / "index.html").read_text()
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 3 * len(first_run["images"])
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "Not a medical device" in page and "not a trained model" in page and "<script" not in page

    assert set(first_run) == {"weights", "held_out_phantoms", "images", "failures", "run"}
    assert first_run["weights"]["training"]["steps_done"] == 2
    assert first_run["held_out_phantoms"]["images"] == 11
    for name in ("masked_l1", "visible_mean_l1", "visible_median_l1", "organ_accuracy", "organ_majority"):
        assert 0 <= first_run["held_out_phantoms"][name] <= 1
    assert first_run["run"]["torch"] and first_run["run"]["machine"]


def test_real_images_are_marked_as_out_of_domain_and_phantoms_are_not(first_run):
    for image in first_run["images"]:
        assert bool(image["warning"]) == image["section"].startswith("Real")


def test_no_half_written_file_is_left(first_run, output):
    assert not [path for path in output.rglob("*") if "partial" in path.name]


def test_a_second_run_reuses_the_checkpoint(first_run, output, capsys, monkeypatch):
    monkeypatch.setattr(quickstart, "pretrain", lambda *_: pytest.fail("trained again"))
    assert quickstart.main([*SHORT, "--output", str(output)]) == 0
    assert "earlier run" in capsys.readouterr().out
    assert json.loads((output / "results.json").read_text())["held_out_phantoms"] == first_run["held_out_phantoms"]


def test_a_corrupt_file_is_named_and_the_rest_goes_on(first_run, output, tmp_path, capsys):
    data = tmp_path / "data"
    (data / "below").mkdir(parents=True)
    Image.fromarray(np.tile(np.arange(96, dtype=np.uint8), (64, 1))).save(data / "below" / "good.png")
    (data / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    (data / "notes.txt").write_text("no image, and not tried")
    checkpoint = next(output.glob("checkpoint-*"))
    arguments = [*SHORT, "--model", str(checkpoint), "--data", str(data), "--output", str(tmp_path / "out")]
    assert quickstart.main(arguments) == 1
    assert "broken.png" in capsys.readouterr().err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [image["title"] for image in results["images"] if image["section"] == "Your images"] == ["good.png"]
    assert len(results["failures"]) == 1 and "broken.png" in results["failures"][0]


def test_interrupted_training_leaves_no_checkpoint(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(quickstart, "set_learning_rate", interrupt)
    assert quickstart.main([*SHORT, "--output", str(tmp_path)]) == 130
    assert list(tmp_path.iterdir()) == []
    assert len(capsys.readouterr().err.strip().splitlines()[-1:]) == 1


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
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert named in line and line.startswith("error: ")


def test_a_wrong_option_ends_in_one_line_and_exit_code_2(capsys):
    with pytest.raises(SystemExit) as exit_info:
        quickstart.main(["--steps", "0"])
    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--steps" in line
