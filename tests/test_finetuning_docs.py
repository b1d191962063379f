"""What docs/finetuning.md shows works as printed."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

from echocare_hf import (
    EchoCareConfig,
    EchoCareForObjectDetection,
    EchoCareForSemanticSegmentation,
    EchoCareImageProcessorPil,
)
from echocare_hf.data.phantom import make_phantom
from echocare_hf.finetuning.arguments import FinetuneArguments, parse_arguments

PAGE = (Path(__file__).resolve().parents[1] / "docs/finetuning.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(make_phantom("liver", seed=1).image).save(tmp_path / "image.png")
    return tmp_path


def run(marker: str) -> dict:
    (block,) = (block for block in BLOCKS if marker in block)
    names: dict = {}
    exec(compile(block, "docs/finetuning.md", "exec"), names)
    return names


def test_fifteen_lines_of_trainer(folder):
    (block,) = (block for block in BLOCKS if "Trainer(" in block)
    assert sum(bool(line.strip()) for line in block.splitlines()) <= 15
    for kind in ("liver", "breast"):
        (folder / "my_images" / kind).mkdir(parents=True)
        for seed in range(5):
            Image.fromarray(make_phantom(kind, seed=seed).image).save(folder / f"my_images/{kind}/{seed}.png")
    names = run("Trainer(")
    losses = [entry["loss"] for entry in names["trainer"].state.log_history if "loss" in entry]
    assert names["trainer"].state.global_step == 10 and (not losses or np.isfinite(losses).all())
    model = AutoModelForImageClassification.from_pretrained(folder / "birads")
    assert model.config.id2label == {0: "breast", 1: "liver"} == names["model"].config.id2label
    answers = pipeline("image-classification", model=str(folder / "birads"))(str(folder / "image.png"))
    assert {answer["label"] for answer in answers} == {"breast", "liver"}


def test_the_pipeline(folder):
    save(EchoCareForSemanticSegmentation, folder / "lesions", num_labels=2)
    run("pipeline(")


def test_the_cardiothoracic_ratio(folder, capsys):
    save(
        EchoCareForObjectDetection,
        folder / "hearts",
        id2label={0: "heart", 1: "thorax"},
        label2id={"heart": 0, "thorax": 1},
    )
    names = run("cardiothoracic_ratio(")
    found, best = names["found"], names["best"]
    assert set(best) == {0, 1}
    for label, box in best.items():
        rows = (found["labels"] == label).nonzero()[:, 0]
        assert (box == found["boxes_mm"][rows[found["scores"][rows].argmax()]]).all()
    assert "tensor" in capsys.readouterr().out


def save(head, target, **config) -> None:
    head(EchoCareConfig.preset("tiny", **config)).save_pretrained(target)
    EchoCareImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(target)


def test_the_commands_are_understood():
    commands = [line for line in PAGE.splitlines() if line.startswith("python training/finetune.py")]
    assert len(commands) >= 5
    for command in commands:
        words = command.partition("#")[0].split()[2:]
        _, arguments = parse_arguments(words, "")
        assert isinstance(arguments, FinetuneArguments) and arguments.output


def test_every_flag_of_the_page_is_there():
    flags = set(re.findall(r"--([a-z_]+)", PAGE))
    assert flags - {"recipe", "help"} <= set(FinetuneArguments.__dataclass_fields__), flags
