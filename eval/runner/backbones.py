"""Other networks under EchoCare's heads: any feature extractor of timm, any AutoBackbone or AutoModel of transformers.

    timm:resnet18                    a model of timm, by its name there; weights from the Hub with `pretrained`, else random
    timm:hf-hub:ORG/NAME             a checkpoint of timm on the Hub; timm:local-dir:FOLDER the same in a folder
    hf:ORG/NAME, hf:FOLDER           a checkpoint of transformers: ResNet, ConvNeXt, Swin, ViT, DINOv2, ...
    FOLDER                           the same, where its config.json names another model type than echocare

    job = open_job("segmentation", FinetuneArguments(data="lesions", model="tiny"))
    model = substitute(job, "hf:runs/simmim/final", pretrained=True)
    fitted = fit(job, model, Path("checkpoints"))

What is the same as for EchoCare: the head's class, its loss, the configuration that the job has (decoder, pooling, width), image
processor, augmentation, schedule and budget. What differs, and how:

    input                 The network's own mean and standard deviation are applied inside, to the same images.
    feature maps          The network's own, at its own strides; a head has a level for each. See `backbones_pyramid`.
    pooled feature        Mean of the last map, or mean and maximum of every map, as `classifier_pooling` says. No class token.
    learning rate by layer
                          From trained weights, as for EchoCare: `ForeignEncoder.layer_of` spreads EchoCare's layers over the network.
    head_first, head_start, freeze_encoder
                          As for EchoCare, from trained weights; batch norms stand still while the network does.
    drop_path             Where the network has stochastic depth; an error where it has not.
    lora_rank             Refused: names of layers differ from network to network.
    gradient_checkpointing
                          Of networks of transformers that can; others ignore it.
"""

import copy
import json
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

import echocare_hf
from echocare_hf import EchoCareConfig, EchoCareForReportGeneration, EchoCareReportConfig
from echocare_hf.finetuning import Job
from echocare_hf.finetuning.models import HEAD_VALUES, is_hub_id
from echocare_hf.reports.job import ReportJob

from .backbones_encoder import ForeignEncoder, ForeignEncoderConfig, foreign_config
from .backbones_sources import Recipe, one_line
from .backbones_timm import import_timm, timm_recipe
from .backbones_transformers import transformers_recipe
from .provenance import file_hash, weights_hash

LIBRARIES = ("timm:", "hf:")
OWN = ("echocare", EchoCareReportConfig.model_type)
"""Model types that are no other network: EchoCare's, and its report generator."""


def is_foreign(name: str) -> bool:
    """Whether a name is that of another network than EchoCare.

    Args:
        name: as the head of this file lists them, or what EchoCare's own fine-tuning takes. Of a Hub id without `hf:` the configuration is
            looked up.
    """
    if name.startswith(LIBRARIES):
        return True
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            return False
        try:
            values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except ValueError:  # EchoCare's own loader tells what is wrong with it
            return False
        return values.get("model_type", "timm_wrapper" if "architecture" in values else "echocare") not in OWN
    if not is_hub_id(name):
        return False
    try:
        values, _ = transformers.PreTrainedConfig.get_config_dict(name)
    except OSError:  # as above
        return False
    return values.get("model_type", "echocare") not in OWN


def network_recipe(name: str, drop_path: float | None = None) -> Recipe:
    """What a name stands for, see the head of this file.

    Raises:
        ImportError: for one of timm, without timm.
        ValueError: if there is no such network.
    """
    library, colon, reference = name.partition(":")
    if colon and library == "timm":
        return timm_recipe(reference, drop_path)
    return transformers_recipe(reference if colon and library == "hf" else name, drop_path)


def substitute(job: Job, name: str, pretrained: bool) -> nn.Module:
    """The head of a task on another network, ready for `job.trainer` and `fit`.

    The job is told where the weights come from (`job.checkpoint`), on which its schedule depends.

    Args:
        job: opened with EchoCare's configuration whose head is wanted, such as `model="tiny"`.
        name: see the head of this file.
        pretrained: whether the network starts from its trained weights.

    Raises:
        ImportError: for a network of timm, without timm.
        ValueError: if there is no such network, it does not serve, or the arguments do not suit it.
    """
    arguments = job.arguments
    if arguments.lora_rank:
        raise ValueError(
            f"--lora_rank is {arguments.lora_rank}: adapters are for EchoCare's encoder, and {name} has other layers; leave it out"
        )
    usual = EchoCareConfig()
    for value in HEAD_VALUES:  # what the checkpoint's former task has left there
        setattr(job.config, value, getattr(usual, value))
    for value, content in job.task.config_values(job.parts["train"]).items():
        setattr(job.config, value, content)
    job.config.image_size = list(job.task.size) if job.task.size[0] != job.task.size[1] else job.task.size[0]
    encoder = ForeignEncoder(network_recipe(name, arguments.drop_path), job.task.size, pretrained, job.task.processor)
    job.checkpoint = name if pretrained else None
    head = getattr(transformers, job.task.auto_class)._model_mapping[EchoCareConfig]
    model = _on(encoder, head, job.config)
    if arguments.freeze_encoder:
        encoder.requires_grad_(False)
    return model


