"""The report generator of a run: told from the other checkpoints, loaded with its processor and thresholds, and identified."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from transformers import PreTrainedConfig

from echocare_hf.checkpoints import find_checkpoint
from echocare_hf.hub.checkpoint_file import sha256
from echocare_hf.model.configuration_echocare_report import EchoCareReportConfig
from echocare_hf.reports.checking import FindingThresholds
from echocare_hf.reports.drafting import THRESHOLDS_FILE, load_generator

from .models import find_device, hash_weights, split_name, weight_files
from .results import ModelFacts

AMONG_MODELS = ""
"""`--report` without a value: the report generator is among the models."""

HOW_TO_TRAIN = (
    "train one on your own image-report pairs with `python training/report.py --data pairs.json --output reports` "
    "and give `--report reports`"
)


@dataclass(eq=False)
class ReportModel:
    """A report generator that is ready to write.

    Attributes:
        facts: name, source, hash; the task is "report".
        model: an `EchoCareForReportGeneration`, fp32, in evaluation mode.
        processor: its processor.
        thresholds: from where on its findings head is believed.
        sha256: of the file of thresholds, "" without one.
    """

    facts: ModelFacts
    model: Any
    processor: Any
    thresholds: FindingThresholds
    sha256: str = ""


def split_report_models(
    models: Sequence[str], report: str | None, *, unasked: bool = False
) -> tuple[list[str], str | None]:
    """The models that find things, and the report generator, if a report is wanted.

    Args:
        models: checkpoints as `--model` takes them; a report generator may be among them.
        report: the report generator, `AMONG_MODELS` for the one among `models`, None for no report.
        unasked: with None for `report`, a generator among `models` is what is wanted, rather than an error.

    Raises:
        ValueError: if a report is wanted and there is no generator, or there are several, or a generator is given and no report wanted.
    """
    generators = [source for source in models if _is_generator(source)]
    others = [source for source in models if source not in generators]
    if report is None and not generators:
        return others, None
    if report is None and not unasked:
        raise ValueError(f"{generators[0]}: is a report generator; give it as --report {generators[0]}")
    if report is not None and report != AMONG_MODELS:
        generators.append(report)
    if not generators:
        raise ValueError(f"--report needs a report generator, and none is among the models: {HOW_TO_TRAIN}")
    if len(generators) > 1:
        raise ValueError(f"{' and '.join(generators)} are report generators: give one for --report")
    return others, generators[0]


def load_report_model(source: str, device: str = "auto") -> ReportModel:
    """Loads a report generator.

    Args:
        source: a folder that `training/report.py` or `save_pretrained` made, or a Hub id; `NAME=SOURCE` names it in the results.
        device: "auto", "cpu", "cuda", ...

    Raises:
        ValueError: for a source that is no report generator, or cannot be loaded.
    """
    name, given = split_name(source)
    kind = _model_type(given)
    if kind is None:
        raise ValueError(f"{given}: is no checkpoint folder or Hub id of a report generator; {HOW_TO_TRAIN}")
    if kind != EchoCareReportConfig.model_type:
        raise ValueError(f"{given}: is a checkpoint of type {kind}, not a report generator; {HOW_TO_TRAIN}")
    is_folder = Path(given).is_dir()
    try:
        folder = Path(given if is_folder else snapshot_download(given))
        model, processor, thresholds = load_generator(folder)
    except (OSError, ValueError, KeyError, RuntimeError, HfHubHTTPError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{given}: cannot be loaded as a report generator ({reason}); {HOW_TO_TRAIN}") from error
    model = model.to(find_device(device), torch.float32).requires_grad_(False)
    facts = ModelFacts(
        name=name or (Path(given).resolve().name if is_folder else given.split("/")[-1]),
        source=Path(given).resolve().name if is_folder else given,
        task="report",
        sha256=hash_weights(weight_files(given, str(folder))),
        revision=None if is_folder else folder.name,
    )
    limits = folder / THRESHOLDS_FILE
    return ReportModel(facts, model, processor, thresholds, sha256(limits) if limits.is_file() else "")


def _is_generator(source: str) -> bool:
    return _model_type(split_name(source)[1]) == EchoCareReportConfig.model_type


def _model_type(source: str) -> str | None:
    """What kind of checkpoint a source is; None where it is none. A folder that is not there may be one of the Hub."""
    place = find_checkpoint(source)
    if Path(place).exists() and not (Path(place) / "config.json").is_file():
        return None
    try:
        return PreTrainedConfig.get_config_dict(place)[0].get("model_type")
    except (OSError, ValueError, HFValidationError):
        return None


__all__ = ["AMONG_MODELS", "HOW_TO_TRAIN", "ReportModel", "load_report_model", "split_report_models"]
