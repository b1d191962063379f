"""Distances against their formula, scores against counting, the file beside its weights, and real against other pictures."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from safetensors import safe_open

from echocare_hf import (
    EchoCareConfig,
    EchoCareForImageClassification,
    EchoCareForSemanticSegmentation,
    EchoCareImageProcessorPil,
    EchoCareModel,
    checkpoint_path,
)
from echocare_hf.data.phantom import make_phantom
from echocare_hf.data.reading import read_ultrasound
from echocare_hf.examination.familiarity import (
    FILE_NAME,
    KNOWN_THRESHOLD,
    ULTRASOUND_THRESHOLD,
    Familiarity,
    FeatureTap,
    fit_known,
    fit_ultrasound,
    texture_channels,
    weights_hash,
)
from echocare_hf.examination.gaussian import AXES, SHRINKAGE, Calibration, Gaussian
from echocare_hf.examination.image_quality import quality_warnings
from echocare_hf.inference import optimize_for_inference
from echocare_hf.model.pooling_echocare import pooled_features

CONFIG = EchoCareConfig.preset("tiny", embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], image_size=32)
CHANNELS = sum(CONFIG.stage_channels)
SHIPPED = checkpoint_path() / FILE_NAME


@pytest.fixture(scope="module")
def random():
    return np.random.default_rng(0)


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A checkpoint with random weights that statistics can be saved beside."""
    return shutil.copytree(checkpoint, tmp_path / "checkpoint")


