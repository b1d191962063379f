"""Fine-tunes EchoCare for one of its tasks, on your own images, with transformers' Trainer.

    python training/finetune.py segmentation --data breast_busi --output lesions
    python training/finetune.py classification --data images --label birads --ordinal true --output birads
    python training/finetune.py detection --model lesions --data heads --output heads_found --seed 1
    python training/finetune.py video --data echo --target ef --group patient --output ef

TASK is classification, segmentation, detection, keypoints, video, regression or enhancement. `--data` is a folder with
metadata.csv, a folder of images (class folders, or images and masks), a COCO json, a `datasets` folder or a Hub id; see
`echocare_hf.data.labelled.read_labelled`. Without other flags the values of training/recipes/finetune/TASK.yaml hold; `--recipe FILE`
names another file, and what stands on the command line wins.

What happens, in this order:

  1. The data are read and checked, and split by group (patient, clip, sequence) into train, validation and test.
  2. The model is made from the checkpoint's encoder and a new head, and trained. After each epoch it is measured on the validation part
     at the size of the original images; the best weights are kept.
  3. The test part is looked at once, with these weights.
  4. OUTPUT appears, complete: model, processor, code, card with the figures, metrics.json, predictions.png (best and worst of the
     validation part). It loads with `AutoModelFor...from_pretrained(OUTPUT, trust_remote_code=True)` and `pipeline(...)`.

A run that was cut off goes on where its last epoch ended when the same command is given again. Ctrl-C ends with exit code 130, a wrong
argument or bad data with one line and exit code 2.
"""

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch
import transformers
import yaml
from transformers import HfArgumentParser
from transformers.trainer_utils import get_last_checkpoint

import echocare_hf
from echocare_hf.finetuning import TASKS, FinetuneArguments, draw_predictions, open_job, train, write_card

RECIPES = Path(__file__).resolve().parent / "recipes" / "finetune"


def parse_arguments(argv: Sequence[str]) -> tuple[str, FinetuneArguments]:
    """The task and its arguments: defaults, then the recipe, then the command line."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("task", choices=[*TASKS], metavar="TASK")
    first.add_argument("--recipe", type=Path)
    parser = HfArgumentParser(
        FinetuneArguments,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="finetune.py TASK --data D --output O [options]",
    )
    if not argv or "-h" in argv or "--help" in argv:
        parser.print_help()
        raise SystemExit(0 if argv else 2)
    known, rest = first.parse_known_args(argv)
    recipe = known.recipe or RECIPES / f"{known.task}.yaml"
    try:
        values = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{recipe}: cannot be read as a recipe ({str(error).splitlines()[0]})") from error
    unknown = sorted(set(values) - {entry.name for entry in fields(FinetuneArguments)})
    if unknown:
        raise ValueError(f"{recipe}: unknown value {', '.join(unknown)}; `--help` lists them all")
    parser.set_defaults(**values)
    (arguments,) = parser.parse_args_into_dataclasses(rest)
    for name in ("data", "output"):
        if not getattr(arguments, name):
            raise ValueError(f"--{name} is needed")
    return known.task, arguments


def finetune(task_name: str, arguments: FinetuneArguments) -> Path:
    """Does what the head of this file says.

    Returns:
        The folder that was made.

    Raises:
        ValueError: for data or arguments that do not serve, in one line.
    """
    start = time.monotonic()
    output = Path(arguments.output)
    if output.exists():
        raise ValueError(f"{output}: exists already; choose another --output or remove it")
    job = open_job(task_name, arguments)
    task, sets = job.task, job.sets
    model = job.model()
    work = output.with_name(output.name + ".partial")
    last = open_work_folder(work, task_name, arguments)
    trainer = job.trainer(model, work / "checkpoints")
    train(trainer, last)

    validation, predictions = trainer.assess(sets["validation"])
    test = trainer.assess(sets["test"])[0] if sets["test"].samples else {}
    model = trainer.model.merge_and_unload() if arguments.lora_rank else trainer.model
    final = work / "result"
    model.eval().save_pretrained(final)
    task.processor.save_pretrained(final)
    record = {
        "task": task_name,
        "arguments": {**asdict(arguments), "data": Path(arguments.data).name, "output": output.name},
        "samples": {name: len(samples) for name, samples in job.parts.items()},
        "groups": {
            name: len({sample.group or sample.name for sample in samples}) for name, samples in job.parts.items()
        },
        "licences": job.data.licences,
        "problems": list(job.data.problems),
        "epochs": round(trainer.state.epoch or 0, 2),
        "steps": trainer.state.global_step,
        "training_seconds": round(trainer.progress.seconds(), 1),
        "total_seconds": round(time.monotonic() - start, 1),
        "precision": "bf16" if trainer.args.bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {
            "echocare_hf": echocare_hf.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "validation": rounded(validation),
        "test": rounded(test),
        "history": [rounded(entry) for entry in trainer.state.log_history if "eval_loss" in entry],
    }
    (final / "metrics.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw_predictions(task, sets["validation"].samples, predictions, validation).save(final / "predictions.png")
    write_card(final, task, record)
    final.replace(output)
    shutil.rmtree(work)
    print(json.dumps({"test": rounded(test)}), flush=True)
    print(f"made {output}: model, card, metrics.json, predictions.png", flush=True)
    return output


def open_work_folder(work: Path, task_name: str, arguments: FinetuneArguments) -> str | None:
    """Makes the folder of an unfinished run, or finds the checkpoint that such a run left.

    Raises:
        ValueError: if the folder is of a run with other arguments.
    """
    told = json.loads(
        json.dumps(
            {"task": task_name, **{name: value for name, value in asdict(arguments).items() if name != "resume"}}
        )
    )
    record = work / "arguments.json"
    if record.is_file() and arguments.resume:
        before = json.loads(record.read_text(encoding="utf-8"))
        changed = sorted(name for name in told if before.get(name) != told[name])
        if changed:
            raise ValueError(
                f"{work}: holds an unfinished run with another {', '.join(changed)}; remove it or give the same arguments"
            )
        shutil.rmtree(work / "result", ignore_errors=True)
        last = get_last_checkpoint(work / "checkpoints") if (work / "checkpoints").is_dir() else None
        if last:
            print(f"going on from {Path(last).name} of an unfinished run", flush=True)
        return last
    shutil.rmtree(work, ignore_errors=True)
    (work / "checkpoints").mkdir(parents=True)
    record.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return None


def rounded(metrics: dict[str, float]) -> dict[str, float | None]:
    """Figures for JSON: five digits, None for what is not defined."""
    return {name: round(float(value), 5) if math.isfinite(value) else None for name, value in metrics.items()}


def main(argv: Sequence[str] | None = None) -> int:
    try:
        task, arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        finetune(task, arguments)
    except ModuleNotFoundError as error:
        print(f'error: {error}; install what is missing with pip install -e ".[all]"', file=sys.stderr)
        return 2
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last epoch", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
