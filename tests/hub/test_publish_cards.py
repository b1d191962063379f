"""Cards are filled from what was measured: figures, intervals, preprocessing, carbon; of a fine-tuned model and of one that ships."""

import json
import re

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from publish_helpers import RECORD, make_model, refusal
from scipy.stats import binomtest

from echocare_hf import EchoCareImageProcessorPil, checkpoint_path
from echocare_hf.finetuning.card import card_text
from echocare_hf.hub.card_parts import TEMPLATES, carbon, preprocessing, wilson_interval
from echocare_hf.hub.publish_card import check_card, finish_card, new_card, read_card
from echocare_hf.hub.publish_folder import open_source


@pytest.mark.parametrize("right, count", [(0, 5), (12, 15), (169, 177), (93, 93), (1, 1)])
def test_the_interval_of_a_share_is_wilsons(right, count):
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_carbon_is_energy_times_intensity():
    text, entry = carbon(seconds=7200, threads=4, device="CPU")
    assert entry["emissions"] == pytest.approx(
        2 * 4 * 0.012 * 1.56 * 475, rel=1e-3
    )  # hours, cores, kW a core, overhead, g/kWh
    assert "12 W x 1.56" in text and "475 g" in text and "**71 g**" in text and "estimate" in text
    assert "doi.org/10.1002/advs.202100707" in text and "Green Algorithms" in entry["source"]
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
        record["seconds"] / 3600 * record["threads"] * 0.012 * 1.56 * 475, rel=0.01
    )


def test_the_card_that_ships_is_that_of_the_template_with_a_licence_for_each_source():
    """Its figures and counts are those of the record, its sections those of the template, and strangers can run its commands."""
    source = open_source("echocare-tiny")
    record = json.loads((checkpoint_path() / "training.json").read_text())
    text = (checkpoint_path() / "README.md").read_text()
    headings = re.findall(r"^## .*$", (TEMPLATES / "pretrained_card.md").read_text(), re.MULTILINE)
    assert headings and all(f"{heading}\n" in text for heading in headings)
    for name, value in record["history"][-1].items():
        if name.startswith("validation_"):
            assert f"| {name.removeprefix('validation_')} | {value} |" in text
    by_licence = dict.fromkeys(record["licences"], 0)
    for name, count in record["sources"].items():
        (row,) = re.findall(rf"^\| {name} \| (.*) \| {count} \|$", text, re.MULTILINE)
        for licence, number in re.findall(r"([\w. -]+?) \((\d+)\)", row.replace(", ", "\n")):
            by_licence[licence.strip()] += int(number)
    assert by_licence == record["licences"]

    card = read_card(source, False, "echocare-tiny")
    check_card(source, card, True)
    published = finish_card(source, card, "org/tiny", None)
    assert 'folder = "org/tiny"' in published.text and "echocare_hf import" not in published.text
    assert "custom_code" in published.data["tags"] and "muscle_timtrack" in published.text


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
