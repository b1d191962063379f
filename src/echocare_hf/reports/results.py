"""The last look at a trained generator: metrics beside both baselines, what is copied, good and bad examples."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import echocare_hf
from echocare_hf.finetuning.prepared import PreparedData
from echocare_hf.finetuning.record import rounded, short_name, without_directories
from echocare_hf.metrics.classification import classification_metrics

from .baselines import frozen_features, most_frequent_reports, nearest_reports
from .checking import FindingThresholds
from .copying import copying_metrics, nearest_report
from .draft import DraftReport
from .evaluation import flag_metrics, report_metrics, report_score
from .findings import package_rules
from .fitting import FittedReports
from .job import PARTS, ReportJob
from .trainer import ReportTrainer

EXAMPLES = 5
GENERATOR, NEAREST, FREQUENT, FREQUENT_OF_ORGAN = (
    "generator",
    "nearest neighbour",
    "most frequent",
    "most frequent of the organ",
)


def job_features(job: ReportJob) -> dict[str, np.ndarray]:
    """The features of all parts from the encoder as the run starts with it: `(pairs, channels)` by part."""
    encoder = job.model.encoder.echocare.eval()
    slots = sorted({view for pair in job.parts["train"] for view in pair.views})
    found = {}
    for part, data in job.sets.items():
        if data.samples:
            found[part] = frozen_features(encoder, _images(data), _marks(data), slots)
    return found


def assess_generator(
    job: ReportJob, trainer: ReportTrainer, features: dict[str, np.ndarray], thresholds: FindingThresholds
) -> dict[str, Any]:
    """Metrics of the generator and of both baselines on validation and test, and examples of the last part.

    Args:
        job: the run.
        trainer: after training, with the best weights.
        features: of `job_features`, taken before training.
        thresholds: of the findings, chosen on validation.

    Returns:
        By part a table of metrics by method; `copying` likewise; `examples`, the best and the worst.
    """
    training = job.parts["train"]
    known = [pair.report for pair in training]
    result: dict[str, Any] = {part: {} for part in PARTS[1:]} | {"copying": {}, "examples": []}
    for part in PARTS[1:]:
        pairs = job.parts[part]
        if not pairs:
            continue
        drafts = trainer.drafts(job.sets[part], thresholds)
        near, places = nearest_reports(training, features["train"], pairs, features[part])
        texts = {
            GENERATOR: [draft.text for draft in drafts],
            NEAREST: near,
            FREQUENT: most_frequent_reports(training, pairs),
        }
        if len({pair.organ for pair in training}) > 1:
            texts[FREQUENT_OF_ORGAN] = most_frequent_reports(training, pairs, per_organ=True)
        table = {method: report_metrics(answers, pairs) for method, answers in texts.items()}
        table[GENERATOR] |= check_metrics(job, part, drafts)
        result[part] = {method: rounded(values) for method, values in table.items()}
        languages = [pair.language for pair in pairs]
        copied = {GENERATOR: texts[GENERATOR], "written reports": [pair.report for pair in pairs]}
        result["copying"][part] = {
            name: rounded(copying_metrics(answers, known, languages)) for name, answers in copied.items()
        }
        result["examples"] = _examples(job, part, drafts, near, places, known)
    return result


def check_metrics(job: ReportJob, part: str, drafts: Sequence[DraftReport]) -> dict[str, float]:
    """What the findings head (`head_...`) and the flags of drafts are worth, see `flag_metrics`; nothing without such a head."""
    names = job.task.findings
    if not names:
        return {}
    targets = job.targets(part)
    shares = np.array([[draft.probabilities[name] for name in names] for draft in drafts])
    head = classification_metrics(shares, targets, names, "multi_label_classification")
    return {f"head_{name}": value for name, value in head.items()} | flag_metrics(drafts, names, targets)


def run_facts(job: ReportJob, start: float) -> dict[str, Any]:
    """Data, arguments, cost and versions of a run, for metrics.json; no path of the machine is in it.

    Args:
        job: the run.
        start: `time.monotonic()` at the beginning.
    """
    arguments = job.arguments
    told = asdict(arguments)
    for name in ("data", "model"):
        told[name] = short_name(told[name]) if told[name] else ""
    for name in ("output", "images"):
        told[name] = Path(told[name]).resolve().name if told[name] else told[name]
    problems = [without_directories(line, arguments.data) if arguments.data else line for line in job.data.problems]
    return {
        "task": "report",
        "arguments": told,
        "random_weights": job.is_random,
        "samples": {name: len(pairs) for name, pairs in job.parts.items()},
        "groups": {name: len({pair.group or pair.name for pair in pairs}) for name, pairs in job.parts.items()},
        "organs": sorted({pair.organ for pair in job.data.pairs if pair.organ}),
        "languages": job.data.languages,
        "licences": job.data.licences,
        "problems": problems,
        "findings": job.task.findings,
        "finding_rules": package_rules().version,
        "total_seconds": round(time.monotonic() - start, 1),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "threads": torch.get_num_threads(),
        "versions": {
            "echocare_hf": echocare_hf.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def training_facts(job: ReportJob, fitted: FittedReports) -> dict[str, Any]:
    """What metrics.json holds of the training itself."""
    trainer = fitted.trainer
    model: Any = trainer.model
    return {
        "thresholds": fitted.thresholds.to_dict(),
        "start_score": _number(fitted.start.metric),
        "best_score": _number(trainer.state.best_metric),
        "epochs": round(trainer.state.epoch or 0, 2),
        "steps": trainer.state.global_step,
        "training_seconds": round(trainer.progress.seconds(), 1),
        "precision": "bf16" if trainer.args.bf16 else "fp32",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": len(job.processor.tokenizer),
        "history": [rounded(entry) for entry in trainer.state.log_history if "eval_loss" in entry],
    }


def _examples(
    job: ReportJob,
    part: str,
    drafts: Sequence[DraftReport],
    near: Sequence[str],
    places: Sequence[int],
    known: Sequence[str],
) -> list[dict[str, Any]]:
    """The best and the worst reports of a part by ROUGE-L, all of them if there are few."""
    pairs = job.parts[part]
    scores = [report_score(draft.text, pair) for draft, pair in zip(drafts, pairs, strict=True)]
    order = sorted(range(len(pairs)), key=lambda row: (-scores[row], pairs[row].name))
    half = min(EXAMPLES, (len(order) + 1) // 2)
    chosen = [("good", row) for row in order[:half]] + [("bad", row) for row in order[half:][-half:]]
    return [
        {
            "kind": kind,
            "part": part,
            "name": pairs[row].name,
            "organ": pairs[row].organ,
            "indication": pairs[row].indication,
            "rouge_l_f1": round(scores[row], 4),
            "written": pairs[row].report,
            "draft": drafts[row].to_dict(),
            "nearest_neighbour": near[row],
            "nearest_neighbour_name": job.parts["train"][places[row]].name,
            "most_similar_training_report": known[nearest_report(drafts[row].text, known)[0]],
        }
        for kind, row in chosen
    ]


def _images(data: PreparedData) -> Any:
    """Images without augmentation."""
    return lambda index: data.task.example(data.item(index), None)["images"]


def _marks(data: PreparedData) -> list[list[str]]:
    return [data.item(index)["marks"] for index in range(len(data))]


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 5)


__all__ = ["assess_generator", "check_metrics", "job_features", "run_facts", "training_facts"]
