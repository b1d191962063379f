"""The filter of what is not ultrasound: its numbers mean what they say, and its weights fit its code."""

import json

import numpy as np
import pytest
from curation_helpers import item, phantom, speckle
from scipy import ndimage
from skimage import data as pictures
from sklearn.datasets import load_sample_images
from sklearn.linear_model import LogisticRegression

from echocare_hf.curation.quality import WEIGHTS_FILE, drop_other_images, likeness, not_ultrasound, simple_rule
from echocare_hf.curation.texture import NAMES, texture_of
from echocare_hf.data.phantom import PHANTOM_KINDS, make_phantom


def named(pixels: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, texture_of(pixels), strict=True))


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(values, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def test_elongation_is_the_logarithm_of_steps_down_over_steps_across():
    values = grey(ndimage.gaussian_filter(np.random.default_rng(0).normal(120, 120, (200, 200)), (1, 3))).astype(float)
    plane = values[..., 0]
    expected = np.log((np.abs(np.diff(plane, axis=0)).mean() + 0.1) / (np.abs(np.diff(plane, axis=1)).mean() + 0.1))
    assert plane.min() > 8, "no black pixel is left out"
    assert named(values.astype(np.uint8))["elongation_1"] == pytest.approx(expected, abs=0.02)
    assert expected > 0.3


def test_turning_an_image_turns_its_elongation():
    one = grey(speckle(180, 180))
    assert named(one)["elongation_1"] == pytest.approx(-named(np.rot90(one).copy())["elongation_1"], abs=0.02)


def test_numbers_are_finite_whatever_the_image():
    for pixels in (np.zeros((8, 8, 3), np.uint8), np.full((40, 9, 3), 255, np.uint8), grey(np.eye(300) * 255)):
        texture = texture_of(pixels)
        assert texture.shape == (len(NAMES),) and np.isfinite(texture).all()


def test_likeness_is_a_logistic_regression():
    rng = np.random.default_rng(0)
    rows, truth = rng.normal(size=(200, len(NAMES))), rng.integers(0, 2, 200)
    model = LogisticRegression().fit(rows, truth)
    expected = model.predict_proba(rows)[:, 1]
    np.testing.assert_allclose(likeness(rows, model.coef_[0], float(model.intercept_[0])), expected, rtol=1e-9)


def test_the_weights_that_ship_are_for_these_numbers():
    stored = json.loads(WEIGHTS_FILE.read_text())
    assert set(stored["weights"]) == set(NAMES) and 0 < stored["least"] < 1


def test_photographs_that_nothing_was_fitted_to_are_dropped():
    photographs = [item(image) for image in load_sample_images().images]
    kept, drops = drop_other_images(photographs)
    assert not kept and len(drops) == len(photographs) == 2


@pytest.mark.parametrize("kind", PHANTOM_KINDS)
def test_every_kind_of_phantom_passes(kind):
    for seed in (20, 21):  # others than those of the training
        assert not_ultrasound(item(grey(make_phantom(kind, seed=seed).image))) is None


def test_a_header_decides_before_the_pixels():
    assert not_ultrasound(item(phantom(1), declared="CT")) == ("other_modality", "CT")
    turned = np.rot90(phantom(1)).copy()
    assert not_ultrasound(item(turned))[0] == "no_speckle", "the limit that docs/curation.md states"
    assert not_ultrasound(item(turned, declared="US")) is None


def test_simple_rules_name_drawings_and_colour():
    drawing = grey(np.kron(np.indices((8, 8)).sum(0) % 2 * 200, np.ones((20, 20))))
    assert simple_rule(drawing)[0] == "few_grey_levels"
    assert simple_rule(pictures.coffee())[0] == "coloured_all_over"
    assert simple_rule(phantom(2)) is None
