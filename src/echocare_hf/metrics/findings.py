"""Clinical findings in report texts, read by published rules: whether a generated report says what the written one says."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from .common import mean_known
from .text_tokens import LANGUAGES, check_language

RULES = Path(__file__).with_name("findings.yaml")
"""The rules that come with the package."""


@dataclass(frozen=True)
class LanguageRules:
    """How clauses end and negation shows in a language."""

    clauses: re.Pattern[str]
    before: re.Pattern[str]
    after: re.Pattern[str]
    stop: re.Pattern[str]


@dataclass(frozen=True)
class FindingRules:
    """Rules of one file.

    Attributes:
        version (`str`): of the file; stands beside every number.
        languages (`dict[str, LanguageRules]`): by language.
        patterns (`dict[str, dict[str, re.Pattern]]`): by language, then finding.
        organs (`dict[str, tuple[str, ...]]`): the organs in whose reports a finding is looked for, by finding.
    """

    version: str
    languages: Mapping[str, LanguageRules]
    patterns: Mapping[str, Mapping[str, re.Pattern[str]]]
    organs: Mapping[str, tuple[str, ...]]

    def names(self, organ: str | None) -> list[str]:
        """The findings of an organ, or all.

        Raises:
            ValueError: for an organ without findings.
        """
        found = [name for name, organs in self.organs.items() if organ is None or organ in organs]
        if not found:
            known = sorted({organ for organs in self.organs.values() for organ in organs})
            raise ValueError(f"there are no findings of {organ!r}: `organ` is one of {', '.join(known)}")
        return found


def read_finding_rules(file: str | Path = RULES) -> FindingRules:
    """The rules of a file like `findings.yaml` beside this module, whose head says what they mean.

    Raises:
        ValueError: for a file that does not hold such rules.
    """
    file = Path(file)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        languages = {
            language: LanguageRules(
                _one_of([content["languages"][language]["clauses"]]),
                *(_one_of(content["languages"][language][key]) for key in ("before", "after", "stop")),
            )
            for language in LANGUAGES
        }
        findings = content["findings"]
        patterns = {
            language: {name: _one_of(rule[language]) for name, rule in findings.items()} for language in LANGUAGES
        }
        organs = {name: tuple(rule["organs"]) for name, rule in findings.items()}
        return FindingRules(str(content["version"]), languages, patterns, organs)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror})") from error
    except KeyError as error:
        raise ValueError(f"{file}: has no {error.args[0]!r}; see the head of findings.yaml") from error
    except (yaml.YAMLError, re.error, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: holds no rules for findings ({error}); see the head of findings.yaml") from error


def find_findings(
    text: str, language: str, organ: str | None = None, rules: FindingRules | None = None
) -> dict[str, bool | None]:
    """What a report says of each finding.

    Args:
        text (`str`): a report.
        language (`str`): `"en"` or `"zh"`.
        organ (`str`, *optional*): looks for the findings of this organ only, such as `"liver"`.
        rules (`FindingRules`, *optional*): those of the package by default.

    Returns:
        `dict[str, bool | None]`: True if it is present, False if it is named as absent, None if it is not named.

    Raises:
        ValueError: for another language, or an organ without findings.
    """
    check_language(language)
    rules = rules or _own_rules()
    cues, clauses = rules.languages[language], rules.languages[language].clauses.split(text)
    found: dict[str, bool | None] = {}
    for name in rules.names(organ):
        said = [
            not _negated(clause, match, cues)
            for clause in clauses
            for match in rules.patterns[language][name].finditer(clause)
        ]
        found[name] = any(said) if said else None
    return found


def clinical_findings_metrics(
    predictions: Sequence[str],
    references: Sequence[str],
    language: str,
    organ: str | None = None,
    rules: FindingRules | None = None,
) -> dict[str, float]:
    """How well the findings of generated reports agree with those of the written ones. A finding is present or not; one that a report does
    not name is not.

    - `findings_accuracy`: share of all decisions (reports x findings) that agree. Most are absent in both, so that it is high anyway.
    - `findings_exact_match`: share of reports of which all agree.
    - `findings_precision`, `findings_recall`, `findings_f1`: of all present findings together (micro average).
    - `findings_macro_f1`: mean of the F1 over the findings that occur in either; `findings_f1_<finding>`: of each of them.

    Args:
        predictions (`list[str]`): generated reports.
        references (`list[str]`): written reports.
        language (`str`): `"en"` or `"zh"`.
        organ (`str`, *optional*): looks for the findings of this organ only.
        rules (`FindingRules`, *optional*): those of the package by default. State their version.

    Returns:
        `dict[str, float]`, 0 to 1; nan where there is nothing to divide by.

    Raises:
        ValueError: for another number of reports, another language, or an organ without findings.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references: give one of each a report")
    check_language(language)
    rules = rules or _own_rules()
    names = rules.names(organ)
    found, true = (
        np.array(
            [[said is True for said in find_findings(text, language, organ, rules).values()] for text in texts],
            dtype=bool,
        ).reshape(-1, len(names))
        for texts in (predictions, references)
    )
    both, given, wanted = (table.sum(0) for table in (found & true, found, true))
    by_finding = {
        f"findings_f1_{name}": _ratio(2 * both[index], given[index] + wanted[index])
        for index, name in enumerate(names)
        if given[index] + wanted[index]
    }
    return {
        "findings_accuracy": mean_known(found == true),
        "findings_exact_match": mean_known((found == true).all(1)),
        "findings_precision": _ratio(both.sum(), given.sum()),
        "findings_recall": _ratio(both.sum(), wanted.sum()),
        "findings_f1": _ratio(2 * both.sum(), given.sum() + wanted.sum()),
        "findings_macro_f1": mean_known(list(by_finding.values())),
        **by_finding,
    }


@cache
def _own_rules() -> FindingRules:
    return read_finding_rules()


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")


def _one_of(patterns: Sequence[str]) -> re.Pattern[str]:
    if isinstance(patterns, str):
        raise TypeError(f"patterns are a list, got {patterns!r}")
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


def _negated(clause: str, match: re.Match[str], cues: LanguageRules) -> bool:
    """Whether a cue ahead of a finding, or behind it, reaches it."""
    ahead = [cue.end() for cue in cues.before.finditer(clause, 0, match.start())]
    if ahead and not cues.stop.search(clause, ahead[-1], match.start()):
        return True
    behind = cues.after.search(clause, match.end())
    return bool(behind and not cues.stop.search(clause, match.end(), behind.start()))
