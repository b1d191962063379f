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
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from echocare_hf.model.generation_echocare_report import written_reports

from .checking import FindingThresholds, check_report, sentence_confidences
from .consensus import consensus
from .draft import DraftReport

THRESHOLDS_FILE = "finding_thresholds.json"
SEED = 0  # of the texts that are drawn of one examination
_IMAGE_INPUTS = ("pixel_values", "image_features", "image_maps", "image_mask", "views")


@torch.inference_mode()
def write_drafts(
    model: Any,
    processor: Any,
    inputs: Mapping[str, Any],
    thresholds: FindingThresholds,
    languages: Sequence[str | None] | None = None,
    organs: Sequence[str | None] | None = None,
    candidates: int | None = None,
    **generation: Any,
) -> list[DraftReport]:
    """Writes a report for each examination and checks it against the findings head.

    With several `candidates` so many texts are drawn from the model, without changing its probabilities, and the one is kept that the
    others and the findings head agree with most, see `consensus`. Every examination has random numbers of its own: the same images give
    the same report, alone or in a batch.

    Args:
        model: an `EchoCareForReportGeneration` in evaluation mode.
        processor: its processor.
        inputs: what the processor made of the images, without reports.
        thresholds: from where on the head is believed; see `load_generator`.
        languages (*optional*): one a report; told by the script if not given.
        organs (*optional*): one a report; a report is searched for the findings of its organ.
        candidates (*optional*): texts an examination; the configuration's `draft_candidates` if not given. With 1, what `generate`
            writes is the report.
        generation: for `generate`, such as `max_new_tokens=200`, or `num_beams=4` with one candidate.

    Returns:
        One draft an examination, with the confidence of each sentence.

    Raises:
        ValueError: for less than one candidate, or beams with several.
    """
    if candidates is None:
        candidates = 1 if generation.get("num_beams", 1) > 1 else model.config.draft_candidates
    if candidates < 1 or (candidates > 1 and generation.get("num_beams", 1) > 1):
        raise ValueError(f"{candidates} candidates with {generation.get('num_beams', 1)} beams: give one of them")
    inputs = {
        name: [each.to(model.device) for each in value] if isinstance(value, list) else value.to(model.device)
        for name, value in inputs.items()
    }
    encoded, inputs = encode_inputs(model, inputs)
    names = model.config.findings or []
    shares = model.findings_head(encoded.pooler_output).float().sigmoid().cpu().tolist() if names else []
    if candidates == 1:
        # `generate` repeats what it is given for beams in place: it gets a copy.
        sequences = model.generate(encoder_outputs=type(encoded)(**encoded), **inputs, **generation)
    else:
        told = [dict(zip(names, row, strict=True)) for row in shares] or [{}] * len(encoded.last_hidden_state)
        chosen = [
            _agreed(model, processor, inputs, encoded, row, candidates, told[row], languages, organs, generation)
            for row in range(len(told))
        ]
        # At the left: at the right it would be text of a report that was cut off.
        sequences = pad_sequence(
            chosen, batch_first=True, padding_value=processor.tokenizer.pad_token_id, padding_side="left"
        )
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


def encode_inputs(model: Any, inputs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What the encoder makes of the images of a batch, and the inputs that are left for the decoder."""
    shown, others = split_inputs(inputs)
    return model.encoder(**shown), others


def split_inputs(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs of a batch for the encoder, and those for the decoder."""
    shown = {name: inputs[name] for name in _IMAGE_INPUTS if inputs.get(name) is not None}
    return shown, {name: value for name, value in inputs.items() if name not in _IMAGE_INPUTS}


def _agreed(
    model: Any,
    processor: Any,
    inputs: Mapping[str, Tensor],
    encoded: Any,
    row: int,
    candidates: int,
    probabilities: Mapping[str, float],
    languages: Sequence[str | None] | None,
    organs: Sequence[str | None] | None,
    generation: Mapping[str, Any],
) -> Tensor:
    """The tokens of one examination's report: of several that are drawn, the one with which the others agree."""
    own: dict[str, Any] = {name: value[row : row + 1] for name, value in inputs.items()}
    own["encoder_outputs"] = type(encoded)(
        **{name: value[row : row + 1] for name, value in encoded.items() if isinstance(value, Tensor)}
    )
    drawn = {"top_k": 0, **generation, "do_sample": True, "num_beams": 1, "num_return_sequences": candidates}
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(SEED)
        sequences = model.generate(**own, **drawn)
    texts = [text.strip() for text in processor.batch_decode(sequences)]
    place = consensus(
        texts,
        probabilities,
        None if languages is None else languages[row],
        None if organs is None else organs[row],
    )
    return sequences[place]


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


__all__ = ["THRESHOLDS_FILE", "encode_inputs", "load_generator", "read_thresholds", "split_inputs", "write_drafts"]
