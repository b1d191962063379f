"""training/pretrain.py from end to end on a small corpus: what it makes, how it goes on, how it fails."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel

from echocare_hf import EchoCareConfig, EchoCareForPreTraining
from echocare_hf.anatomy import AnatomyTree
from echocare_hf.pretraining.run import read_log

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "training"), str(ROOT / "tests" / "pretraining")]
from corpora import rows_of, write_files, write_shards, write_table  # noqa: E402

import pretrain  # noqa: E402

RECIPE = """
preset: tiny
config: {embed_dim: 8, depths: [1, 1], num_heads: [1, 2], window_size: 4, anatomy_hidden_size: 16, drop_path_rate: 0.2}
steps: 10
batch_size: 8
warmup_steps: 2
image_size: 32
precision: fp32
hard_patches: true
contrast_weight: 0.1
log_every: 1
evaluate_every: 5
save_every: 3
sample_images: 2
validation: 0.25
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain")
    write_files(folder / "files")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(autouse=True)
def fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)


def arguments(files, output, *more):
    return [str(part) for part in (files / "recipe.yaml", "--data", files / "files", "--output_dir", output, *more)]


def drive(tasks, **values):
    # As many threads as here: sums are rounded in another order by another number of them.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), **values}
    command = [sys.executable, str(Path(__file__).with_name("pretrain_driver.py")), json.dumps(tasks)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def weights(output, folder="final"):
    return load_file(output / folder / "model.safetensors")


def assert_equal_runs(one, other):
    for folder in ("final", "best"):
        assert weights(one, folder).keys() == weights(other, folder).keys()
        assert all(torch.equal(value, weights(other, folder)[name]) for name, value in weights(one, folder).items())
    logs = [read_log(output / "metrics.jsonl") for output in (one, other)]
    for entry in logs[0] + logs[1]:
        entry.pop("images_per_second", None)
    assert logs[0] == logs[1]


def damage_images(shard, contents):
    """Puts these bytes in turn in the place of a shard's images."""
    table = parquet.read_table(shard)
    rows = table.to_pylist()
    for number, row in enumerate(rows):
        row["image"]["bytes"] = contents[number % len(contents)]
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), shard)


@pytest.fixture(scope="module")
def uninterrupted(files, tmp_path_factory):
    AcceleratorState._reset_state(reset_partial_state=True)
    output = tmp_path_factory.mktemp("whole") / "run"
    assert pretrain.main(arguments(files, output)) == 0
    return output


def test_a_run_makes_a_model_that_loads_and_says_how_it_was_made(uninterrupted, capsys, files):
    model = AutoModel.from_pretrained(uninterrupted / "final")
    processor = AutoImageProcessor.from_pretrained(uninterrupted / "final")
    assert (processor.size["height"], model.config.embed_dim) == (32, 8)
    _, report = EchoCareForPreTraining.from_pretrained(uninterrupted / "best", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]

    record = json.loads((uninterrupted / "final" / "training.json").read_text())
    assert (record["step"], record["images_seen"], record["train_images"] + record["validation_images"]) == (
        10,
        80,
        24,
    )
    assert set(record["licences"]) == {"CC BY 4.0", "CC BY-NC 4.0"}
    assert [entry["step"] for entry in record["history"]] == [5, 10]
    figures = {
        "loss",
        "masked_error",
        "median_error",
        "anatomy_loss",
        "organ_accuracy",
        "organ_majority",
        "knn_accuracy",
    }
    assert {f"validation_{name}" for name in figures} < set(record["history"][0])
    card = (uninterrupted / "final" / "README.md").read_text()
    assert "license: other" in card and "CC BY-NC 4.0" in card and "linear_probe_accuracy" in card

    log = [entry for entry in read_log(uninterrupted / "metrics.jsonl") if "reconstruction" in entry]
    assert [entry["step"] for entry in log] == list(range(1, 11))
    assert {"loss", "reconstruction", "anatomy", "hard_patches", "contrast", "gradient_norm", "learning_rate"} < set(
        log[0]
    )
    assert log[-1]["hard_share"] == pytest.approx(0.45) and log[-1]["anatomy"] < log[0]["anatomy"]
    names = sorted(path.name for path in (uninterrupted / "checkpoints").iterdir())
    assert names == ["step-00000009", "step-00000010"]
    assert len(list((uninterrupted / "samples").glob("*.png"))) == 2

    assert pretrain.main(arguments(files, uninterrupted)) == 0
    assert "is there already" in capsys.readouterr().out


