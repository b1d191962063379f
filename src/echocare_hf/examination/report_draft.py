"""A draft report of one file: sentences, each with the frames that support it, and beside them what was measured.

The generator's sentences and the measurements stay apart: numbers come from the models that measure, with their units. A number within a
sentence either rests on one of them, which is then named with its frame, or is unsupported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from echocare_hf.reports.draft import DraftReport, DraftSentence

from .records import measurement_record, plain
from .report_frames import ReportFrame
from .report_numbers import CheckedNumber
from .results import Measurement

Basis = Literal["measurement", "structure", "likelihood"]
"""Why a frame supports a sentence: its number was measured there; it shows best a structure that the sentence names; or, of the frames
that the generator saw, it makes the sentence most probable when it is shown alone."""


@dataclass(frozen=True)
class SupportedSentence:
    """A generated sentence and what it rests on.

    Attributes:
        sentence: with its confidence, findings and contradictions.
        frames: indices in the file.
        basis: why these.
        numbers: in it, each with the measurement that it rests on, if there is one.
    """

    sentence: DraftSentence
    frames: tuple[int, ...]
    basis: Basis
    numbers: tuple[CheckedNumber, ...] = ()

    @property
    def measurements(self) -> tuple[int, ...]:
        """Places in the draft's measurements whose values the sentence states."""
        return tuple(number.measurement for number in self.numbers if number.measurement is not None)

    @property
    def unsupported(self) -> tuple[str, ...]:
        """Numbers in it, as they are written, that no measurement supports."""
        return tuple(number.quantity.text for number in self.numbers if number.measurement is None)

    @property
    def is_flagged(self) -> bool:
        """Whether a finding contradicts it, a number in it was not measured, or it speaks of another organ."""
        return bool(self.sentence.contradictions or self.unsupported or self.sentence.other_organs)


@dataclass(frozen=True, eq=False)
class ExaminationDraft:
    """A draft report of one file.

    Attributes:
        model: name of the report generator, a key of `FileResult.models`.
        draft: the report as it was written and checked against the findings head.
        sentences: those of the draft, with what they rest on.
        measurements: of the file, by the models that measure.
        frames: that the generator saw, with their pixels.
        pictures: those and the others that a sentence refers to.
        organ, indication: what the generator was told, "" for nothing.
        organ_source: "option", "anatomy" or "".
        warnings: one line each.
    """

    model: str
    draft: DraftReport
    sentences: tuple[SupportedSentence, ...]
    measurements: tuple[Measurement, ...] = ()
    frames: tuple[ReportFrame, ...] = ()
    pictures: tuple[ReportFrame, ...] = ()
    organ: str = ""
    indication: str = ""
    organ_source: str = ""
    warnings: tuple[str, ...] = ()


def draft_record(draft: ExaminationDraft, pictures: Mapping[int, str]) -> dict[str, Any]:
    """The field `report` of result.json.

    Args:
        draft: of the file.
        pictures: place of the picture of each frame, by its index, below the output folder.
    """
    own = draft.draft.to_dict()
    sentences = []
    for sentence, record in zip(draft.sentences, own["sentences"], strict=True):
        sentences.append(
            {
                **record,
                "is_flagged": sentence.is_flagged,
                "frames": list(sentence.frames),
                "basis": sentence.basis,
                "measurements": list(sentence.measurements),
                "unsupported_numbers": list(sentence.unsupported),
                "numbers": [number_record(number) for number in sentence.numbers],
            }
        )
    return plain(
        {
            **own,
            "model": draft.model,
            "organ": draft.organ,
            "organ_source": draft.organ_source,
            "indication": draft.indication,
            "sentences": sentences,
            "measurements": [measurement_record(each) for each in draft.measurements],
            "frames": [_frame_record(frame, pictures) for frame in draft.pictures],
            "generated_from": [frame.index for frame in draft.frames],
            "warnings": list(draft.warnings),
        }
    )


def number_record(number: CheckedNumber) -> dict[str, Any]:
    """Of one number of a sentence: where it stands, what it says, whether it was measured, and which measurements have to do with it."""
    quantity = number.quantity
    record: dict[str, Any] = {
        "text": quantity.text,
        "start": quantity.start,
        "end": quantity.end,
        "value": None if quantity.value is None else round(quantity.value, 6),
        "unit": quantity.unit,
        "status": "unsupported" if number.measurement is None else "measured",
        "measurement": number.measurement,
        "same_value": number.same_value,
        "instead": list(number.instead),
    }
    return {key: value for key, value in record.items() if value not in (None, [])}


def _frame_record(frame: ReportFrame, pictures: Mapping[int, str]) -> dict[str, Any]:
    record: dict[str, Any] = {"frame": frame.index, "time_ms": frame.time_ms, "shows": list(frame.shows)}
    if frame.index in pictures:
        record["picture"] = pictures[frame.index]
    return record


def measured_text(measurement: Measurement) -> str:
    """What was measured, as a report names it: "fetal head: circumference, mean"."""
    return f"{measurement.of}: {measurement.name}" if measurement.of else measurement.name


def frames_text(frames: Sequence[int]) -> str:
    """ "frame 7", "frames 7, 12"."""
    return f"frame{'s' if len(frames) > 1 else ''} {', '.join(map(str, frames))}"


__all__ = [
    "Basis",
    "ExaminationDraft",
    "SupportedSentence",
    "draft_record",
    "frames_text",
    "measured_text",
    "number_record",
]
