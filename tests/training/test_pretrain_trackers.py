"""TensorBoard and trackio: what they hold after a run that was killed and went on, read back from the disk."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import accelerate.utils
import pytest
from accelerate.state import AcceleratorState

from echocare_hf.pretraining.run import read_log

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "training"))
import pretrain  # noqa: E402

SHORT = "--steps 10 --warmup_steps 2 --log_every 1 --save_every 4 --evaluate_every 5 --probe_images 0 --sample_images 0 --precision fp32"
NAMES = ("loss", "reconstruction", "anatomy", "hard_patches", "contrast", "learning_rate", "image_size")


@pytest.fixture(autouse=True)
def fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """The smoke recipe with both trackers, killed in step 8, when steps 5 to 7 are logged but not in a checkpoint, and gone on with."""
    pytest.importorskip("tensorboard", reason="the extra `trackers` is not installed")
    pytest.importorskip("trackio", reason="the extra `trackers` is not installed")
    folder = tmp_path_factory.mktemp("tracked")
    told = [str(ROOT / "training" / "recipes" / "smoke.yaml"), "--output_dir", str(folder / "run"), *SHORT.split()]
    told += ["--trackers", "tensorboard", "trackio"]
    tasks = [{"arguments": told, "kill": ["MovingAverage.update", 8]}, {"arguments": told}]
    command = [sys.executable, str(Path(__file__).with_name("pretrain_driver.py")), json.dumps(tasks)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRACKIO_DIR": str(folder / "trackio")}
    environment.pop("TRACKIO_SPACE_ID", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0 and json.loads(done.stdout.splitlines()[-1]) == [-9, 0], done.stderr
    assert "asked for the network" not in done.stderr
    log = read_log(folder / "run" / "metrics.jsonl")
    assert [entry["step"] for entry in log if "loss" in entry] == list(range(1, 11))
    return folder, log


def test_tensorboard_holds_each_step_once(tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, log = tracked
    events = EventAccumulator(str(folder / "run" / "echocare"))
    events.Reload()
    for name in (*NAMES, "validation_loss", "validation_masked_error"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        wanted = [(entry["step"], pytest.approx(entry[name], rel=1e-6)) for entry in log if name in entry]
        assert found == wanted, name


def test_trackio_holds_one_run_with_every_step(tracked):
    folder, log = tracked
    with sqlite3.connect(folder / "trackio" / "echocare.db") as store:
        rows = store.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert {name for name, _, _ in rows} == {"run"}
    found = {}
    for _, step, text in rows:  # a step that was done again comes again
        found.setdefault(step, {}).update(json.loads(text))
    assert sorted(found) == list(range(1, 11))
    for entry in log:
        for name in set(entry) & {*NAMES, "validation_loss", "gradient_norm"}:
            assert found[entry["step"]][name] == pytest.approx(entry[name]), (entry["step"], name)


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio"])
def test_a_tracker_that_is_not_installed_is_told_with_the_extra(tracker, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accelerate.utils, f"is_{tracker}_available", lambda: False)
    told = [str(ROOT / "training" / "recipes" / "smoke.yaml"), "--output_dir", str(tmp_path / "run")]
    assert pretrain.main([*told, "--trackers", tracker]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the tracker {tracker} is not installed" in line and "echocare-hf[trackers]" in line
    assert not (tmp_path / "run").exists()
