"""draft_report.txt: the draft as plain text."""

from collections.abc import Iterator
from dataclasses import replace

from echocare_hf.reports.draft import FLAG, DraftReport

from .overlays import quantity_text
from .records import measurement_record
from .report_draft import ExaminationDraft, SupportedSentence, frames_text, measured_text, number_record
from .report_words import MEASURED, NOTHING_MEASURED, number_notes
from .results import FileResult, Measurement

BASES = {
    "measurement": "measured in {}",
    "structure": "named structure, {}",
    "likelihood": "{}",
}


def draft_text(draft: ExaminationDraft, result: FileResult) -> str:
    """The notice, what was told to the generator, a sentence a line with its confidence and frames, flags, and the measurements.

    Args:
        draft: of the file.
        result: of the file, for its name and the model.
    """
    facts = result.models[draft.model]
    lines = [draft.draft.notice, "", f"File: {result.name}"]
    if draft.organ:
        lines.append(f"Organ: {draft.organ}{' (told by the anatomy)' if draft.organ_source == 'anatomy' else ''}")
    if draft.indication:
        lines.append(f"Indication: {draft.indication}")
    lines += [f"Written by: {facts.source}, weights {facts.sha256[:12]}, from {_seen(draft)}", "", "Report"]
    for sentence in draft.sentences:
        first, *flags = sentence_lines(sentence, draft)
        basis = BASES[sentence.basis].format(frames_text(sentence.frames))
        lines.append(f"{first} ({basis})" if sentence.frames else first)
        lines += [f"       {flag}" for flag in flags]
    if not draft.sentences:
        lines.append("-")
    lines += list(report_flags(draft))
    lines += ["", MEASURED]
    lines += [f"- {measurement_line(each)}" for each in draft.measurements] or [NOTHING_MEASURED]
    return "\n".join(lines) + "\n"


def sentence_lines(sentence: SupportedSentence, draft: ExaminationDraft) -> list[str]:
    """A sentence with its confidence, then its flags: what contradicts it, other organs in it, and what its numbers rest on."""
    language = draft.draft.language
    alone = DraftReport((replace(sentence.sentence, numbers=()),), language, draft.organ, is_checked=True)
    # Its own frames are places among the images of the generator.
    first, *flags = [line.strip() for line in alone.to_text().split("\n")[2:]]
    return [first, *flags, *number_lines(sentence, draft)]


def number_lines(sentence: SupportedSentence, draft: ExaminationDraft) -> list[str]:
    """What the numbers of a sentence rest on: the measurements with their frames, and which numbers have none."""
    numbers = [number_record(number) for number in sentence.numbers]
    measurements = [measurement_record(each) for each in draft.measurements]
    notes = number_notes(numbers, measurements, draft.draft.language)
    return [f"{FLAG} {text}" if is_flag else text for is_flag, text in notes]


def report_flags(draft: ExaminationDraft) -> Iterator[str]:
    """What is to say of the draft as a whole: findings that it leaves out, that it was not checked, and warnings."""
    whole = draft.draft
    left = DraftReport(
        (), whole.language, probabilities=whole.probabilities, omitted=whole.omitted, is_checked=whole.is_checked
    )
    yield from (line for line in left.to_text().split("\n")[2:] if line)
    yield from (f"{FLAG} {warning}" for warning in draft.warnings)


def measurement_line(measurement: Measurement) -> str:
    """What was measured with its unit, frame and model."""
    value = quantity_text(measurement.value, measurement.unit, measurement.spread)
    frame = "" if measurement.frame is None else f"frame {measurement.frame}, "
    return f"{measured_text(measurement)}: {value} ({frame}{measurement.model})"


def _seen(draft: ExaminationDraft) -> str:
    return frames_text([frame.index for frame in draft.frames]) + ", cut to the analysed region"


__all__ = ["draft_text", "measurement_line", "number_lines", "report_flags", "sentence_lines"]
