"""Reports: image-report pairs, findings of texts, drafts checked against findings, baselines, and training.

Names load on first use, so that reading findings from a text needs no model.
"""

import importlib
from typing import TYPE_CHECKING, Any

# Public name -> module that defines it.
_MODULES = {
    "DraftReport": "draft",
    "DraftSentence": "draft",
    "FindingThresholds": "checking",
    "PhantomExam": "phantom_exams",
    "ReportArguments": "arguments",
    "ReportData": "pairs",
    "ReportPair": "pairs",
    "check_report": "checking",
    "copying_metrics": "copying",
    "load_generator": "drafting",
    "make_phantom_exam": "phantom_exams",
    "most_frequent_reports": "baselines",
    "nearest_reports": "baselines",
    "read_pairs": "pairs",
    "report_metrics": "evaluation",
    "text_findings": "findings",
    "write_drafts": "drafting",
    "write_phantom_exams": "phantom_exams",
}

__all__ = [
    "DraftReport",
    "DraftSentence",
    "FindingThresholds",
    "PhantomExam",
    "ReportArguments",
    "ReportData",
    "ReportPair",
    "check_report",
    "copying_metrics",
    "load_generator",
    "make_phantom_exam",
    "most_frequent_reports",
    "nearest_reports",
    "read_pairs",
    "report_metrics",
    "text_findings",
    "write_drafts",
    "write_phantom_exams",
]

if TYPE_CHECKING:
    from .arguments import ReportArguments
    from .baselines import most_frequent_reports, nearest_reports
    from .checking import FindingThresholds, check_report
    from .copying import copying_metrics
    from .draft import DraftReport, DraftSentence
    from .drafting import load_generator, write_drafts
    from .evaluation import report_metrics
    from .findings import text_findings
    from .pairs import ReportData, ReportPair, read_pairs
    from .phantom_exams import PhantomExam, make_phantom_exam, write_phantom_exams


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
