"""A small fine-tuned model as training leaves it, a Hub on this machine, and a stranger's process."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from echocare_hf import EchoCareConfig, EchoCareForSemanticSegmentation, EchoCareImageProcessorPil
from echocare_hf.cli import app
from echocare_hf.files import readable_weights
from echocare_hf.finetuning.card import card_text
from hub_server import run_hub

TOKEN = "hf_" + "localtoken" * 3
SMALL = {
    "depths": [1, 1],
    "num_heads": [2, 4],
    "embed_dim": 8,
    "window_size": 4,
    "mask_unit_size": 8,
    "image_size": 64,
}
SMALL |= {"dense_decoder_type": "light", "dense_hidden_size": 8, "anatomy_hidden_size": 8}
RECORD = {
    "task": "segmentation",
    "arguments": {"data": "lesions", "output": "lesion", "model": "echocare-tiny", "seed": 0, "num_frames": 16}
    | {"resize_mode": "squash"},
    "random_weights": False,
    "samples": {"train": 70, "validation": 15, "test": 15},
    "licences": {"CC BY 4.0": 100},
    "problems": [],
    "device": "CPU",
    "threads": 2,
    "versions": {"echocare_hf": "0.1.0"},
    "validation": {"loss": 0.5, "dice": 0.71, "accuracy": 0.8},
    "test": {"loss": 0.6, "dice": 0.68, "accuracy": 0.8},
    "epochs": 3.0,
    "steps": 30,
    "training_seconds": 1800.0,
    "precision": "fp32",
    "parameters": 1000,
}


def make_model(folder: Path) -> Path:
    """A segmentation head with random weights, its processor, record and card."""
    torch.manual_seed(0)
    config = EchoCareConfig(**SMALL, num_labels=2, id2label={0: "background", 1: "lesion"})
    EchoCareForSemanticSegmentation(config).save_pretrained(folder)
    EchoCareImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    readable_weights(folder)
    (folder / "metrics.json").write_text(json.dumps(RECORD))
    (folder / "README.md").write_text(card_text(folder, "image-segmentation", (64, 64), RECORD, "2026-01-02"))
    return folder


def run_publish(*arguments: object):
    """`echocare publish` with these arguments."""
    return CliRunner().invoke(app, ["publish", *map(str, arguments)])


def refusal(*arguments: object) -> str:
    """The one line by which `echocare publish` refuses."""
    result = run_publish(*arguments)
    assert result.exit_code == 2, result.output
    lines = result.output.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.output
    return lines[0]


@contextmanager
def local_hub(root: Path, monkeypatch):
    """A Hub on this machine that this process and those it starts take for the real one."""
    from huggingface_hub import constants

    with run_hub(root, TOKEN) as hub:
        for name, value in {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub


def run_as_stranger(script: str, home: Path, **variables: str) -> dict:
    """Runs a script in a process that cannot import the package and has an empty cache; gives what it prints as JSON."""
    code = "import sys\nsys.modules['echocare_hf'] = None\n" + script
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_HOME": str(home), "TQDM_DISABLE": "1", **variables}
    result = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=600, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.strip().splitlines()[-1])


@contextmanager
def running_endpoint(folders, environment=None):
    """The address of a server with the manners of Inference Endpoints, in a process of its own: one path for each folder's name."""
    script = Path(__file__).with_name("endpoint_server.py")
    command = [sys.executable, "-I", str(script), *map(str, folders)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            if line.startswith("PORT "):
                yield f"http://127.0.0.1:{line.split()[1]}"
                break
        else:
            pytest.fail("the endpoint did not start")
        process.kill()
