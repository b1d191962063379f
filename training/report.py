"""Trains EchoCare to write reports, on your own image-report pairs in any language, with transformers' Trainer.

    python training/report.py --data pairs.json --output reports
    python training/report.py --data exams.csv --columns report=befund group=patient --language de --output befunde
    python training/report.py --data pairs.parquet --model my_encoder --output reports --epochs 60 --num_beams 4
    python training/report.py --phantoms 600 --languages zh --output phantom_reports

`--data` is a .json, .jsonl, .csv, .tsv or .parquet file, or a folder that holds one: a row a report, with the names of its images, the
text, and, where known, organ, indication, views, patient, split, findings and licence; docs/reports.md shows them. `--phantoms N` makes N
synthetic exams instead, to see the whole of it work.

What happens, in this order:

  1. The pairs are read and checked, and split by group (patient, examination) into train, validation and test.
  2. A tokenizer is trained on the training reports, and a decoder is put on the encoder, with a head for findings that starts from a
     linear model of the features. The decoder first learns the texts themselves under the findings that they state, then all is trained
     on images and texts. While it trains, the validation reports are written anew after every evaluation: BLEU, ROUGE-L, METEOR, F1 of
     findings. The best weights by `score` are kept, those of the start too.
  3. Thresholds of the findings head are chosen on the validation part, beyond which it may contradict a sentence.
  4. The test part is looked at once, beside the nearest neighbour on frozen features and the most frequent report. Of each exam several
     texts are drawn; the one with which the others and the findings head agree most is the report (`--candidates 1`: the most probable
     words).
  5. OUTPUT appears, complete: model, processor, code, thresholds, card with figures and examples, metrics.json.

A run that was cut off goes on where its last evaluation ended when the same command is given again; one with other arguments starts anew
with `--resume false`. Ctrl-C ends with exit code 130, a wrong argument, bad data or lack of memory with one line and exit code 2.
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from echocare_hf.files import only_run, readable_weights
from echocare_hf.finetuning import open_work_folder
from echocare_hf.reports.arguments import ReportArguments, parse_report_arguments
from echocare_hf.reports.card import metrics_table, write_report_card
from echocare_hf.reports.drafting import THRESHOLDS_FILE
from echocare_hf.reports.fitting import fit_reports
from echocare_hf.reports.job import open_report_job
from echocare_hf.reports.results import assess_generator, job_features, run_facts, training_facts


def train_reports(arguments: ReportArguments) -> Path:
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
    work = output.with_name(output.name + ".partial")
    values: Any = arguments  # the folder of a run asks for a dataclass with `resume`
    last = open_work_folder(work, "report", values)
    job = open_report_job(arguments, work)
    features = job_features(job)
    fitted = fit_reports(job, work / "checkpoints", last)
    result = assess_generator(job, fitted.trainer, features, fitted.thresholds)
    record = run_facts(job, start) | result | training_facts(job, fitted)
    final = work / "result"
    job.model.eval().save_pretrained(final)
    job.processor.save_pretrained(final)
    readable_weights(final)
    (final / THRESHOLDS_FILE).write_text(json.dumps(fitted.thresholds.to_dict(), indent=1) + "\n", encoding="utf-8")
    (final / "metrics.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_report_card(final, record, job.task.size)
    final.replace(output)
    shutil.rmtree(work)
    part = "test" if record["test"] else "validation"
    print(f"{part} part:\n{metrics_table(record[part], record['languages'])}", flush=True)
    print(f"made {output}: model, processor, thresholds, card, metrics.json", flush=True)
    return output


def main(argv: Sequence[str] | None = None) -> int:
    try:
        arguments = parse_report_arguments(sys.argv[1:] if argv is None else argv, __doc__)
        with only_run(Path(arguments.output)):
            train_reports(arguments)
    except ModuleNotFoundError as error:
        print(f'error: {error}; install what is missing with pip install -e ".[all]"', file=sys.stderr)
        return 2
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last evaluation", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
