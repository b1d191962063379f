"""Training as `training/report.py` does it: each part's start, the schedule, the better of start and end, thresholds of the findings."""

from dataclasses import dataclass
from pathlib import Path

from echocare_hf.finetuning import train
from echocare_hf.finetuning.head_start import HeadStart

from .checking import FindingThresholds
from .job import ReportJob
from .start import prepare_start
from .trainer import ReportTrainer, make_trainer


@dataclass(frozen=True)
class FittedReports:
    """A trained generator.

    Attributes:
        trainer: with the best weights in its model.
        start: how good the generator was before it saw images.
        kept: whether the images brought nothing better, so that its weights are back.
        thresholds: of the findings, chosen on the validation part.
    """

    trainer: ReportTrainer
    start: HeadStart
    kept: bool
    thresholds: FindingThresholds


def fit_reports(job: ReportJob, checkpoints: Path, last: str | None = None) -> FittedReports:
    """Trains the generator as the job's arguments say.

    Args:
        job: the run.
        checkpoints: folder for them.
        last: checkpoint of a run that was cut off, to go on from.

    Raises:
        ValueError: out of memory, with what to try.
    """
    spent = prepare_start(job)
    trainer = make_trainer(job.task, job.model, job.sets, job.arguments, not job.is_random, checkpoints)
    trainer.progress.seconds_done = spent  # a run that goes on has its own
    start = HeadStart.of(job.model, trainer.assess(job.sets["validation"], last=False)[0]["score"])
    train(trainer, last)
    kept = start.restore_if_better(job.model, trainer.state.best_metric, True)
    if kept:
        print(
            f"the images brought nothing better than the start, whose score was {start.metric:.3f}: it is kept",
            flush=True,
        )
    _, answers = trainer.assess(job.sets["validation"])
    thresholds = FindingThresholds.choose(
        job.task.findings, answers.probabilities, job.targets("validation"), job.arguments.reliability
    )
    return FittedReports(trainer, start, kept, thresholds)


__all__ = ["FittedReports", "fit_reports"]
