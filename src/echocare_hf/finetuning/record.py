"""What a run leaves in metrics.json."""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

import echocare_hf

from .job import Job
from .trainer import TaskTrainer


def run_record(
    job: Job, metrics: dict[str, dict[str, float]], trainer: TaskTrainer | None, start: float
) -> dict[str, Any]:
    """Data, arguments, cost, versions, metrics and history of a run, ready for JSON; paths are left out.

    Args:
        job: the run.
        metrics: of the parts validation and test.
        trainer: what trained the model; None for a method that learns nothing.
        start: `time.monotonic()` at its beginning.
    """
    arguments = job.arguments
    record = {
        "task": job.data.task,
        "arguments": {**asdict(arguments), "data": Path(arguments.data).name, "output": Path(arguments.output).name},
        "samples": {name: len(samples) for name, samples in job.parts.items()},
        "groups": {
            name: len({sample.group or sample.name for sample in samples}) for name, samples in job.parts.items()
        },
        "licences": job.data.licences,
        "problems": list(job.data.problems),
        "total_seconds": round(time.monotonic() - start, 1),
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


def rounded(metrics: dict[str, float]) -> dict[str, float | None]:
    """Figures for JSON: five digits, None for what is not defined."""
    return {name: round(float(value), 5) if math.isfinite(value) else None for name, value in metrics.items()}
