"""The model of a task from a checkpoint's encoder, and how fast each part of it learns."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from echocare_hf import EchoCareConfig, EchoCareImageProcessorPil
from echocare_hf.checkpoints import find_checkpoint, shipped_checkpoints
from echocare_hf.data.labelled import Sample

from .arguments import FinetuneArguments
from .tasks import Task

PRESETS = ("tiny", "base", "large")  # random weights

# What the configuration says of a task rather than of the encoder.
HEAD_VALUES = (
    *("id2label", "label2id", "problem_type", "class_weights", "positive_weights"),
    *("regression_mean", "regression_deviation", "regression_unit"),
    *(
        "num_keypoints",
        "keypoint_names",
        "keypoint_pairs",
        "oriented_boxes",
        "refine_ellipses",
        "deep_supervision_weight",
    ),
)


def is_hub_id(name: str) -> bool:
    """Whether it is an id on the Hub, organisation and name, rather than a path."""
    return not Path(name).exists() and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


@contextmanager
def checkpoint_errors(name: str) -> Iterator[None]:
    """Tells in one line that a checkpoint cannot be loaded."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{name}: cannot be loaded as a checkpoint ({reason}); {_model_choices()}") from error


@contextmanager
def no_load_report() -> Iterator[None]:
    """Without transformers' table of weights that a checkpoint has not: a head that is to be trained has none there."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)


def _check_encoder(checkpoint: str, report: dict[str, Any]) -> None:
    """Refuses a checkpoint that would leave a part of the encoder at random weights."""
    names = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    if absent := sorted(str(name) for name in names if str(name).startswith("echocare.")):
        raise ValueError(
            f"{checkpoint}: has no fitting weights for {len(absent)} parts of the encoder, {absent[0]} among them; its config.json is of "
            "another model: save or convert it again"
        )


def _model_choices() -> str:
    names = ", ".join((*shipped_checkpoints(), *PRESETS))
    return f"--model takes a folder that save_pretrained made, a Hub id such as organisation/name, or one of {names}"


def load_config(arguments: FinetuneArguments) -> tuple[EchoCareConfig, str | None]:
    """The configuration to start from, and the checkpoint that has the weights; None for random ones.

    Raises:
        ValueError: if there is no such checkpoint, it cannot be read, or it is none of EchoCare.
    """
    if arguments.model in PRESETS:
        return EchoCareConfig.preset(arguments.model), None
    name = find_checkpoint(arguments.model)
    if not Path(name).is_dir() and not is_hub_id(name):
        raise ValueError(f"{name}: there is no such folder; {_model_choices()}")
    with checkpoint_errors(name):
        config = transformers.AutoConfig.from_pretrained(name)
    if not isinstance(config, EchoCareConfig):
        raise ValueError(f"{name}: is a {config.model_type} checkpoint; --model takes an EchoCare one")
    return config, name


def make_model(
    task: Task, config: EchoCareConfig, checkpoint: str | None, arguments: FinetuneArguments, train: Sequence[Sample]
) -> Any:
    """The task's head on the checkpoint's encoder, without adapters: see `with_adapters`.

    Raises:
        ValueError: if the weights cannot be read, or the labels or the size of the images do not suit the head.
    """
    usual = EchoCareConfig()
    for name in HEAD_VALUES:  # what a checkpoint's former task has left there
        setattr(config, name, getattr(usual, name))
    for name, value in task.config_values(train).items():
        setattr(config, name, value)
    config.image_size = list(task.size) if task.size[0] != task.size[1] else task.size[0]
    if arguments.drop_path is not None:
        config.drop_path_rate = arguments.drop_path
    auto_class = getattr(transformers, task.auto_class)
    if checkpoint is None:
        model = auto_class.from_config(config)
    else:
        with checkpoint_errors(checkpoint), no_load_report():
            model, report = auto_class.from_pretrained(
                checkpoint, config=config, ignore_mismatched_sizes=True, output_loading_info=True
            )
        _check_encoder(checkpoint, report)
    if arguments.freeze_encoder:
        model.echocare.requires_grad_(False)
    return model


def with_adapters(model: Any, rank: int) -> Any:
    """Low-rank adapters in the linear layers of the encoder; the head is trained whole (LoRA, Hu et al. 2021)."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ValueError("--lora_rank needs peft: pip install peft") from error
    heads: list[str] = []
    for name, child in model.named_children():
        if name != "echocare" and (list(child.parameters()) or list(child.buffers())):
            # peft takes modules that have a forward, which a list of modules has not.
            parts = [f"{name}.{part}" for part, _ in child.named_children()]
            heads += parts if isinstance(child, torch.nn.ModuleList) else [name]
    layers = r"echocare\..*\.(qkv|projection|fc1|fc2|reduction)"
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers, modules_to_save=heads))


def layer_of(name: str, depths: Sequence[int]) -> int:
    """How far up in the model a parameter stands: 0 for the embeddings, then one for each block, highest for the head."""
    total = sum(depths) + 1
    if "echocare.embeddings" in name:
        return 0
    if "echocare.encoder.stages." not in name:
        return total
    place = name.split("echocare.encoder.stages.")[1].split(".")
    below = 1 + sum(depths[: int(place[0])])
    if place[1] == "blocks":
        return below + int(place[2])
    return below if place[1] == "conv_block" else below + depths[int(place[0])] - 1


def parameter_groups(
    model: torch.nn.Module, depths: Sequence[int], arguments: FinetuneArguments, decay: float
) -> list[dict[str, Any]]:
    """Parameters by learning rate and weight decay: lower layers learn more slowly; biases, norms and tables do not decay."""
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
    top = sum(depths) + 1
    # An encoder of another kind may know its own layers.
    place = getattr(getattr(model, "echocare", None), "layer_of", layer_of)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim < 2 or "relative_position_bias_table" in name or "mask_token" in name
            groups.setdefault((place(name, depths), plain), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": arguments.learning_rate * decay ** (top - layer),
            "weight_decay": 0.0 if plain else arguments.weight_decay,
        }
        for (layer, plain), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]


def make_processor(config: EchoCareConfig, checkpoint: str | None, arguments: FinetuneArguments) -> Any:
    """The checkpoint's image processor, or a new one, with the size that is asked for."""
    side = arguments.image_size or config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    size = {"height": height, "width": width}
    if checkpoint is None:
        return EchoCareImageProcessorPil(size=size, resize_mode=arguments.resize_mode)
    with checkpoint_errors(checkpoint):
        processor = EchoCareImageProcessorPil.from_pretrained(checkpoint)
    processor.size, processor.resize_mode = transformers.image_utils.SizeDict(**size), arguments.resize_mode
    return processor
