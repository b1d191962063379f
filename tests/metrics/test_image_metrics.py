"""PSNR and SSIM against scikit-image and MONAI."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import PSNRMetric, SSIMMetric
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from echocare_hf.metrics import image_metrics
from echocare_hf.model.dense_losses_echocare import structural_similarity as similarity_of_the_loss


def noisy(image: np.ndarray, seed: int, deviation: float = 12) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, deviation, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 80), (11, 30), (33, 12)])
@pytest.mark.parametrize("colour", [True, False])
def test_against_scikit_image(size, colour):
    whole = data.astronaut() if colour else data.camera()
    references = [whole[100 : 100 + size[0], 150 : 150 + size[1]], whole[200 : 200 + size[0], 50 : 50 + size[1]]]
    predictions = [noisy(image, seed) for seed, image in enumerate(references)]
    found = image_metrics(predictions, references)
    ssim = [
        structural_similarity(
            reference,
            prediction,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=2 if colour else None,
        )
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    psnr = [peak_signal_noise_ratio(r, p, data_range=255) for p, r in zip(predictions, references, strict=True)]
    assert found == pytest.approx({"ssim": np.mean(ssim), "psnr": np.mean(psnr)}, abs=1e-9)


def test_against_monai():
    reference = data.astronaut()[:96, :128]
    prediction = noisy(reference, 0)
    given = [torch.from_numpy(image.astype(np.float32)).movedim(2, 0)[None] for image in (prediction, reference)]
    found = image_metrics([prediction], [reference])
    assert found["ssim"] == pytest.approx(float(SSIMMetric(spatial_dims=2, data_range=255.0)(*given)), abs=1e-4)
    assert found["psnr"] == pytest.approx(float(PSNRMetric(max_val=255.0)(*given)), abs=1e-4)


@pytest.mark.parametrize("size", [(40, 40), (8, 30), (30, 7), (1, 2), (10, 10)])
def test_the_loss_measures_the_same(size):
    """Also of images that are smaller than the window."""
    reference = data.astronaut()[100 : 100 + size[0], 150 : 150 + size[1]]
    prediction = noisy(reference, 0)
    given = [torch.from_numpy(image / 255).movedim(2, 0)[None] for image in (prediction, reference)]
    expected = float(similarity_of_the_loss(*given).mean())
    assert image_metrics([prediction], [reference])["ssim"] == pytest.approx(expected, abs=1e-9)


def test_equal_images_and_grey_ones():
    image = data.camera()[:40, :40]
    assert image_metrics([image], [image]) == {"psnr": math.inf, "ssim": pytest.approx(1)}
    three = [np.repeat(picture[..., None], 3, 2) for picture in (noisy(image, 0), image)]
    assert image_metrics([three[0]], [three[1]]) == pytest.approx(image_metrics([noisy(image, 0)], [image]))


def test_opposite_images():
    """Black against white, which has no structure: the constants decide; and PSNR is 0 dB."""
    black, white = np.zeros((20, 20), np.uint8), np.full((20, 20), 255, np.uint8)
    found = image_metrics([black], [white])
    assert found["psnr"] == pytest.approx(0) and found["ssim"] == pytest.approx(0.01**2 / (1 + 0.01**2))


@pytest.mark.filterwarnings("error")
def test_no_images_are_nan():
    assert all(map(math.isnan, image_metrics([], []).values()))


GREY = np.zeros((20, 20), np.uint8)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([GREY], [], "1 images for 0"),
        ([GREY], [GREY[:10]], "one size"),
        ([GREY.astype(float)], [GREY], "image 0 must be uint8"),
        ([GREY], [GREY[None, None]], "reference 0 must be uint8"),
    ],
)
def test_wrong_images_are_named(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        image_metrics(predictions, references)
