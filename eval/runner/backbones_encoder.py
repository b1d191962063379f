"""Another network in the place of EchoCare's encoder, so that the same heads, losses and schedules serve it."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from echocare_hf import EchoCareConfig
from echocare_hf.model.encoder_echocare import EchoCareModelOutput, check_pixel_values

from .backbones_sources import Maps, Recipe, one_line, short_source
from .backbones_timm import TimmMaps
from .backbones_transformers import TransformersMaps

# What a configuration says of EchoCare's encoder or of the folder it was read from, rather than of its heads.
NOT_OF_HEADS = (
    *("model_type", "architectures", "auto_map", "custom_pipelines", "transformers_version", "dtype"),
    *("num_layers", "hidden_size", "stage_names", "out_features", "out_indices", "recipe", "foreign_channels"),
)


@strict
class ForeignEncoderConfig(EchoCareConfig):
    """The configuration of EchoCare's heads on another network.

    What heads read of the encoder is true of the network: `patch_size` is the stride of the finest map, `num_layers` the number of coarser
    ones, `stage_channels` and `hidden_size` their channels. The other values of the encoder mean nothing here.

    Args:
        recipe: of the network, as `Recipe.as_dict` has it.
        foreign_channels: channels of its maps, finest first.
    """

    model_type = "echocare_foreign"

    recipe: dict | None = None
    foreign_channels: list[int] | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.foreign_channels:
            self.hidden_size = self.foreign_channels[-1]

    @property
    def stage_channels(self) -> list[int]:
        return list(self.foreign_channels or super().stage_channels)


def foreign_config(
    config: EchoCareConfig, recipe: Recipe, strides: Sequence[int], channels: Sequence[int]
) -> ForeignEncoderConfig:
    """The configuration of a head, with another network as its encoder.

    Args:
        config: of the head on EchoCare.
        recipe: of the network.
        strides, channels: of its maps, finest first.
    """
    values = {name: value for name, value in config.to_dict().items() if name not in NOT_OF_HEADS}
    coarser = len(strides) - 1
    # Heads build EchoCare's encoder before it is replaced: a small one.
    values |= {"patch_size": strides[0], "depths": [1] * coarser, "num_heads": [1] * coarser, "embed_dim": 1}
    values |= {
        "mask_unit_size": strides[0],
        "use_conv_blocks": False,
        "anatomy_tree": {"ids": [], "names": [], "parents": []},
    }
    described = recipe.as_dict() | {"reference": short_source(recipe.reference)}  # no directory of this machine
    return ForeignEncoderConfig(**values, recipe=described, foreign_channels=list(channels))


class ForeignEncoder(nn.Module):
    """A network of timm or transformers that answers as `EchoCareModel` does.

    It takes images as EchoCare's image processor makes them and brings them to the mean and standard deviation that the network was
    trained with; one that takes grey images gets the mean of the channels. Its maps are the network's own, see `backbones_pyramid`;
    `pooler_output` is the mean of the last one, as EchoCare's is, not a class token.

    While no parameter of it learns (--freeze_encoder, --head_first), its batch norms stand still too.

    Args:
        recipe: of the network.
        size: height and width of the images, in pixels.
        pretrained: whether its weights are loaded.
        processor: what makes the images; if it normalises, that is undone.

    Attributes:
        config: of the head that it stands under, once it does.
        strides, channels: of the maps, finest first.

    Raises:
        ValueError: if the network does not take such images, or returns no maps that serve.
    """

    def __init__(self, recipe: Recipe, size: tuple[int, int], pretrained: bool, processor: Any = None) -> None:
        super().__init__()
        self.recipe = recipe
        self.config: Any = None
        self.maps: Maps = (
            TimmMaps(recipe, size, pretrained) if recipe.library == "timm" else TransformersMaps(recipe, pretrained)
        )
        normalised = getattr(processor, "do_normalize", False)
        mean, std = (processor.image_mean, processor.image_std) if normalised else ((0.0,) * 3, (1.0,) * 3)
        if self.maps.takes not in (1, 3):
            raise ValueError(f"{recipe.reference}: takes images of {self.maps.takes} channels; 1 and 3 serve")
        own = [value * 3 if len(value) == 1 else value for value in (recipe.mean, recipe.std)]
        values = torch.tensor([std, mean, own[0]]) / torch.tensor(own[1])
        for name, value in zip(("scale", "shift", "mean"), values, strict=True):
            self.register_buffer(name, value.view(-1, 1, 1))
        self.strides = [level.stride for level in self.maps.plan.levels]
        self.channels, self.depth_of = self._look(size)

    def forward(
        self, pixel_values: Tensor | None = None, output_hidden_states: bool | None = None, **kwargs: Any
    ) -> EchoCareModelOutput:
        """As `EchoCareModel.forward`; attentions are not returned.

        Args:
            pixel_values: (batch, 3, height, width) as the image processor makes them.
            output_hidden_states: whether the maps are wanted.
        """
        check_pixel_values(pixel_values, 3)
        assert pixel_values is not None
        maps = self.feature_maps(pixel_values)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return EchoCareModelOutput(
            last_hidden_state=maps[-1].flatten(2).transpose(1, 2),
            pooler_output=maps[-1].mean((2, 3)),
            hidden_states=tuple(one.flatten(2).transpose(1, 2) for one in maps) if wanted else None,
            reshaped_hidden_states=maps if wanted else None,
        )

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """The pyramid of images, (batch, channels, ceil(height / stride), ceil(width / stride)), finest first."""
        height, width = pixel_values.shape[-2:]
        plan = self.maps.plan
        images = plan.pad(pixel_values * self.scale + self.shift)  # 0 is black
        images = images - self.mean
        maps = plan.pyramid(self.maps(images.mean(1, keepdim=True) if self.maps.takes == 1 else images), height, width)
        return tuple(one.to(maps[0].dtype) for one in maps)

    def train(self, mode: bool = True) -> "ForeignEncoder":
        super().train(mode)
        if mode and not any(parameter.requires_grad for parameter in self.parameters()):
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def layer_of(self, name: str, depths: Sequence[int]) -> int:
        """How far up a parameter of the whole model stands, for learning rates by layer: see `finetuning.models.layer_of`.

        The maps of the network divide EchoCare's layers evenly, so that its first parameters learn as slowly as EchoCare's first; a
        parameter belongs to the finest map that depends on it.

        Args:
            name: of a parameter of the head's model.
            depths: blocks in each stage of EchoCare.
        """
        top = sum(depths) + 1
        if "echocare." not in name:
            return top
        depth = self.depth_of.get(name.split("echocare.", 1)[1], 0)
        return round(depth * top / len(self.strides))

    @torch.enable_grad()
    def _look(self, size: tuple[int, int]) -> tuple[list[int], dict[str, int]]:
        """Channels of the maps, and for each parameter the first map that depends on it, from an image of noise."""
        training, images = self.training, torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
        self.eval()
        where, pixels = self.recipe.reference, f"{size[0]}x{size[1]} pixels"
        try:
            maps = self.feature_maps(images)
            again = self.feature_maps(images.detach())
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ValueError(
                f"{where}: does not take images of {pixels} ({one_line(error)}); try another --image_size"
            ) from error
        wanted = [tuple(math.ceil(side / stride) for side in size) for stride in self.strides]
        found = [tuple(one.shape[-2:]) for one in maps]
        if found != wanted:
            raise ValueError(f"{where}: its maps of {pixels} are {found}, not {wanted}; try another --image_size")
        if not all(torch.equal(one, other) for one, other in zip(maps, again, strict=True)):
            raise ValueError(f"{where}: returns other maps when it sees an image again, so it cannot be measured")
        names, parameters = zip(
            *((name, one) for name, one in self.named_parameters() if one.requires_grad), strict=True
        )
        depth: dict[str, int] = {}
        for level, one in enumerate(maps):
            gradients = torch.autograd.grad(one.sum(), parameters, retain_graph=True, allow_unused=True)
            for name, gradient in zip(names, gradients, strict=True):
                if gradient is not None:
                    depth.setdefault(name, level)
        self.train(training)
        return [one.shape[1] for one in maps], depth


__all__ = ["ForeignEncoder", "ForeignEncoderConfig", "foreign_config"]
