"""Every value of a fine-tuning run."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from echocare_hf.data.labelled.record import TASKS
from echocare_hf.data.labelled.record import Task as TaskName

from .ranges import check_values

RECIPES = Path(__file__).resolve().parent / "recipes"


@dataclass
class FinetuneArguments:
    """Every value can stand in a recipe or on the command line.

    Raises:
        ValueError: for a value out of its range, and for values that do not go together.
    """

    data: str = field(default="", metadata={"help": "folder, file or Hub id of labelled images"})
    output: str = field(default="", metadata={"help": "folder to make; it appears when all is done"})
    model: str = field(
        default="echocare-tiny",
        metadata={"help": "folder or Hub id of an EchoCare checkpoint; tiny, base or large for random weights"},
    )
    seed: int = field(
        default=0,
        metadata={"help": "of the weights, the order, the augmentation and the labels that --train_share takes"},
    )
    split_seed: int | None = field(default=None, metadata={"help": "of the split; --seed if not given"})
    fractions: list[float] = field(
        default_factory=lambda: [0.7, 0.15, 0.15], metadata={"help": "shares of train, validation and test"}
    )
    train_share: float = field(
        default=1.0,
        metadata={"help": "share of the training part to learn from, group by group: for label efficiency"},
    )

    epochs: int = field(default=30, metadata={"help": "passes over the training part"})
    minutes: float | None = field(
        default=None, metadata={"help": "end the schedule after this time, if it is not through"}
    )
    cpu_minutes: float | None = field(
        default=None, metadata={"help": "the same in processor time of this process, evaluations not counted"}
    )
    batch_size: int = field(default=16, metadata={"help": "images a step (clips for video)"})
    accumulation: int = field(default=1, metadata={"help": "batches a step of the optimizer"})
    learning_rate: float = field(default=1e-3, metadata={"help": "highest, of the head"})
    layer_decay: float | None = field(
        default=None,
        metadata={
            "help": "factor of the learning rate per layer below the head; 0.8 for trained weights, 1 for random ones if not given"
        },
    )
    weight_decay: float = field(default=0.05, metadata={"help": "of AdamW"})
    warmup: float = field(default=0.1, metadata={"help": "share of the schedule in which the learning rate rises"})
    patience: int = field(
        default=15,
        metadata={
            "help": "epochs without a better validation metric before training ends, from when the encoder learns; 0 for never"
        },
    )
    max_grad_norm: float = field(default=1.0, metadata={"help": "gradients are clipped to this norm"})
    image_size: int | None = field(
        default=None, metadata={"help": "side of the input in pixels; that of the checkpoint if not given"}
    )
    resize_mode: str = field(default="squash", metadata={"help": "squash or pad"})
    drop_path: float | None = field(
        default=None, metadata={"help": "stochastic depth; that of the checkpoint if not given"}
    )
    head_start: bool = field(
        default=True,
        metadata={
            "help": "classification and regression, of images or clips, from trained weights: start with a linear model of the features"
        },
    )
    head_first: float = field(
        default=0.0, metadata={"help": "from trained weights: share of the schedule in which the head alone learns"}
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "train the head alone"})
    lora_rank: int = field(
        default=0, metadata={"help": "train low-rank adapters of this rank in the encoder (needs peft)"}
    )
    bf16: bool | None = field(
        default=None, metadata={"help": "train in bfloat16; where the machine is fast at it if not given"}
    )
    gradient_checkpointing: bool = field(default=False, metadata={"help": "less memory, slower"})
    resume: bool = field(default=True, metadata={"help": "go on with a run that was cut off"})

    augmentation: float = field(default=1.0, metadata={"help": "strength, 0 for none"})
    flip: bool = field(default=True, metadata={"help": "mirror images left to right"})
    balance_classes: bool = field(
        default=True,
        metadata={"help": "weight the loss of each class, and of each finding that is present, by how rare it is"},
    )
    ordinal: bool = field(default=False, metadata={"help": "the classes are ordered, such as BI-RADS"})
    deep_supervision: float = field(
        default=0.0, metadata={"help": "weight of the losses on the decoder's coarser maps"}
    )
    num_frames: int = field(default=16, metadata={"help": "most frames of a clip"})
    degradation: float = field(
        default=1.0, metadata={"help": "enhancement without pairs: how much worse images are made"}
    )

    discriminator: bool = field(
        default=False,
        metadata={
            "help": "enhancement with low and high images that are no pairs: learn from the low ones what makes them low"
        },
    )
    adversarial_weight: float = field(default=0.01, metadata={"help": "weight of the discriminator's loss"})

    label: list[str] | None = field(
        default=None,
        metadata={
            "help": "column of classes; several columns of 0 and 1 (empty where not known) are findings that may occur together"
        },
    )
    classes: list[str] | None = field(default=None, metadata={"help": "the classes in their order, and no others"})
    group: str | None = field(default=None, metadata={"help": "column of what must stay together: patient, clip, ..."})
    group_pattern: str | None = field(
        default=None, metadata={"help": "the same as a regular expression on file names"}
    )
    split: str | None = field(default=None, metadata={"help": "column of train, validation, test; 'ignore' for none"})
    image: str | None = field(default=None, metadata={"help": "column of images"})
    mask: str | None = field(default=None, metadata={"help": "column of masks"})
    mask_values: list[str] | None = field(
        default=None,
        metadata={"help": "such as 0=background 1=nerve 255=ignore; threshold for masks that were saved as JPEG"},
    )
    one_class: str | None = field(default=None, metadata={"help": "detection: name of the class of all boxes"})
    target: list[str] | None = field(default=None, metadata={"help": "columns of measured values"})
    keypoints: list[str] | None = field(default=None, metadata={"help": "names of the landmarks"})
    keypoint_pairs: list[str] | None = field(
        default=None, metadata={"help": "landmarks whose order has no meaning, such as left=right"}
    )
    first_pixel: str | None = field(
        default=None, metadata={"help": "coordinates count from its centre or its edge (the outer one)"}
    )
    sequence: str | None = field(default=None, metadata={"help": "column of the clip that a frame belongs to"})
    clip_frames: int | None = field(
        default=None, metadata={"help": "most frames of a clip where the value changes from frame to frame"}
    )
    min_frames: int | None = field(default=None, metadata={"help": "sequences of fewer frames are left out"})
    frame_rate: float | None = field(default=None, metadata={"help": "frames a second, where no column says it"})
    metadata: str | None = field(default=None, metadata={"help": "name of the table in the folder"})

    strict: bool = field(default=False, metadata={"help": "end where a file cannot be read, rather than leave it out"})

    def __post_init__(self) -> None:
        check_values(vars(self), frozenset(entry.name for entry in fields(self) if entry.default is None))


# The options of `read_labelled` among them.
READ_OPTIONS = (
    "label",
    "classes",
    "group",
    "group_pattern",
    "split",
    "image",
    "mask",
    "mask_values",
    "one_class",
    "target",
    "keypoints",
    "keypoint_pairs",
    "first_pixel",
    "sequence",
    "clip_frames",
    "min_frames",
    "frame_rate",
    "metadata",
    "strict",
)


def read_options(arguments: FinetuneArguments) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in READ_OPTIONS if getattr(arguments, name) is not None}


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and the value that each option has if it is not given; after TASK those of its recipe."""


