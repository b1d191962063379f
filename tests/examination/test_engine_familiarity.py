"""Whether frames are familiar: told by the statistics of a model of the run, else by those of the checkpoint that ships."""

import numpy as np
import pytest
from engine_helpers import drawn, save_checkpoint, save_mp4, save_png

from echocare_hf.checkpoints import checkpoint_path
from echocare_hf.examination import gates
from echocare_hf.examination.engine import Examination
from echocare_hf.examination.familiarity import FILE_NAME

pytestmark = pytest.mark.skipif(
    not (checkpoint_path() / FILE_NAME).is_file(), reason="the statistics of echocare-tiny are not there"
)
OPTIONS = {"precision": "fp32", "search_region": False}


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return str(save_checkpoint(tmp_path_factory.mktemp("familiarity") / "detector", "detection"))


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """What is no ultrasound: noise in colour."""
    pixels = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    return save_png(tmp_path_factory.mktemp("noise") / "noise.png", pixels)


def test_what_is_no_ultrasound_gets_a_warning_and_a_low_score(noise):
    result, (frame,) = Examination(["echocare-tiny"], **OPTIONS).examine(noise)
    assert result.familiarity == frame.familiarity < 0.05
    assert any("does not look like an ultrasound image" in warning for warning in result.warnings)


def test_a_model_without_statistics_gets_the_score_of_the_checkpoint_that_ships(noise, detector):
    expected, _ = Examination(["echocare-tiny"], **OPTIONS).examine(noise)
    result, _ = Examination([detector], **OPTIONS).examine(noise)
    assert result.familiarity == pytest.approx(expected.familiarity, rel=1e-3, abs=1e-6)
    assert any("does not look like an ultrasound image" in warning for warning in result.warnings)
    assert list(result.models) == ["detector"]


def test_without_the_question_there_is_no_score(noise, detector):
    result, (frame,) = Examination([detector], familiarity=False, **OPTIONS).examine(noise)
    assert result.familiarity is None and frame.familiarity is None and not frame.warnings


def test_of_a_clip_every_few_frames_are_asked_where_an_encoder_runs_for_that_alone(tmp_path, detector):
    frames = [drawn(64, 96, (40.0 + index, 30.0, 30.0, 20.0, 0.0)) for index in range(11)]
    clip = save_mp4(tmp_path / "clip.mp4", frames)
    result, found = Examination([detector], batch_size=3, **OPTIONS).examine(clip)
    asked = [frame.index for frame in found if frame.familiarity is not None]
    assert asked == list(range(0, 11, gates.OWN_RUN_EVERY))
    assert result.familiarity == min(frame.familiarity for frame in found if frame.index in asked)


def test_unfamiliar_frames_are_counted_among_those_that_were_asked(tmp_path):
    random = np.random.default_rng(0)
    clip = save_mp4(tmp_path / "clip.mp4", list(random.integers(0, 256, (10, 96, 128, 3), dtype=np.uint8)))
    video = str(save_checkpoint(tmp_path / "ejection", "video"))
    result, found = Examination([video], **OPTIONS).examine(clip)
    assert [frame.index for frame in found if frame.familiarity is not None] == [0, 8]
    (unlike,) = [warning for warning in result.warnings if "unlike what the models know" in warning]
    (left_out,) = [warning for warning in result.warnings if "do not count" in warning]
    assert unlike.startswith("2 of 2 frames looked at")
    assert left_out.startswith("2 of 2 frames looked at") and left_out.endswith("those not looked at do")
    assert "ejection: takes frames of the whole clip, unfamiliar ones too" in result.warnings


def test_statistics_that_do_not_fit_leave_a_warning_on_every_file(noise, detector, monkeypatch):
    def missing(*args):
        raise ValueError("echocare-tiny: no statistics")

    monkeypatch.setattr(gates.Familiarity, "load", missing)
    result, _ = Examination([detector], **OPTIONS).examine(noise)
    assert result.familiarity is None
    assert "how familiar the image is is not known: echocare-tiny: no statistics" in result.warnings
