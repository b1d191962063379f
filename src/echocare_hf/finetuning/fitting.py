"""Training as `training/finetune.py` does it: the start of the head, adapters, the schedule; the start again, if it was clearly better."""

from dataclasses import dataclass
from pathlib import Path

import torch

from .head_start import HeadStart, start_head
from .job import Job
from .models import with_adapters
from .trainer import TaskTrainer, train
from .uncertainty import difference_error

CLEARLY = 2.0  # standard errors


@dataclass
class Fitted:
    """A trained model.

    Attributes:
        trainer: with the best weights in its model.
        head_start: how good the model was before training; None where its head started from random weights.
        kept: whether training clearly made that start worse, so that its weights are back.
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
        start = start and HeadStart.of(model, start.metric, start.predictions)
    trainer = job.trainer(model, checkpoints)
    train(trainer, last)
    if start is None or not clearly_better(job, start, trainer):
        return Fitted(trainer, start, kept=False)
    model.load_state_dict(start.weights)
    return Fitted(trainer, start, kept=True)


def clearly_better(job: Job, start: HeadStart, trainer: TaskTrainer) -> bool:
    """Whether the validation part says that training made the start of the head worse, by more than two standard errors.

    By less it cannot tell them apart, and choosing the better of both by it chose the worse for people who were left out
    (docs/results.md, "The start of a head").
    """
    best = trainer.state.best_metric
    if best is None:  # nothing was evaluated
        return False
    ahead = start.metric - best if job.task.greater_is_better else best - start.metric
    if not ahead > 0:
        return False
    samples = job.parts["validation"]
    trained = trainer.assess(job.sets["validation"], last=False)[1]
    error = difference_error(
        lambda predictions, drawn: job.task.metrics(predictions, drawn, last=False)[job.task.best_metric],
        start.predictions,
        trained,
        samples,
    )
    return ahead > CLEARLY * error


__all__ = ["Fitted", "clearly_better", "fit"]