def parse_arguments(argv: Sequence[str], description: str) -> tuple[TaskName, FinetuneArguments]:
    """The task and its arguments: defaults, then the recipe, then the command line.

    Args:
        argv: the task, then options. `--recipe FILE` names the recipe; without it, that of the task.
        description: what `--help` says before the options.

    Raises:
        ValueError: for a recipe that cannot be read or has an unknown value, for data or output that are not named, and for what
            `FinetuneArguments` refuses.
        SystemExit: after `--help`, and for unknown options.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("task", choices=TASKS, metavar="TASK")
    first.add_argument("--recipe", type=Path)
    parser = HfArgumentParser(
        FinetuneArguments,  # type: ignore[arg-type]  # its annotation does not name dataclasses
        description=description,
        formatter_class=_Help,
        usage="finetune.py TASK --data D --output O [options]",
    )
    parser.add_argument("--recipe", help="YAML file of values; that of the task if not given")
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        raise SystemExit(0 if argv else 2)
    known, rest = first.parse_known_args(argv)
    recipe = known.recipe or RECIPES / f"{known.task}.yaml"
    try:
        values = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{recipe}: cannot be read as a recipe ({str(error).splitlines()[0]})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{recipe}: holds no values by name; write one a line, such as epochs: 60")
    unknown = sorted(set(values) - {entry.name for entry in fields(FinetuneArguments)})
    if unknown:
        raise ValueError(f"{recipe}: unknown value {', '.join(unknown)}; `--help` lists them all")
    parser.set_defaults(**values)
    arguments = parser.parse_args_into_dataclasses(rest)[0]
    for name in ("data", "output"):
        if not getattr(arguments, name):
            raise ValueError(f"--{name} is needed")
    return known.task, arguments
