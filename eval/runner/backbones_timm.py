"""Feature extractors of timm, `timm.create_model(..., features_only=True)`."""

import difflib
import json
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from torch import Tensor

from .backbones_pyramid import plan_pyramid, quarters
from .backbones_sources import Maps, Recipe, one_line


def import_timm() -> Any:
    """timm, which is optional.

    Raises:
        ImportError: one line with the cure.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"timm cannot be imported ({error}): pip install timm torchvision") from error
    return timm


def timm_recipe(reference: str, drop_path: float | None = None) -> Recipe:
    """The recipe of a model of timm.

    Args:
        reference: as `timm.create_model` takes it: `resnet18`, `resnet18.a1_in1k`, `hf-hub:ORG/NAME` or `local-dir:FOLDER`.
        drop_path: stochastic depth, None for the model's own.

    Raises:
        ImportError: without timm.
        ValueError: for what timm has not.
    """
    timm = import_timm()
    scheme, colon, place = reference.partition(":")
    model_args: dict[str, Any] = {}
    if colon:
        try:
            architecture, facts, model_args = _checkpoint(place, scheme == "local-dir")
            mean, std = facts["mean"], facts["std"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"timm:{reference}: cannot be read as a checkpoint of timm ({one_line(error)})"
            ) from error
    else:
        architecture = reference
        if not timm.is_model(reference):
            near = difflib.get_close_matches(reference.split(".")[0], timm.list_models(), n=3, cutoff=0.5)
            advice = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists what it has"
            raise ValueError(f"timm:{reference}: timm {timm.__version__} has no such model; {advice}")
        known = timm.get_pretrained_cfg(reference)
        mean, std = (known.mean, known.std) if known else ((0.0,) * 3, (1.0,) * 3)
    return Recipe("timm", reference, architecture, model_args, tuple(mean), tuple(std), drop_path)


def _checkpoint(place: str, local: bool) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Architecture, input and further arguments of a checkpoint, from the config.json that timm writes beside its weights."""
    file = Path(place) / "config.json" if local else Path(hf_hub_download(place, "config.json"))
    values = json.loads(file.read_text(encoding="utf-8"))
    model_args = {
        name: value
        for name, value in values.get("model_args", {}).items()
        if name not in ("num_classes", "global_pool")
    }
    return values["architecture"], values.get("pretrained_cfg", values), model_args  # older ones have one level


class TimmMaps(Maps):
    """A feature extractor of timm: all its levels, or of a column of blocks the last of each quarter.

    Args:
        recipe: of the network.
        size: height and width of the images in pixels; networks that take one size alone are built for it.
        pretrained: whether its weights are loaded; timm fetches those that are not on this machine.

    Raises:
        ValueError: if timm has no feature maps of it, or its weights cannot be loaded.
    """

    def __init__(self, recipe: Recipe, size: tuple[int, int], pretrained: bool) -> None:
        super().__init__()
        wanted: dict[str, Any] = dict(recipe.config)
        self.takes = int(wanted.get("in_chans", 3))
        if recipe.drop_path is not None:
            wanted["drop_path_rate"] = recipe.drop_path
        network = _create(recipe.architecture, False, wanted)
        info, own_size = network.feature_info, dict(network.pretrained_cfg).get("fixed_input_size", False)
        if len(set(info.reduction())) == 1:
            wanted["out_indices"] = sorted(set(quarters(len(info.info))))
            strides = [info.reduction()[0]] * len(wanted["out_indices"])
        else:
            strides = info.reduction()
        try:
            self.plan = plan_pyramid([int(stride) for stride in strides])
        except ValueError as error:
            raise ValueError(f"timm:{recipe.reference}: gives no feature maps that serve ({error})") from error
        if own_size:
            wanted["img_size"] = self.plan.input_size(*size)
        if pretrained or "out_indices" in wanted or own_size:
            network = _create(recipe.reference if pretrained else recipe.architecture, pretrained, wanted)
        self.network = network
        self.channels = tuple(network.feature_info.channels())

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        maps = self.network(pixel_values)
        # Some networks keep the channels last.
        return [
            one.permute(0, 3, 1, 2) if one.shape[1] != count and one.shape[-1] == count else one
            for one, count in zip(maps, self.channels, strict=True)
        ]


def _create(name: str, pretrained: bool, wanted: dict[str, Any]) -> Any:
    timm = import_timm()
    try:
        return timm.create_model(name, features_only=True, pretrained=pretrained, **wanted)
    except TypeError as error:
        if "drop_path_rate" not in wanted or "drop_path_rate" not in str(error):
            raise
        raise ValueError(f"timm:{name}: has no stochastic depth: leave out --drop_path") from error
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        what = "its weights cannot be loaded" if pretrained else "gives no feature maps"
        raise ValueError(f"timm:{name}: {what} ({one_line(error)})") from error


__all__ = ["TimmMaps", "import_timm", "timm_recipe"]
