"""A generated text is checked: sentences that contradict the findings head, or speak of another organ, are flagged.

    thresholds = FindingThresholds.choose(names, probabilities, targets)        # on validation exams
    draft = check_report(text, {"b_lines": 0.97}, thresholds, organ="lung")
    print(draft.to_text())

A sentence contradicts the head if it asserts a finding whose probability lies below the finding's absent threshold, or denies one whose
probability lies above its present threshold. In between the head is not sure, and nothing is flagged. The head speaks of the whole
examination: "No nodule on the left" does not contradict it where another sentence has a nodule on the right.
Organs of another part of the body than the examined one are found by their names, see `other_organs`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from echocare_hf.metrics.findings import FindingRules
from echocare_hf.metrics.text_tokens import LANGUAGES

from .draft import Contradiction, DraftReport, DraftSentence
from .findings import package_rules, text_findings
from .languages import language_code, language_of
from .numbers import find_quantities
from .other_organs import other_organs

# A mark that ends a sentence: a point only before a space, so that 3.5 mm stays whole.
_END = re.compile(r"[。！？；]+|[.!?;]+(?=\s|$)|\n+")
_ABBREVIATION = re.compile(r"\b(?:approx|ca|cf|dr|e\.g|fig|i\.e|max|min|vs)\.$", re.IGNORECASE)

_SIDE = re.compile(r"\b(?:right|left)\b|[左右]", re.IGNORECASE)
MIDDLE = 0.5
"""No finding is taken for absent above, or for present below."""


@dataclass(frozen=True)
class FindingThresholds:
    """From where on a findings head is believed.

    Attributes:
        absent: by name, the probability below which a finding is taken for absent.
        present: by name, the probability above which it is taken for present. A finding that is in neither is never checked.
    """

    absent: Mapping[str, float]
    present: Mapping[str, float]

    @classmethod
    def choose(
        cls,
        names: Sequence[str],
        probabilities: np.ndarray,
        targets: np.ndarray,
        reliability: float = 0.9,
        minimum: int = 5,
    ) -> "FindingThresholds":
        """Thresholds beyond which the head was right often enough on validation exams.

        For each finding the lowest present threshold, of at least 0.5, with a precision of at least `reliability` among the exams above
        it, and the highest absent threshold, of at most 0.5, with such a share of exams without the finding below it; each with at least
        `minimum` exams. Where nothing is reliable enough, there is no threshold.

        Args:
            names: the findings of the head.
            probabilities: `(exams, findings)`, 0 to 1.
            targets: `(exams, findings)`: 1 present, 0 absent, -1 unknown.
            reliability (`float`, *optional*, defaults to 0.9): above 0, at most 1.
            minimum (`int`, *optional*, defaults to 5): exams.

        Raises:
            ValueError: if the shapes do not go together.
        """
        probabilities, targets = np.asarray(probabilities, float), np.asarray(targets)
        if probabilities.shape != targets.shape or probabilities.ndim != 2 or probabilities.shape[1] != len(names):
            raise ValueError(
                f"give probabilities and targets of {len(names)} findings an exam, not {probabilities.shape} and {targets.shape}"
            )
        absent: dict[str, float] = {}
        present: dict[str, float] = {}
        for column, name in enumerate(names):
            known = targets[:, column] >= 0
            given, true = probabilities[known, column], targets[known, column] == 1
            for cut in _cuts(given):
                above, below = true[given > cut], ~true[given < cut]
                if cut >= MIDDLE and name not in present and len(above) >= minimum and above.mean() >= reliability:
                    present[name] = cut
                if cut <= MIDDLE and len(below) >= minimum and below.mean() >= reliability:
                    absent[name] = cut
        return cls(absent, present)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"absent": dict(self.absent), "present": dict(self.present)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FindingThresholds":
        """The reverse of `to_dict`.

        Raises:
            ValueError: for values that are no probabilities by name.
        """
        try:
            parts = [
                {str(name): float(value) for name, value in values[side].items()} for side in ("absent", "present")
            ]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                "thresholds of findings are two objects, absent and present, of numbers by name"
            ) from error
        return cls(*parts)


def check_report(
    text: str,
    probabilities: Mapping[str, float],
    thresholds: FindingThresholds,
    *,
    language: str | None = None,
    organ: str | None = None,
    confidences: Sequence[float | None] | None = None,
    frames: Sequence[Sequence[int]] | None = None,
    rules: FindingRules | None = None,
) -> DraftReport:
    """A draft of a generated text.

    Args:
        text (`str`): the report.
        probabilities: 0 to 1 by name of the finding, of the same examination.
        thresholds: from where on they are believed.
        language (`str`, *optional*): of the report; told by its script if not given.
        organ (`str`, *optional*): looks for its findings alone, and for words on organs of other parts of the body.
        confidences (*optional*): 0 to 1 for each of `split_sentences(text)`.
        frames (*optional*): for each of them the images that support it, from 0.
        rules (`FindingRules`, *optional*): by which findings are read from sentences; those of the package by default.

    Raises:
        ValueError: for another number of confidences or frames than there are sentences.
    """
    language = language or language_of(text)
    rules = rules or package_rules()
    parts = [text[start:end] for start, end in split_sentences(text)]
    for name, given in (("confidences", confidences), ("frames", frames)):
        if given is not None and len(given) != len(parts):
            raise ValueError(f"{len(given)} {name} for {len(parts)} sentences: give one of each a sentence")
    spoken = [language_code(_spoken(part, language)) for part in parts]
    said = [text_findings(part, own, organ, rules) for part, own in zip(parts, spoken, strict=True)]
    of_exam = exam_statements(parts, said)
    sentences = tuple(
        DraftSentence(
            part,
            None if confidences is None else confidences[index],
            {name: label for name, label in said[index].items() if label != "unknown"},
            tuple(_contradictions(of_exam[index], probabilities, thresholds)),
            () if frames is None else tuple(frames[index]),
            tuple(find_quantities(part)),
            other_organs(part, organ) if spoken[index] in LANGUAGES else (),
        )
        for index, part in enumerate(parts)
    )
    mentioned = {name for sentence in sentences for name in sentence.findings}
    readable = {
        name for labels in said for name in labels
    }  # what the rules of this organ and language could have found
    checkable = readable & probabilities.keys() & (thresholds.absent.keys() | thresholds.present.keys())
    omitted = tuple(
        name
        for name, value in probabilities.items()
        if name in readable - mentioned and value > thresholds.present.get(name, 1.0)
    )
    return DraftReport(
        sentences, language, organ or "", dict(probabilities), omitted, text, bool(checkable), rules.version
    )


def exam_statements(texts: Sequence[str], said: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """What sentences say of the whole examination: all, but for denials of one side where another sentence asserts the finding.

    Args:
        texts: the sentences of a report.
        said: "present", "absent" or "unknown" by the name of the finding, of each.
    """
    asserted = {name for labels in said for name, label in labels.items() if label == "present"}
    return [
        {
            name: label
            for name, label in labels.items()
            if not (label == "absent" and name in asserted and _SIDE.search(part))
        }
        for part, labels in zip(texts, said, strict=True)
    ]


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Where the sentences of a text begin and end, without the white space between them.

    A sentence ends with a full stop, question mark, exclamation mark or semicolon, Chinese or Latin, or with its line; the point of a
    number or of a common abbreviation ends none.

    Returns:
        `list[tuple[int, int]]`: half-open ranges of characters.
    """
    spans, start = [], 0
    for match in _END.finditer(text):
        if not _ABBREVIATION.search(text[start : match.end()]):
            spans.append((start, match.end()))
            start = match.end()
    spans.append((start, len(text)))
    return [_stripped(text, *span) for span in spans if text[slice(*span)].strip()]