KILLS = [
    {"kill": ["MovingAverage.update", 2]},  # before the first checkpoint
    {"kill": ["MovingAverage.update", 5], "late": True},
    {"kill": ["Checkpoints.finish", 1]},  # the checkpoint of step 6 is written, but not complete
    {"kill": ["Checkpoints.finish", 1], "late": True},
    {"kill": ["RunFolder.log", 3], "late": True},
    {"kill": ["Checkpoints._remove", 1], "late": True},
]


def test_a_run_killed_anywhere_ends_with_the_same_weights(files, uninterrupted, tmp_path):
    told = arguments(files, tmp_path / "run")
    codes, errors = drive([{"arguments": told, **kill} for kill in KILLS] + [{"arguments": told}])
    assert codes == [-signal.SIGKILL] * len(KILLS) + [0], errors
    assert_equal_runs(uninterrupted, tmp_path / "run")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_saves_first(number, code, files, uninterrupted, tmp_path):
    told = arguments(files, tmp_path / "run")
    stopped = {"arguments": told, "kill": ["MovingAverage.update", 4], "signal": number}
    codes, errors = drive([stopped])
    assert codes == [code], errors
    assert (tmp_path / "run" / "checkpoints" / "step-00000004" / "manifest.json").is_file()
    assert pretrain.main(told) == 0
    assert_equal_runs(uninterrupted, tmp_path / "run")


