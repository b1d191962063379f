"""The enhancement head: structural similarity beside scikit-image and MONAI, its behaviour, and its way back to pixels."""

import numpy as np
import PIL.Image
import pytest
import torch
from monai.losses import SSIMLoss
from torch.nn import functional as F

from echocare_hf import EchoCareConfig
from echocare_hf.model.dense_losses_echocare import structural_similarity
from echocare_hf.model.enhancement_echocare import (
    EchoCareForImageToImage,
    EchoCareImageToImageOutput,
    enhancement_losses,
)
from echocare_hf.model.image_processing_pil_echocare import EchoCareImageProcessorPil as Processor
from echocare_hf.model.segmentation_echocare import EchoCareForSemanticSegmentation

both_decoders = pytest.mark.parametrize("decoder", ["unetr", "light"])


def small_config(decoder: str = "light", **overrides) -> EchoCareConfig:
    settings = {
        "image_size": 32,
        "embed_dim": 16,
        "depths": [1, 2],
        "num_heads": [2, 4],
        "window_size": 4,
        "mask_unit_size": 8,
        "drop_path_rate": 0.0,
        "dense_decoder_type": decoder,
        "dense_hidden_size": 16,
    }
    return EchoCareConfig(**{**settings, **overrides})


def small_model(decoder: str = "light", seed: int = 0, **overrides) -> EchoCareForImageToImage:
    torch.manual_seed(seed)
    return EchoCareForImageToImage(small_config(decoder, **overrides))


def pair(height: int = 32, width: int = 32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two smooth images from 0 to 1 with noise on them, and without."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 4, 4, generator=generator)
    clean = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False).clamp(0, 1)
    return (clean + 0.15 * torch.randn(clean.shape, generator=generator)).clamp(0, 1), clean


# --- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(32, 32), (57, 43), (11, 30)])
def test_structural_similarity_is_that_of_scikit_image(height, width):
    metrics = pytest.importorskip("skimage.metrics", reason="compares with scikit-image, which is not installed")
    noisy, clean = pair(height, width)
    result = structural_similarity(noisy, clean)
    for image in range(2):
        for channel in range(3):
            expected = metrics.structural_similarity(
                noisy[image, channel].double().numpy(),
                clean[image, channel].double().numpy(),
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1.0,
            )
            assert float(result[image, channel]) == pytest.approx(expected, abs=1e-5)


def test_losses_are_those_of_torch_and_monai():
    noisy, clean = pair(40, 36)
    l1_loss, ssim_loss = enhancement_losses(noisy, clean)
    torch.testing.assert_close(l1_loss, (noisy - clean).abs().mean())
    torch.testing.assert_close(ssim_loss, SSIMLoss(spatial_dims=2)(noisy, clean), atol=1e-5, rtol=1e-5)


def test_an_image_is_most_similar_to_itself():
    _, clean = pair()
    torch.testing.assert_close(structural_similarity(clean, clean), torch.ones(2, 3))
    l1_loss, ssim_loss = enhancement_losses(clean, clean)
    assert l1_loss == 0 and abs(float(ssim_loss)) < 1e-6


