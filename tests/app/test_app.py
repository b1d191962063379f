"""The web page without a browser: analysis, limits, occlusion maps, pictures, texts, folders, the command, the HTTP API, a Space."""

import html
import io
import json
import re
import subprocess
import sys
import threading
import time
import types
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from echocare_hf.app import panels
from echocare_hf.app.analysis import Analyser, Choices, as_choices
from echocare_hf.app.command import load_with_anatomy, open_writer
from echocare_hf.app.examples import make_examples, write_phantom_dicom
from echocare_hf.app.folders import RequestFolders
from echocare_hf.app.kept_frame import load_clip, save_clips
from echocare_hf.app.limits import Limits
from echocare_hf.app.occlusion import find_targets, occlusion_map
from echocare_hf.app.occlusion_clip import clip_occlusion
from echocare_hf.app.pictures import SIDE, enhanced_layers, findings_layers, occlusion_layers
from echocare_hf.app.save_space import write_space
from echocare_hf.cli import app
from echocare_hf.data.phantom import make_phantom
from echocare_hf.examination.engine import Examination
from echocare_hf.examination.events import SeenClip
from echocare_hf.examination.models import load_models
from echocare_hf.examination.results import Label

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def answer(analyser, samples, tmp_path_factory):
    return analyser.analyse(samples["scan.dcm"], "scan.dcm", tmp_path_factory.mktemp("request"))


def picture(address):
    """The picture in a data address."""
    import base64

    return Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1])))


# Analysis


def test_the_page_finds_what_the_engine_finds(analyser, answer, samples):
    result, (frame,) = Examination(analyser.models).examine(samples["scan.dcm"])
    assert answer.result.measurements == result.measurements
    measured = {(each.model, each.name): (each.value, each.unit) for each in answer.result.measurements}
    assert measured["detection", "long axis"] == (pytest.approx(25, abs=0.5), "mm")
    assert measured["detection", "short axis"] == (pytest.approx(15, abs=0.5), "mm")
    assert measured["segmentation", "area"] == (pytest.approx(np.pi * 25 * 15 / 4, rel=0.03), "mm2")
    assert answer.found.anatomy == frame.anatomy
    assert answer.result.familiarity == result.familiarity
    (segmentation,) = answer.found.segmentations.values()
    assert (segmentation.label_map == next(iter(frame.segmentations.values())).label_map).all()


def test_downloads_are_those_of_predict(answer):
    names = [path.name for path in answer.files]
    assert names[0] == "scan_echocare.zip"
    assert {"result.json", "overlay.png", "mask.png", "enhanced.png", "segmentation.dcm", "report.dcm"} <= set(names)
    with zipfile.ZipFile(answer.files[0]) as archive:
        assert set(names[1:]) <= set(archive.namelist())
    by_name = {path.name: path for path in answer.files}
    assert json.loads(by_name["result.json"].read_text()) == answer.record
    assert pydicom.dcmread(by_name["segmentation.dcm"]).Modality == "SEG"
    assert pydicom.dcmread(by_name["report.dcm"]).Modality == "SR"


def test_clip(analyser, samples, tmp_path):
    told = []
    answer = analyser.analyse(
        samples["clip.mp4"], "clip.mp4", tmp_path, Choices(every=2), lambda *each: told.append(each)
    )
    assert answer.is_clip and answer.result.num_frames == 3 and [done for done, _ in told] == [1, 2, 3]
    assert answer.found.index in (0, 2, 4)
    assert "overlay.mp4" in [path.name for path in answer.files]
    assert answer.record["clip"]["values"]["video"]  # the video model saw the clip


