"""The folder of an unfinished run: its arguments and checkpoints, so that the same command goes on with it."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME

from .arguments import FinetuneArguments


def open_work_folder(work: Path, task_name: str, arguments: FinetuneArguments) -> str | None:
    """Makes the folder of an unfinished run, or finds the checkpoint that such a run left. A run that left none starts anew.

    Args:
        work: gets `arguments.json` and a folder `checkpoints`.
        task_name: one of the tasks of fine-tuning.
        arguments: of the run; without `resume` it starts anew in any case.

    Returns:
        The checkpoint to go on from, None for a new run.

    Raises:
        ValueError: if there is a checkpoint of a run with other arguments.
    """
    values = {name: value for name, value in asdict(arguments).items() if name != "resume"}
    told = json.loads(json.dumps({"task": task_name, **values}))
    record, checkpoints = work / "arguments.json", work / "checkpoints"
    last = last_checkpoint(checkpoints) if record.is_file() else None
    if last is not None and arguments.resume:
        before = json.loads(record.read_text(encoding="utf-8"))
        changed = sorted(name for name in told if before.get(name) != told[name])
        if changed:
            raise ValueError(
                f"{work}: holds an unfinished run with another {', '.join(changed)}; give the same arguments to go on with it, or "
                "--resume false to start anew"
            )
        shutil.rmtree(work / "result", ignore_errors=True)
        print(f"going on from {Path(last).name} of an unfinished run", flush=True)
        return last
    shutil.rmtree(work, ignore_errors=True)
    checkpoints.mkdir(parents=True)
    record.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return None


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint of Trainer in a folder; None if there is none.

    Trainer writes its state last: a checkpoint without one was cut off.
    """
    complete = [path for path in folder.glob("checkpoint-*") if (path / TRAINER_STATE_NAME).is_file()]
    return str(max(complete, key=lambda path: int(path.name.rpartition("-")[2]))) if complete else None


__all__ = ["last_checkpoint", "open_work_folder"]
