"""What training/finetune.py is given and cannot use ends with one line that names it, before any data is read."""

import json
import shutil
import sys
import typing
from dataclasses import fields
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from transformers import BertConfig

from echocare_hf import EchoCareConfig, EchoCareImageProcessorPil, EchoCareModel
from echocare_hf.finetuning import FinetuneArguments
from echocare_hf.finetuning.ranges import RANGES

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
import finetune

WHOLE, POSITIVE, NOT_NEGATIVE = "a whole number of at least 1", "a number above 0", "a number of at least 0"
SHARE = "a number of at least 0 and below 1"

REFUSED = [  # what is given, and what the message says is allowed
    ("--epochs 0", WHOLE),
    ("--batch_size 0", WHOLE),
    ("--accumulation 0", WHOLE),
    ("--num_frames 0", WHOLE),
    ("--minutes 0", POSITIVE),
    ("--minutes -1", POSITIVE),
    ("--minutes nan", POSITIVE),
    ("--cpu_minutes inf", POSITIVE),
    ("--learning_rate 0", POSITIVE),
    ("--layer_decay 1.5", "a number above 0 and at most 1"),
    ("--weight_decay -0.1", NOT_NEGATIVE),
    ("--max_grad_norm -1", NOT_NEGATIVE),
    ("--augmentation -1", NOT_NEGATIVE),
    ("--deep_supervision -1", NOT_NEGATIVE),
    ("--degradation -1", NOT_NEGATIVE),
    ("--adversarial_weight -1", NOT_NEGATIVE),
    ("--warmup 1", SHARE),
    ("--drop_path 2", SHARE),
    ("--drop_path 1", SHARE),
    ("--head_first 2", "a number of at least 0 and at most 1"),
    ("--head_first -0.5", "a number of at least 0 and at most 1"),
    ("--patience -1", "a whole number of at least 0"),
    ("--lora_rank -2", "a whole number of at least 0"),
    ("--seed -1", "a whole number of at least 0 and at most 4294967295"),
    ("--split_seed 4294967296", "a whole number of at least 0 and at most 4294967295"),
    ("--image_size 4", "a whole number of at least 8"),
    ("--resize_mode crop", "squash or pad"),
    ("--fractions 0.7 0.3", "three numbers"),
    ("--fractions 0 0.5 0.5", "train (above 0)"),
    ("--fractions 0.7 -0.1 0.4", "three numbers"),
    ("--fractions 0.7 nan 0.3", "three numbers"),
    ("--minutes 1 --cpu_minutes 1", "not both"),
    ("--lora_rank 4 --freeze_encoder true", "not both"),
]


def last_error(capsys):
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.strip().splitlines()[-1]


@pytest.mark.parametrize(("options", "allowed"), REFUSED)
def test_a_value_out_of_range_is_named_with_what_is_allowed(options, allowed, tmp_path, capsys):
    command = ["segmentation", "--data", "no_such_folder", "--output", str(tmp_path / "out"), *options.split()]
    assert finetune.main(command) == 2
    error, (flag, value, *_) = last_error(capsys), options.split()
    assert error.startswith(f"error: {flag} is {value.removesuffix('.0')}") and allowed in error
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 1, "batch_size": 1, "accumulation": 1, "num_frames": 1, "image_size": 8},
        {"warmup": 0.0, "drop_path": 0, "head_first": 1, "layer_decay": 1},
        {"patience": 0, "max_grad_norm": 0, "augmentation": 0, "weight_decay": 0, "lora_rank": 0},
        {"fractions": [7, 3, 0], "minutes": 0.01, "seed": 2**32 - 1, "resize_mode": "pad"},
        {"fractions": (1.0, 0.0, 0.0), "cpu_minutes": 1, "lora_rank": 4, "freeze_encoder": False},
    ],
)
def test_values_at_the_limits_are_taken(options):
    assert vars(FinetuneArguments(**options)).items() >= options.items()


def test_every_number_has_a_range():
    kinds = typing.get_type_hints(FinetuneArguments)
    numbers = {
        entry.name
        for entry in fields(FinetuneArguments)
        if {int, float} & {kinds[entry.name], *typing.get_args(kinds[entry.name])}
    }
    by_the_reader = {"clip_frames", "min_frames", "frame_rate"}  # `read_labelled` checks these
    assert numbers - by_the_reader - {"fractions"} == set(RANGES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs: 0", "--epochs is 0"),
        ("epochs: 2.5", "--epochs is 2.5: give a whole number"),
        ("epochs: null", "--epochs is None"),
        ("epochs: true", "--epochs is True"),
        ("warmup: [0.1]", "--warmup is [0.1]"),
        ("fractions: 0.7", "--fractions is 0.7"),
        ("fractions: [0.7, 0.2, a]", "--fractions is 0.7 0.2 a"),
        ("- epochs", "recipe.yaml: holds no values by name"),
        ("5", "recipe.yaml: holds no values by name"),
    ],
)
def test_recipes_are_checked_too(text, words, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(text)
    command = ["segmentation", "--data", "no_such_folder", "--output", str(tmp_path / "out")]
    assert finetune.main([*command, "--recipe", str(tmp_path / "recipe.yaml")]) == 2
    assert words in last_error(capsys)


def test_numbers_of_a_recipe_may_be_written_with_an_exponent(tmp_path):
    """YAML takes 5e-4 without a dot for text."""
    (tmp_path / "recipe.yaml").write_text("learning_rate: 5e-4\n")
    command = ["segmentation", "--data", "d", "--output", "o", "--recipe", str(tmp_path / "recipe.yaml")]
    assert finetune.parse_arguments(command, "")[1].learning_rate == 5e-4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "whole"
    torch.manual_seed(0)
    sizes = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "image_size": 32}
    EchoCareModel(EchoCareConfig.preset("tiny", **sizes)).save_pretrained(folder)
    EchoCareImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    "harm",
    [
        shutil.rmtree,
        remove("config.json"),
        write("config.json", "{"),
        write("config.json", "{}"),
        write("config.json", json.dumps({"model_type": "no_such_model"})),
        lambda folder: BertConfig().save_pretrained(folder),
        remove("model.safetensors"),
        write("model.safetensors", "half a file"),
        remove("preprocessor_config.json"),
        write("preprocessor_config.json", "{"),
    ],
)
def test_a_checkpoint_that_cannot_be_loaded_is_named(harm, checkpoint, discs, tmp_path, capsys):
    folder = tmp_path / "harmed"
    shutil.copytree(checkpoint, folder)
    harm(folder)
    options = ["--label", "label", "--model", str(folder), "--output", str(tmp_path / "out")]
    assert finetune.main(["classification", "--data", str(discs), *options]) == 2
    error = last_error(capsys)
    assert error.startswith(f"error: {folder}: ") and "--model takes" in error
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("name", ["no_such_folder", "./no/such", "no/such/folder", "organisation/no_such_model"])
def test_a_model_that_is_nowhere_is_named(name, discs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    options = ["--label", "label", "--model", name, "--output", str(tmp_path / "out")]
    assert finetune.main(["classification", "--data", str(discs), *options]) == 2
    error = last_error(capsys)
    assert error.startswith(f"error: {name}: ") and "echocare-tiny, tiny, base, large" in error
