"""What a run reports: counts that add up, the index of what was dropped, the audit sheet, the card of the data set."""

import csv
import html
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import DatasetCardData

from echocare_hf.anatomy import AnatomyTree

from .drops import Drops
from .options import CurateOptions
from .plots import draw_counts
from .record import STEPS
from .tables import write_table, write_text

DROP_COLUMNS = {
    "source": "string",
    "source_path": "string",
    "frame": "int32",
    "step": "string",
    "reason": "string",
    "detail": "string",
}

CARD_FILE = Path(__file__).with_name("dataset_card.md")
"""The template of the card; braces name what `write_reports` fills in."""

_IDENTIFYING = re.compile(
    r"(?<!\d)(?:19\d|20[0-3])\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?!\d)"  # 1963-07-22
    r"|(?<!\d)(?:0[1-9]|[12]\d|3[01])[-_.](?:0[1-9]|1[0-2])[-_.](?:19\d|20[0-3])\d(?!\d)"  # 22.07.1963
    r"|\w\^\w"  # DOE^JANE
    r"|(?<![\d.])\d+(?:\.\d+){5,}"  # a UID
    r"|(?<![a-z])(?:mrn|pid|ssn|dob|acc|accession|patient[-_ ]?id)[-_ ]?\d{3,}",
    re.IGNORECASE,
)


def summarise(kept: pa.Table, drops: Drops, found: int, near_groups: int) -> dict[str, Any]:
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
    order = {step: place for place, step in enumerate(STEPS)}
    per_step = sorted(
        _counts(drops.table(), "step", "reason").items(), key=lambda entry: (order[entry[0][0]], entry[0][1])
    )
    counts = {
        name: {word: number for (word,), number in sorted(_counts(kept, name).items(), key=lambda e: (-e[1], e[0]))}
        for name in ("split", "source", "licence", "modality", "node")
    }
    clusters = Counter(split for split, _ in _counts(kept, "split", "cluster"))
    licences: dict[str, dict[str, int]] = {}
    for (source, licence), number in sorted(_counts(kept, "source", "licence").items()):
        licences.setdefault(source, {})[licence] = number
    return {
        "found": found,
        "kept": len(kept),
        "dropped": len(drops),
        "dropped_by": [{"step": step, "reason": reason, "number": number} for (step, reason), number in per_step],
        "near_copy_groups": near_groups,
        "clusters": {split: clusters[split] for split in counts["split"]},
        "text_lines_removed": pc.sum(kept["text_removed"]).as_py() or 0,
        "images": counts,
        "licences_of": licences,
    }


def _counts(table: pa.Table, *columns: str) -> dict[tuple[str, ...], int]:
    """How many rows have each combination of texts; a missing text is "not stated"."""
    texts = [pc.fill_null(table[name].cast(pa.string()), "not stated") for name in columns]
    grouped = pa.table(texts, names=list(columns)).group_by(list(columns)).aggregate([([], "count_all")])
    keys = zip(*(grouped[name].to_pylist() for name in columns), strict=True)
    return dict(zip(keys, grouped["count_all"].to_pylist(), strict=True))


def write_reports(
    folder: Path,
    name: str,
    report: Mapping[str, Any],
    kept: pa.Table,
    drops: Drops,
    mapped: Sequence[Mapping[str, Any]],
    problems: Sequence[str],
    sources: Sequence[Mapping[str, str]],
    options: CurateOptions,
    shards: Mapping[str, Sequence[str]],
) -> None:
    """Write report.json, manifest.json, dropped.parquet, labels.csv, audit.csv, plots and README.md into a folder."""
    dropped = drops.table().rename_columns(list(DROP_COLUMNS)).cast(pa.schema(list(DROP_COLUMNS.items())))
    write_table(dropped, folder / "dropped.parquet")
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
    suspected = _suspected(kept)
    write_text(folder / "audit.csv", _csv(_AUDIT, suspected))
    (folder / PLOTS).mkdir(exist_ok=True)
    for what, title in _PLOTTED.items():
        draw_counts(title, report["images"][what]).save(folder / PLOTS / f"{what}.png", optimize=True)
    write_text(folder / "README.md", _card(name, report, options, shards, suspected))


PLOTS = "plots"
_PLOTTED = {
    "node": "Images per node of the anatomy tree (the most specific one)",
    "source": "Images per source",
    "licence": "Images per licence",
    "modality": "Images per modality",
}
_AUDIT = ["why", "source", "source_path", "frame", "id", "split", "group", "text_suspected"]


def looks_identifying(name: str) -> bool:
    """Whether a file name or group holds a date, a DICOM person name, a UID, or a number after mrn, pid, ssn, dob, acc or patient id."""
    return _IDENTIFYING.search(name) is not None


def _suspected(kept: pa.Table) -> list[dict[str, Any]]:
    """Rows of the audit sheet: an image may stand there for its text, its file name and its group."""
    rows = []
    for batch in kept.select(_AUDIT[1:]).to_batches(max_chunksize=8192):
        for row in batch.to_pylist():
            reasons = (
                ("text", row["text_suspected"] > 0),
                ("file name", looks_identifying(row["source_path"])),
                ("group", looks_identifying(row["group"] or "")),
            )
            rows += [{"why": why, **row} for why, holds in reasons if holds]
    order = {"text": 0, "file name": 1, "group": 2}
    rows.sort(key=lambda row: (order[row["why"]], -row["text_suspected"], row["source_path"], row["frame"], row["id"]))
    return rows


def _card(
    name: str,
    report: Mapping[str, Any],
    options: CurateOptions,
    shards: Mapping[str, Sequence[str]],
    suspected: Sequence[Mapping[str, Any]],
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
    text = CARD_FILE.read_text(encoding="utf-8").format(
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
        plots="\n\n".join(f"![{title}]({PLOTS}/{what}.png)" for what, title in _PLOTTED.items()),
        audit_text=sum(row["why"] == "text" for row in suspected),
        audit_names=len({row["id"] for row in suspected if row["why"] != "text"}),
        settings=_json(options.deciding()).strip(),
    )
    return f"---\n{header.to_yaml()}\n---\n\n{text}"


def _table(rows: Iterable[Iterable[Any]]) -> str:
    """Rows of a Markdown table; what sources say of themselves is text, not Markdown or HTML."""
    cells = ([f"{cell:,}" if isinstance(cell, int) else _cell(str(cell)) for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _cell(text: str) -> str:
    return re.sub(r"([\\|`*_\[\]])", r"\\\1", html.escape(" ".join(text.split())))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
