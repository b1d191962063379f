"""Threads of PyTorch: a run that goes on has as many as before, and with two the bits of a run that was not cut off."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from echocare_hf.pretraining.run import set_threads

sys.path.insert(0, str(Path(__file__).parent))
from test_pretrain import arguments, assert_equal_runs, drive, files, pretrain  # noqa: F401

needs_two_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two threads need two cores")


@pytest.fixture(autouse=True)
def same_threads_afterwards():
    AcceleratorState._reset_state(reset_partial_state=True)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("wanted", "before", "threads", "told"),
    [
        (0, {}, 1, ""),
        (2, {}, 2, ""),
        (0, {"processes": 1, "threads": 1}, 1, ""),
        pytest.param(
            0, {"processes": 1, "threads": 2}, 2, "with 2 threads of PyTorch, as before", marks=needs_two_cores
        ),
        (0, {"processes": 1, "threads": 100_000}, 1, "was run with 100000 threads of PyTorch, now 1"),
        (1, {"processes": 1, "threads": 2}, 1, "was run with 2 threads of PyTorch, now 1"),
        (0, {"processes": 2, "threads": 2}, 1, ""),  # other bits in any case
        (0, {"step": 5}, 1, ""),  # a checkpoint of before threads were written down
    ],
)
def test_the_recipe_decides_then_the_checkpoint_then_the_machine(wanted, before, threads, told):
    said = set_threads(wanted, before, 1)
    assert torch.get_num_threads() == threads
    assert said.startswith(told) and bool(said) == bool(told)


@needs_two_cores
def test_a_run_of_two_threads_goes_on_with_two_and_ends_with_the_same_bits(files, tmp_path, capsys):  # noqa: F811
    whole, cut = tmp_path / "a" / "run", tmp_path / "b" / "run"
    tasks = [
        {"arguments": arguments(files, whole)},
        {"arguments": arguments(files, cut), "kill": ["MovingAverage.update", 5], "late": True},
    ]
    codes, errors = drive(tasks, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="passive")
    assert codes == [0, -9], errors
    alone = tmp_path / "c" / "run"
    shutil.copytree(cut, alone)
    assert pretrain.main(arguments(files, cut)) == 0
    assert "with 2 threads of PyTorch, as before, not 1" in capsys.readouterr().out
    assert_equal_runs(whole, cut)
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert pretrain.main(arguments(files, alone, "--threads", "1")) == 0
    assert "was run with 2 threads of PyTorch, now 1" in capsys.readouterr().out
