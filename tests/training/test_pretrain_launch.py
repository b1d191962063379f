"""The accelerate configs, run with two processes on the CPU: losses are those of one process, and checkpoints fit all ways of running."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from transformers import AutoModel

from echocare_hf import EchoCareConfig, EchoCareForPreTraining
from echocare_hf.pretraining.run import read_log

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "training" / "accelerate_configs"
SMOKE = ROOT / "training" / "recipes" / "smoke.yaml"
sys.path.insert(0, str(ROOT / "training"))
import pretrain  # noqa: E402

# The recipe as it is, but for what is looked at.
SHORT = (
    "--steps 20 --log_every 1 --save_every 10 --evaluate_every 20 --probe_images 0 --sample_images 0 --precision fp32"
)


def arguments(output):
    return [str(SMOKE), "--output_dir", str(output), *SHORT.split()]


def launch(config, output, *more):
    """`accelerate launch`, as a module: the command of that name imports all of accelerate's tools and what they ask for."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / config)]
    command += ["--main_process_port", "0", *more, str(ROOT / "training" / "pretrain.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([*command, *arguments(output)], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    AcceleratorState._reset_state(reset_partial_state=True)
    output = tmp_path_factory.mktemp("alone") / "run"
    assert pretrain.main(arguments(output)) == 0
    return output


def cut_after(step, run, copy):
    """A copy of a run as it was after a checkpoint."""
    shutil.copytree(run, copy)
    for made in ("final", "best"):
        shutil.rmtree(copy / made)
    for checkpoint in (copy / "checkpoints").iterdir():
        if checkpoint.name != f"step-{step:08}":
            shutil.rmtree(checkpoint)


def assert_same_run(one, other):
    logs = [read_log(output / "metrics.jsonl") for output in (one, other)]
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]]
    for mine, theirs in zip(*logs, strict=True):
        for name in ("loss", "reconstruction", "anatomy", "hard_patches", "validation_loss"):
            assert mine.get(name) == pytest.approx(theirs.get(name), abs=1e-5), (mine["step"], name)
        if "gradient_norm" in mine:
            assert mine["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3), mine["step"]
    weights = [load_file(output / "final" / "model.safetensors") for output in (one, other)]
    for tensors in weights:
        for name in [name for name in tensors if name.endswith("qkv.bias")]:
            # The bias of keys changes no attention: its gradient is rounding, which Adam divides by its own size.
            queries, _, values = tensors[name].chunk(3)
            tensors[name] = torch.cat([queries, values])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.allclose(value, weights[1][name], atol=1e-4) for name, value in weights[0].items())


def test_ddp_is_one_process_with_the_whole_batch(alone, tmp_path):
    launch("cpu.yaml", tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "step-00000020" / "random_states_1.pkl").is_file()  # there were two
    assert_same_run(alone, tmp_path / "run")


def test_fsdp2_goes_on_from_one_process_and_one_process_from_fsdp2(alone, tmp_path, capsys):
    sharded = tmp_path / "sharded"
    cut_after(10, alone, sharded)
    assert "going on after step 10" in launch("fsdp2.yaml", sharded, "--num_processes", "2")
    assert_same_run(alone, sharded)

    # What it has made is what any run makes.
    assert AutoModel.from_pretrained(sharded / "final").config.embed_dim == 12
    _, report = EchoCareForPreTraining.from_pretrained(sharded / "final", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    mine, theirs = (
        {
            path.name: path.stat().st_size
            for path in (run / "checkpoints" / "step-00000020").iterdir()
            if path.suffix in (".safetensors", ".bin")
        }
        for run in (sharded, alone)
    )
    assert mine.keys() == theirs.keys() == {"model.safetensors", "optimizer.bin", "average.bin"}

    for place in ("final", "best"):
        shutil.rmtree(sharded / place)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert pretrain.main(arguments(sharded)) == 0
    assert "going on after step 20" in capsys.readouterr().out


def test_the_configs_are_those_that_were_run():
    cpu, ddp, fsdp2 = (yaml.safe_load((CONFIGS / name).read_text()) for name in ("cpu.yaml", "ddp.yaml", "fsdp2.yaml"))
    assert {**ddp, "num_processes": 2} == cpu
    model = EchoCareForPreTraining(EchoCareConfig.preset("tiny", **yaml.safe_load(SMOKE.read_text())["config"]))
    assert fsdp2["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"] in {
        type(part).__name__ for part in model.modules()
    }
