"""A saved folder loads on a machine that does not have this package, with `trust_remote_code=True` alone.

Three folders are saved here: of the pretraining model, of the encoder, and of the backbone. An interpreter of its own,
in which `import echocare_hf` fails, loads them through the Auto classes and tries what a user would; each outcome is
one test below.
"""

import json
import os
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from transformers import AutoImageProcessor, AutoModel, AutoModelForPreTraining

from echocare_hf import (
    EchoCareBackbone,
    EchoCareConfig,
    EchoCareForPreTraining,
    EchoCareImageProcessorPil,
    EchoCareModel,
)

MODELS = {"pretraining": EchoCareForPreTraining, "encoder": EchoCareModel, "backbone": EchoCareBackbone}

# Runs without the package: `sys.modules[...] = None` makes importing it fail. Prints one outcome a check, as JSON.
# Auto class of each task head -> the output that must be the same in the other process.
HEADS = {
    "AutoModelForImageClassification": "logits",
    "AutoModelForImageToImage": "reconstruction",
    "AutoModelForKeypointDetection": "keypoints",
    "AutoModelForObjectDetection": "pred_boxes",
    "AutoModelForSemanticSegmentation": "logits",
    "AutoModelForVideoClassification": "logits",
}

STRANGER = r'''
import json, shutil, sys, traceback
from pathlib import Path

sys.modules["echocare_hf"] = None
import PIL.Image
import torch
import transformers
from transformers import (
    AutoConfig, AutoImageProcessor, AutoModel, AutoModelForMaskedImageModeling, AutoModelForPreTraining, pipeline
)

root = Path(sys.argv[1])
pixel_values, mask, expected = torch.load(root / "expected.pt")
outcomes = {}

def check(function):
    try:
        function()
        outcomes[function.__name__] = "passed"
    except BaseException:
        outcomes[function.__name__] = traceback.format_exc()
    return function

def load(auto_class, folder, **kwargs):
    return auto_class.from_pretrained(root / folder, trust_remote_code=True, **kwargs)

def same_encoder(model):
    encoder = getattr(model, "echocare", model)
    with torch.inference_mode():
        found = encoder(pixel_values).last_hidden_state
    torch.testing.assert_close(found, expected["last_hidden_state"])

def same_pretraining(model):
    with torch.inference_mode():
        outputs = model(pixel_values, bool_masked_pos=mask)
    for name in ("reconstruction", "anatomy_scores", "reconstruction_loss"):
        torch.testing.assert_close(outputs[name], expected[name])

@check
def package_is_absent():
    try:
        import echocare_hf
    except ImportError:
        return
    raise AssertionError("echocare_hf can be imported")

@check
def configuration():
    config = load(AutoConfig, "pretraining")
    assert config.model_type == "echocare"
    assert len(config.anatomy_tree["ids"]) == config.num_anatomy_nodes == 117

@check
def encoder_from_every_folder():
    for folder in ("pretraining", "encoder", "backbone"):
        model, info = load(AutoModel, folder, output_loading_info=True)
        assert type(model).__name__ == "EchoCareModel", type(model)
        assert set(info["missing_keys"]) == ({"embeddings.mask_token"} if folder == "backbone" else set()), info
        same_encoder(model)

@check
def pretraining_model_from_every_folder():
    for auto_class in (AutoModelForPreTraining, AutoModelForMaskedImageModeling):
        for folder in ("pretraining", "encoder", "backbone"):
            model, info = load(auto_class, folder, output_loading_info=True)
            assert type(model).__name__ == "EchoCareForPreTraining", type(model)
            assert not info["mismatched_keys"] and not info["unexpected_keys"], info
            same_encoder(model)
            if folder == "pretraining":
                assert not info["missing_keys"], info
                same_pretraining(model)

@check
def every_head_from_its_own_folder():
    for auto_class, (output, value) in expected["heads"].items():
        model, info = load(getattr(transformers, auto_class), auto_class, output_loading_info=True)
        assert not any(info[name] for name in ("missing_keys", "mismatched_keys", "unexpected_keys")), (auto_class, info)
        with torch.inference_mode():
            torch.testing.assert_close(model(pixel_values)[output], value, msg=lambda text: f"{auto_class}: {text}")

@check
def every_head_from_every_other_folder():
    for auto_class in expected["heads"]:
        for folder in ("pretraining", *expected["heads"]):
            if folder != auto_class:
                model, info = load(getattr(transformers, auto_class), folder, output_loading_info=True)
                assert not info["mismatched_keys"], (auto_class, folder, info)
                same_encoder(model)

@check
def configuration_and_model_share_one_class():
    model = load(AutoModelForPreTraining, "pretraining")
    assert type(model.config) is type(load(AutoConfig, "pretraining"))
    assert isinstance(model.config, type(model).config_class), (type(model.config), type(model).config_class)
    assert type(model)(model.config) is not None
    assert AutoModel.from_config(model.config, trust_remote_code=True) is not None

@check
def image_processor():
    processor = load(AutoImageProcessor, "pretraining", backend="pil")
    image = PIL.Image.open(root / "image.png")
    torch.testing.assert_close(processor(image, return_tensors="pt")["pixel_values"], expected["pixel_values"])

@check
def image_processor_by_default():
    processor = load(AutoImageProcessor, "pretraining")
    assert type(processor).__name__.startswith("EchoCareImageProcessor"), type(processor)
    assert processor(PIL.Image.open(root / "image.png"), return_tensors="pt")["pixel_values"].shape == (1, 3, 64, 64)

@check
def saved_again():
    """What was loaded as remote code saves a folder that loads in turn, code files and all."""
    model = load(AutoModelForPreTraining, "pretraining")
    model.save_pretrained(root / "again")
    needed = {f"{part}_echocare.py" for part in ("configuration", "kernels", "layers", "losses", "modeling")}
    assert needed <= {path.name for path in (root / "again").glob("*.py")}, sorted((root / "again").iterdir())
    same_pretraining(load(AutoModelForPreTraining, "again"))
    same_encoder(load(AutoModel, "again"))

@check
def image_processor_saved_again():
    load(AutoImageProcessor, "pretraining", backend="pil").save_pretrained(root / "processor_again")
    # a processor alone has no model beside it: the configuration is what a Hub folder would have
    shutil.copyfile(root / "pretraining" / "config.json", root / "processor_again" / "config.json")
    processor = load(AutoImageProcessor, "processor_again", backend="pil")
    image = PIL.Image.open(root / "image.png")
    torch.testing.assert_close(processor(image, return_tensors="pt")["pixel_values"], expected["pixel_values"])

@check
def feature_extraction_pipeline():
    extract = pipeline("image-feature-extraction", model=str(root / "pretraining"), trust_remote_code=True, pool=True)
    features = extract(str(root / "image.png"), return_tensors=True)
    assert features.shape == expected["pooler_output"].shape
    torch.testing.assert_close(features, expected["pooler_output"], rtol=0.02, atol=0.02)

print("OUTCOMES", json.dumps(outcomes))
'''

