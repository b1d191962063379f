"""Rows of the tables that a run writes."""

from collections.abc import Iterator
from typing import Any

from .records import Record

SUMMARY_COLUMNS = ("file", "study", "frame", "kind", "model", "name", "of", "node", "value", "unit", "spread", "score")
FAILED_COLUMNS = ("file", "reason")

_LEAST_SCORE = 0.05


def summary_rows(record: Record) -> Iterator[tuple[Any, ...]]:
    """One row a measurement, a class, a step of the anatomy path, or a warning of a file.

    Args:
        record: of the file, as result.json has it.
    """

    def row(kind: str, frame: Any = None, **values: Any) -> tuple[Any, ...]:
        own = {"file": record["name"], "study": record["study"], "frame": frame, "kind": kind, **values}
        return tuple("" if own.get(column) is None else own[column] for column in SUMMARY_COLUMNS)

    for label in record["anatomy_path"]:
        yield row("anatomy", name=label["label"], node=label.get("node"), score=label["score"])
    found = record.get("still") or record.get("clip") or {}
    for model, labels in found.get("classes", {}).items():
        for label in labels:
            if label["score"] >= _LEAST_SCORE:
                yield row("class", model=model, name=label["label"], node=label.get("node"), score=label["score"])
    for measurement in record["measurements"]:
        yield row("measurement", **measurement)
    if "familiarity" in record:
        yield row("familiarity", name="familiarity", value=record["familiarity"], unit="1")
    for warning in record["warnings"]:
        yield row("warning", name=warning)


__all__ = ["FAILED_COLUMNS", "SUMMARY_COLUMNS", "summary_rows"]
