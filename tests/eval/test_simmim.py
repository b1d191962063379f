"""eval/simmim.py: SimMIM on the corpus and by the recipe of EchoCare's pretraining."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from echocare_hf import EchoCareConfig, EchoCareModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "eval"))
import simmim
from runner import backbones, simmim_model

SCRIPT = Path(simmim.__file__)

SMALL = ["--data", "phantoms:12", "--image_size", "64", "--batch_size", "4", "--width", "8", "--precision", "fp32"]
SMALL += ["--warmup_steps", "2", "--evaluate_every", "100", "--licences"]


def test_loss_is_the_mean_absolute_error_of_the_hidden_pixels():
    torch.manual_seed(0)
    config = EchoCareConfig.preset("tiny", embed_dim=8, num_heads=[1, 2, 4, 8])
    network = simmim_model.SimMIM(simmim_model.swin_config(config, 64, 8)).eval()
    images, mask = torch.rand(2, 3, 64, 64), torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = mask[1, 3, 0] = mask[1, 0, 0] = True
    with torch.no_grad():
        loss, error = network(images, mask)
        tokens = mask.repeat_interleave(4, 1).repeat_interleave(4, 2).flatten(1)
        normalised = (images - network.mean) / network.std
        found = network.model(normalised, bool_masked_pos=tokens).reconstruction
    places = [(0, 16, 32), (1, 48, 0), (1, 0, 0)]
    differences = [(found - normalised)[i, :, r : r + 16, c : c + 16].abs() for i, r, c in places]
    assert loss.item() == pytest.approx(torch.stack(differences).mean().item(), rel=1e-4)
    plain = torch.stack([one * network.std for one in differences]).mean().item()
    assert error.item() == pytest.approx(plain, rel=1e-4)


def test_the_default_width_gives_as_many_parameters_as_echocare():
    config = EchoCareConfig.preset("tiny")
    wanted = EchoCareModel(config, use_mask_token=False).num_parameters()
    width = simmim_model.equal_width(config, 128)
    sizes = {
        one: sum(
            parameter.numel()
            for parameter in transformers.SwinModel(simmim_model.swin_config(config, 128, one), False).parameters()
        )
        for one in (width - 2, width, width + 2)
    }
    assert abs(sizes[width] - wanted) == min(abs(size - wanted) for size in sizes.values()) < 0.06 * wanted
    with pytest.raises(ValueError, match="multiple of 32"):
        simmim_model.swin_config(config, 100, 24)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of twelve steps that nothing cuts off."""
    folder = tmp_path_factory.mktemp("simmim") / "run"
    assert simmim.main([*SMALL, "--output", str(folder), "--steps", "12", "--save_every", "4"]) == 0
    return folder


def test_a_run_learns_and_its_folder_serves_as_a_backbone(finished):
    log = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["validation_masked_error"] > 0
    record = json.loads((finished / "final" / "training.json").read_text())
    assert record["images_seen"] == 48 and record["step"] == 12 and record["recipe"]["mask_ratio"] == "0.6"
    assert str(finished.parent) not in (finished / "final" / "training.json").read_text()
    name = str(finished / "final")
    assert backbones.is_foreign(name)
    recipe = backbones.network_recipe(f"hf:{name}")
    assert recipe.mean == simmim_model.IMAGENET_MEAN and recipe.std == simmim_model.IMAGENET_STD
    facts = backbones.describe(name)
    assert facts["architecture"] == "swin" and facts["weights_sha256"]
    again = transformers.SwinForMaskedImageModeling.from_pretrained(name)
    assert again.config.embed_dim == 8


def test_a_killed_run_goes_on_to_the_same_weights(finished, tmp_path):
    command = [sys.executable, str(SCRIPT), *SMALL, "--output", str(tmp_path / "run")]
    command += ["--steps", "12", "--save_every", "4"]
    environment = os.environ | {"TQDM_DISABLE": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000004"
    while not checkpoint.is_dir() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if (tmp_path / "run" / "final").is_dir():
        pytest.skip("the run was over before it could be killed")
    assert simmim.main([*SMALL, "--output", str(tmp_path / "run"), "--steps", "12", "--save_every", "4"]) == 0
    weights, others = (load_file(run / "final" / "model.safetensors") for run in (finished, tmp_path / "run"))
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_processor_time_ends_a_run(tmp_path):
    arguments = [*SMALL, "--output", str(tmp_path / "run"), "--cpu_minutes", "0.001", "--steps", "100000"]
    assert simmim.main(arguments) == 0
    record = json.loads((tmp_path / "run" / "final" / "training.json").read_text())
    assert record["step"] < 100 and record["cpu_seconds"] >= 0.06


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--data", "nowhere"], "no such folder"),
        (["--image_size", "72"], "multiple of 32"),
        (["--cpu_minutes", "-1"], "above 0"),
        (["--recipe", "nowhere.yaml"], "cannot be read"),
        (["--mask_unit", "10"], "multiple of"),
    ],
)
def test_wrong_values_end_in_one_line(change, words, tmp_path, capsys):
    assert simmim.main([*SMALL, "--output", str(tmp_path / "run"), *change]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error.splitlines()[-1] and error.splitlines()[-1].startswith("error:")


def test_other_values_are_no_continuation(finished, capsys, tmp_path):
    folder = tmp_path / "run"
    assert (
        simmim.main([*SMALL, "--output", str(folder), "--cpu_minutes", "0.001", "--steps", "50", "--seed", "1"]) == 0
    )
    (folder / "final" / "training.json").unlink()
    assert simmim.main([*SMALL, "--output", str(folder), "--cpu_minutes", "5", "--steps", "50", "--seed", "1"]) == 2
    assert "other --cpu_minutes" in capsys.readouterr().err
    assert simmim.main([*SMALL, "--output", str(folder), "--cpu_minutes", "5", "--steps", "60", "--seed", "1"]) == 2
    assert "another steps" in capsys.readouterr().err