def test_size_limit_says_both_sizes(analyser, samples, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(samples["still.png"].read_bytes() + b"\0" * 9 * 1024**2)
    with pytest.raises(ValueError, match=r"large.png: is 9\.\d MB; this page takes files up to 8 MB.*--max-mb"):
        analyser.analyse(large, "large.png", tmp_path / "request")


def test_time_limit_says_how_far_it_came(analyser, samples, tmp_path):
    hasty = Analyser(analyser.models, Limits(8, 1e-6))
    with pytest.raises(ValueError, match=r"clip.mp4: was stopped after 1e-06 seconds, at frame 1.*--max-seconds"):
        hasty.analyse(samples["clip.mp4"], "clip.mp4", tmp_path)
    assert not list(tmp_path.rglob("result.json"))
    assert analyser.analyse(samples["still.png"], "still.png", tmp_path / "next").result.num_frames == 1


@pytest.mark.parametrize("name", ["notes.txt", "broken.dcm"])
def test_what_is_no_image_is_named_in_one_line(analyser, samples, tmp_path, name):
    with pytest.raises(ValueError, match=rf"^{name}: ") as caught:
        analyser.analyse(samples[name], name, tmp_path)
    assert "\n" not in str(caught.value) and str(samples[name].parent) not in str(caught.value)


def test_visitors_take_turns(analyser, samples, tmp_path):
    alone = analyser.analyse(samples["still.png"], "still.png", tmp_path / "alone").result.measurements
    found = {}

    def visit(number):
        name = ("still.png", "scan.dcm")[number % 2]
        found[number] = analyser.analyse(samples[name], name, tmp_path / str(number)).result

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(6))
    assert all(found[number].measurements == alone for number in (0, 2, 4))


@pytest.mark.parametrize(
    ("text", "spacing"), [("", None), (None, None), ("0.2", (0.2, 0.2)), (" 0.2, 0.3", (0.2, 0.3))]
)
def test_spacing_of_the_form(text, spacing):
    assert as_choices(0.5, 1, text).spacing == spacing


def test_spacing_that_is_none():
    with pytest.raises(ValueError, match="Pixel spacing is millimetres per pixel"):
        as_choices(0.5, 1, "wide")


def test_given_spacing_scales_pixels(analyser, samples, tmp_path):
    without = analyser.analyse(samples["still.png"], "still.png", tmp_path / "a").result.measurements
    given = analyser.analyse(samples["still.png"], "still.png", tmp_path / "b", Choices(spacing=(0.5, 0.5)))
    long = [each for each in without if each.name == "area"]
    scaled = [each for each in given.result.measurements if each.name == "area"]
    assert [each.unit for each in long] == ["{pixels}2"] * len(long) and len(long) == len(scaled) > 0
    np.testing.assert_allclose([each.value for each in scaled], [each.value / 4 for each in long])
    assert {each.unit for each in scaled} == {"mm2"}


# Occlusion


def test_occlusion_map_agrees_with_covering_by_hand(analyser, answer):
    model = analyser.models[0]
    target = next(each for each in find_targets(answer.found) if each.model == model.name)
    found = occlusion_map(model, answer.crop, target.label, windows=2)
    assert found.score == pytest.approx(target.score, abs=1e-3)
    image = model.resize(answer.crop)
    side = image.shape[1]
    fill = image[:, image.amax(0) > 0].float().mean(1).round()
    reach = round(2 * side / 3)  # two windows of two steps each make three steps

    def score(pixels):
        with torch.inference_mode():
            pooled = model.network.echocare(model.normalize(pixels[None])).pooler_output
            from echocare_hf.model.losses_echocare import coherent_anatomy_scores

            scores = coherent_anatomy_scores(
                model.network.anatomy_classifier(pooled).float(), model.network.anatomy_ancestors
            )
        return scores[0, model.config.anatomy_tree["names"].index(target.label)].item()

    corner = image.clone()
    inside = corner.amax(0) > 0
    inside[reach:] = inside[:, reach:] = False
    corner[:, inside] = fill.to(torch.uint8)[:, None]
    assert found.values[2, 2] == pytest.approx(
        0 if image[:, 2, 2].max() == 0 else score(image) - score(corner), abs=2e-2
    )


