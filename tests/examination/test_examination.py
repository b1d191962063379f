"""The pipeline from a file to positions in its grid: everything but the network is real, which measures bright pixels instead."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_helpers import (
    GROUND,
    covered,
    drawn,
    farthest,
    measuring_detector,
    measuring_segmenter,
    outline,
    save_checkpoint,
    save_mp4,
    save_png,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from reading_helpers import make_dicom, make_region, save

from echocare_hf import EchoCareForObjectDetection, EchoCareForSemanticSegmentation
from echocare_hf.examination.engine import Examination
from echocare_hf.examination.events import Failed, Finished
from echocare_hf.examination.inputs import InputFile
from echocare_hf.examination.models import load_model
from echocare_hf.examination.task_findings import longest_extent, node_of, pair_name, unit_of

OPTIONS = {"precision": "fp32", "familiarity": False}


@pytest.fixture(autouse=True)
def measuring_networks(monkeypatch):
    monkeypatch.setattr(EchoCareForObjectDetection, "forward", measuring_detector)
    monkeypatch.setattr(EchoCareForSemanticSegmentation, "forward", measuring_segmenter)


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    """Detection checkpoints by resize mode and input size."""
    folder = tmp_path_factory.mktemp("detectors")
    return {
        (mode, size): save_checkpoint(folder / f"{mode}_{size[0]}_{size[1]}", "detection", size, mode)
        for mode in ("squash", "pad")
        for size in ((128, 128), (96, 160))
    }


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("segmenter") / "heads", "segmentation", (128, 128))


def only(values):
    (value,) = values
    return value


def row(ellipse):
    return ellipse.centre_x, ellipse.centre_y, ellipse.long_axis, ellipse.short_axis, ellipse.angle


# (height, width), ellipse, region of the echoes
PLACES = [
    ((400, 640), (330.5, 190.25, 260.0, 150.0, 25.0), None),
    ((640, 400), (180.0, 400.0, 240.0, 120.0, 110.0), None),
    ((300, 300), (120.3, 160.7, 150.0, 140.0, 60.0), (20, 30, 280, 290)),
    ((480, 720), (450.0, 260.0, 200.0, 90.0, 155.0), (210, 60, 660, 430)),
    ((140, 560), (400.0, 70.0, 160.0, 60.0, 8.0), (250, 0, 560, 140)),
]


@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
@pytest.mark.parametrize("mode", ["squash", "pad"])
@pytest.mark.parametrize(("grid", "ellipse", "box"), PLACES)
def test_an_ellipse_drawn_in_the_pixels_comes_back_within_a_pixel(tmp_path, detectors, mode, size, grid, ellipse, box):
    path = save_png(tmp_path / "head.png", drawn(*grid, ellipse, box))
    result, frames = Examination([str(detectors[mode, size])], **OPTIONS).examine(path)
    if box is not None:  # the region was found, so there is a crop
        assert np.abs(np.array(result.box) - box).max() <= 8
    found = only(only(frames).ellipses.values())
    assert farthest(outline(row(only(found))), outline(ellipse)) < 1.0
    assert only(found).label == "fetal head"


def test_lengths_are_in_millimetres_of_rows_and_columns(tmp_path, detectors):
    ellipse = (160.0, 110.0, 120.0, 60.0, 90.0)
    path = save_png(tmp_path / "head.png", drawn(240, 320, ellipse))
    examination = Examination([str(detectors["squash", (128, 128)])], spacing=(0.2, 0.5), **OPTIONS)
    result, frames = examination.examine(path)
    sizes = {each.name: each for each in result.measurements}
    # 120 rows of 0.2 mm, 60 columns of 0.5 mm
    assert sizes["long axis"].value == pytest.approx(30, abs=0.5) and sizes["long axis"].unit == "mm"
    assert sizes["short axis"].value == pytest.approx(24, abs=0.3)
    assert sizes["area"].value == pytest.approx(math.pi * 30 * 24 / 4, rel=0.02) and sizes["area"].unit == "mm2"
    around = outline((0, 0, 30, 24, 0), 20000)
    length = np.linalg.norm(np.diff(around, axis=0, append=around[:1]), axis=1).sum()
    assert sizes["circumference"].value == pytest.approx(length, rel=0.01)
    assert only(only(only(frames).ellipses.values())).long_axis == pytest.approx(120, abs=1)
    assert not any("spacing" in warning for warning in result.warnings)


def test_without_spacing_lengths_are_in_pixels_and_the_result_says_so(tmp_path, detectors):
    path = save_png(tmp_path / "head.png", drawn(240, 320, (160.0, 110.0, 120.0, 60.0, 0.0)))
    result, _ = Examination([str(detectors["squash", (128, 128)])], **OPTIONS).examine(path)
    assert {each.unit for each in result.measurements} == {"{pixels}", "{pixels}2"}
    assert any("in pixels" in warning for warning in result.warnings) and result.spacing is None


def test_nothing_is_said_of_spacing_where_nothing_is_measured(tmp_path, segmenter):
    """A model that measures nothing, and one that measures but finds nothing; of stills and of clips."""
    classifier = save_checkpoint(tmp_path / "kinds", "classification")
    frames = [drawn(240, 320, (160.0, 110.0, 120.0, 60.0, 0.0))] * 3
    head, empty = save_png(tmp_path / "head.png", frames[0]), np.full_like(frames[0], GROUND)
    clip, nothing = save_mp4(tmp_path / "clip.mp4", frames), save_png(tmp_path / "nothing.png", empty)
    said = {
        (model.name, path.name): [
            warning
            for warning in Examination([str(model)], **OPTIONS).examine(path)[0].warnings
            if "spacing" in warning
        ]
        for model in (classifier, segmenter)
        for path in (head, clip, nothing)
    }
    assert {case for case, warnings in said.items() if warnings} == {("heads", "head.png"), ("heads", "clip.mp4")}


@pytest.mark.parametrize("is_region", [False, True])
def test_a_spacing_of_zero_is_none(tmp_path, segmenter, is_region):
    pixels = drawn(240, 320, (160.0, 110.0, 120.0, 60.0, 0.0))
    zero = make_region((0, 0, 319, 239), (0.0, 0.0))
    stated = {"SequenceOfUltrasoundRegions": [zero]} if is_region else {"PixelSpacing": [0, 0]}
    path = save(make_dicom(pixels, "RGB", **stated), tmp_path / "zero.dcm")
    result, _ = Examination([str(segmenter)], **OPTIONS).examine(path)
    assert result.spacing is None and {each.unit for each in result.measurements} == {"{pixels}", "{pixels}2"}
    assert [warning for warning in result.warnings if "no pixel spacing that can be used" in warning]
    given, _ = Examination([str(segmenter)], spacing=(0.5, 0.25), **OPTIONS).examine(path)
    assert given.spacing == (0.5, 0.25) and {each.unit for each in given.measurements} == {"mm", "mm2"}


@pytest.mark.parametrize("search_region", [True, False])
@pytest.mark.parametrize("largest", [0.02, 0.0])
def test_two_regions_of_different_spacing_are_measured_in_pixels(tmp_path, segmenter, largest, search_region):
    pixels = drawn(240, 320, (160.0, 110.0, 120.0, 60.0, 0.0))
    regions = [make_region((0, 0, 219, 239), (largest, largest)), make_region((220, 0, 319, 239), (0.06, 0.06))]
    path = save(make_dicom(pixels, "RGB", SequenceOfUltrasoundRegions=regions), tmp_path / "two.dcm")
    for spacing in (None, (0.5, 0.5)):
        examination = Examination([str(segmenter)], spacing=spacing, **{**OPTIONS, "search_region": search_region})
        result, _ = examination.examine(path)
        assert result.spacing is None and {each.unit for each in result.measurements} == {"{pixels}", "{pixels}2"}
        (warning,) = [warning for warning in result.warnings if "spacing" in warning]
        assert "2D regions of different spacing" in warning and "0.6 x 0.6 mm" in warning


@pytest.mark.parametrize("box", [None, (210, 60, 660, 430)])
def test_a_mask_comes_back_at_its_place_and_what_is_outside_the_region_is_marked(tmp_path, segmenter, box):
    ellipse = (450.0, 260.0, 200.0, 90.0, 155.0)
    path = save_png(tmp_path / "head.png", drawn(480, 720, ellipse, box))
    result, frames = Examination([str(segmenter)], spacing=(0.5, 0.25), **OPTIONS).examine(path)
    segmentation = only(only(frames).segmentations.values())
    assert segmentation.classes == {1: "fetal head"} and segmentation.nodes == {1: "fetal_brain"}
    truth = covered(480, 720, ellipse)
    found = segmentation.label_map == 1
    # Within a pixel of the outline either answer is right.
    inner = covered(480, 720, (*ellipse[:2], ellipse[2] - 4, ellipse[3] - 4, ellipse[4])) == 1
    outer = covered(480, 720, (*ellipse[:2], ellipse[2] + 4, ellipse[3] + 4, ellipse[4])) > 0
    assert found[inner].all() and not found[~outer].any()
    sizes = {each.name: each for each in result.measurements}
    assert sizes["area"].value == pytest.approx(truth.sum() * 0.5 * 0.25, rel=0.02)
    points = outline(ellipse) * (0.25, 0.5)
    length = np.linalg.norm(points[:, None] - points[None], axis=-1).max()
    assert sizes["long axis"].value == pytest.approx(length, rel=0.02)
    x0, y0, x1, y1 = result.box
    outside = np.ones((480, 720), bool)
    outside[y0:y1, x0:x1] = False
    assert (segmentation.label_map[outside] == 255).all()
    assert bool((segmentation.label_map == 255).any()) == (box is not None)


def test_frames_of_a_clip_keep_index_time_and_place(tmp_path, detectors):
    ellipses = [(100.0 + 8 * index, 90.0, 80.0, 50.0, 20.0 * index) for index in range(7)]
    path = save_mp4(tmp_path / "clip.mp4", [drawn(200, 320, ellipse) for ellipse in ellipses], rate=20)
    examination = Examination([str(detectors["pad", (128, 128)])], batch_size=3, every=2, **OPTIONS)
    result, frames = examination.examine(path)
    assert [frame.index for frame in frames] == [0, 2, 4, 6] and result.num_frames == 4
    assert [frame.time_ms for frame in frames] == pytest.approx([0, 100, 200, 300])
    for frame in frames:
        found = only(only(frame.ellipses.values()))
        assert farthest(outline(row(found)), outline(ellipses[frame.index])) < 1.0
        assert {each.frame for each in frame.measurements} == {frame.index}
    assert result.key_frames["fetal_brain"] in (0, 2, 4, 6)
    means = [each for each in result.measurements if each.name == "long axis, mean"]
    assert only(means).value == pytest.approx(80, abs=1)


def test_a_bad_file_is_named_and_the_others_are_analysed_in_order(tmp_path, detectors):
    ellipse = (160.0, 110.0, 120.0, 60.0, 0.0)
    paths = [save_png(tmp_path / f"{name}.png", drawn(240, 320, ellipse)) for name in ("a", "b", "c")]
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    files = [InputFile(path, path.name, "files") for path in paths]
    examination = Examination([str(detectors["squash", (128, 128)])], **OPTIONS)
    ends = [event for event in examination.run(files) if isinstance(event, (Finished, Failed))]
    assert [type(event) for event in ends] == [Finished, Failed, Finished]
    assert ends[0].result.name == "a.png" and ends[2].result.name == "c.png"
    assert ends[1].file.name == "b.png" and str(tmp_path) not in ends[1].reason and "\n" not in ends[1].reason
    with pytest.raises(ValueError, match=r"b\.png: "):
        examination.examine(paths[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"threshold": 1.5}, "threshold lies between 0 and 1"),
        ({"spacing": (0.0, 1.0)}, "spacing is two numbers above 0"),
        ({"max_frames": 0}, "max_frames must be at least 1"),
    ],
)
def test_options_out_of_range(detectors, options, message):
    with pytest.raises(ValueError, match=message):
        Examination([str(detectors["squash", (128, 128)])], **OPTIONS, **options)


def test_the_longest_extent_is_that_of_all_pairs_of_corners():
    random = np.random.default_rng(0)
    mask = random.random((9, 14)) > 0.8
    y, x = np.nonzero(mask)
    corners = np.concatenate([np.stack([(x + dx) * 0.3, (y + dy) * 0.7], 1) for dx in (0, 1) for dy in (0, 1)])
    truth = np.linalg.norm(corners[:, None] - corners[None], axis=-1).max()
    assert longest_extent(mask, (0.7, 0.3)) == pytest.approx(truth, rel=1e-4)


@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
@pytest.mark.parametrize("mode", ["squash", "pad"])
def test_the_models_input_is_what_its_image_processor_makes(detectors, mode, size):
    model = load_model(str(detectors[mode, size]))
    for shape in ((61, 200), (300, 90), size):
        pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        expected = model.processor(images=pixels, return_tensors="pt").pixel_values[0]
        assert torch.allclose(model.normalize(model.resize(pixels)), expected, rtol=0, atol=1e-6)


def test_labels_become_nodes_only_where_the_tree_knows_them():
    assert node_of("thyroid") == "thyroid" and node_of("Apical 4 chamber view") == "heart_a4c"
    assert node_of("lesion") is None and node_of("hart") is None


def test_units_are_ucum():
    assert [unit_of(unit) for unit in ("mm", "pixels", "ml", "%", "weeks", None)] == [
        *("mm", "{pixels}", "mL", "%", "{weeks}", "{unit not stated}")
    ]


def test_pairs_of_landmarks_have_the_name_they_share():
    assert pair_name("bpd_1", "bpd_2") == "bpd" and pair_name("left", "right") == "left to right"


def test_the_networks_above_are_not_what_is_tested():
    """The stand-in detector finds the ellipse in its own input exactly, whatever lies around it."""
    pixels = drawn(128, 128, (60.0, 70.0, 64.0, 40.0, 30.0))
    outputs = measuring_detector(None, torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    assert outputs.pred_boxes[0, 0, 0, 0].tolist() == pytest.approx((60, 70, 64, 40, 30), abs=0.3)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_a_file_that_a_model_fails_on_does_not_stop_the_others(tmp_path, detectors, monkeypatch, batch_size):
    def fails_on_bright_ground(self, pixel_values, **kwargs):
        if (pixel_values[:, :, :2, :2].mean((1, 2, 3)) > 0.9).any():
            raise RuntimeError("the size of tensor a must match\nthe size of tensor b")
        return measuring_detector(self, pixel_values, **kwargs)

    monkeypatch.setattr(EchoCareForObjectDetection, "forward", fails_on_bright_ground)
    good = drawn(120, 160, (80.0, 60.0, 60.0, 30.0, 0.0))
    bad = good.copy()
    bad[:60] = 255
    save_png(tmp_path / "1.png", good)
    save_png(tmp_path / "2.png", bad)
    save_mp4(tmp_path / "3.mp4", [good, good, bad, good, good])
    save_png(tmp_path / "4.png", good)
    save_mp4(tmp_path / "5.mp4", [good, good])
    files = [InputFile(path, path.name, "files") for path in sorted(tmp_path.iterdir())]
    examination = Examination(
        [str(detectors["squash", (128, 128)])], batch_size=batch_size, search_region=False, **OPTIONS
    )
    events = list(examination.run(files))
    failed = {event.file.name: event.reason for event in events if isinstance(event, Failed)}
    reason = "a model failed on it: RuntimeError: the size of tensor a must match the size of tensor b"
    assert failed == {"2.png": reason, "3.mp4": reason}
    frames = {event.result.name: event.result.num_frames for event in events if isinstance(event, Finished)}
    assert frames == {"1.png": 1, "4.png": 1, "5.mp4": 2}
    ends = [getattr(event, "file", None) or event.result for event in events if isinstance(event, (Failed, Finished))]
    assert [each.name for each in ends] == ["1.png", "2.png", "3.mp4", "4.png", "5.mp4"]
