"""One trial of report generation: the encoder of a contender under the generator of `training/report.py`, or a floor."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from echocare_hf.finetuning import open_work_folder, rounded
from echocare_hf.reports.arguments import ReportArguments
from echocare_hf.reports.baselines import most_frequent_reports, nearest_reports
from echocare_hf.reports.copying import copying_metrics
from echocare_hf.reports.evaluation import report_metrics
from echocare_hf.reports.fitting import fit_reports
from echocare_hf.reports.job import PARTS, ReportJob, open_report_job
from echocare_hf.reports.pairs import ReportData
from echocare_hf.reports.results import check_metrics, job_features, run_facts, training_facts

from . import backbones
from .contenders import Contender
from .report_cases import Texts, report_case_table
from .store import keep_settings

RETRIEVAL_ENCODER = "echocare-tiny"
"""Whose frozen features the nearest neighbour of the floor "retrieval" is by."""
MEASURED = PARTS[1:]


def report_trial(
    contender: Contender,
    data: Any,
    arguments: ReportArguments,
    settings: Mapping[str, Any],
    work: Path,
    pretrained: bool,
) -> tuple[dict[str, Any], Any, dict[str, list[Any]]]:
    """Trains and measures a contender.

    Args:
        contender: who is measured.
        data: `LabelledData` of `ReportPair`s.
        arguments: of `training/report.py`, with the model that the generator's configuration comes from.
        settings: see `Bench.settings`.
        work: folder of the unfinished trial.
        pretrained: whether timm is asked for its weights.

    Returns:
        What the record holds of it, the table of its cases, and the pairs of each part.

    Raises:
        ValueError: for data, arguments or a model that do not serve, in one line.
    """
    start = time.monotonic()
    job = open_report_job(arguments, work, ReportData(data.source, data.samples, data.problems))
    if contender.kind == "floor":
        texts, own, facts = _floor(job, contender.source), {}, {}
    else:
        if contender.kind == "backbone":
            backbones.substitute_in_reports(job, contender.source, not contender.is_random(pretrained))
        texts, own, facts = _trained(job, work, settings)
    metrics = {part: _metrics(job, part, found) | own.get(part, {}) for part, found in texts.items()}
    record = run_facts(job, start) | facts | {part: rounded(values) for part, values in metrics.items()}
    return record, report_case_table(job.parts, texts, arguments.data), job.parts


def _trained(
    job: ReportJob, work: Path, settings: Mapping[str, Any]
) -> tuple[Texts, dict[str, dict[str, float]], dict[str, Any]]:
    """Drafts, what is measured of the findings head and of the flags, and what to record, as `training/report.py` has them."""
    values: Any = job.arguments
    last = open_work_folder(work, "report", values)
    keep_settings(work, settings, goes_on=last is not None)
    fitted = fit_reports(job, work / "checkpoints", last)
    texts: dict[str, list[str]] = {}
    own: dict[str, dict[str, float]] = {}
    for part in MEASURED:
        if job.parts[part]:
            drafts = fitted.trainer.drafts(job.sets[part], fitted.thresholds)
            texts[part] = [draft.text for draft in drafts]
            own[part] = check_metrics(job, part, drafts)
    facts = training_facts(job, fitted)
    facts["head_start"] = {"validation": {"score": facts.pop("start_score")}, "kept": fitted.kept}
    return texts, own, facts


def _floor(job: ReportJob, name: str) -> Texts:
    """The report of the nearest training examination on frozen features, or the most frequent one, of all or of the organ."""
    training, parts = job.parts["train"], [part for part in MEASURED if job.parts[part]]
    if name == "retrieval":
        features = job_features(job)
        found = {
            part: nearest_reports(training, features["train"], job.parts[part], features[part])[0] for part in parts
        }
    else:
        per_organ = name == "frequent_organ"
        found = {part: most_frequent_reports(training, job.parts[part], per_organ) for part in parts}
    return found


def _metrics(job: ReportJob, part: str, texts: Any) -> dict[str, float]:
    pairs = job.parts[part]
    known = [pair.report for pair in job.parts["train"]]
    return report_metrics(texts, pairs) | copying_metrics(texts, known, [pair.language for pair in pairs])
