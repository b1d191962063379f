"""training/finetune.py from end to end, on a few small images that each test makes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import pipeline

from echocare_hf import EchoCareConfig, finetuning

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
import finetune

SIDE = 48  # of the images of the fixture `discs`
SMALL = ["--image_size", "32", "--batch_size", "4", "--epochs", "2", "--bf16", "false", "--model", "tiny"]


EXTRA = {
    "classification": ["--label", "label"],
    "segmentation": ["--mask_values", "0=background", "1=disc"],
    "detection": ["--label", "label"],
    "keypoints": ["--keypoints", "centre"],
    "regression": ["--target", "radius_mm"],
    "enhancement": [],
}


@pytest.mark.parametrize("task", EXTRA)
def test_every_task_makes_a_folder_that_a_pipeline_runs(task, discs, tmp_path):
    output = tmp_path / task
    assert finetune.main([task, "--data", str(discs), "--output", str(output), *SMALL, *EXTRA[task]]) == 0
    assert not output.with_name(output.name + ".partial").exists()

    record = json.loads((output / "metrics.json").read_text())
    assert sum(record["groups"].values()) == 12 and sum(record["samples"].values()) == 24
    assert all(record["samples"][part] == 2 * groups >= 2 for part, groups in record["groups"].items())
    metric = finetuning.TASKS[task].best_metric
    assert {"loss", metric} <= set(record["test"]) and record["epochs"] == 2
    card = (output / "README.md").read_text()
    assert "license: apache-2.0" in card and f"| {metric} |" in card and str(tmp_path) not in card
    assert Image.open(output / "predictions.png").width > 300

    # The stock pipelines, and ours for the tasks that transformers has none for.
    run = pipeline(finetuning.TASKS[task].pipeline_tag, model=str(output))
    result = run(str(discs / "images/00.png"))
    if task == "enhancement":
        assert result.size == (SIDE, SIDE)
    elif task == "segmentation":
        assert all(entry["mask"].size == (SIDE, SIDE) for entry in result)
    elif task == "regression":
        assert [entry["label"] for entry in result] == ["radius_mm"] and abs(result[0]["score"] - 0.9) < 1
    elif task == "classification":
        assert {entry["label"] for entry in result} == {"large", "small"}


def test_clips(tmp_path):
    random = np.random.default_rng(0)
    folder = tmp_path / "clips"
    for label, level in (("bright", 180), ("dark", 60)):
        for clip in range(5):
            (folder / label / f"{label}_{clip}").mkdir(parents=True)
            for frame in range(3):
                image = random.integers(0, 60, (SIDE, SIDE)) + level
                Image.fromarray(image.astype(np.uint8)).save(folder / label / f"{label}_{clip}" / f"{frame}.png")
    output = tmp_path / "out"
    options = ["--num_frames", "2", "--fractions", "0.6", "0.2", "0.2"]
    assert finetune.main(["video", "--data", str(folder), "--output", str(output), *SMALL, *options]) == 0
    assert json.loads((output / "config.json").read_text())["num_frames"] == 2


def stop_after_the_first_epoch(self, args, state, control, **kwargs):
    raise KeyboardInterrupt


def test_a_run_that_was_cut_off_goes_on_to_the_same_weights(discs, tmp_path, monkeypatch):
    arguments = ["classification", "--data", str(discs), "--label", "label", *SMALL]
    assert finetune.main([*arguments, "--output", str(tmp_path / "whole")]) == 0

    cut = [*arguments, "--output", str(tmp_path / "cut")]
    with monkeypatch.context() as patch:
        patch.setattr(finetuning.Progress, "on_save", stop_after_the_first_epoch)
        assert finetune.main(cut) == 130
    assert not (tmp_path / "cut").exists() and (tmp_path / "cut.partial").is_dir()

    # Other arguments are refused rather than mixed with what is there.
    assert finetune.main([*cut, "--learning_rate", "0.5"]) == 2
    assert finetune.main(cut) == 0
    whole, resumed = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "cut"))
    assert resumed["steps"] == whole["steps"]
    assert resumed["validation"] == whole["validation"] and resumed["test"] == whole["test"]


def test_the_encoder_comes_from_another_task(discs, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert (
        finetune.main(["classification", "--data", str(discs), "--label", "label", "--output", str(first), *SMALL])
        == 0
    )
    options = [
        "--data",
        str(discs),
        "--output",
        str(second),
        *SMALL,
        "--model",
        str(first),
        "--freeze_encoder",
        "true",
    ]
    assert finetune.main(["segmentation", *options, *EXTRA["segmentation"]]) == 0
    config = json.loads((second / "config.json").read_text())
    assert config.get("class_weights") is None and config["id2label"] == {"0": "background", "1": "disc"}
    models = [transformers.AutoModel.from_pretrained(folder) for folder in (first, second)]
    for (name, before), after in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        if name != "embeddings.mask_token":
            assert torch.equal(before, after), name


def test_low_rank_adapters_are_merged_into_a_plain_checkpoint(discs, tmp_path):
    pytest.importorskip("peft")
    output = tmp_path / "lora"
    options = ["--data", str(discs), "--output", str(output), *SMALL, "--lora_rank", "2"]
    options += [*EXTRA["segmentation"], "--deep_supervision", "0.5"]
    assert finetune.main(["segmentation", *options]) == 0
    _, info = transformers.AutoModelForSemanticSegmentation.from_pretrained(output, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_learning_rates_fall_from_the_head_down(discs):
    config = EchoCareConfig.preset("tiny", num_labels=2)
    model = transformers.AutoModelForImageClassification.from_config(config)
    arguments = finetuning.FinetuneArguments(learning_rate=1.0)
    groups = finetuning.parameter_groups(model, config.depths, arguments, decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    by_name = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert by_name["classifier.weight"] == 1.0
    assert (
        by_name["echocare.embeddings.patch_embeddings.projection.weight"] == 0.5**9
    )  # eight blocks and the head above
    assert by_name["echocare.encoder.stages.3.blocks.1.mlp.fc1.weight"] == 0.5
    assert by_name["echocare.encoder.stages.0.blocks.0.mlp.fc1.weight"] == 0.5**8
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert all(decays[id(p)] == 0 for name, p in model.named_parameters() if name.endswith("bias") or "table" in name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["segmentation", "--output", "out"], "--data is needed"),
        (["segmentation", "--data", "no_such_folder", "--output", "out"], "no_such_folder"),
        (["segmentation", "--data", "{discs}", "--output", "{discs}"], "exists already"),
        (["regression", "--data", "{discs}", "--output", "out", "--target", "weight"], "weight"),
        (["keypoints", "--data", "{discs}", "--output", "out", "--keypoints", "apex"], "apex"),
        (
            ["classification", "--data", "{discs}", "--output", "out", "--label", "label", "--recipe", "no.yaml"],
            "no.yaml",
        ),
        (
            [
                "classification",
                "--data",
                "{discs}",
                "--output",
                "out",
                "--label",
                "label",
                "--fractions",
                "1",
                "0",
                "0",
            ],
            "validation",
        ),
    ],
)
def test_bad_arguments_end_with_one_line(arguments, words, discs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = finetune.main([argument.format(discs=discs) for argument in arguments])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and error.startswith("error: ") and words in error
    assert not (tmp_path / "out").exists()


def test_an_unknown_value_in_a_recipe_is_refused(discs, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("lerning_rate: 0.1\n")
    arguments = ["classification", "--data", str(discs), "--output", str(tmp_path / "out"), "--recipe", str(recipe)]
    assert finetune.main(arguments) == 2
    assert "lerning_rate" in capsys.readouterr().err


def test_lack_of_memory_is_told_with_a_batch_size_to_try(discs, tmp_path, monkeypatch, capsys):
    def out_of_memory(self, *args, **kwargs):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
        )

    monkeypatch.setattr(finetuning.TaskTrainer, "training_step", out_of_memory)
    arguments = ["classification", "--data", str(discs), "--label", "label", "--output", str(tmp_path / "out"), *SMALL]
    assert finetune.main(arguments) == 2
    assert "--batch_size 2 --accumulation 2" in capsys.readouterr().err
