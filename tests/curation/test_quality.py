"""The filter of what is not ultrasound: its numbers mean what they say, and the machine that ships fits its code."""

import numpy as np
import pytest
from curation_helpers import item, phantom, speckle
from scipy import ndimage
from skimage import data as pictures
from skimage.feature import structure_tensor
from sklearn.datasets import load_sample_images
from sklearn.svm import SVC

from echocare_hf.curation.quality import Machine, drop_other_images, not_ultrasound, shipped_machine, simple_rule
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


def test_parts_are_those_of_a_loop_over_them():
    values = grey(ndimage.gaussian_filter(np.random.default_rng(1).normal(120, 120, (130, 100)), (1, 3)))
    values[40:80, :50] = np.rot90(values[40:80, :40], axes=(0, 1)).repeat(2, 1)[:40, :50]
    plane, logs, steps = values[..., 0].astype(float), [], []
    assert plane.min() > 8, "no black pixel is left out"
    for top in range(0, 129 - 31, 32):
        for left in range(0, 99 - 31, 32):
            part = plane[top : top + 33, left : left + 33]
            down = np.abs(part[1:, :-1] - part[:-1, :-1]).mean() + 0.1
            across = np.abs(part[:-1, 1:] - part[:-1, :-1]).mean() + 0.1
            logs.append(np.log(down / across))
            steps.append(np.log(down + across))
    found = named(values)
    expected = [*np.quantile(logs, (0.1, 0.3, 0.5)), np.std(logs), np.mean(np.array(logs) < 0), np.std(steps)]
    keys = [f"parts_{name}_1" for name in ("10", "30", "50", "spread", "turned", "rough")]
    np.testing.assert_allclose([found[key] for key in keys], expected, rtol=1e-3, atol=1e-4)


def test_coherence_is_that_of_scikit_image():
    plane = (
        ndimage.gaussian_filter(np.random.default_rng(2).normal(120, 200, (90, 110)), (1, 2))
        .clip(9, 255)
        .astype(np.uint8)
    )
    rows, mixed, columns = structure_tensor(plane.astype(float), sigma=2, mode="reflect", order="rc")
    scale = 64  # scikit-image's Sobel filter is an eighth of scipy's
    coherence = np.hypot(columns - rows, 2 * mixed) / (columns + rows + 50 / scale)
    found = named(grey(plane))
    assert found["coherence_50_2"] == pytest.approx(np.quantile(coherence, 0.5), abs=0.01)
    assert found["coherence_90_2"] == pytest.approx(np.quantile(coherence, 0.9), abs=0.01)
    assert found["direction_2"] == pytest.approx(((columns - rows) / (columns + rows + 50 / scale)).mean(), abs=0.01)


def test_the_machine_decides_as_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, len(NAMES)))
    truth = rows[:, 0] * rows[:, 1] > 0
    mean, deviation = rows.mean(0), rows.std(0)
    model = SVC(C=1, gamma=0.02).fit((rows - mean) / deviation, truth)
    machine = Machine(
        mean, deviation, model.support_vectors_, model.dual_coef_[0], float(model.intercept_[0]), 0.02, 0.0
    )
    expected = model.decision_function((rows - mean) / deviation)
    assert expected.min() < -0.5 < 0.5 < expected.max()
    np.testing.assert_allclose(machine.decide(rows), expected, rtol=1e-9, atol=1e-9)


def test_the_machine_that_ships_is_for_these_numbers():
    machine = shipped_machine()
    assert machine.mean.shape == machine.deviation.shape == machine.vectors.shape[1:] == (len(NAMES),)
    assert machine.coefficients.shape == machine.vectors.shape[:1] and (machine.deviation > 0).all()
    assert machine.decide(texture_of(phantom(3))[None])[0] >= machine.least


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
