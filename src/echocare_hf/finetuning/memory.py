"""Lack of memory is told in one line, with what to try."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from .arguments import FinetuneArguments
from .tasks import Task
from .work_folder import last_checkpoint

STEP = 32  # the sides of the inputs that are suggested are multiples of it


@contextmanager
def memory_advice(task: Task, arguments: FinetuneArguments, checkpoints: Path | None = None) -> Iterator[None]:
    """Turns lack of memory inside into a `ValueError` that says which arguments to try.

    Args:
        task: its input size is what a step costs memory for.
        arguments: of the run.
        checkpoints: folder of checkpoints of this run, if it has one: with other values it must start anew.

    Raises:
        ValueError: out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)  # a CPU raises a plain RuntimeError
        if not known and "allocate" not in str(error):
            raise
        height, width = task.size
        advice = _advice(task, arguments)
        if not arguments.gradient_checkpointing:
            advice.append("--gradient_checkpointing true")
        if checkpoints is not None and last_checkpoint(checkpoints) is not None:
            advice = [f"{values} --resume false" for values in advice]
        cure = f"try {', or '.join(advice)}" if advice else "take a smaller --model or a machine with more memory"
        raise ValueError(
            f"out of memory with a batch of {arguments.batch_size} at {width}x{height} pixels: {cure}"
        ) from error


def _advice(task: Task, arguments: FinetuneArguments) -> list[str]:
    """What takes about half the memory and changes the result least, or as little as can be."""
    if arguments.batch_size > 1:
        smaller = arguments.batch_size // 2
        batches = arguments.accumulation * arguments.batch_size // smaller
        return [f"--batch_size {smaller} --accumulation {batches}"]
    if task.data.task == "video" and arguments.num_frames > 1:
        return [f"--num_frames {arguments.num_frames // 2}"]
    side = max(task.size)
    smaller = max(side // 2 // STEP, 1) * STEP
    return [f"--image_size {smaller}"] if smaller < side else []


__all__ = ["memory_advice"]
