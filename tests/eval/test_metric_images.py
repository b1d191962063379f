"""eval/metrics of images: LNCC and Frechet distance against MONAI and loops, PIQE and BRISQUE against the packages of these names."""

import math
import warnings
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from monai.losses import LocalNormalizedCrossCorrelationLoss
from monai.metrics import FIDMetric
from scipy.linalg import sqrtm
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from echocare_hf.metrics import brisque as brisque_module
from echocare_hf.metrics import niqe
from echocare_hf.metrics.brisque import brisque
from echocare_hf.metrics.frechet import frechet_distance
from echocare_hf.metrics.local_correlation import local_correlation_metrics
from echocare_hf.metrics.piqe import piqe

METRICS = Path(__file__).resolve().parents[2] / "eval" / "metrics"
CAMERA, COINS, BRICK = data.camera(), data.coins(), data.brick()


def load(name: str) -> evaluate.Metric:
    return evaluate.load(str(METRICS / name), keep_in_memory=True)


def noisy(image: np.ndarray, deviation: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, deviation, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


PICTURES = {
    "photograph": CAMERA[:256, :256],
    "no whole blocks": COINS[:201, :133],
    "noise": noisy(CAMERA[100:300, 200:390], 20),
    "blocks": BRICK[:256:2, :256:2].repeat(4, 0).repeat(4, 1)[:250, :240],
    "dark": BRICK[:120, :90] // 4,
}


@pytest.mark.parametrize("window", [3, 9])
def test_lncc_is_that_of_monai(window):
    """MONAI pads with zeros: compared are the windows inside. It has r squared, with the sign of a loss."""
    reference, image = COINS[:80, :70], noisy(255 - COINS[:80, :70], 15)
    loss = LocalNormalizedCrossCorrelationLoss(spatial_dims=2, kernel_size=window, reduction="none", smooth_dr=1e-12)
    given = [torch.from_numpy(picture / 255.0)[None, None] for picture in (image, reference)]
    half = window // 2
    expected = -loss(*given)[0, 0, half:-half, half:-half].mean()
    found = load("lncc").compute(predictions=[image], references=[reference], window=window)
    assert found["lncc_squared"] == pytest.approx(float(expected), abs=1e-5)
    assert found["lncc"] < -0.25


def test_lncc_is_that_of_a_loop():
    pairs = [(noisy(COINS[:30, :25], 30, seed), COINS[:30, :25]) for seed in range(2)]
    expected = []
    for image, reference in pairs:
        values = [
            np.corrcoef(image[r : r + 5, c : c + 5].ravel(), reference[r : r + 5, c : c + 5].ravel())[0, 1]
            for r in range(26)
            for c in range(21)
        ]
        expected.append((np.mean(values), np.mean(np.square(values))))
    found = local_correlation_metrics(*zip(*pairs, strict=True), window=5)
    assert (found["lncc"], found["lncc_squared"]) == pytest.approx(tuple(np.mean(expected, 0)))


def test_lncc_of_equal_flat_and_small_images():
    image = COINS[:40, :40]
    assert local_correlation_metrics([image], [image // 2])["lncc"] > 0.95
    assert local_correlation_metrics([image], [image]) == pytest.approx({"lncc": 1, "lncc_squared": 1})
    flat = np.full((40, 40), 7, np.uint8)
    assert local_correlation_metrics([flat], [image])["lncc"] == 0
    margin = np.where(np.arange(40) < 20, 0, image).astype(np.uint8)  # half of it black in both
    assert local_correlation_metrics([margin], [margin])["lncc"] == pytest.approx(1)
    for pair in (([flat], [flat]), ([image[:5]], [image[:5]]), ([], [])):
        assert all(map(math.isnan, local_correlation_metrics(*pair).values()))
    with pytest.raises(ValueError, match="odd number"):
        local_correlation_metrics([image], [image], window=8)
    with pytest.raises(ValueError, match="one size"):
        local_correlation_metrics([image], [image[:20]])


def test_psnr_and_ssim_are_those_of_scikit_image():
    references = [COINS[:60, :70], CAMERA[:50, :50]]
    images = [noisy(picture, 9, seed) for seed, picture in enumerate(references)]
    found = load("psnr_ssim").compute(predictions=images, references=references)
    pairs = list(zip(references, images, strict=True))
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    assert found["psnr"] == pytest.approx(np.mean([peak_signal_noise_ratio(*pair) for pair in pairs]))
    assert found["ssim"] == pytest.approx(np.mean([structural_similarity(*pair, **settings) for pair in pairs]))


def features(seed: int, count: int, dimensions: int = 6) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(seed, 1, (count, dimensions)) @ random.normal(0, 1, (dimensions, dimensions))


def test_the_frechet_distance_is_that_of_monai_and_of_its_formula():
    first, second = features(0, 50), features(1, 70)
    covariances = [np.cov(side, rowvar=False) for side in (first, second)]
    means = np.square(first.mean(0) - second.mean(0)).sum()
    expected = means + np.trace(covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real)
    assert frechet_distance(first, second) == pytest.approx(expected)
    monai = FIDMetric()(torch.from_numpy(first), torch.from_numpy(second))
    assert frechet_distance(first, second) == pytest.approx(float(monai))


def test_the_frechet_distance_of_few_images_with_many_features():
    """Singular covariances: against the same features turned into the few directions in which they vary."""
    random = np.random.default_rng(3)
    narrow = features(0, 9, 3), features(1, 7, 3)
    basis = np.linalg.qr(random.normal(size=(40, 3)))[0]
    assert frechet_distance(*(side @ basis.T for side in narrow)) == pytest.approx(frechet_distance(*narrow))
    assert frechet_distance(narrow[0], narrow[0]) == pytest.approx(0, abs=1e-9)
    one = frechet_distance([[0.0], [2.0]], [[5.0], [5.0]])  # means 1 and 5, deviations sqrt(2) and 0
    assert one == pytest.approx(16 + 2)


def test_the_name_of_the_features_is_part_of_the_value():
    first, second = features(0, 5).tolist(), features(1, 8).tolist()
    found = load("frechet_distance").compute(predictions=first, reference_features=second, feature_name="tiny-pooled")
    assert found["frechet_distance_tiny-pooled"] == pytest.approx(frechet_distance(first, second))
    assert (found["images"], found["reference_images"], found["feature_dimensions"]) == (5, 8, 6)
    with pytest.raises(TypeError, match="feature_name"):
        load("frechet_distance").compute(predictions=first, reference_features=second)
    with pytest.raises(ValueError, match="means nothing without it"):
        load("frechet_distance").compute(predictions=first, reference_features=second, feature_name=" ")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0], [2.0, 2.0]], "at least two images"),
        ([[1.0], [2.0]], [[1.0, 2.0], [2.0, 2.0]], "the same features"),
        ([[1.0], [math.nan]], [[1.0], [2.0]], "nan or infinite"),
    ],
)
def test_wrong_features_are_named(first, second, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(first, second)


@pytest.mark.parametrize("name", list(PICTURES))
def test_piqe_is_that_of_pypiqe(name):
    package = pytest.importorskip("pypiqe")
    image = np.ascontiguousarray(PICTURES[name])
    assert piqe(image) == pytest.approx(package.piqe(image)[0])


def test_piqe_by_hand():
    """Without texture 100; a checkerboard of single pixels is active, rough on all edges, and equal in the middle and around it."""
    assert piqe(np.zeros((32, 32), np.uint8)) == piqe(np.full((20, 33), 90, np.uint8)) == 100
    rows, columns = np.indices((64, 64))
    board = ((rows + columns) % 2 * 255).astype(np.uint8)
    assert 0 < piqe(board) < 100
    found = load("piqe").compute(predictions=[board, board * 0])
    assert found["piqe"] == pytest.approx((piqe(board) + 100) / 2)
    assert piqe(board[..., None].repeat(3, 2)) == piqe(board)


@pytest.fixture(scope="module")
def package():
    """The package brisque with numpy's rule that an array of one number is no number kept out of its way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("brisque", exc_type=ImportError)

    class Package(module.BRISQUE):
        def scale_features(self, features):
            return super().scale_features([np.ravel(value)[0] for value in features])

    return Package(url=False)


@pytest.mark.parametrize("name", ["photograph", "no whole blocks", "noise"])
def test_brisque_is_that_of_the_package(package, name):
    """Shapes of distributions lie on a grid of 0.001, as in the authors' program; the package solves for them.

    Only images without flat areas, in which the package's numbers depend on the signs of rounding errors.
    """
    image = np.ascontiguousarray(PICTURES[name])
    grey = image / 255.0
    half = brisque_module._half_size(image.astype(float))
    for plane, smaller in ((grey, image.astype(float)), (half / 255, half)):
        expected = np.array([np.ravel(value)[0] for value in package.calculate_brisque_features(plane)], float)
        found = brisque_module._features(smaller)
        np.testing.assert_allclose(found, expected, rtol=4e-3, atol=6e-4)
    assert brisque(image) == pytest.approx(package.score(image[..., None].repeat(3, 2)), abs=0.15)


def test_half_size_is_that_of_opencv():
    opencv = pytest.importorskip("cv2")
    for side in ((40, 30), (41, 33), (39, 31)):
        plane = np.random.default_rng(0).uniform(0, 255, side)
        expected = opencv.resize(plane, None, fx=0.5, fy=0.5, interpolation=opencv.INTER_CUBIC)
        np.testing.assert_allclose(brisque_module._half_size(plane), expected, atol=1e-3)


def test_brisque_rises_with_noise_and_is_nan_without_texture():
    pytest.importorskip("libsvm", reason="the package brisque, whose regression is read, is not installed")
    levels = [brisque(noisy(CAMERA[:256, :256], deviation)) for deviation in (0, 10, 30)]
    assert levels == sorted(levels)
    assert math.isnan(brisque(np.full((40, 40), 9, np.uint8))) and math.isnan(brisque(COINS[:8, :60]))
    found = load("brisque").compute(predictions=[COINS, np.zeros((40, 40), np.uint8)])
    assert found["brisque"] == brisque(COINS)


def test_without_the_package_brisque_says_what_to_install(monkeypatch):
    monkeypatch.setattr(brisque_module, "find_spec", lambda name: None)
    brisque_module._regression.cache_clear()
    with pytest.raises(ValueError, match="pip install brisque"):
        brisque(COINS)
    brisque_module._regression.cache_clear()


def test_niqe_is_the_mean_of_the_images_it_can_be_measured_on():
    found = load("niqe").compute(predictions=[CAMERA, COINS, COINS[:50, :50]])
    assert found["niqe"] == pytest.approx((niqe(CAMERA) + niqe(COINS)) / 2)
    assert math.isnan(load("niqe").compute(predictions=[COINS[:50, :50]])["niqe"])
