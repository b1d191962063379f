"""What a run reports: counts that add up, the index of what was dropped, the audit sheet, the card of the data set."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from huggingface_hub import DatasetCardData

from echocare_hf.anatomy import AnatomyTree

from .options import CurateOptions
from .record import STEPS, Drop
from .tables import write_parquet, write_text

DROP_COLUMNS = {
    "source": "string",
    "source_path": "string",
    "frame": "int32",
    "step": "string",
    "reason": "string",
    "detail": "string",
}

_CARD = """
# {name}

{kept:,} ultrasound images, curated by `echocare curate` from {found:,} files and frames as the
[EchoCare paper](https://arxiv.org/abs/2509.11752) describes it (sections 4.3 and 4.4): exact and near-copies, broken and empty files
and what is not ultrasound are dropped, cine loops are sampled, everything around the ultrasound region and text near its border is
removed, and labels are mapped to one anatomy tree.

```python
from datasets import load_dataset

corpus = load_dataset("{name}", split="train", streaming=True)  # a folder or an id on the Hub
row = next(iter(corpus))
row["image"], row["node"], row["group"], row["licence"]
```

Rows are shuffled: a stream needs no shuffle buffer, only another order of shards in each epoch. `labels` has one entry a node of the
tree (1 present, 0 absent, -1 unknown); `node` is the most specific node.

## What is in it

| split | images | clusters |
|---|---|---|
{splits}

Images of one patient or clip, and near-copies, form a cluster; no cluster is in two splits. Where a source does not say which images
are of one patient, near-copies are all that keeps its images together.

| source | images | licences |
|---|---|---|
{sources}

| licence | images |
|---|---|
{licences}

| modality | images |
|---|---|
{modalities}

| anatomy node | images |
|---|---|
{nodes}

Each image keeps the licence of its source: read the column `licence` before using it.

## What was dropped

{found:,} found = {kept:,} kept + {dropped:,} dropped. `dropped.parquet` names each with its step and reason.

| step | reason | number |
|---|---|---|
{drops}

## Privacy

No DICOM header and no EXIF reaches a shard: images are encoded anew from pixels, and the only facts kept of a file are those in the
columns. `source_path` is the file's own name, so it says whatever that name says. Text in the middle of an image is not removed:
`audit.csv` lists {audit:,} images in which some may be left. Look at them before publishing.

## Settings

```json
{settings}
```
"""


def summarise(kept: pa.Table, drops: Sequence[Drop], found: int, near_groups: int) -> dict[str, Any]:
    """The counts of a run.

    Args:
        kept: of `Decisions`.
        drops: everything that was dropped, in any step.
        found: files and frames that were found.
        near_groups: groups of near-copies.

    Returns:
        A dict for report.json.

    Raises:
        RuntimeError: if kept and dropped do not add up to found, which would be a mistake of this program.
    """
    if len(kept) + len(drops) != found:
        raise RuntimeError(f"{len(kept)} kept and {len(drops)} dropped are not the {found} found")
    per_step = Counter((drop.step, drop.reason) for drop in drops)
    order = {step: place for place, step in enumerate(STEPS)}
    ordered = sorted(per_step.items(), key=lambda entry: (order[entry[0][0]], entry[0][1]))
    counts = {
        name: dict(sorted(Counter(_shown(kept[name])).items(), key=lambda entry: (-entry[1], entry[0])))
        for name in ("split", "source", "licence", "modality", "node")
    }
    return {
        "found": found,
        "kept": len(kept),
        "dropped": len(drops),
        "dropped_by": [{"step": step, "reason": reason, "number": number} for (step, reason), number in ordered],
        "near_copy_groups": near_groups,
        "clusters": {
            split: len({c for c, s in _pairs(kept, "cluster", "split") if s == split}) for split in counts["split"]
        },
        "text_lines_removed": sum(kept["text_removed"].to_pylist()),
        "images": counts,
        "licences_of": _nested(kept, "source", "licence"),
    }


def _shown(column: pa.ChunkedArray) -> list[str]:
    return ["not stated" if value is None else value for value in column.to_pylist()]


def _pairs(table: pa.Table, one: str, other: str) -> Iterable[tuple[str, str]]:
    return zip(_shown(table[one]), _shown(table[other]), strict=True)


def _nested(table: pa.Table, outer: str, inner: str) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (first, second), number in sorted(Counter(_pairs(table, outer, inner)).items()):
        nested.setdefault(first, {})[second] = number
    return nested


def write_reports(
    folder: Path,
    name: str,
    report: Mapping[str, Any],
    kept: pa.Table,
    drops: Sequence[Drop],
    mapped: Sequence[Mapping[str, Any]],
    problems: Sequence[str],
    sources: Sequence[Mapping[str, str]],
    options: CurateOptions,
    shards: Mapping[str, Sequence[str]],
) -> None:
    """Write report.json, manifest.json, dropped.parquet, labels.csv, audit.csv and README.md into a folder."""
    rows = [dict(zip(DROP_COLUMNS, drop, strict=True)) for drop in drops]
    write_parquet(rows, DROP_COLUMNS, folder / "dropped.parquet")
    write_text(folder / "report.json", _json({**report, "problems": list(problems)}))
    manifest = {
        "made_by": "echocare curate",
        "settings": options.deciding(),
        "sources": list(sources),
        "shards": {split: list(names) for split, names in shards.items()},
        "anatomy_ids": list(AnatomyTree.default().ids),
    }
    write_text(folder / "manifest.json", _json(manifest))
    write_text(folder / "labels.csv", _csv(("where", "text", "node", "how", "files"), mapped))
    suspected = [row for row in kept.select(_AUDIT).to_pylist() if row["text_suspected"]]
    suspected.sort(key=lambda row: (-row["text_suspected"], row["source"], row["source_path"], row["frame"]))
    write_text(folder / "audit.csv", _csv(_AUDIT, suspected))
    write_text(folder / "README.md", _card(name, report, options, shards, len(suspected)))


_AUDIT = ["source", "source_path", "frame", "id", "split", "text_suspected"]


def _card(
    name: str,
    report: Mapping[str, Any],
    options: CurateOptions,
    shards: Mapping[str, Sequence[str]],
    audit: int,
) -> str:
    header = DatasetCardData(
        pretty_name=name,
        license="other",
        license_name="per-image",
        task_categories=["image-feature-extraction", "image-classification"],
        tags=["ultrasound", "medical", "echocare"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in shards],
            }
        ],
    )
    images = report["images"]
    tree = AnatomyTree.default()
    nodes = {(tree.path(node) if node in tree else node): count for node, count in images["node"].items()}
    sources = [
        (
            source,
            count,
            ", ".join(f"{licence} ({number})" for licence, number in report["licences_of"][source].items()),
        )
        for source, count in images["source"].items()
    ]
    text = _CARD.format(
        name=name,
        kept=report["kept"],
        found=report["found"],
        dropped=report["dropped"],
        splits=_table((split, count, report["clusters"][split]) for split, count in images["split"].items()),
        sources=_table(sources),
        licences=_table(images["licence"].items()),
        modalities=_table(images["modality"].items()),
        nodes=_table(nodes.items()),
        drops=_table((entry["step"], entry["reason"], entry["number"]) for entry in report["dropped_by"]),
        audit=audit,
        settings=_json(options.deciding()).strip(),
    )
    return f"---\n{header.to_yaml()}\n---\n{text}"


def _table(rows: Iterable[Iterable[Any]]) -> str:
    cells = ([f"{cell:,}" if isinstance(cell, int) else str(cell).replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
