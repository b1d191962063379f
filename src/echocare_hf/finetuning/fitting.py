"""Training as `training/finetune.py` does it: the start of the head, adapters, the schedule, and the better of start and end."""

from dataclasses import dataclass
from pathlib import Path

import torch

from .head_start import HeadStart, start_head
from .job import Job
from .models import with_adapters
from .trainer import TaskTrainer, train


@dataclass
class Fitted:
    """A trained model.

    Attributes:
        trainer: with the best weights in its model.
        head_start: how good the model was before training; None where its head started from random weights.
        kept: whether training brought nothing better than that start, so that its weights are back.
    """

    trainer: TaskTrainer
    head_start: HeadStart | None
    kept: bool


def fit(job: Job, model: torch.nn.Module, checkpoints: Path, last: str | None = None) -> Fitted:
    """Trains a model as the job's arguments say.

    Args:
        job: the run.
        model: `job.model()`, or another one under the task's head.
        checkpoints: folder for them.
        last: checkpoint of a run that was cut off, to go on from.

    Raises:
        ValueError: out of memory, with what to try; or if adapters are asked for and peft is not installed.
    """
    start = start_head(job, model)
    if job.arguments.lora_rank:
        model = with_adapters(model, job.arguments.lora_rank)
        start = start and HeadStart.of(model, start.metric)
    trainer = job.trainer(model, checkpoints)
    train(trainer, last)
    kept = start is not None and start.restore_if_better(model, trainer.state.best_metric, job.task.greater_is_better)
    return Fitted(trainer, start, kept)


__all__ = ["Fitted", "fit"]
