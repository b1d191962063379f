"""The checkpoints that come with the package."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification

from echocare_hf import AnatomyTree, checkpoint_path
from echocare_hf.checkpoints import find_checkpoint, shipped_checkpoints
from echocare_hf.data.phantom import make_phantom
from echocare_hf.finetuning.card import licence_of


@pytest.fixture(params=shipped_checkpoints())
def folder(request) -> Path:
    return checkpoint_path(request.param)


def test_echocare_tiny_comes_with_the_package():
    assert "echocare-tiny" in shipped_checkpoints()


def test_its_weights_are_all_there_and_loaded(folder):
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size <= 15_000_000, f"{size} bytes"


def test_a_new_head_takes_its_encoder(folder):
    encoder = AutoModel.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder, num_labels=3)
    for name, parameter in model.echocare.named_parameters():
        assert torch.equal(parameter, encoder.get_parameter(name)), name


def test_its_tree_is_the_tree_of_the_package(folder):
    """Until the tree grows: then the older checkpoint keeps its own, and this test goes."""
    model = AutoModel.from_pretrained(folder)
    assert tuple(model.config.anatomy_tree["ids"]) == AnatomyTree.default().ids


def test_features_of_equal_organs_are_nearer_than_of_others(folder):
    """Phantoms, which it has not seen: features of two kidneys are more alike than those of a kidney and a muscle."""
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
    kinds = ("kidney", "gastrocnemius", "fetal_brain")
    images = [make_phantom(kind, seed, 128).image[..., None].repeat(3, -1) for kind in kinds for seed in range(6)]
    with torch.inference_mode():
        features = model(**processor(images, return_tensors="pt")).pooler_output
    features = torch.nn.functional.normalize(features - features.mean(0), dim=-1)
    likeness = features @ features.T
    same = torch.block_diag(*[torch.ones(6, 6)] * 3).bool() & ~torch.eye(18, dtype=torch.bool)
    assert likeness[same].mean() > likeness[~same & ~torch.eye(18, dtype=torch.bool)].mean() + 0.2


def test_the_card_says_what_it_was_made_of(folder):
    record = json.loads((folder / "training.json").read_text())
    card = (folder / "README.md").read_text()
    assert licence_of(record["licences"]) == "apache-2.0" and "license: apache-2.0" in card
    assert f"{record['train_images']:,} images" in card
    for licence in record["licences"]:
        assert licence in card
    text = card + json.dumps(record)
    assert "/root" not in text and "/home" not in text and "auto_map" not in (folder / "config.json").read_text()


def test_a_bare_name_is_found_and_anything_else_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("echocare-tiny") == str(checkpoint_path("echocare-tiny"))
    assert find_checkpoint("someone/echocare-base") == "someone/echocare-base"
    (tmp_path / "echocare-tiny").mkdir()
    assert find_checkpoint("echocare-tiny") == "echocare-tiny"


def test_an_unknown_name_is_told_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"no checkpoint called 'echocare-huge'.*echocare-tiny"):
        checkpoint_path("echocare-huge")