CHECKS = [line.removeprefix("def ").split("(")[0] for line in STRANGER.splitlines() if line.startswith("def ")]
CHECKS = [name for name in CHECKS if f"@check\ndef {name}(" in STRANGER]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The three folders, an image, and what the models make of it."""
    root = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    config = EchoCareConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 2],
        num_heads=[2, 4],
        window_size=4,
        mask_unit_size=8,
        anatomy_hidden_size=8,
        dense_hidden_size=8,
        temporal_hidden_size=16,
        num_keypoints=2,
    )
    model = EchoCareForPreTraining(config).eval()
    model.save_pretrained(root / "pretraining")
    heads = {}
    for auto_class, output in HEADS.items():
        loaded = getattr(transformers, auto_class).from_pretrained(root / "pretraining").eval()
        loaded.save_pretrained(root / auto_class)
        heads[auto_class] = (output, loaded)
    for name in ("encoder", "backbone"):
        MODELS[name].from_pretrained(root / "pretraining").save_pretrained(root / name)
    processor = EchoCareImageProcessorPil(size={"height": 64, "width": 64})
    for name in MODELS:
        processor.save_pretrained(root / name)

    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(root / "image.png")
    image = processor(PIL.Image.open(root / "image.png"), return_tensors="pt")["pixel_values"]
    pixel_values, mask = torch.rand(2, 3, 40, 48), torch.rand(2, 5, 6) < 0.5
    with torch.inference_mode():
        outputs = model(pixel_values, bool_masked_pos=mask)
        expected = {name: outputs[name] for name in ("reconstruction", "anatomy_scores", "reconstruction_loss")}
        expected["last_hidden_state"] = model.echocare(pixel_values).last_hidden_state
        expected["pooler_output"] = model.echocare(image).pooler_output
        expected["pixel_values"] = image
        expected["heads"] = {name: (output, head(pixel_values)[output]) for name, (output, head) in heads.items()}
    torch.save((pixel_values, mask, expected), root / "expected.pt")
    return root


@pytest.fixture(scope="module")
def outcomes(folders, tmp_path_factory):
    """What the other interpreter reported, by check."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path_factory.mktemp("modules")),
        "HF_HOME": str(tmp_path_factory.mktemp("home")),
    }
    result = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(folders)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment,
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith("OUTCOMES ")]
    assert lines, result.stdout + result.stderr
    return json.loads(lines[0].removeprefix("OUTCOMES "))


