"""The model that a training run starts from: encoder and tokenizer for the reports at hand, or a report generator to train on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.image_utils import SizeDict

from echocare_hf.checkpoints import find_checkpoint, shipped_checkpoints
from echocare_hf.finetuning.models import PRESETS, checkpoint_errors, is_hub_id, no_load_report
from echocare_hf.model.configuration_echocare_report import DEFAULT_VIEWS, EchoCareReportConfig
from echocare_hf.model.modeling_echocare_report import EchoCareForReportGeneration
from echocare_hf.model.processing_echocare_report import EchoCareReportProcessor

from .arguments import ReportArguments
from .findings import finding_names
from .pairs import ReportPair
from .task import pair_findings

MOST_VIEWS = 64
MOST_PROMPT = 448
"""Tokens that are kept free for organ and indication, at most."""


def open_generator(arguments: ReportArguments, training: Sequence[ReportPair]) -> tuple[Any, Any, bool]:
    """The model, its processor, and whether it was a report generator before.

    The tokenizer is trained on the training part alone. The findings are those of `--findings`, else those that two training reports or
    more have; the views those of the training part.

    Args:
        arguments: of the run.
        training: the pairs to learn from.

    Raises:
        ValueError: if the checkpoint cannot be loaded or has other findings than were asked for.
    """
    checkpoint = None if arguments.model in PRESETS else find_checkpoint(arguments.model)
    if checkpoint is not None and not Path(checkpoint).is_dir() and not is_hub_id(checkpoint):
        names = ", ".join((*shipped_checkpoints(), *PRESETS))
        raise ValueError(f"{checkpoint}: there is no such folder; --model takes a folder, a Hub id, or one of {names}")
    kind = None
    if checkpoint is not None:
        with checkpoint_errors(checkpoint):
            kind = PreTrainedConfig.get_config_dict(checkpoint)[0].get("model_type")
    if kind == EchoCareReportConfig.model_type:
        model, processor = _trained(str(checkpoint), arguments)
    elif kind in (None, "echocare"):
        model, processor = _fresh(checkpoint, arguments, training)
    else:
        raise ValueError(
            f"{checkpoint}: is a {kind} checkpoint; --model takes an EchoCare encoder or report generator"
        )
    if arguments.image_size is not None:
        processor.image_processor.size = SizeDict(height=arguments.image_size, width=arguments.image_size)
    model.config.draft_candidates = arguments.candidates
    if arguments.freeze_encoder:
        model.encoder.echocare.requires_grad_(False)
    return model, processor, kind == EchoCareReportConfig.model_type


def _fresh(checkpoint: str | None, arguments: ReportArguments, training: Sequence[ReportPair]) -> tuple[Any, Any]:
    names = []
    if arguments.findings_weight > 0:
        names = arguments.findings or finding_names(map(pair_findings, training))
    views = list(dict.fromkeys(view for pair in training for view in pair.views))
    prompt = max(len((pair.organ + pair.indication).encode()) for pair in training) + 8
    overrides: dict[str, Any] = {"image_size": arguments.image_size} if arguments.image_size else {}
    if names:
        overrides |= {
            "findings": names,
            "finding_tokens": arguments.finding_tokens,
            "image_dropout": arguments.image_dropout if arguments.finding_tokens else 0.0,
            "findings_loss_weight": arguments.findings_weight,
            "findings_positive_weights": _positive_weights(names, training, arguments),
        }
    size = arguments.decoder or (arguments.model if arguments.model in PRESETS else "tiny")
    with checkpoint_errors(arguments.model), no_load_report():
        return EchoCareForReportGeneration.from_preset(
            size,
            texts=[pair.report for pair in training],
            encoder=checkpoint,
            views=views[:MOST_VIEWS] or list(DEFAULT_VIEWS),
            vocab_size=arguments.vocab_size,
            decoder_n_positions=arguments.max_tokens + min(prompt, MOST_PROMPT),
            **overrides,
        )


def _trained(checkpoint: str, arguments: ReportArguments) -> tuple[Any, Any]:
    with checkpoint_errors(checkpoint):
        model = EchoCareForReportGeneration.from_pretrained(checkpoint)
        processor = EchoCareReportProcessor.from_pretrained(checkpoint)
    if arguments.findings and list(arguments.findings) != list(model.config.findings or []):
        known = ", ".join(model.config.findings or []) or "none"
        raise ValueError(f"{checkpoint}: tells the findings {known}; leave --findings out, or start from an encoder")
    limit = model.config.max_report_length
    if limit is not None and arguments.max_tokens > limit:
        raise ValueError(f"{checkpoint}: has place for {limit} tokens; give --max_tokens of at most that")
    return model, processor


def _positive_weights(names: Sequence[str], training: Sequence[ReportPair], arguments: ReportArguments) -> list[float]:
    """Reports without a finding / reports with it, 1 to 10: what is rare counts more where it is there."""
    weights = []
    for name in names:
        labels = [pair_findings(pair).get(name, "unknown") for pair in training]
        with_it = labels.count("present")
        without = labels.count("absent") + (labels.count("unknown") if arguments.unmentioned == "absent" else 0)
        weights.append(min(max(without / max(with_it, 1), 1.0), 10.0))
    return weights


__all__ = ["open_generator"]
