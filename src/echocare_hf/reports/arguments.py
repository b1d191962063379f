"""Every value of a training run of the report generator."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import HfArgumentParser

from echocare_hf.finetuning.ranges import COUNT, NOT_NEGATIVE, POSITIVE, RANGES, Range

from .pair_tables import COLUMNS

DECODERS = ("tiny", "base", "large")


@dataclass
class ReportArguments:
    """The values and their defaults.

    Raises:
        ValueError: for a value out of its range, and for values that do not go together.
    """

    data: str = field(
        default="", metadata={"help": "image-report pairs: .json, .jsonl, .csv, .tsv, .parquet or a folder"}
    )
    phantoms: int = field(default=0, metadata={"help": "make this many phantom exams instead of reading data"})
    languages: list[str] = field(
        default_factory=lambda: ["en", "zh"], metadata={"help": "of the phantom exams' reports: en, zh or both"}
    )
    output: str = field(default="", metadata={"help": "folder to make; it appears when all is done"})
    model: str = field(
        default="echocare-tiny",
        metadata={
            "help": "folder or Hub id of an EchoCare encoder, or of a report generator to train on; tiny, base or large for random weights"
        },
    )
    decoder: str = field(
        default="",
        metadata={
            "help": "size of a fresh decoder: tiny, base or large; as --model tiny, base or large say, else tiny"
        },
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

    images: str | None = field(default=None, metadata={"help": "folder of the images, if it is not that of the data"})
    columns: list[str] = field(
        default_factory=list,
        metadata={"help": f"which column is what, such as report=report_md group=clip; of {', '.join(COLUMNS)}"},
    )
    organ: str = field(default="", metadata={"help": "of all reports that name none"})
    language: str | None = field(
        default=None, metadata={"help": "of all reports that name none, such as de; told by the script if not given"}
    )
    strict: bool = field(
        default=False, metadata={"help": "end at a pair that cannot be used, rather than leave it out"}
    )

    epochs: int = field(default=30, metadata={"help": "passes over the training part"})
    minutes: float | None = field(default=None, metadata={"help": "end the schedule after this time"})
    cpu_minutes: float | None = field(
        default=None, metadata={"help": "the same in processor time of this process, evaluations not counted"}
    )
    evaluate_every: int = field(
        default=1,
        metadata={"help": "epochs between two evaluations with generated text, after which a cut-off run goes on"},
    )
    batch_size: int = field(default=8, metadata={"help": "reports a step"})
    accumulation: int = field(default=1, metadata={"help": "batches a step of the optimizer"})
    learning_rate: float = field(default=1e-3, metadata={"help": "highest, of the decoder and the heads"})
    encoder_rate: float | None = field(
        default=None,
        metadata={
            "help": "learning rate of the encoder over that of the rest; 0.2 for trained weights, 1 for random ones"
        },
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "the encoder does not learn"})
    copies: int = field(
        default=4, metadata={"help": "with --freeze_encoder, augmented copies of each exam that are encoded, once"}
    )
    weight_decay: float = field(default=0.05, metadata={"help": "of AdamW"})
    warmup: float = field(default=0.05, metadata={"help": "share of the schedule in which the learning rate rises"})
    patience: int = field(
        default=8, metadata={"help": "evaluations without a better score before training ends; 0 for never"}
    )
    max_grad_norm: float = field(default=1.0, metadata={"help": "gradients are clipped to this norm"})
    augmentation: float = field(default=1.0, metadata={"help": "strength, 0 for none; images are never mirrored"})
    bf16: bool | None = field(default=None, metadata={"help": "train in bfloat16; where the machine is fast at it"})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "less memory, slower"})
    resume: bool = field(default=True, metadata={"help": "go on with a run that was cut off"})

    image_size: int | None = field(
        default=None, metadata={"help": "side of the input in pixels; that of the checkpoint"}
    )
    max_images: int = field(default=2, metadata={"help": "most images a report; a clip gives as many key frames"})
    vocab_size: int = field(
        default=4096, metadata={"help": "most tokens of the tokenizer, which is trained on the reports"}
    )
    max_tokens: int = field(
        default=256,
        metadata={"help": "most tokens of a report; longer ones are not learned from, generation ends there"},
    )
    num_beams: int = field(
        default=1, metadata={"help": "beams of the last evaluation, instead of --candidates; in training there is one"}
    )
    candidates: int = field(
        default=16,
        metadata={
            "help": "texts drawn of an exam, to keep the one that the others agree with; 1 for the most probable words"
        },
    )
    findings: list[str] | None = field(
        default=None, metadata={"help": "findings to tell; those present in two training reports or more if not given"}
    )
    unmentioned: str = field(
        default="absent",
        metadata={"help": "what a finding is taken for of which a report does not speak: absent or unknown"},
    )
    findings_weight: float = field(
        default=1.0, metadata={"help": "weight of the findings loss; 0 for no findings head"}
    )
    text_steps: int = field(
        default=300,
        metadata={"help": "steps in which the decoder learns the texts and their findings before it sees images"},
    )
    head_start: bool = field(
        default=True, metadata={"help": "the findings head starts from a linear model of a trained encoder's features"}
    )
    finding_tokens: bool = field(
        default=True, metadata={"help": "tell the decoder what the findings head tells, before it writes"}
    )
    image_dropout: float = field(
        default=0.5,
        metadata={"help": "with --finding_tokens, share of the reports that are learned from the findings alone"},
    )
    reliability: float = field(
        default=0.9, metadata={"help": "share of validation exams in which the head must be right to flag a sentence"}
    )

    def __post_init__(self) -> None:
        check_arguments(self)

    def column_names(self) -> dict[str, str]:
        """`columns` by what they are."""
        return dict(entry.split("=", 1) for entry in self.columns)


_OWN_RANGES = {
    "phantoms": Range(0, whole=True),
    "evaluate_every": COUNT,
    "encoder_rate": POSITIVE,
    "max_images": COUNT,
    "vocab_size": Range(262, whole=True),
    "max_tokens": Range(4, whole=True),
    "num_beams": COUNT,
    "candidates": COUNT,
    "copies": Range(0, whole=True),
    "text_steps": Range(0, whole=True),
    "image_dropout": Range(0, 1),
    "findings_weight": NOT_NEGATIVE,
    "reliability": Range(0.5, 1),
}
_OPTIONAL = ("split_seed", "minutes", "cpu_minutes", "encoder_rate", "image_size")


def check_arguments(arguments: ReportArguments) -> None:
    """Raises:
    ValueError: for the first value that is not allowed, with its flag, its value and what is.
    """
    values = vars(arguments)
    for name, allowed in {**RANGES, **_OWN_RANGES}.items():
        if name in values and not (values[name] is None and name in _OPTIONAL) and not allowed.allows(values[name]):
            raise ValueError(f"--{name} is {values[name]}: give {allowed}")
    shares = values["fractions"]
    if len(shares) != 3 or not all(NOT_NEGATIVE.allows(share) for share in shares) or min(shares[:2]) <= 0:
        raise ValueError(
            "--fractions is {}: give three numbers, the shares of train and validation (above 0) and test".format(
                " ".join(map(str, shares))
            )
        )
    for entry in values["columns"]:
        if "=" not in entry or entry.split("=", 1)[0] not in COLUMNS:
            raise ValueError(f"--columns is {entry}: give what=name, where what is one of {', '.join(COLUMNS)}")
    if values["unmentioned"] not in ("absent", "unknown"):
        raise ValueError(f"--unmentioned is {values['unmentioned']}: give absent or unknown")
    if values["decoder"] and values["decoder"] not in DECODERS:
        raise ValueError(f"--decoder is {values['decoder']}: give {', '.join(DECODERS)}")
    if values["decoder"] and values["model"] in DECODERS and values["model"] != values["decoder"]:
        raise ValueError(f"--model {values['model']} comes with a decoder of its size: leave --decoder out")
    if values["minutes"] is not None and values["cpu_minutes"] is not None:
        raise ValueError("--minutes and --cpu_minutes: give one of them, not both")
    if unknown := [language for language in values["languages"] if language not in ("en", "zh")]:
        raise ValueError(f"--languages is {unknown[0]}: phantom exams have reports in en and zh")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and the default of each option."""


def parse_report_arguments(argv: Sequence[str], description: str) -> ReportArguments:
    """The arguments of a command line.

    Args:
        argv: the options.
        description: what `--help` says before the options.

    Raises:
        ValueError: for what `ReportArguments` refuses, and for data or output that are not named.
        SystemExit: after `--help`, and for unknown options.
    """
    parser = HfArgumentParser(
        ReportArguments,  # type: ignore[arg-type]  # its annotation does not name dataclasses
        description=description,
        formatter_class=_Help,
        usage="report.py --data PAIRS --output DIR [options]",
    )
    if not argv:
        parser.print_help()
        raise SystemExit(2)
    arguments = parser.parse_args_into_dataclasses(list(argv))[0]
    if bool(arguments.data) == bool(arguments.phantoms):
        raise ValueError("give either --data with image-report pairs or --phantoms with a number of phantom exams")
    if not arguments.output:
        raise ValueError("--output is needed")
    return arguments


__all__ = ["ReportArguments", "parse_report_arguments"]