def test_occlusion_finds_the_place_that_a_score_rests_on(analyser, monkeypatch):
    """A classifier that looks at the brightness of one corner alone."""
    model = next(each for each in analyser.models if each.task == "classification")

    class Corner:
        def __call__(self, inputs):
            bright = inputs.float()[:, :, :8, :8].mean((1, 2, 3))
            return type("Output", (), {"logits": torch.stack((torch.zeros_like(bright), 4 * bright), -1)})

    monkeypatch.setattr(model, "network", Corner())
    image = np.full((64, 64, 3), 20, np.uint8)
    image[:16, :16] = 250
    values = occlusion_map(model, image, "malignant").values
    assert values[:6, :6].min() > 0.05 and np.abs(values[16:, 16:]).max() < 1e-3


@pytest.mark.parametrize("task", ["detection", "keypoints"])
def test_scores_of_objects_and_landmarks_fall_as_the_engine_says(analyser, answer, task):
    """The corner that one window covers, covered by hand and given to what finds objects and landmarks for everybody."""
    from echocare_hf.examination.region import Region
    from echocare_hf.examination.task_findings import find

    model = next(each for each in analyser.models if each.task == task)
    target = next(each for each in find_targets(answer.found) if each.model == model.name)
    found = occlusion_map(model, answer.crop, target.label, windows=2)
    image = model.resize(answer.crop)
    height, width = image.shape[1:]
    corner, inside = image.clone(), image.amax(0) > 0
    inside[round(2 * height / 3) :] = inside[:, round(2 * width / 3) :] = False
    corner[:, inside] = image[:, image.amax(0) > 0].float().mean(1).round().to(torch.uint8)[:, None]

    def score(pixels):
        grid = pixels.permute(1, 2, 0).numpy()
        (findings,) = find(model, pixels[None], [Region(height, width, (0, 0, width, height))], [grid], 0.0)
        (labels,) = (findings[name] for name in ("ellipses", "landmarks") if name in findings)
        return max((each.score for each in labels if each.label == target.label), default=0.0)

    assert found.score == pytest.approx(score(image), abs=1e-4) and 0 < found.score <= 1
    row, column = (int(place) for place in torch.nonzero(image.amax(0) > 0)[0])
    assert row < height / 3 and column < width / 3, "a place that the first window alone covers"
    assert found.values[row, column] == pytest.approx(score(image) - score(corner), abs=1e-3)


def test_a_mask_rests_on_what_it_covers(analyser, answer):
    """The segmentation of the fixture takes bright pixels: covering the ellipse makes its class fall."""
    model = next(each for each in analyser.models if each.task == "segmentation")
    target = next(each for each in find_targets(answer.found) if each.model == model.name)
    assert target.score is None and target.label in panels.target_name(target)
    found = occlusion_map(model, answer.crop, target.label)
    there = answer.region.crop(answer.found.segmentations[model.name].label_map) == 1
    there = np.asarray(Image.fromarray(there).resize(found.values.shape[::-1], Image.Resampling.NEAREST))
    assert found.score > 0.5 and found.values[there].mean() > 0.05 > np.abs(found.values[~there]).min()
    assert found.values[there].mean() > 2 * found.values[~there].mean()


def test_each_task_with_a_score_of_an_image_can_be_explained(analyser, answer):
    tasks = {analyser.model(each.model).task for each in find_targets(answer.found)}
    assert tasks == {"anatomy", "classification", "detection", "keypoints", "segmentation"}


def test_a_label_without_score(analyser, answer):
    with pytest.raises(ValueError, match="has no score of 'moon'"):
        occlusion_map(analyser.models[0], answer.crop, "moon")


def test_occlusion_stops_when_the_time_is_over(analyser, answer):
    def over(what, progress):
        raise ValueError(what + progress)

    label = find_targets(answer.found)[0].label
    with pytest.raises(ValueError, match="the map , at window 0 of"):
        occlusion_map(analyser.models[0], answer.crop, label, over)


