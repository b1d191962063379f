"""Every value of a fine-tuning run."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class FinetuneArguments:
    """Every value can stand in a recipe or on the command line."""

    data: str = field(default="", metadata={"help": "folder, file or Hub id of labelled images"})
    output: str = field(default="", metadata={"help": "folder to make; it appears when all is done"})
    model: str = field(
        default="echocare-tiny",
        metadata={"help": "folder or Hub id of an EchoCare checkpoint; tiny, base or large for random weights"},
    )
    seed: int = field(default=0, metadata={"help": "of the weights, the order and the augmentation"})
    split_seed: int | None = field(default=None, metadata={"help": "of the split; --seed if not given"})
    fractions: list[float] = field(
        default_factory=lambda: [0.7, 0.15, 0.15], metadata={"help": "shares of train, validation and test"}
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
        default=15, metadata={"help": "epochs without a better validation metric before training ends; 0 for never"}
    )
    max_grad_norm: float = field(default=1.0, metadata={"help": "gradients are clipped to this norm"})
    image_size: int | None = field(
        default=None, metadata={"help": "side of the input in pixels; that of the checkpoint if not given"}
    )
    resize_mode: str = field(default="squash", metadata={"help": "squash or pad"})
    drop_path: float | None = field(
        default=None, metadata={"help": "stochastic depth; that of the checkpoint if not given"}
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
    balance_classes: bool = field(default=True, metadata={"help": "weight the loss of each class by how rare it is"})
    ordinal: bool = field(default=False, metadata={"help": "the classes are ordered, such as BI-RADS"})
    deep_supervision: float = field(
        default=0.0, metadata={"help": "weight of the losses on the decoder's coarser maps"}
    )
    num_frames: int = field(default=16, metadata={"help": "most frames of a clip"})
    degradation: float = field(
        default=1.0, metadata={"help": "enhancement without pairs: how much worse images are made"}
    )

    label: str | None = field(default=None, metadata={"help": "column of classes"})
    classes: list[str] | None = field(default=None, metadata={"help": "the classes in their order, and no others"})
    group: str | None = field(default=None, metadata={"help": "column of what must stay together: patient, clip, ..."})
    group_pattern: str | None = field(
        default=None, metadata={"help": "the same as a regular expression on file names"}
    )
    split: str | None = field(default=None, metadata={"help": "column of train, validation, test; 'ignore' for none"})
    mask: str | None = field(default=None, metadata={"help": "column of masks"})
    mask_values: list[str] | None = field(default=None, metadata={"help": "such as 0=background 1=nerve 255=ignore"})
    target: list[str] | None = field(default=None, metadata={"help": "columns of measured values"})
    keypoints: list[str] | None = field(default=None, metadata={"help": "names of the landmarks"})
    sequence: str | None = field(default=None, metadata={"help": "column of the clip that a frame belongs to"})
    metadata: str | None = field(default=None, metadata={"help": "name of the table in the folder"})


# The options of `read_labelled` among them.
READ_OPTIONS = (
    "label",
    "classes",
    "group",
    "group_pattern",
    "split",
    "mask",
    "mask_values",
    "target",
    "keypoints",
    "sequence",
    "metadata",
)


def read_options(arguments: FinetuneArguments) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in READ_OPTIONS if getattr(arguments, name) is not None}
