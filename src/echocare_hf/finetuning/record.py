"""What a run leaves in metrics.json."""

import math
import os
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

import echocare_hf

from .arguments import FinetuneArguments
from .job import Job
from .models import is_hub_id
from .trainer import TaskTrainer

# The directories of an absolute path: what begins with a slash or a drive, up to the last separator. Their names may hold spaces, but not
# at their ends, so that two paths in a line are two.
_DIRECTORIES = re.compile(r"""(?<![\w.:/~-])/(?=\S)(?:[^/\n:"']*[^/\s:"']/)+|\b[A-Za-z]:[\\/](?:[^\\/\n:"']+[\\/])+""")


def run_record(
    job: Job, metrics: dict[str, dict[str, float]], trainer: TaskTrainer | None, start: float
) -> dict[str, Any]:
    """Data, arguments, cost, versions, metrics and history of a run, ready for JSON.

    No path of the machine is in it: folders and files are called by their last name, Hub ids are whole, and what looks wrong names files
    as the data does.

    Args:
        job: the run.
        metrics: of the parts validation and test.
        trainer: what trained the model; None for a method that learns nothing.
        start: `time.monotonic()` at its beginning.
    """
    arguments = job.arguments
    record = {
        "task": job.data.task,
        "arguments": {**asdict(arguments), **_names(arguments)},
        "random_weights": job.checkpoint is None,
        "samples": {name: len(samples) for name, samples in job.parts.items()},
        "groups": {
            name: len({sample.group or sample.name for sample in samples}) for name, samples in job.parts.items()
        },
        "licences": job.data.licences,
        "problems": [without_directories(problem, arguments.data) for problem in job.data.problems],
        "total_seconds": round(time.monotonic() - start, 1),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "threads": torch.get_num_threads(),
        "versions": {
            "echocare_hf": echocare_hf.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        **{part: rounded(values) for part, values in metrics.items()},
    }
    if trainer is None:
        return record
    assert trainer.model is not None
    return record | {
        "epochs": round(trainer.state.epoch or 0, 2),
        "steps": trainer.state.global_step,
        "training_seconds": round(trainer.progress.seconds(), 1),
        "precision": "bf16" if trainer.args.bf16 else "fp32",
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "history": [rounded(entry) for entry in trainer.state.log_history if "eval_loss" in entry],
    }


def _names(arguments: FinetuneArguments) -> dict[str, str]:
    """Those arguments that may be paths, without directories."""
    places = {name: short_name(getattr(arguments, name)) for name in ("data", "model")}
    files = {name: getattr(arguments, name) for name in ("output", "metadata")}  # never ids of the Hub
    return places | {name: Path(value).resolve().name for name, value in files.items() if value is not None}


def short_name(place: str) -> str:
    """What a record calls a folder, a file or a Hub id: the id as it is, of a path the last part."""
    if is_hub_id(place):
        return place
    name = Path(place).name
    return name if name not in ("", "..") else Path(place).resolve().name


def without_directories(line: str, data: str) -> str:
    """A line about files, as it reads from inside the data.

    Args:
        line: names files below `data` as the user wrote it or by absolute paths, and perhaps files elsewhere by absolute paths.
        data: the folder or file that was read, or a Hub id.

    Returns:
        The line with paths relative to the folder, which itself is called by its name; of files elsewhere the last part alone is left.
    """
    if is_hub_id(data):
        return _DIRECTORIES.sub("", line)
    folder = Path(data) if Path(data).is_dir() else Path(data).parent
    places = {str(folder), str(folder.absolute()), str(folder.resolve())}
    parents = {str(Path(place).parent) for place in places}  # an index of several data sets stands one folder up
    for place in sorted(places, key=len, reverse=True) + sorted(parents - places, key=len, reverse=True):
        if place not in (".", "..", os.sep):
            line = re.sub(rf"(?<![\w./-]){re.escape(place)}[/\\]", "", line)
            line = re.sub(rf"(?<![\w./-]){re.escape(place)}(?![\w-])", Path(place).name, line)
    return _DIRECTORIES.sub("", line)


def rounded(metrics: dict[str, float]) -> dict[str, float | None]:
    """Figures for JSON: five digits, None for what is not defined."""
    return {name: round(float(value), 5) if math.isfinite(value) else None for name, value in metrics.items()}