def gate_of(number: int = 60) -> Familiarity:
    """Fitted to two sources of random features, whose other pictures lie elsewhere."""
    random = np.random.default_rng(1)
    real = random.normal(size=(number, CHANNELS))
    gate = fit_known(real[: number // 2], real[number // 2 :])
    others = random.normal(3, 2, (40, CHANNELS))
    sources = ["a", "b"] * (number // 2)
    gate.ultrasound = fit_ultrasound(real, sources, others, texture_channels(CONFIG))
    return gate


# Distances and scores --------------------------------------------------------------------------------


def test_distance_is_that_of_mahalanobis():
    """Oracle: the inverse of the shrunk covariance matrix, written out; fewer features than axes, so nothing is off the axes."""
    random = np.random.default_rng(2)
    features = random.normal(size=(200, 10)) @ random.normal(size=(10, 10)) + 5
    weights = random.uniform(0.5, 2, 200)
    gaussian = Gaussian.fit(features, weights)
    scaled = (features - gaussian.mean) / gaussian.scale
    share = weights / weights.sum()
    covariance = (scaled * share[:, None]).T @ scaled
    np.testing.assert_allclose(share @ features, gaussian.mean, rtol=1e-5)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / 10 * np.eye(10)
    new = random.normal(5, 4, (30, 10))
    offset = (new - gaussian.mean) / gaussian.scale
    expected = np.einsum("ni,ij,nj->n", offset, np.linalg.inv(shrunk), offset) / 10
    np.testing.assert_allclose(np.exp(gaussian.log_distance(new)), expected, rtol=1e-3)


def test_what_lies_off_the_axes_counts(random):
    features = np.zeros((300, 200))
    features[:, : AXES + 20] = random.normal(size=(300, AXES + 20))
    gaussian = Gaussian.fit(features, np.ones(300))
    assert gaussian.axes.shape == (AXES, 200)
    strange = features.copy()
    strange[:, 150] = 1  # a direction in which no image ever differed
    assert gaussian.log_distance(strange).min() > gaussian.log_distance(features).max() + 3


def test_few_images_have_few_axes(random):
    gaussian = Gaussian.fit(random.normal(size=(25, 500)), np.ones(25))
    assert len(gaussian.axes) == 24
    assert np.isfinite(gaussian.log_distance(random.normal(size=(5, 500)))).all()


def test_score_is_the_share_that_lies_farther_away():
    """Oracle: counting."""
    random = np.random.default_rng(3)
    distances = random.gamma(2, size=5000)
    calibration = Calibration.fit(distances)
    probes = np.quantile(distances, [0, 0.01, 0.2, 0.5, 0.9, 0.99])
    counted = [(distances > probe).mean() for probe in probes]
    np.testing.assert_allclose(calibration.score(probes), counted, atol=0.004)


def test_scores_fall_with_the_distance_and_never_reach_0():
    calibration = Calibration.fit(np.random.default_rng(4).normal(size=100))
    scores = calibration.score(np.linspace(-5, 8, 500))
    assert (np.diff(scores) <= 1e-12).all()
    assert (scores[1:][scores[1:] < 0.001] < scores[:-1][scores[1:] < 0.001]).all()
    assert scores[0] == 1 and 0 < scores[-1] < 1e-3


def test_sources_weigh_alike_in_the_calibration():
    """One source is ten times as large; half of the weight is still the other's."""
    distances = np.concatenate([np.zeros(1000), np.ones(100)]) + np.linspace(0, 0.01, 1100)
    weights = np.concatenate([np.full(1000, 1 / 1000), np.full(100, 1 / 100)])
    assert Calibration.fit(distances, weights).score(np.array([0.5]))[0] == pytest.approx(0.5, abs=0.01)


def test_a_source_is_calibrated_by_a_fit_without_it():
    """Oracle: the distances of each source by Gaussians fitted to the other one, written out."""
    random = np.random.default_rng(5)
    real = random.normal(size=(200, CHANNELS))
    real[:100] += 1
    others = random.normal(-2, 2, (50, CHANNELS))
    channels = texture_channels(CONFIG)
    gate = fit_ultrasound(real, ["a"] * 100 + ["b"] * 100, others, channels)
    far = Gaussian.fit(others[:, channels], np.ones(50)).log_distance(real[:, channels])
    halves = [real[:100, channels], real[100:, channels]]
    near = [Gaussian.fit(halves[1 - half], np.ones(100)).log_distance(halves[half]) for half in (0, 1)]
    distances = np.concatenate(near) - 0.5 * far
    for share in (0.1, 0.5, 0.9):
        assert gate.calibration.score(np.quantile(distances, [1 - share]))[0] == pytest.approx(share, abs=0.01)
    assert np.median(gate.distance(others)) > np.median(gate.distance(real))


def test_too_few_images_are_refused(random):
    features = random.normal(size=(50, CHANNELS))
    with pytest.raises(ValueError, match="5 held-out images are too few"):
        fit_known(features, features[:5])
    with pytest.raises(ValueError, match="two sources"):
        fit_ultrasound(features, ["a"] * 50, features, texture_channels(CONFIG))


def test_two_questions_have_two_warnings():
    gate = gate_of()
    assert gate.explain(0.5, 0.5) == ()
    (foreign,) = gate.explain(ULTRASOUND_THRESHOLD / 2, 0.5)
    (unknown,) = gate.explain(0.5, KNOWN_THRESHOLD / 2)
    assert "not look like an ultrasound image" in foreign
    assert "the model was trained on" in unknown
    gate.ultrasound = None
    assert gate.threshold == KNOWN_THRESHOLD
    assert gate.explain(0.001, 0.001) == (unknown.replace("0.010", "0.001"),)


# Features --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [EchoCareModel, EchoCareForImageClassification, EchoCareForSemanticSegmentation])
def test_features_are_the_means_of_all_maps(head):
    """Oracle: `pooled_features`, which classification heads use."""
    torch.manual_seed(0)
    model = head(CONFIG).eval()
    encoder = model if head is EchoCareModel else model.echocare
    images = torch.rand(3, 3, 32, 32)
    with torch.inference_mode(), FeatureTap(model) as tap:
        model(images)
        model(images[:1])
        features = tap.take()
        assert len(tap.take()) == 0
        model(images[1:2])
        again = tap.take()
    model(images)  # the hooks are gone
    assert len(tap.take()) == 0
    expected = pooled_features(encoder, torch.cat([images, images[:1]]))[0][:, :CHANNELS].detach()
    np.testing.assert_allclose(features, expected, atol=1e-5)
    np.testing.assert_allclose(again, expected[1:2], atol=1e-5)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
def test_a_model_packed_for_inference_has_the_same_features():
    torch.manual_seed(0)
    model = EchoCareModel(CONFIG).eval()
    images = torch.rand(2, 3, 32, 32)
    found = []
    for each in (model, optimize_for_inference(model)):
        with torch.inference_mode(), FeatureTap(each) as tap:
            each(images)
            found.append(tap.take())
    np.testing.assert_allclose(*found, atol=1e-3)


def test_another_model_has_no_encoder_to_look_into():
    with pytest.raises(ValueError, match="Linear has no EchoCare encoder"):
        FeatureTap(torch.nn.Linear(1, 1))


# The file --------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(folder, random):
    gate = gate_of()
    gate.save(folder)
    loaded = Familiarity.load(folder)
    assert loaded.is_own and loaded.folder == folder
    probes = random.normal(1, 2, (20, CHANNELS))
    np.testing.assert_array_equal(loaded.score(probes), gate.score(probes))
    np.testing.assert_array_equal(loaded.known_score(probes), gate.known_score(probes))
    assert (folder / FILE_NAME).stat().st_mode == (folder / "config.json").stat().st_mode
    assert loaded.facts["weights_sha256"] == weights_hash(folder)


def test_a_fine_tuning_saves_the_known_alone(folder, random):
    features = random.normal(size=(60, CHANNELS))
    fit_known(features[:30], features[30:]).save(folder)
    loaded = Familiarity.load(folder)
    assert loaded.ultrasound is None
    np.testing.assert_array_equal(loaded.score(features), loaded.known_score(features))


def test_statistics_hold_no_image(folder):
    """Every array is of the size of features or axes, none has a row for an image."""
    gate_of(60).save(folder)
    with safe_open(folder / FILE_NAME, "numpy") as file:
        shapes = {name: file.get_tensor(name).shape for name in file.keys()}  # noqa: SIM118
        json.loads(file.metadata()["facts"])
    for name, shape in shapes.items():
        if name.endswith("axes"):
            assert shape[0] < 60
        else:
            assert len(shape) == 1 and shape[0] != 60


@pytest.mark.skipif(not SHIPPED.is_file(), reason="no statistics ship")
@pytest.mark.parametrize("change", ["weights", "size", "none"])
def test_statistics_of_other_weights_are_not_used_and_it_is_said(folder, change):
    if change != "none":
        gate_of().save(folder)
    if change == "weights":
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    elif change == "size":
        EchoCareImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gate = Familiarity.load(folder)
    assert not gate.is_own and gate.folder == checkpoint_path()
    assert len(caught) == (change != "none")
    assert all("eval/familiarity.py fit" in str(warning.message) for warning in caught)


def test_a_damaged_file_is_named(folder):
    (folder / FILE_NAME).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"familiarity\.safetensors: cannot be read .* make it again"):
        Familiarity.load(folder)


def test_statistics_need_weights_beside_them(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint that statistics can belong to"):
        gate_of().save(tmp_path)


# The gate that ships ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    if not SHIPPED.is_file():
        pytest.skip("no statistics ship")
    model = EchoCareModel.from_pretrained(checkpoint_path()).eval()
    processor = EchoCareImageProcessorPil.from_pretrained(checkpoint_path())
    gate = Familiarity.load(checkpoint_path())

    def score(images):
        with torch.inference_mode(), FeatureTap(model) as tap:
            model(**processor(list(images), return_tensors="pt"))
            return gate.score(tap.take())

    return score


def test_the_gate_that_ships_warns_of_noise_and_grey(shipped):
    random = np.random.default_rng(0)
    shades = [np.full((200, 200, 3), shade, np.uint8) for shade in (1, 60, 128, 250)]
    noise = [np.repeat(random.integers(0, high, (200, 200, 1), np.uint8), 3, 2) for high in (80, 160, 255)]
    assert (shipped(shades + noise) < ULTRASOUND_THRESHOLD).all()


def test_the_gate_that_ships_warns_of_a_ct_image_and_a_photograph(shipped):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file

    data = pytest.importorskip("skimage.data", reason="the photographs are scikit-image's")
    values = pydicom.dcmread(get_testdata_file("CT_small.dcm")).pixel_array.astype(float)
    low, high = np.percentile(values, (1, 99))
    ct = np.clip((values - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    pictures = [np.repeat(ct[..., None], 3, 2), data.astronaut(), data.coffee()]
    assert (shipped(pictures) < ULTRASOUND_THRESHOLD).all()


def test_the_gate_that_ships_knows_ultrasound(shipped, shared_data):
    images = []
    for pattern in ("breast_busi/images/*.jpg", "fetal_head_hc18/unlabelled/*.jpg", "nerve_vessel_usgra/images/*.jpg"):
        paths = sorted(shared_data.glob(pattern))
        images += [read_ultrasound(path).frames[0] for path in paths[:: max(1, len(paths) // 15)][:15]]
    assert len(images) == 45
    assert (shipped(images) >= ULTRASOUND_THRESHOLD).mean() > 0.9


# Quality ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: image, None),
        (lambda image: image // 2 + 20, None),
        (lambda image: image * 0, "black"),
        (lambda image: image // 30, "black"),
        (lambda image: 100 + image // 40, "nearly one grey"),
        (lambda image: np.clip(image.astype(int) * 8, 0, 255), "saturated"),
    ],
)
def test_quality_of_a_phantom(change, words):
    grey = make_phantom("breast", seed=0).image
    found = quality_warnings(np.repeat(change(grey)[..., None], 3, axis=2).astype(np.uint8))
    assert found == () if words is None else words in found[0]


def test_a_blurred_frame_is_warned_about_at_any_size():
    ndimage = pytest.importorskip("scipy.ndimage")
    grey = make_phantom("breast", seed=0).image
    for enlarged in (1, 3):
        large = ndimage.zoom(grey.astype(float), enlarged, order=0)
        sigma = 3 * max(large.shape) / 256
        for blurred, number in ((large, 0), (ndimage.gaussian_filter(large, sigma), 1)):
            found = quality_warnings(np.repeat(blurred[..., None], 3, axis=2).astype(np.uint8))
            assert len(found) == number and all("blurred" in line for line in found)
