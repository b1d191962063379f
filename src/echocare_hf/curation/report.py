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
from echocare_hf.data.catalogue import COMMERCIAL_USE

from .drops import SCHEMA, Drops
from .kept import SCHEMA as KEPT_SCHEMA
from .kept import Kept
from .options import CurateOptions
from .plots import draw_counts
from .quality import DOUBTFUL
from .record import STEPS
from .spill import SortedRows
from .tables import whole_file, write_tables, write_text

DROP_SCHEMA = pa.schema([field.with_name("source_path") if field.name == "name" else field for field in SCHEMA])
"""The columns of dropped.parquet."""

CARD_FILE = Path(__file__).with_name("dataset_card.md")
"""The template of the card; braces name what `write_reports` fills in."""

_ROWS_AT_A_TIME = 8192  # a whole number of row groups
_IDENTIFYING = re.compile(
    r"(?<!\d)(?:19\d|20[0-3])\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?!\d)"  # 1963-07-22
    r"|(?<!\d)(?:0[1-9]|[12]\d|3[01])[-_.](?:0[1-9]|1[0-2])[-_.](?:19\d|20[0-3])\d(?!\d)"  # 22.07.1963
    r"|\w\^\w"  # DOE^JANE
    r"|(?<![\d.])\d+(?:\.\d+){5,}"  # a UID
    r"|(?<![a-z])(?:mrn|pid|ssn|dob|acc|accession|patient[-_ ]?id)[-_ ]?\d{3,}",
    re.IGNORECASE,
)


def summarise(kept: Kept, drops: Drops, found: int, near_groups: int) -> dict[str, Any]:
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
    per_step = sorted(drops.counts.items(), key=lambda entry: (order[entry[0][0]], entry[0][1]))
    counts = {
        name: {word: number for (word,), number in sorted(kept.counts(name).items(), key=lambda e: (-e[1], e[0]))}
        for name in ("split", "source", "licence", "modality", "node")
    }
    licences: dict[str, dict[str, int]] = {}
    for (source, licence), number in sorted(kept.counts("source", "licence").items()):
        licences.setdefault(source, {})[licence] = number
    return {
        "found": found,
        "kept": len(kept),
        "dropped": len(drops),
        "dropped_by": [{"step": step, "reason": reason, "number": number} for (step, reason), number in per_step],
        "near_copy_groups": near_groups,
        "clusters": {split: kept.clusters[split] for split in counts["split"]},
        "text_lines_removed": sum(pc.sum(table["text_removed"]).as_py() for table in kept.tables(["text_removed"])),
        "images": counts,
        "licences_of": licences,
    }


def write_reports(
    folder: Path,
    name: str,
    report: Mapping[str, Any],
    kept: Kept,
    drops: Drops,
    mapped: Sequence[Mapping[str, Any]],
    sources: Sequence[Mapping[str, str]],
    options: CurateOptions,
    shards: Mapping[str, Sequence[str]],
) -> None:
    """Write report.json, manifest.json, dropped.parquet, labels.csv, audit.csv, plots and README.md into a folder."""
    dropped = (table.rename_columns(DROP_SCHEMA.names) for table in drops.tables(_ROWS_AT_A_TIME))
    write_tables(dropped, DROP_SCHEMA, folder / "dropped.parquet")
    write_text(folder / "report.json", _json(report))
    manifest = {
        "made_by": "echocare curate",
        "settings": options.deciding(),
        "sources": list(sources),
        "shards": {split: list(names) for split, names in shards.items()},
        "anatomy_ids": list(AnatomyTree.default().ids),
    }
    write_text(folder / "manifest.json", _json(manifest))
    write_text(folder / "labels.csv", _csv(("where", "text", "node", "how", "files"), mapped))
    suspected = _write_audit(kept, folder / "audit.csv")
    (folder / PLOTS).mkdir(exist_ok=True)
    for what, title in _PLOTTED.items():
        draw_counts(title, report["images"][what]).save(folder / PLOTS / f"{what}.png", optimize=True)
    sizes = {split: sum((folder / shard).stat().st_size for shard in names) for split, names in shards.items()}
    write_text(folder / "README.md", _card(name, report, options, sizes, suspected))


