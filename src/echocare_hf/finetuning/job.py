"""A fine-tuning run from its arguments: data read, checked and split, then training of any model that answers as the task's head does."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainerCallback, set_seed

from echocare_hf import EchoCareConfig
from echocare_hf.data.labelled import LabelledData, Sample, read_labelled
from echocare_hf.data.labelled.record import Task as TaskName
from echocare_hf.data.splits import share_of, split_by_group

from .adversarial import UnpairedTrainer
from .arguments import FinetuneArguments, read_options
from .callbacks import EarlyStop, HeadFirst, Progress
from .models import load_config, make_model, make_processor
from .prepared import PreparedData
from .tasks import TASKS, Task
from .trainer import TaskTrainer, training_arguments

PARTS = ("train", "validation", "test")


@dataclass
class Job:
    """What a run knows before it trains.

    Attributes:
        task: labels, predictions, metrics and pictures.
        arguments: of the run.
        data: what was read.
        parts: the samples of train, validation and test; no group is in two of them.
        sets: the same as tensors.
        config, checkpoint: where the encoder comes from; `checkpoint` is None for random weights.
    """

    task: Task
    arguments: FinetuneArguments
    data: LabelledData
    parts: dict[str, list[Sample]]
    sets: dict[str, PreparedData]
    config: EchoCareConfig
    checkpoint: str | None

    def model(self) -> torch.nn.Module:
        """The task's head on the checkpoint's encoder."""
        return make_model(self.task, self.config, self.checkpoint, self.arguments, self.parts["train"])

    def trainer(self, model: torch.nn.Module, folder: Path) -> TaskTrainer:
        """What trains `model` and measures it.

        Args:
            model: `forward(pixel_values=..., labels=...)` returns the loss and what the task's `predict` reads.
            folder: for checkpoints.
        """
        arguments = self.arguments
        progress = Progress(arguments.minutes, arguments.cpu_minutes, self.sets["train"])
        decay = arguments.layer_decay
        if decay is None:
            decay = 1.0 if self.checkpoint is None else 0.8
        callbacks: list[TrainerCallback] = [progress]
        head_first = None
        trains_all = not (arguments.freeze_encoder or arguments.lora_rank)
        if arguments.head_first > 0 and self.checkpoint is not None and trains_all and hasattr(model, "echocare"):
            head_first = HeadFirst(arguments.head_first, progress)
            callbacks.append(head_first)
        if arguments.patience:
            callbacks.append(EarlyStop(arguments.patience, head_first if arguments.head_first < 1 else None))
        kind = UnpairedTrainer if self.data.unpaired else TaskTrainer
        return kind(
            self.task,
            arguments,
            progress,
            self.config.depths,
            decay,
            model=model,
            args=training_arguments(self.task, arguments, folder),
            train_dataset=self.sets["train"],
            eval_dataset=self.sets["validation"],
            data_collator=self.task.collate,
            callbacks=callbacks,
        )


def open_job(task_name: TaskName, arguments: FinetuneArguments, data: LabelledData | None = None) -> Job:
    """Reads, checks and splits the data, and seeds all random numbers.

    Args:
        task_name: one of the tasks of fine-tuning.
        arguments: of the run.
        data: what was read already, such as a benchmark by its own reader; `arguments.data` is then only what messages call it. None to
            read `arguments.data`.

    Raises:
        ValueError: for data or arguments that do not serve, in one line.
    """
    set_seed(arguments.seed)
    if data is None:
        data = read_labelled(arguments.data, task_name, **read_options(arguments))
        print(data.summary(), flush=True)
    split_seed = arguments.seed if arguments.split_seed is None else arguments.split_seed
    train, validation, test = arguments.fractions
    split = split_by_group(data.samples, (train, validation, test), split_seed)
    parts = {name: [data.samples[index] for index in getattr(split, name)] for name in PARTS}
    print(split.report(), flush=True)
    if arguments.train_share < 1:
        parts["train"] = share_of(parts["train"], arguments.train_share, arguments.seed)
        print(f"{len(parts['train'])} of {len(split.train)} training samples, as --train_share says", flush=True)
    for name in ("train", "validation"):
        if not parts[name]:
            raise ValueError(f"{arguments.data}: has no {name} part; give it a share with --fractions")
    config, checkpoint = load_config(arguments)
    task = TASKS[task_name](data, make_processor(config, checkpoint, arguments), arguments)
    sets = {
        name: PreparedData(task, samples, arguments.seed if name == "train" else None).prepare_all(name)
        for name, samples in parts.items()
    }
    return Job(task, arguments, data, parts, sets, config, checkpoint)
