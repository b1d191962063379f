"""Fine-tuning on measured values: what augmentation must not change, predicted spreads, and charts over the time of sequences."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from echocare_hf.data.augmentation import AugmentationSettings
from echocare_hf.data.labelled import LabelledData, Sample
from echocare_hf.finetuning.tasks.regression import Regression, measuring_settings
from echocare_hf.finetuning.tasks.video import Video

PROCESSOR = SimpleNamespace(size={"height": 32, "width": 32})
OPTIONS = SimpleNamespace(augmentation=1.0, flip=True, num_frames=3)


def windows(tmp_path) -> list[Sample]:
    """Two sequences of six frames, measured from the third on; and two clips of one patient that share no frame."""
    rng = np.random.default_rng(0)
    samples = []
    for sequence in range(2):
        paths = []
        for frame in range(6):
            path = tmp_path / f"s{sequence}_{frame}.png"
            Image.fromarray(rng.integers(0, 255, (40, 60), np.uint8)).save(path)
            paths.append(str(path))
        for last in range(2, 6):
            times = tuple(20.0 * frame for frame in range(last - 2, last + 1))
            values = {"thickness": 10.0 + last, "angle": 5.0 * sequence}
            images = tuple(paths[last - 2 : last + 1])
            samples.append(
                Sample(f"s{sequence}_{last}", images, group=f"s{sequence}", targets=values, frame_times_ms=times)
            )
    for clip in range(2):
        samples.append(replace(samples[clip], name=f"c{clip}", group="c", images=(str(tmp_path / f"c{clip}.avi"),)))
    return samples


def video(samples) -> Video:
    names, units = ("thickness", "angle"), ("mm", "degrees")
    data = LabelledData("video", "clips", samples, target_names=names, target_units=units)
    task = Video(data, PROCESSOR, OPTIONS)
    task.config_values(samples)
    return task


def test_augmentation_leaves_lengths_and_angles_as_they_were_measured():
    usual = AugmentationSettings()
    assert usual.scale > 0 < usual.rotation
    assert measuring_settings(usual, ["mm", "%"]) == replace(usual, scale=0.0)
    assert measuring_settings(usual, ["mm", "degrees"]) == replace(usual, scale=0.0, rotation=0.0, flip=0.0)
    assert measuring_settings(usual, ["", "alpha", "angle"]).rotation == 0, "a value without a unit whose name says it"
    samples = [Sample("a", ("a.png",), targets={"x": 1.0})]
    data = LabelledData("regression", "images", samples, target_names=("x",), target_units=("",))
    assert Regression(data, PROCESSOR, OPTIONS).augmentation.settings.scale == 0
    clips = replace(data, task="video")
    assert Video(clips, PROCESSOR, OPTIONS).augmentation.settings.scale == 0


def test_predicted_spreads_are_measured_and_shown(tmp_path):
    samples = windows(tmp_path)
    task = video(samples)
    true = np.array([[sample.targets["thickness"], sample.targets["angle"]] for sample in samples])
    spreads = np.ones_like(true)
    errors = np.zeros_like(true)
    errors[:4, 0], errors[4:, 0] = 1.9, 2.0  # 1.96 standard deviations lie between
    found = task.metrics(list(np.hstack([true + errors, spreads])), samples)
    assert found["coverage_thickness"] == pytest.approx(0.4) and found["coverage_angle"] == 1
    assert found["mae_thickness"] == pytest.approx(1.96)
    without = task.metrics(list(true + errors), samples)
    assert "coverage_thickness" not in without and without["error"] == pytest.approx(found["error"])
    _, caption = task.score(np.array([12.5, 1.0, 0.25, 3.0]), samples[0])
    assert "thickness 12.50 ± 0.25 mm, true 12.00" in caption and "angle 1.00 ± 3.00 degrees, true 0.00" in caption


def test_a_chart_for_each_sequence_and_value(tmp_path):
    samples = windows(tmp_path)
    task = video(samples)
    order = np.random.default_rng(1).permutation(len(samples))
    shuffled = [samples[row] for row in order]
    predictions = [np.array([sample.targets["thickness"] + 1, 2.0, 0.5, 0.5]) for sample in shuffled]
    charts = list(task.charts(predictions, shuffled))
    assert [caption for _, caption in charts] == [
        "s0_2 to s0_5\nthickness: mean error 1.00 mm",
        "s0_2 to s0_5\nangle: mean error 2.00 degrees",
        "s1_2 to s1_5\nthickness: mean error 1.00 mm",
        "s1_2 to s1_5\nangle: mean error 3.00 degrees",
    ]
    pictures = [np.asarray(chart) for chart, _ in charts]
    assert all(picture.shape == pictures[0].shape and picture.std() > 10 for picture in pictures)
    assert (pictures[0] != pictures[1]).any()


def test_the_picture_of_a_clip_is_its_last_frame(tmp_path):
    samples = windows(tmp_path)
    drawn = np.asarray(video(samples).draw(np.zeros(4), samples[0]))
    last = np.asarray(Image.open(samples[0].images[-1]).convert("RGB"))
    assert np.array_equal(drawn, last)
