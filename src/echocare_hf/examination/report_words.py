"""The headings and notes around a draft report on a page, in English and Chinese."""

from .report_text import MEASURED, NOTHING_MEASURED, UNSUPPORTED

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
        "unsupported": UNSUPPORTED,
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
        "unsupported": "无测量值支持：{}",
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
    code = language.lower().split("-")[0]
    return code if code in _WORDS else "en"


def page_words(kind: str, language: str, value: str = "") -> str:
    """A heading or note.

    Args:
        kind: such as "report" or "measured".
        language: of the report; English where it has no words of its own.
        value: what it is about, where it names something.
    """
    return _WORDS[page_language(language)][kind].format(value)


__all__ = ["page_language", "page_words"]