@pytest.mark.parametrize("height, width, window", [(8, 9, (7, 9)), (9, 40, (9, 11)), (10, 10, (9, 9))])
def test_small_images_get_the_largest_odd_window_that_fits(height, width, window):
    noisy, clean = (images[:1, :1] for images in pair(height, width))

    def weights(length):
        values = np.exp(-0.5 * ((np.arange(length) - length // 2) / 1.5) ** 2)
        return values / values.sum()

    kernel = np.outer(weights(window[0]), weights(window[1]))
    x, y = noisy[0, 0].double().numpy(), clean[0, 0].double().numpy()
    values = []
    for top in range(height - window[0] + 1):
        for left in range(width - window[1] + 1):
            part = np.s_[top : top + window[0], left : left + window[1]]
            mean_x, mean_y = (kernel * x[part]).sum(), (kernel * y[part]).sum()
            variance_x, variance_y = (kernel * (x[part] - mean_x) ** 2).sum(), (kernel * (y[part] - mean_y) ** 2).sum()
            covariance = (kernel * (x[part] - mean_x) * (y[part] - mean_y)).sum()
            luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
            values.append(luminance * (2 * covariance + 9e-4) / (variance_x + variance_y + 9e-4))
    assert float(structural_similarity(noisy, clean)) == pytest.approx(np.mean(values), abs=1e-5)


def test_gradients_of_structural_similarity():
    noisy, clean = (images[:1, :1, :13, :12].double() for images in pair())
    assert torch.autograd.gradcheck(structural_similarity, (noisy.requires_grad_(), clean))


def test_structural_similarity_is_computed_in_fp32_under_autocast():
    noisy, clean = pair()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = structural_similarity(noisy, clean)
    assert torch.equal(inside, structural_similarity(noisy, clean))


@pytest.mark.parametrize(
    "labels, message",
    [
        (
            torch.zeros(2, 3, 32, 30),
            r"`labels` must have the shape of `pixel_values`, \(2, 3, 32, 32\), got \(2, 3, 32, 30\)",
        ),
        (torch.zeros(2, 1, 32, 32), r"got \(2, 1, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "got torch.uint8: use the image processor's `pixel_values`"),
    ],
)
def test_wrong_labels_are_one_clear_error(labels, message):
    with pytest.raises(ValueError, match=message) as error:
        small_model()(torch.rand(2, 3, 32, 32), labels=labels)
    assert "\n" not in str(error.value)


# --- the model -------------------------------------------------------------------------------------------------------


@both_decoders
def test_an_untrained_model_returns_nearly_its_input(decoder):
    images, _ = pair(64, 64)
    with torch.inference_mode():
        reconstruction = small_model(decoder).eval()(images).reconstruction
    error = (reconstruction - images).abs().max()
    assert 0 < error < 0.02


@both_decoders
def test_overfits_one_batch(decoder):
    model = small_model(decoder)
    noisy, clean = pair()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        outputs = model(noisy, labels=clean)
        outputs.loss.backward()
        optimizer.step()
    first = [float(loss) for loss in enhancement_losses(noisy, clean)]
    assert outputs.l1_loss < 0.5 * first[0] and outputs.ssim_loss < 0.5 * first[1]


@both_decoders
def test_gradients_reach_every_parameter(decoder):
    model = small_model(decoder)
    noisy, clean = pair()
    model(noisy, labels=clean).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_loss_is_the_weighted_sum_of_its_parts():
    noisy, clean = pair()
    outputs = small_model(ssim_loss_weight=0.7)(noisy, labels=clean)
    torch.testing.assert_close(outputs.loss, outputs.l1_loss + 0.7 * outputs.ssim_loss)


@both_decoders
@pytest.mark.parametrize("height, width", [(57, 43), (8, 8), (8, 100), (33, 32)])
def test_any_size_of_image(decoder, height, width):
    noisy, clean = pair(height, width)
    outputs = small_model(decoder)(noisy, labels=clean)
    assert outputs.reconstruction.shape == noisy.shape
    assert torch.isfinite(outputs.loss) and torch.isfinite(outputs.reconstruction).all()


@both_decoders
@pytest.mark.parametrize("height, width", [(32, 32), (57, 43)])
def test_an_image_gives_the_same_alone_and_in_a_batch(decoder, height, width):
    model = small_model(decoder).eval()
    images, _ = pair(height, width)
    with torch.inference_mode():
        batch = model(images).reconstruction
        for index in range(len(images)):
            alone = model(images[index : index + 1]).reconstruction
            torch.testing.assert_close(alone[0], batch[index], atol=1e-5, rtol=1e-5)


@both_decoders
def test_saved_and_loaded_again_it_gives_the_same(decoder, tmp_path):
    model = small_model(decoder).eval()
    images, _ = pair()
    model.save_pretrained(tmp_path)
    loaded, report = EchoCareForImageToImage.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.inference_mode():
        assert torch.equal(loaded.eval()(images).reconstruction, model(images).reconstruction)


def test_another_head_loads_from_its_checkpoint(tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path)
    other, report = EchoCareForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert all(name.startswith("segmentation_") for name in report["missing_keys"]) and report["missing_keys"]
    torch.testing.assert_close(other.echocare.state_dict(), model.echocare.state_dict())


@both_decoders
def test_gradient_checkpointing_changes_nothing(decoder):
    noisy, clean = pair()
    gradients = []
    for checkpointing in (False, True):
        model = small_model(decoder).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        model(noisy, labels=clean).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0])


@both_decoders
def test_under_bf16_autocast_the_image_keeps_its_precision(decoder):
    model = small_model(decoder)
    noisy, clean = pair()
    expected = model(noisy, labels=clean)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(noisy, labels=clean)
    assert outputs.loss.dtype == outputs.reconstruction.dtype == torch.float32
    torch.testing.assert_close(outputs.reconstruction, expected.reconstruction, atol=1e-3, rtol=0)
    outputs.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_hidden_states_come_when_asked_for():
    model = small_model().eval()
    images, _ = pair()
    with torch.inference_mode():
        plain = model(images)
        asked = model(images, output_hidden_states=True)
        encoded = model.echocare(images, output_hidden_states=True)
    assert plain.hidden_states is None and plain.reshaped_hidden_states is None
    torch.testing.assert_close(asked.hidden_states, encoded.hidden_states)
    torch.testing.assert_close(asked.reshaped_hidden_states, encoded.reshaped_hidden_states)


def test_grey_images_of_one_channel():
    model = small_model(num_channels=1)
    noisy, clean = (images[:, :1] for images in pair())
    outputs = model(noisy, labels=clean)
    assert outputs.reconstruction.shape == (2, 1, 32, 32)
    (image, _) = Processor().post_process_image_to_image(outputs)
    assert image.shape == (32, 32, 3) and (image == image[..., :1]).all()


# --- back to the original image --------------------------------------------------------------------------------------

normalised = pytest.mark.parametrize(
    "settings",
    [{}, {"do_normalize": True, "image_mean": (0.2, 0.3, 0.4), "image_std": (0.5, 0.6, 0.7)}],
    ids=["", "normalised"],
)


@normalised
@pytest.mark.parametrize("height, width, resize_mode", [(32, 32, "squash"), (32, 16, "pad"), (15, 32, "pad")])
def test_a_model_that_changes_nothing_gives_the_original_pixels(settings, height, width, resize_mode):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    processor = Processor(size={"height": 32, "width": 32}, resize_mode=resize_mode, **settings)
    outputs = EchoCareImageToImageOutput(reconstruction=processor(image, return_tensors="pt")["pixel_values"])
    for sizes in ([(height, width)], torch.tensor([[height, width]])):
        (result,) = processor.post_process_image_to_image(outputs, sizes)
        assert result.dtype == np.uint8 and np.array_equal(result, image)
    (whole,) = processor.post_process_image_to_image(outputs)
    assert whole.shape == (32, 32, 3)


def test_images_of_another_size_are_resized_bicubically_without_their_padding():
    processor = Processor(size={"height": 32, "width": 32}, resize_mode="pad")
    values = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (result,) = processor.post_process_image_to_image(EchoCareImageToImageOutput(reconstruction=values), [(50, 100)])
    inside = (values[0, :, 8:24] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()  # 50x100 fits as 16x32
    expected = PIL.Image.fromarray(inside).resize((100, 50), PIL.Image.Resampling.BICUBIC)
    assert np.array_equal(result, np.array(expected))


def test_values_outside_the_range_are_clipped():
    values = torch.tensor([-0.5, 0.0, 1.0, 1.5]).view(1, 1, 2, 2).repeat(1, 3, 4, 4)
    (result,) = Processor().post_process_image_to_image(EchoCareImageToImageOutput(reconstruction=values))
    assert np.array_equal(result[:2, :2, 0], [[0, 0], [255, 255]])


def test_wrong_target_sizes_are_one_clear_error():
    outputs = EchoCareImageToImageOutput(reconstruction=torch.rand(2, 3, 16, 16))
    with pytest.raises(ValueError, match="got 1 for 2"):
        Processor().post_process_image_to_image(outputs, [(16, 16)])
