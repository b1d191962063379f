"""Which frames a generated sentence rests on: those its numbers were measured in, that show what it names, or make it most probable."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from echocare_hf.model.generation_echocare_report import written_reports
from echocare_hf.reports.checking import sentence_confidences
from echocare_hf.reports.draft import DraftSentence
from echocare_hf.reports.structure_names import names

from .report_draft import Basis, SupportedSentence
from .report_frames import ReportFrame
from .report_numbers import check_numbers
from .results import Measurement

AS_GOOD = 0.95
"""Frames are named together if the sentence is at least so many times as probable with one as with the best."""
MOST_NAMED = 3


def support_sentences(
    sentences: Sequence[DraftSentence],
    frames: Sequence[ReportFrame],
    measurements: Sequence[Measurement],
    shares: Sequence[Sequence[float | None]],
) -> tuple[SupportedSentence, ...]:
    """Ties each sentence to frames.

    The frame of a measurement whose value it states; else the frame that best shows a structure which it names; else the frames that make
    it most probable.

    Args:
        sentences: of a draft.
        frames: that it was written from.
        measurements: of the file.
        shares: for each frame the confidence of each sentence, 0 to 1, when that frame is shown alone.
    """
    supported = []
    for number, sentence in enumerate(sentences):
        numbers = check_numbers(sentence.text, measurements)
        measured = [measurements[each.measurement].frame for each in numbers if each.measurement is not None]
        frames_of: tuple[int, ...] = tuple(dict.fromkeys(frame for frame in measured if frame is not None))
        basis: Basis = "measurement"
        if not frames_of:
            basis = "structure"
            frames_of = tuple(
                frame.index for frame in frames if any(names(sentence.text, each) for each in frame.shows)
            )
        if not frames_of:
            basis = "likelihood"
            frames_of = _likeliest(frames, [share[number] for share in shares])
        supported.append(SupportedSentence(sentence, frames_of, basis, numbers))
    return tuple(supported)


@torch.inference_mode()
def frame_confidences(model: Any, processor: Any, inputs: Mapping[str, Any], text: str) -> list[list[float | None]]:
    """How sure the generator is of each sentence of a report when it is shown a single frame of the examination.

    Args:
        model: an `EchoCareForReportGeneration` in evaluation mode.
        processor: its processor.
        inputs: what the processor made of one examination; `pixel_values` is `(1, frames, channels, height, width)`.
        text: the report that was written of all frames.

    Returns:
        For each frame the geometric mean of token probabilities of each of `split_sentences(text)`.
    """
    pixels = inputs["pixel_values"][0]
    prompt = inputs["decoder_input_ids"][:1]
    ids = processor.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    limit = model.config.max_report_length
    if limit is not None:
        ids = ids[: max(0, limit - prompt.shape[1])]
    if not ids:
        return [[None for _ in sentence_confidences(text, [], [])] for _ in pixels]
    end = processor.tokenizer.eos_token_id
    sequence = torch.cat([prompt, prompt.new_tensor([[*ids, end]])], dim=1).to(model.device)
    found = []
    for frame in pixels:  # one after the other: memory does not grow with the frames
        shown = frame[None, None].to(model.device)
        (report,) = written_reports(model, processor, sequence, pixel_values=shown)
        found.append(sentence_confidences(text, report.token_spans, report.log_probabilities))
    return found


def _likeliest(frames: Sequence[ReportFrame], shares: Sequence[float | None]) -> tuple[int, ...]:
    known = [(share or 0.0, -place) for place, share in enumerate(shares)]
    best = sorted(known, reverse=True)[:MOST_NAMED]
    return tuple(sorted(frames[-place].index for share, place in best if share >= AS_GOOD * best[0][0]))


__all__ = ["AS_GOOD", "MOST_NAMED", "frame_confidences", "support_sentences"]
