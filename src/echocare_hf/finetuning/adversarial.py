"""Enhancement with low and high images that are no pairs: a patch discriminator tells what low images lack.

    python training/finetune.py enhancement --data clinic --output sharper --discriminator true

`clinic` has folders `low` and `high`, or a column `quality`. One model learns from both kinds of images in each batch:

- high images are degraded on the fly, as where there are no low ones, and the loss is the model's own: mean absolute error and structural
  similarity to the image before. This keeps structures where they are;
- low images pass through the model, and a discriminator that was shown high images judges the result patch by patch (least squares).
  What it cannot change is the brightness of larger areas: the mean absolute error between both blurred images is added.

Without a discriminator the low images are not trained on, only looked at in the evaluation.

Sources: Isola et al. 2017, Image-to-image translation with conditional adversarial networks (PatchGAN; the weight of 0.01 against the
absolute error, Adam with 2e-4 and 0.5); Mao et al. 2017, Least squares generative adversarial networks; Ignatov et al. 2017, DSLR-quality
photos on mobile devices with deep convolutional networks (the loss between blurred images, for pairs that do not fit exactly).
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Subset

from echocare_hf.data.augmentation import gaussian_blur
from echocare_hf.metrics.niqe import TEXTURE_BLOCK
from echocare_hf.model.enhancement_echocare import enhancement_losses

from .trainer import TaskTrainer

# A quarter of the channels of Isola et al.: with theirs the discriminator takes 1.8 times as long as the tiny preset, with these 0.2 times
# (one thread, 128x128, fp32).
WIDTHS = (16, 32, 64, 128)
LEARNING_RATE, BETAS = 2e-4, (0.5, 0.999)
CONTENT_SIGMA = 3.0  # pixels: speckle goes, organs stay
STATE_FILE = "discriminator.pt"


class PatchDiscriminator(nn.Module):
    """Says of each patch of 70x70 pixels whether it is of a high image: 1 for yes, 0 for no.

    Args:
        channels: of the images.

    Source: Isola et al. 2017, appendix 6.1.2, with instance norm for batch norm, so that images do not depend on each other.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (channels, *WIDTHS)
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2 if layer < 3 else 1, padding=1))
            if layer:
                layers.append(nn.InstanceNorm2d(outputs))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width), of 24 pixels at least, to (batch, 1, height // 8 - 2, width // 8 - 2)."""
        return self.layers(images)


def content_loss(enhanced: Tensor, images: Tensor) -> Tensor:
    """Mean absolute error between both after a Gaussian blur of 3 pixels: what enhancement shall leave as it is.

    Args:
        enhanced, images: (batch, channels, height, width).

    Source: Ignatov et al. 2017, section 3.1.1, with the absolute for the squared error.
    """
    return F.l1_loss(gaussian_blur(enhanced, CONTENT_SIGMA), gaussian_blur(images, CONTENT_SIGMA))


class UnpairedTrainer(TaskTrainer):
    """Trains with images that have labels and low ones that have none, whose labels are NaN.

    The loss is the mean over the images of a batch: the model's own for those with labels; for low ones the content loss and, with
    `--discriminator`, its loss times `--adversarial_weight`. The discriminator makes a step after each backward pass of the model;
    its learning rate follows the model's schedule. Checkpoints hold it and its optimizer.

    Raises:
        ValueError: if a part lacks low or high images, or has too few pixels to measure their texture.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        data: Any = self.train_dataset
        validation: Any = self.eval_dataset
        model: Any = self.model
        self.ssim_weight: float = model.config.ssim_loss_weight
        low = [_is_low(sample) for sample in data.samples]
        self.discriminator: PatchDiscriminator | None = None
        if not self.arguments.discriminator:
            if all(low):
                raise ValueError("the training part has low images only: add high ones or another --split_seed")
            self.train_dataset = Subset(data, [row for row, found in enumerate(low) if not found])
            return
        for name, part in (("training", data), ("validation", validation)):
            found = {_is_low(sample) for sample in part.samples}
            if found != {True, False}:
                missing = "low" if True not in found else "high"
                raise ValueError(f"the {name} part has no {missing} image: add some, or try another --split_seed")
        rows, columns = (side // TEXTURE_BLOCK for side in self.task.size)
        if rows * columns * sum(map(_is_low, validation.samples)) < 2:
            raise ValueError(
                "too little to measure texture on: --discriminator needs an --image_size of at least 64, or of at least 32 and two low "
                "images in the validation part"
            )
        self.discriminator = PatchDiscriminator(model.config.num_channels).to(self.args.device)
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=LEARNING_RATE, betas=BETAS)
        self.judged: tuple[Tensor, Tensor] | None = None

    def answer(self, model: Any, batch: dict[str, Any]) -> Any:
        """The enhanced images, with the loss but for the discriminator's."""
        images, labels = batch["pixel_values"], batch["labels"]
        outputs = model(pixel_values=images)
        known = _known(labels)
        share = known.float().mean()
        loss = images.new_zeros((), dtype=torch.float32)
        if bool(known.any()):
            l1, ssim = enhancement_losses(outputs.reconstruction[known], labels[known])
            loss = loss + share * (l1 + self.ssim_weight * ssim)
        if not bool(known.all()):
            loss = loss + (1 - share) * content_loss(outputs.reconstruction[~known].float(), images[~known])
        outputs.loss = loss
        return outputs

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = self.answer(model, inputs)
        loss: Any = outputs.loss
        if self.discriminator is not None:
            known = _known(inputs["labels"])
            made = outputs.reconstruction[~known].float()
            self.judged = (made.detach(), inputs["labels"][known])
            if len(made):
                self.discriminator.requires_grad_(False)
                judgement = (self._judge(made) - 1).square().mean()
                loss = loss + self.arguments.adversarial_weight * (1 - known.float().mean()) * judgement
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        if self.discriminator is not None:
            self._train_discriminator()
        return loss

    def _train_discriminator(self) -> None:
        """One step towards 0 for the enhanced low images of this batch and 1 for its high ones."""
        assert self.discriminator is not None and self.judged is not None and self.optimizer is not None
        made, high = self.judged
        self.judged = None
        self.discriminator.requires_grad_(True)
        parts = [
            0.5 * (self._judge(images) - goal).square().mean()
            for images, goal in ((made, 0), (high, 1))
            if len(images)
        ]
        head_rate = self.optimizer.param_groups[-1]["lr"]
        for group in self.discriminator_optimizer.param_groups:
            group["lr"] = LEARNING_RATE * head_rate / self.arguments.learning_rate
        self.discriminator_optimizer.zero_grad()
        torch.stack(parts).sum().backward()
        self.discriminator_optimizer.step()

    def _judge(self, images: Tensor) -> Tensor:
        assert self.discriminator is not None
        with self.accelerator.autocast():
            return self.discriminator(images).float()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.discriminator is not None and self.args.should_save:
            state = {
                "discriminator": self.discriminator.state_dict(),
                "optimizer": self.discriminator_optimizer.state_dict(),
            }
            torch.save(state, Path(output_dir) / STATE_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.discriminator is not None and checkpoint is not None:
            state = torch.load(Path(checkpoint) / STATE_FILE, map_location=self.args.device, weights_only=True)
            self.discriminator.load_state_dict(state["discriminator"])
            self.discriminator_optimizer.load_state_dict(state["optimizer"])


def _is_low(sample: Any) -> bool:
    return sample.quality == "low"


def _known(labels: Tensor) -> Tensor:
    """Which images have labels, (batch,)."""
    return ~labels.flatten(1).isnan().any(1)