def test_padding_is_no_part_of_a_map(analyser, monkeypatch):
    """A wide image on a square input: the bars above and below are not drawn, so that the map lies where the image is."""
    model = next(each for each in analyser.models if each.task == "classification")
    monkeypatch.setattr(model.processor, "resize_mode", "pad")
    size = model.processor.size
    image = np.full((60, 120, 3), 90, np.uint8)
    found = occlusion_map(model, image, "malignant", windows=2)
    assert found.values.shape == (size["height"] // 2, size["width"])


class BrightCorner:
    """A network of clips that looks at one corner of one frame alone."""

    def __init__(self, frame):
        self.frame, self.asked = frame, []

    def __call__(self, inputs, frame_times):
        self.asked.append(frame_times)
        bright = inputs.float()[:, self.frame, :, :8, :8].mean((1, 2, 3))
        return types.SimpleNamespace(logits=torch.stack((torch.zeros_like(bright), 4 * bright), -1))


def test_a_clip_rests_on_the_frame_and_the_place_that_its_model_looks_at(analyser, monkeypatch):
    model = next(each for each in analyser.models if each.task == "video")
    monkeypatch.setattr(model, "network", BrightCorner(2))
    monkeypatch.setattr(model, "labels", {0: "dull", 1: "bright"})
    frames = torch.full((5, 3, 32, 32), 20, dtype=torch.uint8)
    frames[2, :, :10, :10] = 250
    clip = SeenClip(frames, [0.0, 40.0, 80.0, 120.0, 160.0])
    found = clip_occlusion(model, clip, "bright", (64, 64), windows=3)

    def score(clip):
        return float(torch.sigmoid(4 * clip.float()[2, :, :8, :8].mean() / 255))

    fill = frames.float().mean((0, 2, 3)).round().to(torch.uint8)
    covered = frames.clone()
    covered[2] = fill[:, None, None]
    expected = [0, 0, score(frames) - score(covered), 0, 0]
    np.testing.assert_allclose(found.frames, expected, atol=1e-2)  # bf16
    assert found.frames[2] > 0.1 and found.places.score == pytest.approx(score(frames), abs=1e-2)
    assert found.places.values[:6, :6].min() > 0.05 and np.abs(found.places.values[20:, 20:]).max() < 1e-3
    assert found.places.evaluations == 1 + 9 + 5 and found.times_ms == list(clip.times_ms)
    assert model.network.asked[0].tolist() == [list(clip.times_ms)]
    shown = panels.clip_occlusion("bright", found)
    assert "15 clips were analysed" in shown and shown.count('class="ec-score') == 5 and "0.08 s" in shown
    with pytest.raises(ValueError, match="has no score of 'moon'"):
        clip_occlusion(model, clip, "moon", (64, 64))


def test_what_a_clip_model_saw_is_kept_for_its_map(analyser, samples, tmp_path):
    answer = analyser.analyse(samples["clip.mp4"], "clip.mp4", tmp_path)
    ((name, seen),) = answer.seen.items()
    assert analyser.clip_models == [name] and seen.frames.dtype == torch.uint8 and seen.frames.ndim == 4
    model = analyser.model(name)
    if seen.times_ms is not None:
        assert len(seen.times_ms) == len(seen.frames)
    save_clips(answer, tmp_path)
    kept = load_clip(tmp_path, 0)
    assert (kept.frames == seen.frames).all() and kept.times_ms == seen.times_ms
    with torch.inference_mode():
        times = None if kept.times_ms is None else torch.tensor([kept.times_ms])
        outputs = model.network(model.normalize(kept.frames)[None], frame_times=times)
    (value,) = answer.record["clip"]["values"][name].values()
    assert float(outputs.logits) == pytest.approx(value, rel=1e-2)
    with pytest.raises(ValueError, match="analyse the file again"):
        load_clip(tmp_path, 1)


def test_the_page_explains_a_class_of_a_clip(samples, tmp_path):
    pytest.importorskip("gradio", reason="Gradio (echocare-hf[demo]) is not installed")
    from engine_helpers import SIZES

    from echocare_hf import EchoCareConfig, EchoCareForVideoClassification, EchoCareImageProcessorPil
    from echocare_hf.app.page import Desk

    torch.manual_seed(0)
    config = EchoCareConfig.preset("tiny", **SIZES, id2label={0: "still", 1: "moving"}, num_frames=4)
    config.problem_type = "single_label_classification"
    EchoCareForVideoClassification(config).save_pretrained(tmp_path / "views")
    EchoCareImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "views")
    folders, visitor = RequestFolders(), types.SimpleNamespace(session_hash="a")
    desk = Desk(Analyser(load_models([str(tmp_path / "views")]), Limits(8, 60)), folders, [])
    token, *others = desk.show(str(samples["clip.mp4"]), 0.5, 1, "", visitor, lambda *told, **units: None)
    (targets,) = (each["choices"] for each in others if isinstance(each, dict) and each.get("choices"))
    assert {value for _, value in targets} == {"views\nstill", "views\nmoving"}
    said = desk.explain(token, "views\nmoving")
    assert "scores 0." in said and "30 clips were analysed for this map" in said  # 1, 25 places, 4 frames
    assert said.count('class="ec-score') == 4 and "data:image/webp" in said
    assert "No result" in desk.explain("gone", "views\nmoving")
    folders.close()


