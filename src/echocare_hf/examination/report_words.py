"""The headings and notes around a draft report, in English and Chinese."""

from collections.abc import Mapping, Sequence
from typing import Any

from echocare_hf.reports.draft import flag_words
from echocare_hf.reports.languages import language_code

from .overlays import quantity_text
from .report_draft import measured_text
from .results import Measurement

MEASURED = "Measurements (of the models that measure, not of the text generator)"
NOTHING_MEASURED = "none"
MOST_INSTEAD = 4
"""Measurements that are named beside a number that is none of them."""

_WORDS = {
    "en": {
        "draft": "DRAFT",
        "report": "Report",
        "measured": MEASURED,
        "nothing measured": NOTHING_MEASURED,
        "measurement": "Measurement",
        "value": "Value",
        "frame": "Frame",
        "model": "Model",
        "not finite": "not finite",
        "written by": "Written by {}",
        "organ": "organ {}",
        "told by the anatomy": " (told by the anatomy)",
        "indication": "indication: {}",
        "confidence": "confidence",
        "measured here": "measured: {}",
        "of frame": "{} (frame {})",
        "same value": "{} is the value of {}, which the sentence does not name",
        "instead": "what was measured: {}",
        "basis measurement": "measured in this frame",
        "basis structure": "shows the structure that is named",
        "basis likelihood": "the sentence is most probable with this frame alone",
    },
    "zh": {
        "draft": "草稿",
        "report": "报告",
        "measured": "测量值（来自测量模型，而非文本生成器）",
        "nothing measured": "无",
        "measurement": "测量项",
        "value": "数值",
        "frame": "帧",
        "model": "模型",
        "not finite": "无有效数值",
        "written by": "由 {} 生成",
        "organ": "器官：{}",
        "told by the anatomy": "（由解剖识别得出）",
        "indication": "检查原因：{}",
        "confidence": "置信度",
        "measured here": "测得：{}",
        "of frame": "{}（第 {} 帧）",
        "same value": "{} 与{}的数值相同，但该句未提及后者",
        "instead": "实际测得：{}",
        "basis measurement": "在此帧中测得",
        "basis structure": "显示所述结构",
        "basis likelihood": "单独给出此帧时该句概率最高",
    },
}


def page_language(language: str) -> str:
    """The language of the headings for a report: its own where there are words, else English.

    Args:
        language: of the report, "en", "zh-CN", ...
    """
    code = language_code(language)
    return code if code in _WORDS else "en"


def page_words(kind: str, language: str, *values: object) -> str:
    """A heading or note.

    Args:
        kind: such as "report" or "measured".
        language: of the report; English where it has no words of its own.
        values: what it is about, where it names something.
    """
    return _WORDS[page_language(language)][kind].format(*values)


def number_notes(
    numbers: Sequence[Mapping[str, Any]], measurements: Sequence[Mapping[str, Any]], language: str
) -> list[tuple[bool, str]]:
    """What stands below a sentence with numbers: whether it is a flag, and the text.

    Each number that was measured gives the measurement with its frame. Those that were not are flagged together; then what has the same
    value, and what was measured of what the sentence names.

    Args:
        numbers: of a sentence, as `number_record` has them.
        measurements: of the file, as `measurement_record` has them.
        language: of the report.
    """

    def measured(place: int) -> str:
        return measured_words(measurements[place], language)

    notes = [
        (False, page_words("measured here", language, measured(place)))
        for place in dict.fromkeys(number["measurement"] for number in numbers if "measurement" in number)
    ]
    unsupported = [number for number in numbers if "measurement" not in number]
    if unsupported:
        texts = ", ".join(number["text"] for number in unsupported)
        notes.append((True, flag_words("unsupported", page_language(language), numbers=texts)))
    notes += [
        (False, page_words("same value", language, number["text"], measured(number["same_value"])))
        for number in unsupported
        if "same_value" in number
    ]
    instead = list(dict.fromkeys(place for number in unsupported for place in number.get("instead", ())))
    if instead:
        shown = "; ".join(map(measured, instead[:MOST_INSTEAD]))
        notes.append((False, page_words("instead", language, shown)))
    return notes


def measured_words(record: Mapping[str, Any], language: str) -> str:
    """A measurement as `measurement_record` has it, in words: of what, its value with its unit, and its frame."""
    if record.get("value") is None:
        return page_words("not finite", language)
    own = Measurement(**record)
    text = f"{measured_text(own)} {quantity_text(own.value, own.unit, own.spread)}"
    return text if own.frame is None else page_words("of frame", language, text, own.frame)


__all__ = ["MEASURED", "NOTHING_MEASURED", "measured_words", "number_notes", "page_language", "page_words"]
