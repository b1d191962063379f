"""What is optimised: EchoCare with its pretraining heads, and the extra heads that only the pretraining needs."""

from typing import Any

import torch
from torch import Tensor, nn

from echocare_hf import EchoCareConfig, EchoCareForPreTraining
from echocare_hf.checkpoints import find_checkpoint
from echocare_hf.data.masking import mask_grid

from .contrast import ContrastProjection, structured_contrast_loss
from .drop_path import BRANCHES, drop_by_image, give_noise
from .hard_patches import PatchLossPredictor, relative_loss, unit_losses
from .recipe import Recipe


class PretrainingNetwork(nn.Module):
    """The model and the heads that stay behind when it is saved.

    Args:
        model: EchoCare with its two decoders; its configuration weighs L_MIM and L_HIE.
        hard_patch_weight: of the loss of the patch loss predictor; None for no predictor.
        contrast_weight: of the structured contrast; 0 for no projection.
        contrast_size: numbers of the projection.
        contrast_temperature: of the contrast.
    """

    def __init__(
        self,
        model: EchoCareForPreTraining,
        hard_patch_weight: float | None = None,
        contrast_weight: float = 0.0,
        contrast_size: int = 128,
        contrast_temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.model = model
        config = model.config
        self.hard_patch_weight, self.contrast_weight = hard_patch_weight, contrast_weight
        self.contrast_temperature = contrast_temperature
        self.predictor = PatchLossPredictor(config) if hard_patch_weight is not None else None
        self.projection = ContrastProjection(config.hidden_size, contrast_size) if contrast_weight else None
        self.drop_paths = drop_by_image(model)

    @property
    def branches(self) -> int:
        """How many random numbers an image needs for drop path."""
        return BRANCHES * len(self.drop_paths)

    def forward(
        self, pixel_values: Tensor, mask: Tensor, labels: Tensor, levels: Tensor, branches: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The losses by name, `loss` their weighted sum.

        Args:
            pixel_values: (batch, channels, height, width).
            mask: bool (batch, rows, columns) of mask units.
            labels: (batch, nodes): 1, 0, -1.
            levels: (batch, levels): nodes, -1 where unknown.
            branches: (batch, branches), random numbers from 0 to 1 for drop path; None to draw them here.
        """
        if branches is not None:
            give_noise(self.drop_paths, branches)
        extras = self.predictor is not None or self.projection is not None
        outputs = self.model(pixel_values, bool_masked_pos=mask, labels=labels, output_hidden_states=extras)
        losses: dict[str, Tensor] = {
            "loss": outputs.loss,
            "reconstruction": outputs.reconstruction_loss,
            "anatomy": outputs.anatomy_loss,
        }
        if self.predictor is not None and self.hard_patch_weight is not None:
            last_map = outputs.reshaped_hidden_states[-1]
            truth = unit_losses(outputs.reconstruction, pixel_values, self.model.config.mask_unit_size)
            losses["hard_patches"] = relative_loss(self.predictor(last_map, *mask.shape[1:]), truth, mask)
            losses["loss"] = losses["loss"] + self.hard_patch_weight * losses["hard_patches"]
        if self.projection is not None:
            pooled = outputs.reshaped_hidden_states[-1].mean((2, 3))
            projections = self.projection(pooled)
            losses["contrast"] = structured_contrast_loss(projections, levels, self.contrast_temperature)
            losses["loss"] = losses["loss"] + self.contrast_weight * losses["contrast"]
        return losses

    @torch.no_grad()
    def score_units(self, pixel_values: Tensor) -> Tensor:
        """How hard each mask unit of the whole image is to restore: (batch, rows, columns), higher for harder."""
        assert self.predictor is not None
        hidden = self.model.echocare(pixel_values).last_hidden_state.transpose(1, 2)
        stride = self.model.config.output_stride
        height, width = pixel_values.shape[-2:]
        last_map = hidden.unflatten(2, (-(-height // stride), -(-width // stride)))
        return self.predictor(last_map, *mask_grid((height, width), self.model.config.mask_unit_size))


def make_network(recipe: Recipe) -> PretrainingNetwork:
    """The network of a recipe, with the weights of its seed or of its checkpoint.

    Raises:
        ValueError: if the configuration does not exist, or the checkpoint is of another architecture or tree.
    """
    config = _config(recipe)
    torch.manual_seed(recipe.seed)
    if recipe.initial_weights:
        model = _load(recipe.initial_weights, config)
    else:
        model = EchoCareForPreTraining(config)
    return PretrainingNetwork(
        model.train(),
        recipe.hard_patch_weight if recipe.hard_patches else None,
        recipe.contrast_weight,
        recipe.contrast_size,
        recipe.contrast_temperature,
    )


def _config(recipe: Recipe) -> EchoCareConfig:
    values = dict(recipe.config)
    schedule = recipe.schedule()
    values.setdefault("image_size", schedule.largest_image)
    values.setdefault("mask_ratio", schedule.mask_ratios[-1][1])
    weights = {
        "reconstruction_loss_weight": recipe.reconstruction_weight,
        "anatomy_loss_weight": recipe.anatomy_weight,
    }
    if doubled := sorted(set(values) & set(weights)):
        raise ValueError(f"config: {', '.join(doubled)} has a value of its own in the recipe; remove it from config")
    try:
        return EchoCareConfig.preset(recipe.preset, **values, **weights)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"preset {recipe.preset!r} with config {recipe.config}: {' '.join(str(error).split())}"
        ) from error


def _load(source: str, config: EchoCareConfig) -> EchoCareForPreTraining:
    source = find_checkpoint(source)
    try:
        stored: Any = EchoCareConfig.from_pretrained(source)
        if config.decoder_type == stored.decoder_type == "multi_scale":
            # The recipe's width is that of a new decoder.
            config.decoder_hidden_size = stored.decoder_hidden_size or stored.dense_hidden_size
        loaded: Any = EchoCareForPreTraining.from_pretrained(
            source, config=config, ignore_mismatched_sizes=True, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{source}: no EchoCare checkpoint can be loaded from it ({str(error).splitlines()[0]})"
        ) from error
    model, report = loaded
    if stored.anatomy_tree["ids"] and stored.anatomy_tree != config.anatomy_tree:
        raise ValueError(
            f"{source}: has another anatomy tree; its scores would get another meaning. Convert it, or start without it"
        )
    if mismatched := sorted(str(entry[0]) for entry in report["mismatched_keys"]):
        raise ValueError(
            f"{source}: is of another architecture, {len(mismatched)} tensors differ in shape, such as {mismatched[0]}; give the "
            "preset and config it was made with"
        )
    missing = sorted(report["missing_keys"])
    if any(name.startswith("echocare.") for name in missing):
        raise ValueError(
            f"{source}: lacks {len(missing)} tensors of the encoder, such as {missing[0]}; it is of another architecture"
        )
    return model