def test_a_checkpoint_that_is_cut_short_is_passed_over(files, uninterrupted, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    shutil.rmtree(run / "final")
    last = run / "checkpoints" / "step-00000010"
    with (last / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    assert pretrain.main(arguments(files, run)) == 0
    said = capsys.readouterr().out
    assert "model.safetensors has 1000 of" in said and "going on after step 9" in said
    assert_equal_runs(uninterrupted, run)


def test_a_run_without_a_whole_checkpoint_is_not_begun_anew_over_them(files, uninterrupted, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    shutil.rmtree(run / "final")
    for path in run.glob("checkpoints/*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:1000])
    before = {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()}
    assert pretrain.main(arguments(files, run)) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert "model.safetensors has 1000 of" in line and "nothing was removed" in line
    assert {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()} == before
    shutil.rmtree(run / "checkpoints")
    assert pretrain.main(arguments(files, run)) == 0
    assert_equal_runs(uninterrupted, run)


@contextlib.contextmanager
def full_disk(size=20_000):
    """A limit on the size of files stands for it: writing beyond it fails in the same way."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_ends_with_one_line_and_the_last_checkpoint(files, uninterrupted, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    told = arguments(files, run)
    save = pretrain.RunFolder.save
    saved = []

    def fill_the_disk(self, *parts):
        saved.append(parts[-1]["step"])
        if len(saved) < 2:
            return save(self, *parts)
        with full_disk():
            return save(self, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(pretrain.RunFolder, "save", fill_the_disk)
        assert pretrain.main(told) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert "step-00000006: the checkpoint cannot be written" in line and "step 3 is intact" in line
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"]
    assert pretrain.main(told) == 0
    assert_equal_runs(uninterrupted, run)


def test_a_full_disk_at_a_look_ends_with_one_line_and_the_last_checkpoint(
    files, uninterrupted, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    told = arguments(files, run)
    save_model = pretrain.save_model

    def fill_the_disk(*values):
        with full_disk():
            return save_model(*values)

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "save_model", fill_the_disk)
        assert pretrain.main(told) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert "best: the model cannot be written" in line and "Make room on the disk" in line
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"]
    assert not (run / "best").exists() and not list(run.glob(".best*"))
    assert pretrain.main(told) == 0
    assert_equal_runs(uninterrupted, run)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_goes_away_ends_with_one_line(workers, files, tmp_path, capsys, monkeypatch):
    shards = write_shards(tmp_path / "shards")
    told = arguments(files, tmp_path / "run", "--memory_mb", "0", "--probe_images", "0", "--evaluate_every", "100")
    told += ["--workers", str(workers), "--steps", "24"]
    told[2] = str(shards)
    gone = shards / "data" / "train-00001-of-00003.parquet"
    update = pretrain.MovingAverage.update
    calls = []

    def take_away(self, *values):
        calls.append(1)
        if len(calls) == 4:
            gone.rename(tmp_path / "elsewhere")
        return update(self, *values)

    with monkeypatch.context() as patch:
        patch.setattr("echocare_hf.pretraining.images.ROW_GROUPS_KEPT", 1)
        patch.setattr(pretrain.MovingAverage, "update", take_away)
        assert pretrain.main(told) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert gone.name in line and "cannot be read any more" in line and "Traceback" not in line
    saved = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert saved and (tmp_path / "run" / "checkpoints" / saved[-1] / "manifest.json").is_file()
    assert pretrain.main(told) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert "was run on other images (20 to train on, now 13)" in line
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*")) == saved
    (tmp_path / "elsewhere").rename(gone)
    assert pretrain.main(told) == 0
    assert len(read_log(tmp_path / "run" / "metrics.jsonl")) == 25


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_goes_away_ends_with_one_line(workers, files, tmp_path, capsys, monkeypatch):
    shutil.copytree(files / "files", tmp_path / "files")
    told = arguments(files, tmp_path / "run", "--memory_mb", "0", "--probe_images", "0", "--workers", str(workers))
    told[2] = str(tmp_path / "files")
    prepare = pretrain.prepare

    def take_away(*values, **named):
        data = prepare(*values, **named)
        for path in (tmp_path / "files" / "images").iterdir():
            path.write_bytes(path.read_bytes()[:200])
        return data

    monkeypatch.setattr(pretrain, "prepare", take_away)
    assert pretrain.main(told) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert "is a damaged or cut-short image" in line and "Traceback" not in line and "Caught" not in line


def test_a_log_that_cannot_be_written_ends_with_one_line(files, uninterrupted, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    log = pretrain.RunFolder.log

    def fill_the_disk(self, entry):
        if entry["step"] < 8:
            return log(self, entry)
        with full_disk(1):
            return log(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(pretrain.RunFolder, "log", fill_the_disk)
        assert pretrain.main(arguments(files, run)) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert "metrics.jsonl: cannot be written" in line and "Make room on the disk" in line
    assert pretrain.main(arguments(files, run)) == 0
    assert_equal_runs(uninterrupted, run)


def test_numbers_that_run_away_on_a_full_disk_still_end_with_one_line(files, tmp_path, capsys, monkeypatch):
    def fail(*values):
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(pretrain.torch, "save", fail)
    more = ["--learning_rate", "1e30", "--hard_patches", "false", "--save_every", "100"]
    assert pretrain.main(arguments(files, tmp_path / "run", *more)) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert "the gradient norm is" in line and "the batch could not be written" in line
    assert not list((tmp_path / "run").glob("*bad-batch*"))


def test_numbers_that_run_away_stop_the_run_with_the_batch_saved(files, tmp_path, capsys):
    run = tmp_path / "run"
    assert pretrain.main(arguments(files, run, "--learning_rate", "1e30", "--hard_patches", "false")) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert "the gradient norm is" in line and "Lower the learning rate" in line
    (saved,) = run.glob("bad-batch-*.pt")
    content = torch.load(saved, weights_only=True)
    assert content["batches"][0]["pixel_values"].shape == (8, 3, 32, 32)
    assert len(content["names"][0]) == 8 and content["names"][0][0].startswith("images/")


def other_tree(folder):
    config = EchoCareConfig.preset(
        "tiny", embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, anatomy_hidden_size=16
    )
    config.anatomy_tree = {"ids": ["a"], "names": ["A"], "parents": [-1]}
    EchoCareForPreTraining(config).save_pretrained(folder)


def other_architecture(folder):
    EchoCareForPreTraining(
        EchoCareConfig.preset("tiny", embed_dim=12, depths=[1, 1], num_heads=[1, 2])
    ).save_pretrained(folder)


def label_of_no_tree(folder):
    write_table(write_files(folder, 4), [{**row, "node": "liver_of_fish"} for row in rows_of(4)])


def one_patient(folder):
    write_table(write_files(folder, 4), [{**row, "group": "p0"} for row in rows_of(4)])


def no_rows(folder):
    shard = sorted((write_shards(folder, 8, 1) / "data").glob("train-*"))[0]
    parquet.write_table(parquet.read_table(shard).slice(0, 0), shard)
    sorted((folder / "data").glob("validation-*"))[0].unlink()


def damaged_shards(folder):
    for shard in (write_shards(folder) / "data").glob("train-*"):
        damage_images(shard, [None, b"no image"])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--stepz", "3"], "stepz"),
        (["--data", one_patient], "all images (4) are of one group or look alike"),
        (["--data", no_rows], "checkpoint/data: holds no images"),
        (["--data", damaged_shards], "row 0: holds no image; curate the corpus again"),
        (["--output_dir", "/dev/null"], "/dev/null: no run can be written there"),
        (["--batch_size", "7", "--accumulation", "2"], "batch_size (7) must be a multiple"),
        (["--config", '{"embed_dim": 8, "colour": 3}'], "colour"),
        (["--trackers", "abacus"], "abacus"),
        (["--initial_weights", "nowhere/at/all"], "no EchoCare checkpoint"),
        (["--initial_weights", other_tree], "has another anatomy tree"),
        (["--initial_weights", other_architecture], "is of another architecture"),
        (["--data", "nowhere"], "there is no such folder"),
        (["--licences", "CC0"], "no image has one of the licences CC0"),
        (["--data", label_of_no_tree], "liver_of_fish"),
    ],
)
def test_wrong_input_ends_with_one_line(more, told, files, tmp_path, capsys):
    for place, part in enumerate(more):
        if callable(part):
            part(tmp_path / "checkpoint")
            more = [*more[:place], str(tmp_path / "checkpoint"), *more[place + 1 :]]
    capsys.readouterr()
    assert pretrain.main(arguments(files, tmp_path / "run", *more)) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert told in line
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


def test_a_corpus_without_labels_needs_the_weights_at_zero(files, tmp_path, capsys):
    shutil.copytree(files / "files", tmp_path / "files")
    write_table(tmp_path / "files", [{**row, "node": ""} for row in rows_of(24)])
    told = arguments(files, tmp_path / "run", "--steps", "3", "--warmup_steps", "1")
    told[2] = str(tmp_path / "files")
    assert pretrain.main(told) == 2
    assert "no image has an anatomy label; give a column `node`" in capsys.readouterr().err
    assert (
        pretrain.main(
            [*told[:4], str(tmp_path / "run2"), *told[5:], "--anatomy_weight", "0", "--contrast_weight", "0"]
        )
        == 0
    )
    last = read_log(tmp_path / "run2" / "metrics.jsonl")[-1]
    assert "validation_masked_error" in last and "validation_organ_accuracy" not in last


def test_what_was_wrong_before_the_first_checkpoint_can_be_put_right(files, tmp_path, capsys):
    told = arguments(files, tmp_path / "run", "--steps", "2", "--warmup_steps", "1", "--licences")
    assert pretrain.main([*told, "CC0"]) == 2
    assert "the corpus has: CC BY 4.0, CC BY-NC 4.0. State them" in capsys.readouterr().err
    assert pretrain.main([*told, ""]) == 0
    record = json.loads((tmp_path / "run" / "final" / "training.json").read_text())
    assert record["train_images"] + record["validation_images"] == 24


def test_a_checkpoint_of_another_architecture_is_refused_and_stays(files, uninterrupted, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    shutil.rmtree(run / "final")
    record = json.loads((run / "recipe.json").read_text())
    record["config"]["embed_dim"] = 16
    (run / "recipe.json").write_text(json.dumps(record))
    before = {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()}
    larger = RECIPE.replace("embed_dim: 8", "embed_dim: 16")
    (tmp_path / "larger.yaml").write_text(larger)
    told = arguments(files, run)
    told[0] = str(tmp_path / "larger.yaml")
    assert pretrain.main(told) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert "step-00000010: does not fit the network of the recipe" in line
    assert {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()} == before


def test_a_recipe_with_an_unknown_key_touches_no_run(files, uninterrupted, tmp_path, capsys):
    before = sorted((path, path.stat().st_mtime_ns) for path in uninterrupted.rglob("*"))
    (tmp_path / "recipe.yaml").write_text(RECIPE + "warmup_stepz: 3\n")
    told = arguments(files, uninterrupted)
    told[0] = str(tmp_path / "recipe.yaml")
    assert pretrain.main(told) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "recipe.yaml: unknown value warmup_stepz" in line
    assert sorted((path, path.stat().st_mtime_ns) for path in uninterrupted.rglob("*")) == before


def test_a_folder_with_another_run_is_refused(files, uninterrupted, capsys):
    assert pretrain.main(arguments(files, uninterrupted, "--learning_rate", "0.1", "--seed", "4")) == 2
    assert "holds a run with another learning_rate, seed" in capsys.readouterr().err
    assert pretrain.main(arguments(files, uninterrupted, "--resume", "false")) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_initial_weights_are_where_the_run_starts(files, uninterrupted, tmp_path):
    more = [
        "--initial_weights",
        uninterrupted / "final",
        "--steps",
        "1",
        "--warmup_steps",
        "0",
        "--learning_rate",
        "1e-12",
    ]
    assert pretrain.main(arguments(files, tmp_path / "run", *more)) == 0
    first = weights(uninterrupted)
    for name, value in weights(tmp_path / "run").items():
        torch.testing.assert_close(value, first[name], atol=1e-6, rtol=0)
    assert (
        AnatomyTree.from_config(AutoModel.from_pretrained(tmp_path / "run" / "final").config) == AnatomyTree.default()
    )


def test_a_run_takes_the_width_of_the_image_decoder_from_its_initial_weights(files, uninterrupted, tmp_path):
    sizes = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "anatomy_hidden_size": 16}
    made = EchoCareConfig.preset("tiny", **sizes, decoder_type="multi_scale", decoder_hidden_size=12)
    EchoCareForPreTraining(made).save_pretrained(tmp_path / "made")
    config = json.dumps({**sizes, "decoder_type": "multi_scale", "decoder_hidden_size": 6})
    more = ["--config", config, "--initial_weights", tmp_path / "made", "--steps", "1", "--warmup_steps", "0"]
    assert pretrain.main(arguments(files, tmp_path / "run", *more)) == 0
    assert weights(tmp_path / "run")["image_decoder.output.weight"].shape[1] == 12


# Rounding grows over the steps: Adam divides a gradient by its own size, and what is about 0 moves by all of the learning rate.
TWO = {
    "without drop path": ["--config.drop_path_rate", "0"],
    "with drop path": ["--learning_rate", "1e-4"],
}


def two_processes(told_of_each):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank, told in enumerate(told_of_each):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
        }
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2"}
        command = [sys.executable, str(ROOT / "training" / "pretrain.py"), *told]
        running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        )
    try:
        said = [process.communicate(timeout=900)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    return [process.returncode for process in running], said


@pytest.mark.parametrize("more", TWO.values(), ids=TWO)
def test_two_processes_with_half_the_batch_each_are_one(more, files, tmp_path):
    more = ["--steps", "20", "--evaluate_every", "10", *more]
    assert pretrain.main(arguments(files, tmp_path / "one", *more)) == 0
    codes, said = two_processes([arguments(files, tmp_path / "two", *more)] * 2)
    assert codes == [0, 0], said
    one, two = (read_log(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert len(one) == len(two) == 22
    for mine, theirs in zip(one, two, strict=True):
        for name in ("loss", "reconstruction", "anatomy", "hard_patches", "validation_loss"):
            assert mine.get(name) == pytest.approx(theirs.get(name), abs=1e-5), (mine["step"], name)
        # Temperature 0.07 multiplies what rounding leaves by 14.
        assert mine.get("contrast") == pytest.approx(theirs.get("contrast"), abs=1e-4), mine["step"]


def test_parts_of_a_batch_are_the_batch(files, tmp_path):
    """Contrast sees the images of its part alone, so it is left out; drop path goes with the images."""
    more = ["--contrast_weight", "0", "--evaluate_every", "10", "--learning_rate", "1e-4"]
    assert pretrain.main(arguments(files, tmp_path / "whole", *more)) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    assert pretrain.main(arguments(files, tmp_path / "parts", *more, "--accumulation", "4")) == 0
    whole, parts = (read_log(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts"))
    assert len(whole) == len(parts) == 11
    for mine, theirs in zip(whole, parts, strict=True):
        assert mine.keys() == theirs.keys()
        for name in {"loss", "reconstruction", "anatomy", "hard_patches", "validation_loss"} & mine.keys():
            assert mine[name] == pytest.approx(theirs[name], abs=1e-5), (mine["step"], name)


def test_two_processes_cut_off_go_on_with_the_same_bits(files, tmp_path):
    whole, cut = tmp_path / "a" / "run", tmp_path / "b" / "run"
    more = ["--accumulation", "2"]
    codes, said = two_processes([arguments(files, whole, *more)] * 2)
    assert codes == [0, 0], said
    shutil.copytree(whole, cut)
    for made in ("final", "best"):
        shutil.rmtree(cut / made)
    shutil.rmtree(cut / "checkpoints" / "step-00000010")  # what a kill after step 9 leaves
    codes, said = two_processes([arguments(files, cut, *more)] * 2)
    assert codes == [0, 0] and "going on after step 9" in said[0], said
    final = weights(whole)
    assert all(torch.equal(value, final[name]) for name, value in weights(cut).items())


def test_one_process_of_two_that_fails_ends_both_with_a_line_each(files, tmp_path):
    """The second reads a copy of the corpus in which images are damaged that the first does not read."""
    shards = [write_shards(tmp_path / name) for name in ("good", "bad")]
    for shard in sorted((shards[1] / "data").glob("train-*")):
        damage_images(shard, [b"no image"])
    told = arguments(files, tmp_path / "run", "--memory_mb", "0", "--probe_images", "0")
    codes, said = two_processes([[*told[:2], str(folder), *told[3:]] for folder in shards])
    assert codes == [2, 2], said
    assert "is no image that can be decoded" in said[1] and "error: process 0: another process of this run" in said[0]
    assert not any("Traceback" in text for text in said)


def test_processes_with_unequal_data_say_so(files, tmp_path):
    write_files(tmp_path / "fewer", 16)
    told = [arguments(files, tmp_path / "run"), arguments(files, tmp_path / "run")]
    told[1][2] = str(tmp_path / "fewer")
    codes, said = two_processes(told)
    assert codes == [2, 2] and all("process 1 has another corpus than process 0" in text for text in said)
