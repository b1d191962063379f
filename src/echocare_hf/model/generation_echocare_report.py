"""How sure the decoder was of each token of the reports that it wrote, and which characters the token stands for."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .label_losses_echocare import at_least_float32
from .prompts_echocare_report import left_padded

# What a decoder of bytes writes for a character that is not complete yet.
INCOMPLETE = "\ufffd"


class WrittenReport(NamedTuple):
    """A report with the probability of its tokens.

    Attributes:
        text: as `EchoCareReportProcessor.batch_decode` gives it.
        token_spans: half-open ranges of characters, one a token. Tokens that write one character together share it.
        log_probabilities: natural logarithm of each token's probability, given those before it; at most 0.
        end_log_probability: the same for the end token; None for a report that was cut off before it.
    """

    text: str
    token_spans: list[tuple[int, int]]
    log_probabilities: list[float]
    end_log_probability: float | None


@torch.no_grad()
def written_reports(model: Any, processor: Any, sequences: Tensor, **inputs: Any) -> list[WrittenReport]:
    """Reports with the probability that the model itself gives to each token.

    One more pass over the finished reports: so the probabilities are the model's own, however the reports were found (greedily, by
    beam search, by sampling at any temperature).

        inputs = processor(images=images, organ="liver", return_tensors="pt")
        for report in written_reports(model, processor, model.generate(**inputs), **inputs):
            sentence_confidences(report.text, report.token_spans, report.log_probabilities)   # echocare_hf.reports.checking

    Args:
        model: an `EchoCareForReportGeneration`.
        processor: its `EchoCareReportProcessor`.
        sequences: (batch * sequences per report, tokens), as `generate` returns them, prompt included.
        inputs: what `generate` was called with.

    Raises:
        ValueError: for a number of sequences that is no multiple of the number of reports.
    """
    names = ("pixel_values", "image_mask", "views")
    encoded = inputs.get("encoder_outputs")
    if encoded is None:
        encoded = model.encoder(**{name: inputs[name] for name in names if inputs.get(name) is not None})
    reports = len(encoded.last_hidden_state)
    if not len(sequences) or len(sequences) % reports:
        raise ValueError(f"{len(sequences)} sequences are no multiple of {reports} reports")
    times = len(sequences) // reports
    encoded = type(encoded)(
        **{name: value.repeat_interleave(times, 0) for name, value in encoded.items() if isinstance(value, Tensor)}
    )
    pad, start, end = (
        processor.tokenizer.pad_token_id,
        processor.tokenizer.bos_token_id,
        processor.tokenizer.eos_token_id,
    )
    rows = sequences.tolist()
    lengths = [_end_of(row, processor.text_span(row), end) for row in rows]
    # A start token that also pads: the last one before the text is the start token.
    firsts = [_start_of(row, processor.text_span(row)[0], pad, start) for row in rows]
    places = torch.arange(sequences.shape[1], device=sequences.device)
    bounds = torch.tensor([firsts, lengths], device=sequences.device)[..., None]
    mask = ((places >= bounds[0]) & (places < bounds[1])).long()
    ids, mask = left_padded(sequences, mask, pad, start)
    logits = model(encoder_outputs=encoded, decoder_input_ids=ids[:, :-1], decoder_attention_mask=mask[:, :-1]).logits
    log_probabilities = at_least_float32(logits).log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    written = []
    for row, sequence in enumerate(rows):
        begin, stop = processor.text_span(sequence)
        values = log_probabilities[row, ids.shape[1] - 1 - (lengths[row] - begin) :].tolist()
        ended = lengths[row] > stop
        text, spans = _spans(processor, sequence[begin:stop])
        written.append(WrittenReport(text, spans, values[: stop - begin], values[-1] if ended else None))
    return written


def _end_of(row: list[int], span: tuple[int, int], end: int) -> int:
    """One beyond the last token that was written, the end token included."""
    return span[1] + 1 if span[1] < len(row) and row[span[1]] == end else span[1]


def _start_of(row: list[int], begin: int, pad: int, start: int) -> int:
    """Where the prompt begins: at the start token before the text, which may also be what pads."""
    before = row[:begin]
    if pad != start:
        return before.index(start) if start in before else 0
    first = 0
    while first + 1 < begin and before[first + 1] == pad:
        first += 1
    return first


def _spans(processor: Any, ids: list[int]) -> tuple[str, list[tuple[int, int]]]:
    """The text of some ids, and the characters that each stands for."""
    text = processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    ends: list[int] = []
    for count in range(1, len(ids) + 1):
        so_far = processor.tokenizer.decode(ids[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        complete = len(so_far) if count == len(ids) else len(so_far.rstrip(INCOMPLETE))
        ends.append(max(complete, ends[-1] if ends else 0))
    spans: list[tuple[int, int]] = []
    for index, end in enumerate(ends):
        begin = ends[index - 1] if index else 0
        # A token that completes no character belongs to the one that a later token completes.
        spans.append((begin, next((later for later in ends[index:] if later > begin), end)))
    return text, spans


__all__ = ["WrittenReport", "written_reports"]
