"""From the images of an examination to a checked draft.

model, processor, thresholds = load_generator("reports")
inputs = processor(images=[[right, left]], views=[["right", "left"]], organ="thyroid", return_tensors="pt")
(draft,) = write_drafts(model, processor, inputs, thresholds, languages=["en"], organs=["thyroid"])
print(draft.to_text())
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from echocare_hf.model.generation_echocare_report import written_reports

from .checking import FindingThresholds, check_report, sentence_confidences
from .draft import DraftReport

THRESHOLDS_FILE = "finding_thresholds.json"
_IMAGE_INPUTS = ("pixel_values", "image_mask", "views")


@torch.inference_mode()
def write_drafts(
    model: Any,
    processor: Any,
    inputs: Mapping[str, Any],
    thresholds: FindingThresholds,
    languages: Sequence[str | None] | None = None,
    organs: Sequence[str | None] | None = None,
    **generation: Any,
) -> list[DraftReport]:
    """Writes a report for each examination and checks it against the findings head.

    Args:
        model: an `EchoCareForReportGeneration` in evaluation mode.
        processor: its processor.
        inputs: what the processor made of the images, without reports.
        thresholds: from where on the head is believed; see `load_generator`.
        languages (*optional*): one a report; told by the script if not given.
        organs (*optional*): one a report; a report is searched for the findings of its organ.
        generation: for `generate`, such as `num_beams=4` or `max_new_tokens=200`.

    Returns:
        One draft an examination, with the confidence of each sentence.
    """
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    encoded = model.encoder(**{name: inputs[name] for name in _IMAGE_INPUTS if name in inputs})
    names = model.config.findings or []
    shares = model.findings_head(encoded.pooler_output).float().sigmoid().cpu().tolist() if names else []
    sequences = model.generate(**inputs, **generation)
    written = written_reports(model, processor, sequences, encoder_outputs=encoded, **inputs)
    drafts = []
    for row, report in enumerate(written):
        text = report.text.strip()
        moved = len(report.text) - len(report.text.lstrip())
        spans = [(start - moved, end - moved) for start, end in report.token_spans]
        drafts.append(
            check_report(
                text,
                dict(zip(names, shares[row], strict=True)) if names else {},
                thresholds,
                language=None if languages is None else languages[row],
                organ=None if organs is None else organs[row],
                confidences=sentence_confidences(text, spans, report.log_probabilities),
            )
        )
    return drafts


def load_generator(folder: str | Path) -> tuple[Any, Any, FindingThresholds]:
    """The model, its processor and the thresholds of its findings, from a folder that `training/report.py` made.

    Raises:
        ValueError: for a file of thresholds that is none. A folder without one gives thresholds that never flag anything.
    """
    from echocare_hf.model.modeling_echocare_report import EchoCareForReportGeneration
    from echocare_hf.model.processing_echocare_report import EchoCareReportProcessor

    model = EchoCareForReportGeneration.from_pretrained(folder).eval()
    processor = EchoCareReportProcessor.from_pretrained(folder)
    return model, processor, read_thresholds(folder)


def read_thresholds(folder: str | Path) -> FindingThresholds:
    """The thresholds beside a checkpoint; none at all where the folder has no such file."""
    file = Path(folder) / THRESHOLDS_FILE
    if not file.is_file():
        return FindingThresholds({}, {})
    try:
        return FindingThresholds.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise ValueError(f"{file}: {error}; train again, or remove it to go without checks") from error


__all__ = ["THRESHOLDS_FILE", "load_generator", "read_thresholds", "write_drafts"]