# Pictures and texts


def test_layers_have_one_size_and_differ_where_something_is_drawn(analyser, answer):
    layers = findings_layers(answer, analyser.style(0.5))
    base, upper = picture(layers.base), picture(layers.upper)
    assert base.size == upper.size == (layers.width, layers.height) and max(base.size) == SIDE
    assert np.abs(np.asarray(base, int) - np.asarray(upper, int)).max() > 60
    assert layers.legend and len(set(layers.legend)) == len(layers.legend)
    (enhanced,) = enhanced_layers(answer).values()
    assert picture(enhanced.upper).size == base.size


def test_heat_is_strongest_where_the_value_is(answer):
    from echocare_hf.app.occlusion import OcclusionMap

    values = np.zeros((32, 32), np.float32)
    values[4:8, 20:24] = 0.5
    heat = np.asarray(picture(occlusion_layers(answer.crop, OcclusionMap(values, 0.9, 10)).upper).convert("RGBA"))
    row, column = np.unravel_index(heat[..., 3].argmax(), heat.shape[:2])
    assert 4 / 32 <= row / heat.shape[0] <= 8 / 32 and 20 / 32 <= column / heat.shape[1] <= 24 / 32


def test_anatomy_is_an_indented_tree(answer):
    shown = panels.anatomy(answer)
    path = answer.result.anatomy_path
    if path:
        assert [label.label for label in path] == re.findall(
            r'ec-on-path"><div class="ec-score "><span class="ec-name">([^<]+)', html.unescape(shown)
        )
    assert shown.count("<ul") == shown.count("</ul>") and shown.count("<li") == shown.count("</li>")
    depth = {label.label: len(label.path) for labels in answer.found.anatomy.values() for label in labels}
    for name, level in depth.items():
        before = shown[: shown.index(f">{html.escape(name)}<")]
        assert before.count("<ul") - before.count("</ul>") == level


def test_measurements_say_their_unit(answer, analyser, samples, tmp_path):
    assert "mm" in panels.findings(answer) and "pixel spacing of the file" in panels.findings(answer)
    pixels = analyser.analyse(samples["still.png"], "still.png", tmp_path)
    assert "px²" in panels.findings(pixels) and "states no pixel spacing" in panels.findings(pixels)
    assert "states no pixel spacing" in panels.summary(pixels).lower()


def test_texts_of_files_are_not_read_as_html_or_templates(answer):
    evil = "<img src=x onerror=alert(1)>{{constructor}}${7*7}"
    answer.result.name, name = evil, answer.result.name
    shown = panels.summary(answer)
    answer.result.name = name
    assert "<img" not in shown and "{{" not in shown and "${" not in shown and "&lt;img" in shown
    assert "<b>" not in panels.problem("<b>")
    assert "<b>" not in panels.text(Label("<b>", 0.5).label)


