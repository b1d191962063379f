"""A saved report generator loads and writes on a machine that does not have this package, with `trust_remote_code=True` alone.

An interpreter of its own, in which `import echocare_hf` fails, loads the folder and tries what a user would; each outcome is one test.
"""

import json
import os
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import pipeline

from echocare_hf import EchoCareForReportGeneration
from report_sizes import SMALL_DECODER, SMALL_ENCODER

TEXTS = ["Liver of normal size.", "肝脏大小正常。"]
DECODER = {**SMALL_DECODER, "decoder_n_positions": 48}

STRANGER = r'''
import json, sys, traceback
from pathlib import Path

sys.modules["echocare_hf"] = None
import PIL.Image
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, pipeline

root = Path(sys.argv[1])
expected = torch.load(root / "expected.pt")
images = [PIL.Image.open(root / name) for name in ("a.png", "b.png")]
outcomes = {}

def check(function):
    try:
        function()
        outcomes[function.__name__] = "passed"
    except BaseException:
        outcomes[function.__name__] = traceback.format_exc()
    return function

def load(auto_class, folder="report", **kwargs):
    return auto_class.from_pretrained(root / folder, trust_remote_code=True, **kwargs)

def same_results(folder):
    model, processor = load(AutoModelForImageTextToText, folder).eval(), load(AutoProcessor, folder)
    assert type(model).__name__ == "EchoCareForReportGeneration", type(model)
    inputs = processor(images=[images, images[:1]], organ=["liver", None], views=[["left", "right"], [None]])
    with torch.inference_mode():
        torch.testing.assert_close(model(**inputs).findings_logits, expected["findings_logits"])
    assert model.generate(**inputs, max_new_tokens=10).tolist() == expected["sequences"].tolist()
    return model, processor

@check
def package_is_absent():
    try:
        import echocare_hf
    except ImportError:
        return
    raise AssertionError("echocare_hf can be imported")

@check
def configuration():
    config = load(AutoConfig)
    assert config.model_type == "echocare-report" and config.findings == ["lesion"], config
    assert config.encoder.model_type == "echocare" and config.decoder.model_type == "gpt2"

@check
def model_and_processor():
    model, processor = same_results("report")
    assert type(model.config) is type(load(AutoConfig))
    assert processor.tokenizer.decode(processor.tokenizer("肝脏 </s> 12")["input_ids"], skip_special_tokens=True) == "肝脏 </s> 12"

@check
def nothing_is_missing():
    info = load(AutoModelForImageTextToText, output_loading_info=True)[1]
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), info

@check
def image_processor_and_tokenizer_alone():
    assert type(load(AutoImageProcessor, backend="pil")).__name__ == "EchoCareImageProcessorPil"
    assert load(AutoTokenizer)("Liver")["input_ids"][-1] == 2

@check
def image_text_to_text_pipeline():
    write = pipeline("image-text-to-text", model=str(root / "report"), trust_remote_code=True)
    found = write(images[0], text="", max_new_tokens=10)
    assert found == expected["pipeline"], (found, expected["pipeline"])
    begun = write(images=str(root / "a.png"), text="Liver", organ="liver", max_new_tokens=5)
    assert begun[0]["generated_text"].startswith("Liver"), begun
    assert len(write(images=images, text=["", ""], max_new_tokens=3)) == 2

@check
def saved_again():
    """What was loaded as remote code saves a folder that loads in turn, code files and all."""
    model, processor = load(AutoModelForImageTextToText), load(AutoProcessor)
    model.save_pretrained(root / "again")
    processor.save_pretrained(root / "again")
    same_results("again")

print("OUTCOMES", json.dumps(outcomes))
'''

CHECKS = [part.split("(")[0] for part in STRANGER.split("@check\ndef ")[1:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the model, two images, and what the model makes of them."""
    root = tmp_path_factory.mktemp("reports")
    torch.manual_seed(0)
    model, processor = EchoCareForReportGeneration.from_preset(
        "tiny", TEXTS, findings=["lesion"], **SMALL_ENCODER, **DECODER
    )
    random = np.random.default_rng(0)
    images = [PIL.Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(2)]
    for image, name in zip(images, "ab", strict=True):
        image.save(root / f"{name}.png")
    model.save_pretrained(root / "report")
    processor.save_pretrained(root / "report")
    inputs = processor(images=[images, images[:1]], organ=["liver", None], views=[["left", "right"], [None]])
    with torch.inference_mode():
        expected = {"findings_logits": model(**inputs).findings_logits}
    expected["sequences"] = model.generate(**inputs, max_new_tokens=10)
    write = pipeline("image-text-to-text", model=model, processor=processor)
    expected["pipeline"] = write(images[0], text="", max_new_tokens=10)
    torch.save(expected, root / "expected.pt")
    return root


@pytest.fixture(scope="module")
def stranger(folder, tmp_path_factory):
    """What the other interpreter reported, by check, and what it wrote to its error stream."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path_factory.mktemp("modules")),
        "HF_HOME": str(tmp_path_factory.mktemp("home")),
    }
    result = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment,
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith("OUTCOMES ")]
    assert lines, result.stdout + result.stderr
    return json.loads(lines[0].removeprefix("OUTCOMES ")), result.stderr


@pytest.mark.parametrize("name", CHECKS)
def test_without_the_package(stranger, name):
    assert stranger[0][name] == "passed", stranger[0][name]


def test_the_pipeline_takes_the_model_for_one_of_its_own(stranger):
    assert "is not supported for image-text-to-text" not in stranger[1]


def test_the_folder_holds_its_code_and_names_its_classes(folder):
    auto_map = json.loads((folder / "report" / "config.json").read_text())["auto_map"]
    auto_map |= json.loads((folder / "report" / "processor_config.json").read_text())["auto_map"]
    assert {name: value.split(".")[-1] for name, value in auto_map.items()} == {
        "AutoConfig": "EchoCareReportConfig",
        "AutoModelForImageTextToText": "EchoCareForReportGeneration",
        "AutoProcessor": "EchoCareReportProcessor",
    }
    for value in auto_map.values():
        assert (folder / "report" / f"{value.split('.')[0]}.py").is_file()


def test_the_pipeline_with_the_package(folder):
    write = pipeline("image-text-to-text", model=str(folder / "report"))
    assert type(write.model) is EchoCareForReportGeneration
    expected = torch.load(folder / "expected.pt")
    image = PIL.Image.open(folder / "a.png")
    assert write(image, text="", max_new_tokens=10) == expected["pipeline"]
    assert write({"images": image, "text": ""}, max_new_tokens=10) == expected["pipeline"]