@pytest.mark.parametrize("name", CHECKS)
def test_without_the_package(outcomes, name):
    assert outcomes[name] == "passed", outcomes[name]


@pytest.mark.parametrize("name", MODELS)
def test_every_folder_names_every_head(folders, name):
    """transformers alone would write the class that was saved, so that no other head would load from the folder."""
    auto_map = json.loads((folders / name / "config.json").read_text())["auto_map"]
    assert {key: value.split(".")[-1] for key, value in auto_map.items() if key != "AutoConfig"} == {
        "AutoModel": "EchoCareModel",
        "AutoBackbone": "EchoCareBackbone",
        "AutoModelForPreTraining": "EchoCareForPreTraining",
        "AutoModelForMaskedImageModeling": "EchoCareForPreTraining",
        "AutoModelForImageClassification": "EchoCareForImageClassification",
        "AutoModelForImageToImage": "EchoCareForImageToImage",
        "AutoModelForKeypointDetection": "EchoCareForKeypointDetection",
        "AutoModelForObjectDetection": "EchoCareForObjectDetection",
        "AutoModelForSemanticSegmentation": "EchoCareForSemanticSegmentation",
        "AutoModelForVideoClassification": "EchoCareForVideoClassification",
    }
    for value in auto_map.values():
        assert (folders / name / f"{value.split('.')[0]}.py").is_file()


def test_the_folder_names_both_image_processors(folders):
    settings = json.loads((folders / "pretraining" / "preprocessor_config.json").read_text())
    processors = settings["auto_map"]["AutoImageProcessor"]
    assert set(processors) == {"torchvision", "pil"}
    for value in processors.values():
        assert (folders / "pretraining" / f"{value.split('.')[0]}.py").is_file()


def test_saving_leaves_the_configuration_as_it_was(tmp_path):
    config = EchoCareConfig(embed_dim=8, depths=[1], num_heads=[1])
    before = config.to_dict()
    EchoCareModel(config).save_pretrained(tmp_path)
    assert not hasattr(config, "auto_map") and config.to_dict().keys() == before.keys()


def test_with_the_package_its_own_classes_are_used(folders):
    assert type(AutoModel.from_pretrained(folders / "pretraining")) is EchoCareModel
    assert type(AutoModelForPreTraining.from_pretrained(folders / "encoder")) is EchoCareForPreTraining
    assert type(AutoImageProcessor.from_pretrained(folders / "encoder", backend="pil")) is EchoCareImageProcessorPil


@pytest.mark.parametrize("name", MODELS)
def test_a_backbone_loads_from_every_folder(folders, name):
    backbone, info = EchoCareBackbone.from_pretrained(
        folders / name, output_loading_info=True, out_features=["stem", "stage2"]
    )
    assert not info["missing_keys"] and not info["mismatched_keys"]
    pixel_values, _, expected = torch.load(folders / "expected.pt")
    with torch.inference_mode():
        stem, last = backbone(pixel_values).feature_maps
    assert stem.shape == (2, 8, 20, 24)
    torch.testing.assert_close(last.flatten(2).transpose(1, 2), expected["last_hidden_state"])
