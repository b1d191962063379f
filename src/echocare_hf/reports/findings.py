"""Findings of report texts as labels: present, absent, or unknown where a report does not speak of them.

    text_findings("No effusion. Several B-lines.", organ="lung")["b_lines"]     # "present"

The rules are those by which generated reports are measured (`echocare_hf.metrics.findings`), in English and Chinese; for other languages
pairs bring their findings along.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Literal, get_args

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.metrics.findings import FindingRules, find_findings, read_finding_rules
from echocare_hf.metrics.text_tokens import LANGUAGES

from .languages import language_code, language_of
from .structure_names import organ_node

FindingLabel = Literal["present", "absent", "unknown"]
LABELS: tuple[str, ...] = get_args(FindingLabel)

TARGETS: dict[str, int] = {"present": 1, "absent": 0, "unknown": -1}
"""What a findings head is trained on; -1 takes no part in its loss."""

_OF_ANSWER: dict[bool | None, FindingLabel] = {True: "present", False: "absent", None: "unknown"}


def text_findings(
    text: str, language: str | None = None, organ: str | None = None, rules: FindingRules | None = None
) -> dict[str, FindingLabel]:
    """What a text says of each finding.

    Args:
        text (`str`): a report or a sentence of one.
        language (`str`, *optional*): `"en"`, `"zh"` or another; told by the script if not given.
        organ (`str`, *optional*): looks for the findings of this organ alone, in any form that the anatomy tree knows. For an organ that
            the rules do not know all findings are looked for.
        rules (`FindingRules`, *optional*): those of the package by default.

    Returns:
        `dict[str, str]`: `"present"`, `"absent"` or `"unknown"` by the name of the finding; empty for a language without rules.
    """
    language = language_code(language) if language else language_of(text)
    if language not in LANGUAGES:
        return {}
    rules = rules or package_rules()
    found = find_findings(text, language, rule_organ(organ, rules), rules)
    return {name: _OF_ANSWER[answer] for name, answer in found.items()}


def rule_organ(organ: str | None, rules: FindingRules | None = None) -> str | None:
    """The organ of the rules that a name stands for: `"Thyroid left lobe"` and `"甲状腺"` are `"thyroid"`; None if the rules have none."""
    if not organ or not organ.strip():
        return None
    rules = rules or package_rules()
    known = {name for organs in rules.organs.values() for name in organs}
    key = organ.strip().casefold()
    if key in known:
        return key
    node = organ_node(organ)
    if node is None:
        return None
    tree = AnatomyTree.default()
    return next((tree.ids[step] for step in reversed(tree.path_nodes(node)) if tree.ids[step] in known), None)


def finding_names(labels: Iterable[Mapping[str, str]], minimum: int = 2) -> list[str]:
    """The findings that a head can learn: present in at least `minimum` reports. In the order in which they first occur.

    Args:
        labels: of each training report, name to `"present"`, `"absent"` or `"unknown"`.
        minimum (`int`, *optional*, defaults to 2): reports in which a finding must be present.
    """
    counts: dict[str, int] = {}
    for report in labels:
        for name, label in report.items():
            counts[name] = counts.get(name, 0) + (label == "present")
    return [name for name, count in counts.items() if count >= minimum]


def finding_targets(
    labels: Mapping[str, str], names: Sequence[str], unmentioned: Literal["absent", "unknown"] = "absent"
) -> list[int]:
    """Labels as numbers for the loss of a findings head.

    Args:
        labels: of one report.
        names: the findings of the head, in its order.
        unmentioned: what a finding is taken for that the report does not speak of.

    Returns:
        `list[int]`: 1 present, 0 absent, -1 unknown.
    """
    usual = {"unknown": TARGETS[unmentioned]}
    return [{**TARGETS, **usual}[labels.get(name, "unknown")] for name in names]


@cache
def package_rules() -> FindingRules:
    """The rules that come with the package."""
    return read_finding_rules()


__all__ = [
    "LABELS",
    "TARGETS",
    "FindingLabel",
    "finding_names",
    "finding_targets",
    "package_rules",
    "rule_organ",
    "text_findings",
]
