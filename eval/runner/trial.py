"""One trial: a contender learns a subject with one seed, and is measured."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

import references
from echocare_hf.data.labelled import LabelledData
from echocare_hf.finetuning import FinetuneArguments, Job, fit, open_job, open_work_folder, rounded, run_record
from echocare_hf.finetuning.tasks.detection import Detection
from echocare_hf.finetuning.tasks.enhancement import Enhancement
from echocare_hf.finetuning.tasks.keypoints import Keypoints
from echocare_hf.finetuning.tasks.segmentation import Segmentation
from echocare_hf.reports.arguments import ReportArguments

from . import backbones
from .cases import Predictions, case_table
from .contact import keep_worst
from .contenders import Contender
from .measures import folders_of, measure
from .provenance import data_hash, machine, now, split_hash, stated_split_hash, versions
from .report_trial import RETRIEVAL_ENCODER, report_trial
from .store import (
    Trial,
    finished_trial,
    keep_settings,
    one_at_a_time,
    read_trial,
    seed_folders,
    trial_folder,
    work_folder,
    write_trial,
)
from .subjects import Arguments, Subject

UNSET = ("data", "output", "resume", "seed", "model", "metadata")
"""Arguments that may differ between the trials of one table: where things are, and the seed."""
DRAWN = (Segmentation, Detection, Keypoints, Enhancement)
"""Tasks whose predictions are shown in the image: of classes and measured values the captions say all."""


@dataclass
class Bench:
    """A subject whose data are read.

    Attributes:
        subject: what is measured.
        data: as its reader gives them.
        output: folder of results.
        differences: from the paper's counts, in sentences.
        pretrained: whether timm is asked for its weights.
    """

    subject: Subject
    data: LabelledData
    output: Path
    differences: tuple[str, ...] = ()
    pretrained: bool = False

    @cached_property
    def data_sha256(self) -> str:
        return data_hash(self.data)

    def settings(self, contender: Contender, arguments: Arguments) -> dict[str, Any]:
        """What all trials of a contender have in common, seed apart: a trial with others is another experiment."""
        values = {name: value for name, value in asdict(arguments).items() if name not in UNSET}
        if contender.kind == "floor":  # no recipe, no schedule
            known = ("split_seed", "fractions", "image_size", "resize_mode", "max_images")
            values = {name: values[name] for name in known if name in values}
        described = contender.describe(self.pretrained)
        told = {name: described.get(name) for name in ("source", "random_weights", "weights_sha256")}
        stated = stated_split_hash(self.data)
        split = {} if stated is None else {"stated_split_sha256": stated}
        # Shares were once dealt out by themselves, the same for every seed: such trials are another experiment.
        shares = {"shares": "nested, by seed"} if values.get("train_share", 1) < 1 else {}
        return {"task": self.subject.task, "data_sha256": self.data_sha256, **split, **shares, **told, **values}

    def folder(self, contender: Contender, seed: int) -> Path:
        return trial_folder(self.output, self.subject.key, contender.slug, seed)


def run_trial(bench: Bench, contender: Contender, arguments: Arguments) -> tuple[Trial, bool]:
    """Runs a trial, unless it is finished; one that was cut off goes on where its last epoch ended.

    Args:
        bench: the subject with its data.
        contender: who is measured.
        arguments: of its task, `seed` and `split_seed` among them; `model` and `output` are set here.

    Returns:
        The trial, and whether it was there already.

    Raises:
        ValueError: for data, arguments or a model that do not serve, in one line; and if there is another trial of this contender, of any
            seed, with other settings.
    """
    folder = bench.folder(contender, arguments.seed)
    model = RETRIEVAL_ENCODER if contender.source == "retrieval" else contender.model
    arguments = replace(
        arguments, model=model, output=str(folder), train_share=arguments.train_share * contender.train_share
    )
    settings = bench.settings(contender, arguments)
    with one_at_a_time(folder):
        for other in seed_folders(folder.parent):
            finished_trial(other, settings)
        there = finished_trial(folder, settings)
        if there is not None:
            return there, True
        if isinstance(arguments, ReportArguments):
            _report(bench, contender, arguments, settings, folder)
        else:
            _run(bench, contender, arguments, settings, folder)
        shutil.rmtree(work_folder(folder), ignore_errors=True)
        finished = read_trial(folder)
        assert finished is not None
        return finished, False


def _report(
    bench: Bench, contender: Contender, arguments: ReportArguments, settings: Mapping[str, Any], folder: Path
) -> None:
    record, cases, parts = report_trial(
        contender, bench.data, arguments, settings, work_folder(folder), bench.pretrained
    )
    write_trial(folder, record | _identity(bench, contender, arguments, parts, "score", settings), cases)


def _run(
    bench: Bench, contender: Contender, arguments: FinetuneArguments, settings: Mapping[str, Any], folder: Path
) -> None:
    start = time.monotonic()
    job = open_job(bench.subject.task, arguments, bench.data)  # type: ignore[arg-type]
    if contender.kind == "floor":
        predictions, own, trainer, extra = _floor(job, contender.source)
    else:
        predictions, own, trainer, extra = _trained(job, bench, contender, work_folder(folder), settings)
    measured = measure(job, folders_of(job, bench.subject.metrics), predictions)
    metrics = {part: own[part] | measured[part] for part in predictions}
    identity = _identity(bench, contender, arguments, job.parts, job.task.best_metric, settings)
    record = run_record(job, metrics, trainer, start) | extra | identity
    write_trial(folder, record, case_table(job, predictions), partial(_with_pictures, job, predictions))


def _with_pictures(job: Job, predictions: Predictions, cases: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The table of a trial with pictures of its worst cases, where the task draws something into the image; see `keep_worst`."""
    if not isinstance(job.task, DRAWN):
        return cases
    rows = [
        (found, sample)
        for part, all_found in predictions.items()
        for found, sample in zip(all_found, job.parts[part], strict=True)
    ]

    def draw(row: int) -> Image.Image:
        return job.task.draw(*rows[row])

    return keep_worst(cases, draw, folder)


