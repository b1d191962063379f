"""training/finetune.py from end to end, on a few small images that each test makes."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import pipeline

from echocare_hf import EchoCareConfig, EchoCareForPreTraining, EchoCareImageProcessorPil, finetuning
from echocare_hf.examination import familiarity
from echocare_hf.finetuning import card as card_module
from echocare_hf.finetuning.record import short_name, without_directories

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


def test_a_checkpoint_knows_its_training_images(discs, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(familiarity, "LEAST_IMAGES", 4)
    output = tmp_path / "out"
    options = ["--data", str(discs), "--image_size", "32", "--epochs", "1", "--bf16", "false", "--label", "label"]
    options += ["--fractions", "0.6", "0.4", "0", "--model", str(checkpoint)]
    assert finetune.main(["classification", *options, "--output", str(output)]) == 0
    gate = familiarity.Familiarity.load(output)
    assert gate.is_own and gate.ultrasound is None
    model = transformers.AutoModelForImageClassification.from_pretrained(output).eval()
    _, arguments = finetuning.parse_arguments(["classification", *options, "--output", "unused"], "")
    data = finetuning.open_job("classification", arguments).sets["validation"]
    known = torch.stack([data.task.example(data.item(row), None)["pixel_values"] for row in range(len(data))])
    with familiarity.FeatureTap(model) as tap, torch.inference_mode():
        model(known)
        model(-known)
        scores = gate.known_score(tap.take())
    assert min(scores[: len(known)]) > max(scores[len(known) :])

    monkeypatch.setattr(familiarity, "LEAST_IMAGES", 1000)
    capsys.readouterr()
    assert finetune.main(["classification", *options, "--output", str(tmp_path / "few")]) == 0
    assert re.search(r"no familiarity.safetensors: \d+ training images are too few", capsys.readouterr().out)
    assert not (tmp_path / "few" / "familiarity.safetensors").exists()


def test_clips(clips, tmp_path):
    output = tmp_path / "out"
    options = ["--num_frames", "2", "--fractions", "0.6", "0.2", "0.2"]
    assert finetune.main(["video", "--data", str(clips), "--output", str(output), *SMALL, *options]) == 0
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


def test_a_new_head_is_no_news_but_a_missing_encoder_is(discs, checkpoint, tmp_path, caplog, capfd):
    """transformers would print a table for both and train on from random weights."""
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint, damaged)
    argv = ["--data", str(discs), "--output", "unused", "--image_size", "32", *EXTRA["keypoints"]]
    _, arguments = finetuning.parse_arguments(["keypoints", *argv, "--model", str(damaged)], "")
    finetuning.open_job("keypoints", arguments).model()
    printed = capfd.readouterr()
    assert "LOAD REPORT" not in caplog.text + printed.out + printed.err

    weights = load_file(damaged / "model.safetensors")
    name = "echocare.encoder.stages.0.blocks.0.mlp.fc1.weight"
    save_file({key: value for key, value in weights.items() if key != name}, damaged / "model.safetensors")
    with pytest.raises(
        ValueError, match=f"damaged: has no fitting weights for 1 parts of the encoder, {re.escape(name)}"
    ):
        finetuning.open_job("keypoints", arguments).model()


@pytest.mark.parametrize("task", [*EXTRA])
def test_without_augmentation_training_sees_what_validation_sees(task, discs, monkeypatch):
    """Enhancement still learns from crops: what is to be learned is local."""
    monkeypatch.setattr(finetuning.tasks.enhancement, "CROP", 16)
    argv = ["--data", str(discs), "--output", "unused", *SMALL, *EXTRA[task], "--augmentation", "0"]
    _, arguments = finetuning.parse_arguments([task, *argv], "")
    data = finetuning.open_job(task, arguments).sets["train"]
    seen, whole = data[3], data.task.example(data.item(3), None)
    if task != "enhancement":
        torch.testing.assert_close(seen, whole, equal_nan=True)
        return
    assert seen["pixel_values"].shape == seen["labels"].shape == (3, 16, 16)
    windows = whole["pixel_values"].unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4)
    assert (windows == seen["pixel_values"]).flatten(2).all(-1).any()


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


def text_of(folder):
    """Everything in a folder that can be read as text."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".png", ".safetensors")]
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def test_no_path_of_the_machine_is_in_what_is_published(discs, tmp_path):
    """Neither of the data, nor of a file that cannot be read, nor of the model; and without a test part the card claims none."""
    home = tmp_path / "Jane Doe"
    shutil.copytree(discs, home / "scans")
    (home / "scans/images/00.png").write_bytes(b"half an image")
    sizes = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "image_size": 32}
    EchoCareForPreTraining(EchoCareConfig.preset("tiny", **sizes)).save_pretrained(home / "encoders/mine")
    EchoCareImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(home / "encoders/mine")
    options = [*SMALL, "--label", "label", "--fractions", "0.7", "0.3", "0", "--model", str(home / "encoders/mine")]
    output = home / "out"
    assert finetune.main(["classification", "--data", str(home / "scans"), "--output", str(output), *options]) == 0

    texts = text_of(output)
    assert {"README.md", "metrics.json", "config.json", "preprocessor_config.json"} <= set(texts)
    assert not [name for name, text in texts.items() if str(tmp_path) in text or "Jane" in text]
    record, card = json.loads(texts["metrics.json"]), texts["README.md"]
    assert [record["arguments"][name] for name in ("data", "output", "model")] == ["scans", "out", "mine"]
    assert any(problem.startswith("images/00.png: ") for problem in record["problems"])
    assert "- images/00.png: " in card and "| starts from | `mine` |" in card

    assert record["test"] == {} and "there was no test part" in card and "looked at once" not in card
    assert "| metric | validation |\n| --- | --- |" in card and f"| auc | {record['validation']['auc']:.4g} |" in card
    header = yaml.safe_load(card.split("---")[1])
    results = header["model-index"][0]["results"]
    assert {result["dataset"]["split"] for result in results} == {"validation"} and "base_model" not in header

    # The same record of a run that started from the Hub, on a graphics card, with a test part that one metric is not defined on.
    record |= {"device": "NVIDIA L4", "random_weights": False, "test": {"auc": None, "loss": 0.5}}
    record["arguments"] |= {"model": "organisation/encoder", "data": "organisation/scans"}
    card_module.write_card(tmp_path, SimpleNamespace(pipeline_tag="image-classification", size=(32, 32)), record)
    card = (tmp_path / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "organisation/encoder"
    assert "minutes on NVIDIA L4, fp32" in card and "of a CPU" not in card and "looked at once" in card
    assert re.search(r"\| auc \| [\d.]+ \| not defined \|", card) and "on organisation/scans." in card


def test_names_of_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a/b").mkdir(parents=True)
    names = {
        "a/b": "b",
        "a/b/": "b",
        str(tmp_path / "a"): "a",
        ".": tmp_path.name,
        "/gone/for/good": "good",
        "tiny": "tiny",
    }
    assert {place: short_name(place) for place in names} == names
    assert short_name("organisation/name") == "organisation/name"  # not a folder here: an id on the Hub


@pytest.mark.parametrize("data", ["{root}/my scans", "my scans", "./my scans/", "my scans/table.csv", "{root}/link"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{data}/images/1.png: is half a file; left out", "images/1.png: is half a file; left out"),
        ("{root}/my scans/images/1.png and {data}/2.png look alike", "images/1.png and 2.png look alike"),
        ("{data}: 3 of 4/5 images, see {root}/my scans/table.csv", "{name}: 3 of 4/5 images, see table.csv"),
        ("{root}/index.csv: has no licence", "index.csv: has no licence"),
        ("'/mnt/Jane Doe/x.png', (/mnt/y z/1.png)", "'x.png', (1.png)"),
        ("C:\\Users\\Jane Doe\\x.png: broken", "x.png: broken"),
        ("see https://example.org/a/b and/or mm/pixel", "see https://example.org/a/b and/or mm/pixel"),
    ],
)
def test_lines_about_files_lose_their_directories(data, line, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my scans").mkdir()
    (tmp_path / "my scans/table.csv").touch()
    (tmp_path / "link").symlink_to("my scans")
    data = data.format(root=tmp_path)
    folder = Path(data).parent if data.endswith(".csv") else Path(data)
    line = line.format(root=tmp_path, data=folder)
    assert without_directories(line, data) == expected.format(name=folder.name)
