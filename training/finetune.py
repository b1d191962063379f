"""Fine-tunes EchoCare for one of its tasks, on your own images, with transformers' Trainer.

    python training/finetune.py segmentation --data breast_busi --output lesions
    python training/finetune.py classification --data images --label birads --ordinal true --output birads
    python training/finetune.py detection --model lesions --data heads --output heads_found --seed 1
    python training/finetune.py video --data echo --target ef --group patient --output ef

TASK is classification, segmentation, detection, keypoints, video, regression or enhancement. `--data` is a folder with
metadata.csv, a folder of images (class folders, or images and masks), a COCO json, a `datasets` folder or a Hub id; see
`echocare_hf.data.labelled.read_labelled`. Without other flags the values of src/echocare_hf/finetuning/recipes/TASK.yaml hold;
`--recipe FILE` names another file, and what stands on the command line wins.

What happens, in this order:

  1. The data are read and checked, and split by group (patient, clip, sequence) into train, validation and test.
  2. The model is made from the checkpoint's encoder and a new head, and trained. After each epoch it is measured on the validation part
     at the size of the original images; the best weights are kept.
  3. The test part is looked at once, with these weights.
  4. OUTPUT appears, complete: model, processor, code, card with the figures, metrics.json, predictions.png (best and worst of the
     validation part). It loads with `AutoModelFor...from_pretrained(OUTPUT, trust_remote_code=True)` and `pipeline(...)`.

A run that was cut off goes on where its last epoch ended when the same command is given again; one that is to have other arguments starts
anew with `--resume false`. Ctrl-C ends with exit code 130, a wrong argument, bad data or lack of memory with one line and exit code 2.
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from echocare_hf.files import only_run, readable_weights
from echocare_hf.finetuning import (
    FinetuneArguments,
    draw_predictions,
    fit,
    open_job,
    open_work_folder,
    parse_arguments,
    rounded,
    run_record,
    save_known_images,
    write_card,
)


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
    fitted = fit(job, model, work / "checkpoints", last)
    trainer, start_of_head, kept = fitted.trainer, fitted.head_start, fitted.kept

    validation, predictions = trainer.assess(sets["validation"])
    test = trainer.assess(sets["test"])[0] if sets["test"].samples else {}
    model = trainer.model.merge_and_unload() if arguments.lora_rank else trainer.model
    final = work / "result"
    model.eval().save_pretrained(final)
    task.processor.save_pretrained(final)
    readable_weights(final)
    if task_name != "video":  # `echocare predict` judges images
        save_known_images(model, sets, final)
    record = run_record(job, {"validation": validation, "test": test}, trainer, start)
    if start_of_head is not None:
        if kept:
            print("training clearly made the start of the head worse: the weights before it are kept", flush=True)
        record["head_start"] = {"validation": rounded({task.best_metric: start_of_head.metric}), "kept": kept}
    (final / "metrics.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw_predictions(task, sets["validation"].samples, predictions, validation).save(final / "predictions.png")
    write_card(final, task, record)
    final.replace(output)
    shutil.rmtree(work)
    print(json.dumps({"test": record["test"]}), flush=True)
    print(f"made {output}: model, card, metrics.json, predictions.png", flush=True)
    return output


def main(argv: Sequence[str] | None = None) -> int:
    try:
        task, arguments = parse_arguments(sys.argv[1:] if argv is None else argv, __doc__)
        with only_run(Path(arguments.output)):
            finetune(task, arguments)
    except ModuleNotFoundError as error:
        print(f'error: {error}; install what is missing with pip install -e ".[all]"', file=sys.stderr)
        return 2
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last epoch", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