def substitute_in_reports(job: ReportJob, name: str, pretrained: bool) -> None:
    """Puts another network into the place of the encoder of a report generator that nothing has learned yet.

    The decoder, the findings head, the tokenizer and what the images' tokens are made of stay as they are: of the network the last maps,
    as many as of EchoCare (all of one that has fewer).

    Args:
        job: opened with a preset, such as `model="tiny"`; its model and whether it is random are changed.
        name: see the head of this file.
        pretrained: whether the network starts from its trained weights.

    Raises:
        ImportError: for a network of timm, without timm.
        ValueError: if there is no such network, or it does not serve.
    """
    encoder = ForeignEncoder(network_recipe(name), job.task.size, pretrained, job.task.processor)
    config = copy.deepcopy(job.model.config)
    config.encoder = foreign_config(config.encoder, encoder.recipe, encoder.strides, encoder.channels)
    config.encoder_maps = min(config.encoder_maps, len(encoder.channels))
    transformers.set_seed(job.arguments.seed)
    model: Any = type("ForeignReportGeneration", (ForeignHead, EchoCareForReportGeneration), {})(config)
    model.encoder.echocare, encoder.config = encoder, config.encoder
    model.generation_config = job.model.generation_config
    if job.arguments.freeze_encoder:
        encoder.requires_grad_(False)
    job.model, job.is_random = model.eval(), not pretrained


class ForeignHead:
    """What a head on another network does otherwise: its folder is for `load`, and holds no code."""

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        PreTrainedModel.save_pretrained(self, save_directory, *args, **kwargs)  # type: ignore[arg-type]


def _on(encoder: ForeignEncoder, head: type, config: EchoCareConfig) -> Any:
    """A head on an encoder."""
    of_head = foreign_config(config, encoder.recipe, encoder.strides, encoder.channels)
    model: Any = type(f"Foreign{head.__name__}", (ForeignHead, head), {})(of_head)
    model.echocare = encoder
    encoder.config = of_head
    return model


def load(folder: str | Path) -> nn.Module:
    """A head on another network, from the folder that its `save_pretrained` made.

    Raises:
        ImportError: for a network of timm, without timm.
        ValueError: if the folder holds none.
    """
    place = Path(folder)
    try:
        values, _ = ForeignEncoderConfig.get_config_dict(place)
        if values.get("model_type") != ForeignEncoderConfig.model_type:
            raise ValueError("its config.json is of another model")
        config: Any = ForeignEncoderConfig.from_dict(values)
        head = getattr(echocare_hf, config.architectures[0].removeprefix("Foreign"))
        weights = load_file(place / "model.safetensors")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{place}: is no folder of a head on another network ({one_line(error)})") from error
    size = (config.image_size,) * 2 if isinstance(config.image_size, int) else tuple(config.image_size)
    model = _on(ForeignEncoder(Recipe.from_dict(config.recipe), size, pretrained=False), head, config)
    model.load_state_dict(weights)
    return model.eval()


def describe(name: str, pretrained: bool = True) -> dict[str, Any]:
    """Where a network comes from, ready for JSON.

    Args:
        name: see the head of this file.
        pretrained: whether its trained weights are used; those of timm are fetched then, as timm would.

    Returns:
        `library` and its `version`; `architecture`; `parameters` of the network without a head; `weights_sha256` of the file of its
        trained weights, as `provenance.weights_hash` has it, None for random weights, and for one of timm that has no safetensors on the
        Hub; `licence` that its source states, None where it states none; `mean` and `std` of its input.

    Raises:
        ImportError: for a network of timm, without timm.
        ValueError: if there is no such network.
    """
    recipe = network_recipe(name)
    encoder = ForeignEncoder(recipe, (DESCRIBED_SIDE, DESCRIBED_SIDE), pretrained=False)
    library = import_timm() if recipe.library == "timm" else transformers
    return {
        "library": recipe.library,
        "version": library.__version__,
        "architecture": recipe.architecture,
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "weights_sha256": _weights_hash(recipe) if pretrained else None,
        "licence": _licence(recipe),
        "mean": list(recipe.mean),
        "std": list(recipe.std),
    }


DESCRIBED_SIDE = 224  # pixels; networks with learned positions have a few parameters more for larger images


def _weights_hash(recipe: Recipe) -> str | None:
    if recipe.library == "transformers":
        return weights_hash(recipe.reference)
    scheme, colon, place = recipe.reference.partition(":")
    if colon and scheme == "local-dir":
        return weights_hash(place)
    hub = place if colon else getattr(import_timm().get_pretrained_cfg(recipe.reference), "hf_hub_id", None)
    try:
        return file_hash(Path(hf_hub_download(hub, "model.safetensors"))) if hub else None
    except RemoteEntryNotFoundError:  # weights in another format, which only timm can find
        return None
    except OSError as error:
        raise ValueError(f"timm:{recipe.reference}: its weights cannot be loaded ({one_line(error)})") from error


def _licence(recipe: Recipe) -> str | None:
    """What the model card states, or timm."""
    _, colon, place = recipe.reference.partition(":")
    if recipe.library == "timm" and not colon:
        return getattr(import_timm().get_pretrained_cfg(recipe.reference), "license", None)
    reference = place if colon else recipe.reference
    try:
        card = (
            Path(reference) / "README.md"
            if Path(reference).is_dir()
            else Path(hf_hub_download(reference, "README.md"))
        )
        stated = ModelCard.load(card).data.get("license") if card.is_file() else None
    except (OSError, ValueError):  # no card, or one without a header
        stated = None
    return str(stated) if stated else None


__all__ = ["describe", "is_foreign", "load", "network_recipe", "substitute", "substitute_in_reports"]
