"""A draft report: sentences with their confidence, what contradicts the findings, and the notice that it is a draft."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .languages import draft_notice, language_code
from .numbers import Quantity

_WORDS = {
    "en": {
        "present": "says that {finding} is present, the images say {probability:.0%}",
        "absent": "says that {finding} is absent, the images say {probability:.0%}",
        "omitted": "Not in the text, though the images say {probability:.0%}: {finding}",
        "unchecked": "The text was not checked against findings.",
        "unsupported": "no measurement supports: {numbers}",
        "elsewhere": "speaks of {others}, the examination is of: {organ}",
        "frames": "images {frames}",
    },
    "zh": {
        "present": "文字称有{finding}，图像给出的概率为{probability:.0%}",
        "absent": "文字称无{finding}，图像给出的概率为{probability:.0%}",
        "omitted": "文字未提及，但图像给出的概率为{probability:.0%}：{finding}",
        "unchecked": "文字未与征象核对。",
        "unsupported": "无测量值支持：{numbers}",
        "elsewhere": "文字提及{others}，而检查部位为：{organ}",
        "frames": "图像{frames}",
    },
}
FLAG = "⚠"


def flag_words(kind: str, language: str = "en", **values: Any) -> str:
    """What a flag says, in English where the language has no words of its own.

    Args:
        kind: "present" or "absent" (what a sentence says of a finding), "omitted", "unchecked", "unsupported" (numbers), "elsewhere"
            (other organs), "frames".
        language: of the report, "en", "zh", ...
        values: `finding` and `probability`, 0 to 1; or `numbers`; or `others` and `organ`; or `frames`.
    """
    return _WORDS.get(language_code(language), _WORDS["en"])[kind].format(**values)


@dataclass(frozen=True)
class Contradiction:
    """A sentence says one thing of a finding, the findings head another.

    Attributes:
        finding: its name.
        said: "present" or "absent", what the sentence says.
        probability: 0 to 1, that the finding is present, by the head.
        threshold: below which the head calls it absent, or above which present.
    """

    finding: str
    said: str
    probability: float
    threshold: float


@dataclass(frozen=True)
class DraftSentence:
    """One sentence of a draft.

    Attributes:
        text: the sentence with its mark at the end.
        confidence: 0 to 1, geometric mean of the probabilities of its tokens; None where it is not known. It says how sure the decoder is
            of its words, not how likely they are true.
        findings: "present" or "absent" by name, what the sentence says.
        contradictions: with the findings head.
        frames: places of the images that support it, from 0; empty where nobody says.
        numbers: in it, that no measurement supports. A generator does not measure, so they are all its numbers as long as nobody has held
            them against measurements, as `echocare predict` does.
        other_organs: words in it for organs of another part of the body than the examined one.
    """

    text: str
    confidence: float | None = None
    findings: Mapping[str, str] = field(default_factory=dict)
    contradictions: tuple[Contradiction, ...] = ()
    frames: tuple[int, ...] = ()
    numbers: tuple[Quantity, ...] = ()
    other_organs: tuple[str, ...] = ()

    @property
    def is_flagged(self) -> bool:
        """Whether it contradicts a finding. `numbers` that nobody measured and `other_organs` are other kinds of flags."""
        return bool(self.contradictions)


@dataclass(frozen=True)
class DraftReport:
    """A report as a model wrote it, for a clinician to correct.

    Attributes:
        sentences: in their order.
        language: of the report, "en", "zh", ...
        organ: "" if unknown.
        probabilities: 0 to 1 by name of the finding, from the findings head; empty without one.
        omitted: findings that the head is sure of and no sentence mentions.
        text: the report to the letter.
        is_checked: whether there were rules for the language and findings to check against.
        rules: version of the rules by which findings were read.
    """

    sentences: tuple[DraftSentence, ...]
    language: str = "en"
    organ: str = ""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    omitted: tuple[str, ...] = ()
    text: str = ""
    is_checked: bool = False
    rules: str = ""

    @property
    def notice(self) -> str:
        """What marks it as a draft for a clinician, in its language."""
        return draft_notice(self.language)

    @property
    def flagged(self) -> tuple[DraftSentence, ...]:
        """The sentences that contradict a finding."""
        return tuple(sentence for sentence in self.sentences if sentence.is_flagged)

    def to_text(self) -> str:
        """Plain text: the notice, then a sentence a line with its confidence, and below it its flags."""
        lines = [self.notice, ""]
        for sentence in self.sentences:
            shown = "[  - ]" if sentence.confidence is None else f"[{sentence.confidence:.2f}]"
            frames = ", ".join(str(frame + 1) for frame in sentence.frames)
            supported = f" ({flag_words('frames', self.language, frames=frames)})" if frames else ""
            lines.append(f"{shown} {sentence.text}{supported}")
            lines += [
                f"       {FLAG} {flag_words(found.said, self.language, **asdict(found))}"
                for found in sentence.contradictions
            ]
            if sentence.other_organs:
                others = ", ".join(sentence.other_organs)
                flag = flag_words("elsewhere", self.language, others=others, organ=self.organ)
                lines.append(f"       {FLAG} {flag}")
            if sentence.numbers:
                numbers = ", ".join(each.text for each in sentence.numbers)
                lines.append(f"       {FLAG} {flag_words('unsupported', self.language, numbers=numbers)}")
        lines += [
            f"{FLAG} {flag_words('omitted', self.language, finding=name, probability=self.probabilities[name])}"
            for name in self.omitted
        ]
        return "\n".join(lines if self.is_checked else [*lines, "", flag_words("unchecked", self.language)])

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "is_draft": True,
            "notice": self.notice,
            "language": self.language,
            "organ": self.organ,
            "text": self.text,
            "sentences": [
                {
                    "text": sentence.text,
                    "confidence": None if sentence.confidence is None else round(sentence.confidence, 4),
                    "is_flagged": sentence.is_flagged,
                    "findings": dict(sentence.findings),
                    "contradictions": [asdict(found) for found in sentence.contradictions],
                    "unsupported_numbers": [number.text for number in sentence.numbers],
                    "other_organs": list(sentence.other_organs),
                    "frames": list(sentence.frames),
                }
                for sentence in self.sentences
            ],
            "findings": {name: round(value, 4) for name, value in self.probabilities.items()},
            "omitted": list(self.omitted),
            "is_checked": self.is_checked,
            "rules": self.rules,
        }


__all__ = ["FLAG", "Contradiction", "DraftReport", "DraftSentence", "flag_words"]