def test_notice_tells_where_files_go():
    assert "Not a medical device" in panels.header(panels.where_files_go("127.0.0.1"))
    assert "Nothing leaves this machine" in panels.where_files_go("127.0.0.1")
    assert "Nothing leaves" not in panels.where_files_go("0.0.0.0")


# Folders


def test_folders_go_with_their_visitor():
    folders = RequestFolders()
    first, second, other = folders.new("a"), folders.new("a"), folders.new("b")
    upload, shared = folders.root / "upload.dcm", folders.root / "shared.dcm"
    for path in (upload, shared):
        path.write_bytes(b"x")
        folders.uses("a", path)
    folders.uses("b", shared)
    folders.drop_former("a", but=second.name)
    assert not first.exists() and second.exists()
    folders.leave("a")
    assert not second.exists() and other.exists() and not upload.exists() and shared.exists()
    with pytest.raises(ValueError, match="analyse the file again"):
        folders.find(second.name)
    assert folders.find(other.name) == other
    folders.close()
    assert not folders.root.exists()


def test_old_folders_go():
    folders = RequestFolders(keep_seconds=0.05)
    old = folders.new("a")
    time.sleep(0.1)
    folders.new("b")
    assert not old.exists()
    folders.close()


# Examples


def test_phantoms_as_dicom_have_their_spacing(tmp_path):
    from echocare_hf.data.reading import read_ultrasound

    phantom = make_phantom("tissue_phantom", 1, 64)
    write_phantom_dicom(tmp_path / "p.dcm", phantom, [phantom.image, phantom.image])
    record = read_ultrasound(tmp_path / "p.dcm")
    np.testing.assert_allclose(record.spacing, phantom.spacing, rtol=1e-4)
    assert np.asarray(record.frames).shape[0] == 2
    assert (np.asarray(record.frames)[0].reshape(64, 64, -1)[..., 0] == phantom.image).all()


def test_examples_are_made_once(tmp_path, monkeypatch):
    from echocare_hf.app import examples

    monkeypatch.setattr(examples, "_STILLS", (("tissue_phantom", "Tissue", ".png"),))
    monkeypatch.setattr(examples, "_CLIP", ("tissue_phantom", "Tissue, clip"))
    monkeypatch.setattr(examples, "PHANTOM_SIDE", 64)
    made = make_examples(tmp_path)
    assert [example.path.name for example in made[:2]] == [
        "phantom_tissue_phantom.png",
        "phantom_tissue_phantom_clip.dcm",
    ]
    assert all(Image.open(example.thumbnail).size == examples.THUMBNAIL for example in made)
    assert pydicom.dcmread(made[1].path).NumberOfFrames == examples.CLIP_FRAMES
    times = [example.path.stat().st_mtime_ns for example in made]
    monkeypatch.setattr(examples, "make_phantom", None)  # would fail if it were called
    assert [example.path.stat().st_mtime_ns for example in make_examples(tmp_path)] == times


# Report draft


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    """A report generator that has learned one report by heart."""
    from report_helpers import learned_generator, save_generator

    told = [("thyroid", None), (None, None)]
    model, processor = learned_generator("The nodule measures 9 mm. No fluid {seen}.", told=told)
    return save_generator(tmp_path_factory.mktemp("reports") / "writer", model, processor)


@pytest.fixture(scope="module")
def drafted(generator, checkpoints, samples, tmp_path_factory):
    """The answer to a DICOM file by a page with a report generator."""
    others, writer = open_writer([str(checkpoints["classification"]), str(generator)], None)
    assert others == [str(checkpoints["classification"])]
    writer.organ = "thyroid"
    analyser = Analyser(load_with_anatomy(others), Limits(8, 60), writer)
    return analyser.analyse(samples["scan.dcm"], "scan.dcm", tmp_path_factory.mktemp("request"))


