"""SimMIM, the Swin of equal size that it is made of, and the checkpoint that a run leaves: see eval/simmim.py."""

import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import ModelCardData
from torch import Tensor, nn

from echocare_hf import EchoCareConfig, EchoCareModel
from echocare_hf.files import readable_weights, written_beside
from echocare_hf.finetuning.card import licence_of
from echocare_hf.model.losses_echocare import expand_mask
from echocare_hf.pretraining.preparation import Prepared
from echocare_hf.pretraining.recipe import Recipe
from echocare_hf.pretraining.run import RunFolder

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SimMIM(nn.Module):
    """SimMIM on images from 0 to 1.

    Args:
        config: of the Swin.
    """

    def __init__(self, config: transformers.SwinConfig) -> None:
        super().__init__()
        self.model = transformers.SwinForMaskedImageModeling(config)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(-1, 1, 1), persistent=False)

    def forward(self, pixel_values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the mean absolute error of the hidden pixels on the scale of the images.

        Args:
            pixel_values: (batch, 3, side, side), 0 to 1.
            mask: (batch, rows, columns) of units, True where hidden.
        """
        side, patch = self.model.config.image_size, self.model.config.patch_size
        tokens = expand_mask(mask, side // patch, side // patch)
        outputs = self.model((pixel_values - self.mean) / self.std, bool_masked_pos=tokens.flatten(1).bool())
        restored = outputs.reconstruction.float() * self.std + self.mean
        hidden = expand_mask(mask, side, side)[:, None]
        error = ((restored - pixel_values).abs() * hidden).sum() / (hidden.sum() * pixel_values.shape[1])
        return outputs.loss, error.detach()


def swin_config(config: EchoCareConfig, side: int, width: int) -> transformers.SwinConfig:
    """A Swin with EchoCare's patch, depths and heads.

    Args:
        config: of EchoCare.
        side: of the images, in pixels.
        width: channels of the first stage.

    Raises:
        ValueError: if the image cannot be halved as often as there are stages.
    """
    stride = config.patch_size * 2 ** (config.num_layers - 1)
    if side % stride:
        raise ValueError(f"--image_size is {side}: give a multiple of {stride}")
    return transformers.SwinConfig(
        image_size=side,
        patch_size=config.patch_size,
        embed_dim=width,
        depths=list(config.depths),
        num_heads=list(config.num_heads),
        window_size=side // stride,
        drop_path_rate=config.drop_path_rate,
        encoder_stride=stride,
    )


def equal_width(config: EchoCareConfig, side: int) -> int:
    """The width whose Swin has about as many parameters as EchoCare's encoder."""
    with torch.device("meta"):
        wanted = EchoCareModel(config, use_mask_token=False).num_parameters()
        widths = range(config.embed_dim, 2 * config.embed_dim + 1, config.num_heads[0])
        return min(widths, key=lambda width: abs(encoder_parameters(swin_config(config, side, width)) - wanted))


def encoder_parameters(config: transformers.SwinConfig) -> int:
    """Parameters of the Swin without the head."""
    return transformers.SwinModel(config, add_pooling_layer=False).num_parameters()


def publish(model: Any, folder: RunFolder, recipe: Recipe, data: Prepared, state: dict[str, Any]) -> None:
    """OUTPUT/final, which appears only when all of it is written."""
    side = model.config.image_size
    licences = {
        licence or "none stated": count for licence, count in Counter(data.train.licences.tolist()).most_common()
    }
    values = asdict(recipe)
    names = {name: [Path(path).name for path in values[name]] for name in ("data", "exclude", "exclude_groups")}
    record = {
        "recipe": values | names | {"output_dir": folder.output.name},
        "images_seen": state["step"] * recipe.batch_size,
        **{name: value for name, value in state.items() if name != "corpus"},
        "precision": folder.accelerator.mixed_precision,
        "train_images": len(data.train),
        "validation_images": len(data.validation),
        "licences": licences,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "date": time.strftime("%Y-%m-%d"),
        "history": [entry for entry in folder.read_log() if "validation_masked_error" in entry],
    }
    header = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-feature-extraction",
        license=licence_of(licences),
        tags=["ultrasound", "simmim"],
    )
    processor = transformers.ViTImageProcessorPil(
        size={"height": side, "width": side}, image_mean=list(IMAGENET_MEAN), image_std=list(IMAGENET_STD)
    )
    text = f"---\n{header.to_yaml()}\n---\n\n# SimMIM on ultrasound\n\n{CARD.format(**record)}\n"
    with written_beside(folder.output / "final") as partial:
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        readable_weights(partial)
        (partial / "README.md").write_text(text, encoding="utf-8")
        (partial / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


CARD = """A reference beside EchoCare: a Swin of {encoder_parameters:,} parameters, pretrained by `eval/simmim.py` with SimMIM on
{train_images:,} images; {images_seen:,} images were seen in {step:,} steps and {cpu_seconds:.0f} seconds of processor time. It is not a
medical device."""


__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "SimMIM", "encoder_parameters", "equal_width", "publish", "swin_config"]