def sentence_confidences(
    text: str, token_spans: Iterable[tuple[int, int]], log_probabilities: Iterable[float]
) -> list[float | None]:
    """The geometric mean of the probabilities of each sentence's tokens.

    Args:
        text: the report.
        token_spans: half-open ranges of characters that the tokens write.
        log_probabilities: natural logarithms, one a token, at most 0.

    Returns:
        0 to 1 for each of `split_sentences(text)`; None for a sentence without tokens.
    """
    tokens = list(zip(token_spans, log_probabilities, strict=True))
    found: list[float | None] = []
    for start, end in split_sentences(text):
        inside = [value for (first, last), value in tokens if first < end and last > start]
        found.append(float(np.exp(np.mean(inside))) if inside else None)
    return found


def _spoken(sentence: str, language: str) -> str:
    """The language of a sentence: a report in Chinese may have English ones, and the other way round."""
    own = language_of(sentence)
    return own if own in LANGUAGES and language_code(language) in LANGUAGES else language


def _contradictions(
    said: Mapping[str, str], probabilities: Mapping[str, float], thresholds: FindingThresholds
) -> Iterable[Contradiction]:
    for name, label in said.items():
        if name not in probabilities:
            continue
        value = float(probabilities[name])
        if label == "present" and value < thresholds.absent.get(name, 0.0):
            yield Contradiction(name, label, value, thresholds.absent[name])
        if label == "absent" and value > thresholds.present.get(name, 1.0):
            yield Contradiction(name, label, value, thresholds.present[name])


def _cuts(values: np.ndarray) -> list[float]:
    """Between each two neighbouring values, below and above all, and the middle, in ascending order."""
    distinct = np.unique(values)
    if not len(distinct):
        return []
    between = ((distinct[1:] + distinct[:-1]) / 2).tolist()
    return sorted({float(distinct[0] / 2), *between, MIDDLE, float((1 + distinct[-1]) / 2)})


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), start + len(part.rstrip())


__all__ = [
    "Contradiction",
    "DraftReport",
    "DraftSentence",
    "FindingThresholds",
    "check_report",
    "exam_statements",
    "sentence_confidences",
    "split_sentences",
]
