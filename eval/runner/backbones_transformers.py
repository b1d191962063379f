"""Networks of transformers: every class of AutoBackbone, and the models of AutoModel that return feature maps or tokens of patches.

`AutoBackbone.from_pretrained` of a local folder asks the Hub first and fails without it (transformers 5.23), so the class is looked up and
asked by itself.
"""

import inspect
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.image_processing_base import ImageProcessingMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING, MODEL_MAPPING

from echocare_hf.finetuning.models import is_hub_id, no_load_report

from .backbones_pyramid import Plan, plan_pyramid, quarters
from .backbones_sources import Maps, Recipe, one_line

MOST_STAGES = 7  # a network with more stages is a column of blocks
PROBE_SIDE = (
    224  # pixels; strides are read off the maps of an image of this size, or of the size that the configuration names
)
# Weights that a backbone has beyond what was trained: norms of its maps, which start as the identity, and what no map depends on.
NOT_TRAINED = re.compile(r"(^|\.)(hidden_states_norms|pooler|mask_token)(\.|$)")
PLACES = "hf: takes a folder that save_pretrained made, or a Hub id such as organisation/name"


def transformers_recipe(reference: str, drop_path: float | None = None) -> Recipe:
    """The recipe of a checkpoint of transformers.

    Args:
        reference: folder or Hub id.
        drop_path: stochastic depth, None for the checkpoint's own.

    Raises:
        ValueError: if there is none, or it is no vision model of transformers.
    """
    if not Path(reference).is_dir() and not is_hub_id(reference):
        raise ValueError(f"{reference}: there is no such folder; {PLACES}")
    try:
        config: Any = transformers.AutoConfig.from_pretrained(reference)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{reference}: cannot be read as a checkpoint of transformers ({one_line(error)}); {PLACES}"
        ) from error
    if config.model_type == "timm_wrapper":
        scheme = "local-dir" if Path(reference).is_dir() else "hf-hub"
        raise ValueError(f"{reference}: is a checkpoint of timm: name it timm:{scheme}:{reference}")
    config = getattr(config, "vision_config", None) or config  # of a model of images and texts
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING and type(config) not in MODEL_MAPPING:
        raise ValueError(f"{reference}: transformers has no AutoBackbone or AutoModel of the type {config.model_type}")
    if drop_path is not None:
        if not hasattr(config, "drop_path_rate"):
            raise ValueError(f"{reference}: a {config.model_type} has no stochastic depth: leave out --drop_path")
        config.drop_path_rate = drop_path
    mean, std = _normalisation(reference)
    values = {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}
    return Recipe("transformers", reference, config.model_type, values, mean, std, drop_path)


