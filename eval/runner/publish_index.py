"""Measured results as the `model-index` of a model's card (README.md), which the Hub shows beside the model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, metadata_load

from echocare_hf.files import written_beside
from echocare_hf.finetuning import TASKS
from echocare_hf.reports.task import ReportTask

from .headlines import direction

PIPELINE_TAGS = {name: task.pipeline_tag for name, task in (*TASKS.items(), ("report", ReportTask))}
SOURCE = "eval/run.py"
"""Marks the entries that this command wrote: they alone are replaced."""


def publish(folder: Path, key: str, entry: Mapping[str, Any], slug: str) -> int:
    """Writes the headline metrics of a model into its card; the text and all other entries stay.

    Args:
        folder: of the model, with README.md.
        key: of the subject.
        entry: of the subject in results.json.
        slug: of the contender whose results these are.

    Returns:
        How many results were written.

    Raises:
        ValueError: if there is no card, it cannot be read, or there is nothing to publish.
    """
    card, place = read_card(folder), folder / "README.md"
    results = results_of(key, entry, slug)
    if not results:
        raise ValueError(f"{key}: nothing was measured that could be published")
    kept = [result for result in card.data.eval_results or [] if not (_is_own(result) and result.dataset_type == key)]
    card.data.eval_results = [*kept, *results]
    if not card.data.get("model_name"):
        card.data.model_name = folder.resolve().name
    with written_beside(place) as partial:
        card.save(partial)
    return len(results)


def read_card(folder: Path) -> ModelCard:
    """The card of a model, if results can be written into it.

    Args:
        folder: of the model, with README.md.

    Raises:
        ValueError: if there is no card, it cannot be read, or it has results of several models, which huggingface_hub would put under one
            name.
    """
    place = folder / "README.md"
    if not place.is_file():
        raise ValueError(
            f"{place}: there is no card to write results into; --publish takes the folder of a model with README.md"
        )
    try:
        models = (metadata_load(place) or {}).get("model-index")
        card = ModelCard.load(place, ignore_metadata_errors=False)
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{place}: its header cannot be read ({reason}); correct the YAML between the lines ---"
        ) from error
    if isinstance(models, list) and len(models) > 1:
        raise ValueError(
            f"{place}: its model-index has {len(models)} models, so that it is not clear whose results are meant; keep one"
        )
    return card


def results_of(key: str, entry: Mapping[str, Any], slug: str) -> list[EvalResult]:
    """The headline metrics of a contender that were measured, means over its trials."""
    contender = next(found for found in entry["contenders"] if found["slug"] == slug)
    origin = entry["provenance"][slug][0]
    trials = len(contender["seeds"])
    found = []
    for head in entry["headlines"]:
        value = contender["test"].get(head["metric"])
        if value is None or value["mean"] is None:
            continue
        deviation = value["standard_deviation"]
        spread = "" if deviation is None else f", standard deviation {deviation:.4f}"
        found.append(
            EvalResult(
                task_type=PIPELINE_TAGS[entry["task"]],
                dataset_type=key,
                dataset_name=entry["title"],
                dataset_split="test",
                dataset_args={
                    "measured_by": SOURCE,
                    "split": entry["split"],
                    "data_sha256": origin["data_sha256"],
                    "split_sha256": origin["split_sha256"],
                },
                metric_type=head["metric"],
                metric_name=f"{head['metric']}, mean of {trials} trial{'s' if trials > 1 else ''}{spread}",
                metric_value=round(value["mean"], 5),
                metric_args={
                    "standard_deviation": None if deviation is None else round(deviation, 5),
                    "trials": trials,
                    "seeds": contender["seeds"],
                    "direction": direction(head["metric"]),
                },
            )
        )
    return found


def _is_own(result: EvalResult) -> bool:
    return (result.dataset_args or {}).get("measured_by") == SOURCE
