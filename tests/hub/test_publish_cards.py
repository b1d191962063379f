"""Cards are filled from what was measured: figures, intervals, preprocessing, carbon; of a model that ships and of a data set."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from publish_helpers import RECORD, make_model, refusal, run_publish
from scipy.stats import binomtest

from echocare_hf import EchoCareImageProcessorPil, checkpoint_path
from echocare_hf.finetuning.card import card_text
from echocare_hf.hub.card_parts import TEMPLATES, carbon, preprocessing, wilson_interval
from echocare_hf.hub.publish_card import new_card
from echocare_hf.hub.publish_folder import open_source


@pytest.mark.parametrize("right, count", [(0, 5), (12, 15), (169, 177), (93, 93), (1, 1)])
def test_the_interval_of_a_share_is_wilsons(right, count):
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_carbon_is_energy_times_intensity():
    text, entry = carbon(seconds=7200, threads=4, device="CPU")
    assert entry["emissions"] == pytest.approx(2 * 4 * 0.010 * 480, rel=1e-3)  # hours, cores, kW a core, g/kWh
    assert "10 W per core" in text and "480 g" in text and "**38 g**" in text and "estimate" in text
    text, entry = carbon(seconds=7200, threads=4, device="NVIDIA L4")
    assert entry is None and "not measured" in text


def test_the_card_of_a_fine_tuned_model(tmp_path):
    folder = make_model(tmp_path / "lesion")
    text = card_text(folder, "image-segmentation", (64, 64), RECORD, "2026-01-02")
    low, high = binomtest(12, 15).proportion_ci(0.95, method="wilson")
    assert f"accuracy {low:.3g} to {high:.3g}" in text and "Wilson, 15 cases" in text
    assert "| lesions | CC BY 4.0 | 100 |" in text and "| dice | 0.71 | 0.68 |" in text
    assert "Measured on 2 threads of a CPU, fp32, 2026-01-02" in text and "resized to 64x64 pixels" in text
    for heading in (
        "for, and what not",
        "trained on",
        "Preprocessing",
        "scored",
        "Limits and bias",
        "Carbon",
        "How to cite",
    ):
        assert re.search(rf"^## .*{heading}", text, re.MULTILINE), heading
    measured = card_text(
        folder, "image-segmentation", (64, 64), RECORD | {"intervals": {"test": {"dice": [0.6, 0.75]}}}
    )
    assert "dice 0.6 to 0.75" in measured and "bootstrap" in measured


@pytest.mark.parametrize("mode", ["squash", "pad"])
def test_preprocessing_says_what_the_processor_does(tmp_path, mode):
    processor = EchoCareImageProcessorPil(size={"height": 32, "width": 48}, resize_mode=mode)
    processor.save_pretrained(tmp_path)
    text = preprocessing(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    pixels = processor(Image.fromarray(np.full((40, 20), 255, np.uint8)), return_tensors="pt")["pixel_values"]
    assert tuple(pixels.shape) == (1, 3, 32, 48) and "48x32" in text and "three channels" in text
    assert float(pixels.max()) == pytest.approx(1.0) and "0.0039215686" in text and "**no mean" in text
    assert (float(pixels[..., 0].max()) == 0) == (mode == "pad") and ("black" in text) == (mode == "pad")


def test_the_card_of_tiny_has_the_figures_of_its_record():
    record = json.loads((checkpoint_path() / "training.json").read_text())
    card = ModelCard(new_card(open_source("echocare-tiny"), "echocare-tiny"))
    figures = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert figures["linear_probe_accuracy"] == record["history"][-1]["validation_linear_probe_accuracy"]
    assert f"{record['train_images']:,} images" in card.text and all(name in card.text for name in record["licences"])
    assert card.data.co2_eq_emissions["emissions"] == pytest.approx(
        record["seconds"] / 3600 * record["threads"] * 4.8, rel=0.01
    )


def test_the_templates_of_the_repository_are_those_of_the_package():
    from pathlib import Path

    shown = Path(__file__).resolve().parents[2] / "hub_cards"
    for template in TEMPLATES.glob("*.md"):
        assert (shown / template.name).read_text() == template.read_text()


def test_a_new_card_takes_the_place_of_one_that_says_nothing(tmp_path):
    folder = make_model(tmp_path / "lesion")
    (folder / "README.md").write_text("# mine\n")
    assert "state no licence" in refusal(folder, "--repo-id", "org/lesion", "--dry-run")
    assert yaml.safe_load(new_card(open_source(str(folder)), "lesion").split("---")[1])["license"] == "apache-2.0"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A curated data set of phantoms."""
    pytest.importorskip("daft", reason="daft, which echocare curate runs on, is not installed")
    from typer.testing import CliRunner

    from echocare_hf.cli import app
    from echocare_hf.data.phantom_folder import write_phantom_folder

    root = tmp_path_factory.mktemp("data")
    write_phantom_folder(root / "raw", 12, size=128)
    result = CliRunner().invoke(app, ["curate", str(root / "raw"), "--output", str(root / "corpus"), "--workers", "1"])
    assert result.exit_code == 0, result.output
    return root / "corpus"


def test_a_data_set_is_published_as_one(corpus, tmp_path):
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    result = run_publish(folder, "--repo-id", "org/corpus", "--dry-run", "--audited")
    assert result.exit_code == 0, result.output
    assert "org/corpus (dataset, private)" in result.output and "streams train" in result.output
    assert 'load_dataset("org/corpus"' in result.output and "audit.csv  " not in result.output

    header = "why,source,source_path,frame,id,split,group,text_suspected\n"
    (folder / "audit.csv").write_text(header + "text,a,b.png,0,1,train,,2\n")
    assert "lists 1 images that may show or be called after a person" in refusal(
        folder, "--repo-id", "org/c", "--dry-run"
    )
