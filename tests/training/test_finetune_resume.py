"""Runs of training/finetune.py that end early: cut off, out of time, out of patience, out of memory."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from echocare_hf import finetuning
from echocare_hf.finetuning import FinetuneArguments, TaskTrainer, callbacks, fitting, head_start, open_job, train
from echocare_hf.finetuning.memory import memory_advice
from echocare_hf.finetuning.work_folder import last_checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
import finetune


@pytest.fixture
def command(discs, checkpoint):
    """A run of few seconds: five steps an epoch."""
    return [
        *("classification", "--data", str(discs), "--label", "label", "--model", str(checkpoint)),
        *("--batch_size", "4", "--bf16", "false", "--head_start", "false"),
    ]


def result(folder):
    return json.loads((folder / "metrics.json").read_text())


def stop(*args, **kwargs):
    raise KeyboardInterrupt


def cut_after_epoch(epoch, monkeypatch):
    """Ctrl-C when the checkpoint of an epoch has been written."""

    def on_save(self, args, state, control, **kwargs):
        if state.epoch >= epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(finetuning.Progress, "on_save", on_save)


def slow_steps(seconds, monkeypatch):
    """A clock that only training steps move, each by some seconds."""
    now = [0.0]
    step = TaskTrainer.training_step

    def training_step(self, *args, **kwargs):
        now[0] += seconds
        return step(self, *args, **kwargs)

    clock = SimpleNamespace(monotonic=lambda: now[0], process_time=lambda: now[0])
    monkeypatch.setattr(callbacks, "time", clock)
    monkeypatch.setattr(TaskTrainer, "training_step", training_step)


def metric_of_epochs(values, monkeypatch):
    """A deciding metric that is told beforehand: one value an epoch, the last one from then on."""
    assess = TaskTrainer.assess

    def scripted(self, data, last=True):
        metrics, predictions = assess(self, data, last)
        epoch = round(self.state.epoch or 0)
        return {**metrics, self.task.best_metric: values[min(epoch, len(values)) - 1]}, predictions

    monkeypatch.setattr(TaskTrainer, "assess", scripted)


@pytest.mark.parametrize("cap", ["--minutes", "--cpu_minutes"])
def test_time_before_a_cut_counts(cap, command, tmp_path, monkeypatch):
    """Five seconds a step and a minute in all are twelve steps, in one go or in two."""
    slow_steps(5, monkeypatch)
    command = [*command, "--epochs", "5", "--patience", "0", cap, "1"]
    assert finetune.main([*command, "--output", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        cut_after_epoch(1, patch)
        assert finetune.main([*command, "--output", str(tmp_path / "cut")]) == 130
    assert finetune.main([*command, "--output", str(tmp_path / "cut")]) == 0
    whole, cut = result(tmp_path / "whole"), result(tmp_path / "cut")
    assert whole["steps"] == cut["steps"] == 12
    assert whole["training_seconds"] == cut["training_seconds"] == 60
    assert whole["history"] == cut["history"] and whole["test"] == cut["test"]
    assert len(whole["history"]) == 3  # five steps an epoch: two epochs and a part of one, each is measured once


def test_patience_before_a_cut_counts(command, tmp_path, monkeypatch):
    """Best after the first epoch: a patience of 2 ends after the third, in one go or in two."""
    metric_of_epochs([0.9, 0.1], monkeypatch)
    command = [*command, "--epochs", "6", "--patience", "2", "--output", str(tmp_path / "cut")]
    with monkeypatch.context() as patch:
        cut_after_epoch(2, patch)
        assert finetune.main(command) == 130
    assert finetune.main(command) == 0
    assert result(tmp_path / "cut")["epochs"] == 3


@pytest.mark.parametrize("options", [["--patience", "1"], ["--patience", "0", "--minutes", "0.5"]])
def test_a_run_that_was_cut_off_after_its_training_does_not_train_again(options, command, tmp_path, monkeypatch):
    slow_steps(5, monkeypatch)
    metric_of_epochs([0.9, 0.1], monkeypatch)
    command = [*command, "--epochs", "6", *options, "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "draw_predictions", stop)
        assert finetune.main(command) == 130
    with monkeypatch.context() as patch:
        patch.setattr(TaskTrainer, "training_step", stop)
        assert finetune.main(command) == 0
    assert result(tmp_path / "out")["epochs"] == (2 if "1" in options else 1.2)


def job_of(discs, checkpoint, **values):
    arguments = FinetuneArguments(
        data=str(discs),
        model=str(checkpoint),
        mask_values=["0=background", "1=disc"],
        batch_size=8,
        bf16=False,
        **values,
    )
    return open_job("segmentation", arguments)


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({"patience": 2}, 3),
        ({"patience": 0}, 8),
        # The encoder joins after four epochs, until when nothing counts.
        ({"patience": 1, "head_first": 0.5}, 5),
        ({"patience": 2, "head_first": 0.5}, 6),
        # The encoder never learns, so that there is nothing to wait for.
        ({"patience": 2, "head_first": 0.5, "freeze_encoder": True}, 3),
        ({"patience": 2, "head_first": 1.0}, 3),
    ],
)
def test_patience_begins_when_the_encoder_learns(options, epochs, discs, checkpoint, tmp_path, monkeypatch):
    metric_of_epochs([0.5], monkeypatch)
    job = job_of(discs, checkpoint, epochs=8, **options)
    trainer = job.trainer(job.model(), tmp_path)
    train(trainer)
    assert round(trainer.state.epoch) == epochs


def test_a_better_metric_starts_patience_anew(discs, checkpoint, tmp_path, monkeypatch):
    metric_of_epochs([0.5, 0.4, 0.6, 0.3], monkeypatch)
    job = job_of(discs, checkpoint, epochs=8, patience=2)
    trainer = job.trainer(job.model(), tmp_path)
    train(trainer)
    assert round(trainer.state.epoch) == 5 and trainer.state.best_metric == 0.6


def test_a_checkpoint_that_was_not_written_to_its_end_is_left_out(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step, complete in ((9, True), (10, True), (11, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if complete:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert Path(last_checkpoint(tmp_path)).name == "checkpoint-10"


def little_memory(values, monkeypatch):
    """Training steps on more input values than that fail as they do on a CPU."""
    step = TaskTrainer.training_step

    def training_step(self, model, inputs, *args, **kwargs):
        if inputs["pixel_values"].numel() > values:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(TaskTrainer, "training_step", training_step)


def advice(capsys):
    """The first flags that the last error names, to put behind the command."""
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: out of memory")
    return re.search(r"try (.*?)(, or|$)", error)[1].split()


def test_following_the_advice_ends_well(command, tmp_path, monkeypatch, capsys):
    little_memory(3 * 32 * 32, monkeypatch)
    command = [*command, "--epochs", "1", "--image_size", "64", "--output", str(tmp_path / "out")]
    followed = []
    while finetune.main(command) == 2:
        followed.append(advice(capsys))
        command += followed[-1]
    assert [" ".join(options) for options in followed] == [
        "--batch_size 2 --accumulation 2",
        "--batch_size 1 --accumulation 4",
        "--image_size 32",
    ]
    assert result(tmp_path / "out")["arguments"]["image_size"] == 32


def test_advice_after_the_first_epoch_starts_anew(command, tmp_path, monkeypatch, capsys):
    step = TaskTrainer.training_step

    def training_step(self, *args, **kwargs):
        if (self.state.epoch or 0) >= 1 and self.arguments.batch_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, *args, **kwargs)

    monkeypatch.setattr(TaskTrainer, "training_step", training_step)
    command = [*command, "--epochs", "2", "--output", str(tmp_path / "out")]
    assert finetune.main(command) == 2
    options = advice(capsys)
    assert options == ["--batch_size", "2", "--accumulation", "2", "--resume", "false"]
    # Without the last flag the checkpoint is not mixed with the new arguments, and the error says how to go on.
    assert finetune.main([*command, *options[:4]]) == 2
    assert "--resume false" in capsys.readouterr().err
    assert finetune.main([*command, *options]) == 0


@pytest.mark.parametrize(
    ("place", "name"), [(head_start, "features_of"), (TaskTrainer, "_predictions"), (fitting, "train")]
)
def test_lack_of_memory_is_told_wherever_it_comes(place, name, command, tmp_path, monkeypatch, capsys):
    def out_of_memory(*args, **kwargs):
        raise MemoryError

    if place is fitting:  # the evaluation after training
        monkeypatch.setattr(
            fitting, "train", lambda trainer, last: monkeypatch.setattr(TaskTrainer, "_predictions", out_of_memory)
        )
    else:
        monkeypatch.setattr(place, name, out_of_memory)
    options = ["--epochs", "1", "--head_start", "true", "--output", str(tmp_path / "out")]
    assert finetune.main([*command, *options]) == 2
    assert advice(capsys) == ["--batch_size", "2", "--accumulation", "2"]


@pytest.mark.parametrize(
    ("task", "size", "values", "expected"),
    [
        ("segmentation", (128, 96), {"batch_size": 5}, "96x128 pixels: try --batch_size 2 --accumulation 2, or"),
        (
            "video",
            (128, 128),
            {"batch_size": 1, "num_frames": 9},
            "try --num_frames 4, or --gradient_checkpointing true",
        ),
        ("video", (128, 128), {"batch_size": 1, "num_frames": 1}, "try --image_size 64, or"),
        ("segmentation", (32, 32), {"batch_size": 1}, "try --gradient_checkpointing true"),
        ("segmentation", (32, 32), {"batch_size": 1, "gradient_checkpointing": True}, "more memory"),
        ("segmentation", (144, 144), {"batch_size": 1, "gradient_checkpointing": True}, "try --image_size 64"),
    ],
)
def test_what_is_advised(task, size, values, expected):
    stub = SimpleNamespace(data=SimpleNamespace(task=task), size=size)
    with pytest.raises(ValueError, match="out of memory") as error, memory_advice(stub, FinetuneArguments(**values)):
        raise MemoryError
    assert expected in str(error.value)


def test_other_errors_pass_as_they_are():
    stub = SimpleNamespace(data=SimpleNamespace(task="video"), size=(32, 32))
    with pytest.raises(RuntimeError, match="shape"), memory_advice(stub, FinetuneArguments()):
        raise RuntimeError("shape mismatch")