def _normalisation(reference: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the checkpoint's image processor; 0 and 1 where it has none or does not normalise."""
    try:
        values, _ = ImageProcessingMixin.get_image_processor_dict(reference)
    except OSError:  # a folder without a processor
        values = {}
    values = values.get("image_processor", values)
    if not values.get("do_normalize", "image_mean" in values):
        return (0.0,) * 3, (1.0,) * 3
    mean, std = (values.get(name) for name in ("image_mean", "image_std"))
    if mean is None or std is None:
        raise ValueError(
            f"{reference}: its image processor normalises, but states no image_mean and image_std; save them with it"
        )
    return tuple(map(float, mean)), tuple(map(float, std))


class TransformersMaps(Maps):
    """A network of transformers: its stages, or of a column of blocks the last of each quarter.

    Args:
        recipe: of the network.
        pretrained: whether its weights are loaded.

    Raises:
        ValueError: if its weights cannot be loaded, some are missing, or it returns no feature maps.
    """

    def __init__(self, recipe: Recipe, pretrained: bool) -> None:
        super().__init__()
        self.name = recipe.reference
        values = {key: value for key, value in recipe.config.items() if key not in ("out_features", "out_indices")}
        values.pop("model_type", None)
        config: Any = transformers.AutoConfig.for_model(recipe.architecture, **values)
        self.is_backbone = type(config) in MODEL_FOR_BACKBONE_MAPPING
        if self.is_backbone:
            stages = [stage for stage in config.stage_names if stage != "stem"]
            if len(stages) > MOST_STAGES:
                stages = [stages[block] for block in dict.fromkeys(quarters(len(stages)))]
            config.set_output_features_output_indices(out_features=stages, out_indices=None)
        self.network = _load(recipe, config, pretrained)
        self.takes_any_size = "interpolate_pos_encoding" in inspect.signature(self.network.forward).parameters
        side = getattr(config, "image_size", None) or PROBE_SIDE
        side = side if isinstance(side, int) else max(side)
        self.patch = getattr(config, "patch_size", None)
        self.takes = int(getattr(config, "num_channels", 3))
        self.plan = self._plan(torch.zeros(1, self.takes, side, side))

    @torch.no_grad()
    def _plan(self, images: Tensor) -> Plan:
        """What becomes of the maps of these images."""
        training = self.training
        try:
            maps = self.eval().forward(images)
            return plan_pyramid([round(images.shape[-1] / one.shape[-1]) for one in maps])
        except (ValueError, RuntimeError, TypeError) as error:
            kind = self.network.config.model_type
            raise ValueError(f"{self.name}: {kind} returns no feature maps that serve ({one_line(error)})") from error
        finally:
            self.train(training)

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        if self.is_backbone:
            return list(self.network(pixel_values).feature_maps)
        options = {"interpolate_pos_encoding": True} if self.takes_any_size else {}
        outputs = self.network(pixel_values, output_hidden_states=True, **options)
        states = getattr(outputs, "reshaped_hidden_states", None) or getattr(outputs, "hidden_states", None)
        if not states:
            raise ValueError("there are none")
        if states[0].ndim == 4:
            return [state for state in states if state.ndim == 4]
        blocks = [*states[1:-1], outputs.last_hidden_state]  # the first is the embedding
        rows, columns = (side // _side(self.patch, axis) for axis, side in enumerate(pixel_values.shape[-2:]))
        if blocks[0].shape[1] < rows * columns:
            raise ValueError(
                f"{blocks[0].shape[1]} tokens of {rows}x{columns} patches, as networks return that mask the image"
            )
        # Tokens that are no patches stand before these: class, registers.
        maps = [blocks[index][:, -rows * columns :] for index in sorted(set(quarters(len(blocks))))]
        return [one.transpose(1, 2).unflatten(2, (rows, columns)) for one in maps]


def _side(patch: Any, axis: int) -> int:
    return int(patch) if isinstance(patch, int | float) else int(patch[axis])


def _load(recipe: Recipe, config: Any, pretrained: bool) -> Any:
    mapping = MODEL_FOR_BACKBONE_MAPPING if type(config) in MODEL_FOR_BACKBONE_MAPPING else MODEL_MAPPING
    network_class = mapping[type(config)]
    if isinstance(network_class, tuple):
        network_class = network_class[0]
    options = {}
    if "add_pooling_layer" in inspect.signature(network_class.__init__).parameters:
        options["add_pooling_layer"] = False
    if not pretrained:
        return network_class(config, **options)
    try:
        with no_load_report():
            network, report = network_class.from_pretrained(
                recipe.reference, config=config, dtype=torch.float32, output_loading_info=True, **options
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{recipe.reference}: its weights cannot be loaded ({one_line(error)}); {PLACES}") from error
    absent = sorted(str(name) for name in report["missing_keys"] if not NOT_TRAINED.search(str(name)))
    if absent:
        raise ValueError(
            f"{recipe.reference}: has no weights for {len(absent)} parts of a {config.model_type}, {absent[0]} among them; save or "
            "convert it again"
        )
    return network


__all__ = ["TransformersMaps", "transformers_recipe"]