def test_a_draft_has_its_notice_and_its_frame_beside_each_sentence(drafted):
    shown = panels.report(drafted)
    assert "DRAFT" in shown and html.escape(drafted.record["report"]["notice"]) in shown
    for sentence in drafted.record["report"]["sentences"]:
        assert panels.text(sentence["text"]) in shown
    assert shown.count('class="said"') >= 1 and shown.count('<img alt="the image" src="data:image/jpeg;base64,') >= 1
    assert "no measurement supports: 9 mm" in shown
    assert "<a " not in shown and "{" not in shown and "{seen}" in html.unescape(shown)
    names = {path.name for path in drafted.files}
    assert {"draft_report.txt", "draft_report.dcm"} <= names


def test_without_a_generator_there_is_no_draft(answer):
    assert panels.report(answer) == "" and "report" not in answer.record


def test_a_generator_is_told_from_the_models_or_named(generator, checkpoints, tmp_path):
    head = str(checkpoints["classification"])
    assert open_writer([head], None) == ([head], None)
    others, writer = open_writer([head], f"words={generator}")
    assert others == [head] and writer.facts.name == "words" and writer.facts.task == "report"
    with pytest.raises(ValueError, match="give one for --report"):
        open_writer([str(generator)], str(generator))
    with pytest.raises(ValueError, match="not a report generator"):
        open_writer([], head)
    write_space(tmp_path / "space", [head, str(generator)], Limits(), lambda line: None)
    assert (tmp_path / "space/models/writer/tokenizer.json").is_file()


# Models


def test_tiny_joins_only_where_no_model_tells_the_anatomy(checkpoints, checkpoint):
    assert [model.name for model in load_with_anatomy([])] == ["echocare-tiny"]
    assert [model.task for model in load_with_anatomy([f"own={checkpoint}"])] == ["anatomy"]
    assert [model.task for model in load_with_anatomy([str(checkpoints["detection"])])] == ["anatomy", "detection"]
    names = [model.name for model in load_with_anatomy([f"echocare-tiny={checkpoints['detection']}"])]
    assert names == ["anatomy", "echocare-tiny"]


# Command


def test_help_names_every_option():
    result = CliRunner().invoke(app, ["demo", "--help"])
    assert result.exit_code == 0
    for option in (
        "--model",
        "--report",
        "--host",
        "--port",
        "--max-mb",
        "--max-seconds",
        "--no-browser",
        "--save-space",
    ):
        assert option in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "nowhere/at/all", "--no-browser"], "nowhere/at/all"),
        (["--max-mb", "0"], "--max-mb must be above 0"),
        (["--max-seconds", "-1"], "--max-seconds must be above 0"),
        (["--port", "99999"], "--port"),
    ],
)
def test_wrong_input_is_one_line(arguments, said):
    result = CliRunner().invoke(app, ["demo", *arguments])
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1


def test_command_serves_the_page_until_ctrl_c(monkeypatch):
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("gradio", reason="Gradio (echocare-hf[demo]) is not installed")
    from echocare_hf.app import command

    asked = []

    class Stopped:
        def wait(self):
            asked.append(httpx.get("http://127.0.0.1:7943/").text)
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "make_examples", lambda folder, progress: [])
    monkeypatch.setattr(command, "threading", types.SimpleNamespace(Event=Stopped))
    result = CliRunner().invoke(app, ["demo", "--no-browser", "--port", "7943"])
    assert result.exit_code == 130, result.output
    assert "http://127.0.0.1:7943/ with echocare-tiny" in result.stdout and "EchoCare" in asked[0]
    with pytest.raises(httpx.ConnectError):
        httpx.get("http://127.0.0.1:7943/")


def test_without_gradio_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "echocare_hf.app.page", raising=False)
    monkeypatch.delattr("echocare_hf.app.page", raising=False)
    result = CliRunner().invoke(app, ["demo", "--no-browser"])
    assert result.exit_code == 2 and 'pip install "echocare-hf[demo]"' in result.stderr