PLOTS = "plots"
_PLOTTED = {
    "node": "Images per node of the anatomy tree (the most specific one)",
    "source": "Images per source",
    "licence": "Images per licence",
    "modality": "Images per modality",
}
PERHAPS_NO_ULTRASOUND = "perhaps no ultrasound"
_AUDIT = ["why", "source", "source_path", "frame", "id", "split", "group", "text_suspected", "ultrasound_score"]
_AUDIT_SCHEMA = pa.schema([("why", pa.string()), *(KEPT_SCHEMA.field(name) for name in _AUDIT[1:])])


def looks_identifying(name: str) -> bool:
    """Whether a file name or group holds a date, a DICOM person name, a UID, or a number after mrn, pid, ssn, dob, acc or patient id."""
    return _IDENTIFYING.search(name) is not None


def _write_audit(kept: Kept, path: Path) -> Counter[str]:
    """Write the audit sheet, on which an image may stand for its text, its file name, its group and its looks; returns how many do for
    "text", for "names" and for "doubtful".
    """
    numbers: Counter[str] = Counter()
    rows = SortedRows(kept.path.with_name("audit.pieces"), _AUDIT_SCHEMA, _audit_order)
    for table in kept.tables(_AUDIT[1:]):
        for row in table.to_pylist():
            score = row["ultrasound_score"]
            reasons = {
                "text": row["text_suspected"] > 0,
                "file name": looks_identifying(row["source_path"]),
                "group": looks_identifying(row["group"] or ""),
                PERHAPS_NO_ULTRASOUND: score is not None and score < DOUBTFUL,
            }
            for why, holds in reasons.items():
                if holds:
                    rows.add((why, *(row | {"ultrasound_score": None if score is None else round(score, 3)}).values()))
            numbers["text"] += reasons["text"]
            numbers["names"] += reasons["file name"] or reasons["group"]
            numbers["doubtful"] += reasons[PERHAPS_NO_ULTRASOUND]
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_AUDIT)
        writer.writerows(rows)
    return numbers


def _audit_order(row: tuple) -> tuple:
    cells = dict(zip(_AUDIT, row, strict=True))
    place = ("text", "file name", "group", PERHAPS_NO_ULTRASOUND).index(cells["why"])
    worst = cells["ultrasound_score"] if cells["why"] == PERHAPS_NO_ULTRASOUND else -cells["text_suspected"]
    return place, worst, cells["source_path"], cells["frame"], cells["id"]


def _common_licence(counts: Mapping[str, int]) -> str | None:
    """The Hub's name of the licence that all images share; None where they share none, or one that has no name there."""
    (text,) = counts if len(counts) == 1 else ("",)
    name = re.sub(r"[\s_-]+", "-", text.strip()).casefold()
    name = {"cc0": "cc0-1.0"}.get(name, name)
    return name if name in {known.casefold() for known in COMMERCIAL_USE} else None


def _card(
    name: str,
    report: Mapping[str, Any],
    options: CurateOptions,
    sizes: Mapping[str, int],
    suspected: Mapping[str, int],
) -> str:
    """The card; `sizes` are the bytes of each split's shards.

    `load_dataset` keeps what it read under the name of the folder, the patterns of its files and what the card says of the splits. So
    without their sizes a corpus would be taken for another one of its name, or for what it was before it was curated anew.
    """
    counts = report["images"]["split"]
    licence = _common_licence(report["images"]["licence"])
    header = DatasetCardData(
        pretty_name=name,
        license=licence or "other",
        license_name=None if licence else "per-image",
        task_categories=["image-feature-extraction", "image-classification"],
        tags=["ultrasound", "medical", "echocare"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in sizes],
            }
        ],
        dataset_info={
            "splits": [
                {"name": split, "num_bytes": size, "num_examples": counts[split]} for split, size in sizes.items()
            ],
            "download_size": sum(sizes.values()),
            "dataset_size": sum(sizes.values()),
        },
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
        audit_doubtful=suspected["doubtful"],
        audit_text=suspected["text"],
        audit_names=suspected["names"],
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
