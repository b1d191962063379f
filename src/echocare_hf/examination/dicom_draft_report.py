"""The draft report as a DICOM Basic Text SR, in the sections of TID 2000 (Basic Diagnostic Imaging Report).

It says that it is a draft: CompletionFlag PARTIAL, PreliminaryFlag PRELIMINARY, VerificationFlag UNVERIFIED, and the notice as its
first text. Each sentence is inferred from the frames that support it. Measurements stand in a section of their own, as text, since this
kind of report holds no numbers; report.dcm has them as such.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydicom.sr.coding import Code
from pydicom.uid import BasicTextSRStorage

from echocare_hf.reports.draft import FLAG
from echocare_hf.reports.languages import language_code

from .dicom_codes import COMMENT, private_code
from .dicom_common import DRAFT, import_highdicom, quiet, set_instance_uid, weights_of
from .dicom_report import observer
from .dicom_source import Source
from .report_draft import ExaminationDraft, SupportedSentence
from .report_numbers import CheckedNumber
from .report_text import measurement_line, report_flags, sentence_lines
from .report_words import MEASURED, NOTHING_MEASURED
from .results import FileResult

REPORT = Code("18748-4", "LN", "Diagnostic imaging report")
FINDINGS, FINDING = Code("121070", "DCM", "Findings"), Code("121071", "DCM", "Finding")
MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
INDICATIONS = Code("121109", "DCM", "Indications for Procedure")
INDICATION = Code("121110", "DCM", "Patient Presentation")
SOURCE = Code("260753009", "SCT", "Source")
UNSUPPORTED_NUMBER = private_code("Number that no measurement supports")
MEASURED_NUMBER = private_code("Number that was measured")
FROM_ZERO = "Frames named in texts are counted from 0; references to frames are counted from 1."
LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
LANGUAGES = {
    "en": "English",
    "zh": "Chinese",
    "de": "German",
    "es": "Spanish",
    "fr": "French",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "pt": "Portuguese",
    "ru": "Russian",
}

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def write_draft_report(source: Path, result: FileResult, draft: ExaminationDraft, target: Path) -> None:
    """Writes the draft report on one file.

    Args:
        source: the DICOM file that was analysed.
        result: of the file.
        draft: the report on it.
        target: the file to write.

    Raises:
        ValueError: if the source lacks what results need.
    """
    hd = import_highdicom()
    image = Source(source)
    with quiet():
        root = _content(image, result, draft)
        dataset = hd.sr.EnhancedSR(  # the same modules; what it may hold is a superset
            evidence=[image.header],
            content=root,
            is_complete=False,
            is_final=False,
            is_verified=False,
            **image.own_series(result, "draft report", 94),
        )
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
        dataset.CompletionFlagDescription = DRAFT
        digest = hashlib.sha256(root.to_json(suppress_invalid_tags=True).encode()).hexdigest()
        set_instance_uid(dataset, image.header.SOPInstanceUID, "draft report", weights_of(result), digest)
        image.write(dataset, target)


def _content(image: Source, result: FileResult, draft: ExaminationDraft) -> Any:
    hd = import_highdicom()
    root = hd.sr.ContainerContentItem(REPORT, template_id="2000")
    context = hd.sr.ObservationContext(observer_device_context=observer(result))
    items = [_language(draft.draft.language), *context]
    items.append(_text(COMMENT, f"{DRAFT}. {draft.draft.notice}"))
    facts = result.models[draft.model]
    items.append(_text(COMMENT, f"Text generator: {facts.source}, SHA-256 of its weights {facts.sha256}"))
    if draft.indication:
        items.append(_section(INDICATIONS, [_text(INDICATION, draft.indication)]))
    if image.is_multi_frame:
        items.append(_text(COMMENT, FROM_ZERO))
    sentences = [_sentence(image, sentence, draft) for sentence in draft.sentences]
    said = sentences or [_text(FINDING, "The text generator wrote nothing.")]
    items.append(_section(FINDINGS, [*said, *(_text(COMMENT, line) for line in report_flags(draft))]))
    lines = [measurement_line(each) for each in draft.measurements] or [NOTHING_MEASURED]
    items.append(_section(MEASUREMENTS, [_text(COMMENT, MEASURED), *(_text(FINDING, line) for line in lines)]))
    root.ContentSequence = hd.sr.ContentSequence(items)
    return root


def _sentence(image: Source, sentence: SupportedSentence, draft: ExaminationDraft) -> Any:
    """A sentence as a finding, inferred from its frames; its confidence and flags stand in front of and behind it.

    Each of its numbers is an item of its own below it: an unsupported one, or one that was measured, with the measurement.
    """
    hd = import_highdicom()
    first, *notes = sentence_lines(sentence, draft)
    item = _text(FINDING, " ".join([first, *(note for note in notes if note.startswith(FLAG))]))
    header = image.header
    frames = sentence.frames if image.is_multi_frame else sentence.frames[:1]
    images = [
        hd.sr.ImageContentItem(
            SOURCE,
            header.SOPClassUID,
            header.SOPInstanceUID,
            image.frame_numbers(frame),
            relationship_type="INFERRED FROM",
        )
        for frame in frames
    ]
    if numbers := [_number(number, draft) for number in sentence.numbers]:
        images += numbers
    if images:
        item.ContentSequence = hd.sr.ContentSequence(images)
    return item


def _number(number: CheckedNumber, draft: ExaminationDraft) -> Any:
    """A number of a sentence, coded as unsupported or as measured."""
    text = number.quantity.text
    if number.measurement is None:
        return _text(UNSUPPORTED_NUMBER, text, "HAS PROPERTIES")
    return _text(
        MEASURED_NUMBER, f"{text}: {measurement_line(draft.measurements[number.measurement])}", "HAS PROPERTIES"
    )


def _language(language: str) -> Any:
    code = language_code(language)
    meaning = LANGUAGES.get(code, "English")
    concept = Code(code if code in LANGUAGES else "en", "RFC5646", meaning)
    return import_highdicom().sr.CodeContentItem(LANGUAGE, concept, relationship_type="HAS CONCEPT MOD")


def _section(title: Code, items: Iterable[Any]) -> Any:
    hd = import_highdicom()
    section = hd.sr.ContainerContentItem(title, relationship_type="CONTAINS")
    section.ContentSequence = hd.sr.ContentSequence(items)
    return section


def _text(name: Code, text: str, relationship: str = "CONTAINS") -> Any:
    """A text without control characters, which DICOM does not allow in it."""
    return import_highdicom().sr.TextContentItem(name, _CONTROLS.sub(" ", text), relationship_type=relationship)


__all__ = ["write_draft_report"]