# HTTP


@pytest.fixture
def client(page):
    gradio_client = pytest.importorskip("gradio_client", reason="gradio_client is not installed")
    return gradio_client.Client(page[1], verbose=False, analytics_enabled=False)


def send(path):
    from gradio_client import handle_file

    return handle_file(str(path))


def test_programs_get_the_record_and_the_files(client, samples):
    record, files = client.predict(send(samples["scan.dcm"]), 0.5, 1, "", api_name="/analyse")
    assert record["schema"] == "echocare-examination/1" and record["name"] == "scan.dcm"
    assert "report.dcm" in [Path(each).name for each in files]


def test_programs_get_errors_in_one_line(client, samples):
    with pytest.raises(Exception, match=r"notes.txt: "):
        client.predict(send(samples["notes.txt"]), 0.5, 1, "", api_name="/analyse")


def test_uploads_over_the_limit_are_refused(page, tmp_path):
    import httpx

    response = httpx.post(f"{page[1]}gradio_api/upload", files={"files": ("a.png", b"\0" * (9 * 1024**2))})
    assert response.status_code == 413


def test_page_lies_on_this_machine_alone(page):
    import httpx

    text = httpx.get(page[1]).text
    sources = re.findall(r"""(?:src|href)=["']([^"']+)""", text)
    assert sources and not [each for each in sources if re.match(r"(https?:)?//", each) and "127.0.0.1" not in each]
    config = httpx.get(f"{page[1]}config").json()
    assert config["analytics_enabled"] is False and not config.get("is_space")


def test_files_of_the_machine_are_not_given_out(page, samples):
    import httpx

    assert httpx.get(f"{page[1]}gradio_api/file={samples['still.png']}").status_code == 403
    assert httpx.get(f"{page[1]}gradio_api/file=/etc/hostname").status_code == 403


# Space


def test_space_is_complete(tmp_path, checkpoints):
    said = []
    folder = tmp_path / "space"
    write_space(folder, [f"head={checkpoints['detection']}", "someone/model"], Limits(20, 30), said.append)
    assert {"app.py", "requirements.txt", "README.md", "settings.json", "echocare_hf", "models"} == {
        path.name for path in folder.iterdir()
    }
    settings = json.loads((folder / "settings.json").read_text())
    assert settings == {"models": ["head=models/head", "someone/model"], "max_mb": 20, "max_seconds": 30}
    assert (folder / "models/head/model.safetensors").is_file() and not list(folder.rglob("__pycache__"))
    (model,) = load_models([f"head={folder / 'models/head'}"])
    assert model.task == "detection"
    code = "import importlib.util; print(importlib.util.find_spec('echocare_hf').origin)"
    found = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(folder.resolve())
    assert "--repo-type space" in said[0]
    with pytest.raises(ValueError, match="is there already"):
        write_space(folder, [], Limits(), said.append)
    with pytest.raises(ValueError, match="neither a folder nor a Hub id"):
        write_space(tmp_path / "other", ["no such folder"], Limits(), said.append)
    assert not (tmp_path / "other").exists()


def test_space_card_is_what_the_hub_takes():
    text = (ROOT / "src/echocare_hf/app/space/README.md").read_text()
    card = yaml.safe_load(text.split("---")[1])
    assert card["sdk"] == "gradio" and card["app_file"] == "app.py" and card["license"] == "apache-2.0"
    assert len(card["short_description"]) <= 60
    assert card["colorFrom"] in {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert "Not a medical device" in text


def test_space_needs_what_the_package_needs():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = list(project["dependencies"])
    waiting = ["demo", "dicom", "video", "volumes"]
    for extra in waiting:
        wanted += [each for each in extras[extra] if not each.startswith("echocare-hf")]
    listed = (ROOT / "src/echocare_hf/app/space/requirements.txt").read_text().splitlines()
    assert set(wanted) <= set(listed)