Parts = tuple[dict[str, list[Any]], dict[str, dict[str, float]], Any, dict[str, Any]]


def _trained(job: Job, bench: Bench, contender: Contender, work: Path, settings: Mapping[str, Any]) -> Parts:
    """Predictions, the task's own metrics, the trainer, and what to record, of a model that is trained as `training/finetune.py` does."""
    if contender.kind == "backbone":
        model = backbones.substitute(job, contender.source, not contender.is_random(bench.pretrained))
    else:
        model = job.model()
    last = open_work_folder(work, job.data.task, job.arguments)
    keep_settings(work, settings, goes_on=last is not None)
    fitted = fit(job, model, work / "checkpoints", last)
    predictions, metrics = {}, {}
    for part in ("validation", "test"):
        if job.parts[part]:
            metrics[part], predictions[part] = fitted.trainer.assess(job.sets[part])
    extra: dict[str, Any] = {}
    if fitted.head_start is not None:
        start = rounded({job.task.best_metric: fitted.head_start.metric})
        extra["head_start"] = {"validation": start, "kept": fitted.kept}
    return predictions, metrics, fitted.trainer, extra


def _floor(job: Job, name: str) -> Parts:
    """The same of a floor; of several filters, the one that serves the validation part best."""
    for key, value in job.task.config_values(job.parts["train"]).items():
        setattr(job.config, key, value)
    extra: dict[str, Any] = {}
    if name == "pixels":
        predictions = references.logistic_regression(job)
    elif name == "mean":
        predictions = references.training_mean(job)
    else:
        found = references.filter_predictions(job)
        psnr = {
            each: job.task.metrics(values["validation"], job.parts["validation"], last=False)["psnr"]
            for each, values in found.items()
        }
        best = max(psnr, key=lambda each: psnr[each])
        predictions, extra["filter"] = found[best], best
    metrics = references.measured(job, predictions)
    if name == "mean":
        metrics = {part: values | references.observer_spread(job.parts[part]) for part, values in metrics.items()}
    return predictions, metrics, None, extra


def _identity(
    bench: Bench,
    contender: Contender,
    arguments: Arguments,
    parts: Mapping[str, list[Any]],
    best_metric: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """What a record says of who was measured on what, beside what training records."""
    return {
        "key": bench.subject.key,
        "seed": arguments.seed,
        "model": contender.name,
        "train_share": contender.train_share,
        "kind": contender.kind,
        "settings": dict(settings),
        "class_names": list(bench.data.class_names),
        "multi_label": bench.data.multi_label,
        "target_names": list(bench.data.target_names),
        "target_units": list(bench.data.target_units),
        "best_metric": best_metric,
        "provenance": {
            "model": contender.describe(bench.pretrained),
            "data_sha256": bench.data_sha256,
            "split": bench.subject.split,
            "split_sha256": split_hash(parts),
            "measured_sha256": split_hash({part: parts[part] for part in ("validation", "test")}),
            "cpu_minutes": None if contender.kind == "floor" else arguments.cpu_minutes,
            "split_sizes": {part: len(samples) for part, samples in parts.items()},
            "differences_from_the_paper": list(bench.differences),
            "versions": versions(),
            "machine": machine(),
            "finished": now(),
        },
    }
