"""One web page a study: everything inside the file, readable on a phone, without scripts."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from echocare_hf.drawing_page import NOT_A_DEVICE
from echocare_hf.files import written_beside

from .file_folder import folder_name
from .overlays import quantity_text
from .page_text import escaped, jpeg_data
from .records import Record
from .report_page import REPORT_STYLE, draft_section

_STYLE = """
:root { color-scheme: light dark; --ink: #16212b; --soft: #5c6b78; --ground: #f4f6f8; --card: #fff; --line: #d9dfe5;
  --accent: #0f768c; --warn: #b0540c }
@media (prefers-color-scheme: dark) { :root { --ink: #e8edf2; --soft: #9fb0bf; --ground: #11181f; --card: #1a232c;
  --line: #2c3945; --accent: #4fb6cc; --warn: #f0a060 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 72rem; margin: auto; padding: 1.25rem }
h1 { margin: .5rem 0 0; font-size: 1.7rem; line-height: 1.2; overflow-wrap: anywhere }
h2 { margin: 0 0 .5rem; font-size: 1.1rem; overflow-wrap: anywhere }
a { color: var(--accent) }
.notice { margin: 1rem 0; padding: .75rem 1rem; border-left: 4px solid var(--warn); background: var(--card) }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem; margin: 1rem 0;
  display: grid; gap: 1rem; grid-template-columns: minmax(0, 26rem) minmax(0, 1fr) }
@media (max-width: 50rem) { article { grid-template-columns: minmax(0, 1fr) } }
article > div { min-width: 0 }
img { max-width: 100%; height: auto; display: block; background: #000; border-radius: 4px }
.soft { color: var(--soft); font-size: .88rem } .warn { color: var(--warn); font-size: .92rem }
.score { display: grid; grid-template-columns: 1fr 7rem 2.5rem; gap: .5rem; align-items: center; font-size: .95rem }
meter { width: 100% }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; background: var(--card); font-size: .92rem }
td, th { text-align: left; vertical-align: top; padding: .25rem .5rem; border-bottom: 1px solid var(--line) }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
""".strip()

_OUTPUT_NAMES = {
    "overlay": "picture",
    "key_frames": "key frames",
    "mask": "mask",
    "masks": "masks",
    "enhanced": "enhanced",
    "frames": "findings by frame",
    "segmentation": "DICOM segmentation",
    "report": "DICOM report",
    "draft_report": "draft report",
    "report_frames": "frames of the draft",
    "draft_report_dicom": "draft report, DICOM",
    "enhanced_dicom": "enhanced, DICOM",
}
_MOST_CLASSES = 5


def write_pages(
    output: Path, studies: Mapping[str, Iterable[Record]], counts: Mapping[str, int], failed: Sequence[tuple[str, str]]
) -> None:
    """Writes studies/NAME.html for each study, and index.html, which links them.

    Args:
        output: the output folder; pages link to what lies in it.
        studies: by the study's name, the records of its files as result.json has them.
        counts: files of each study.
        failed: name and reason of what could not be analysed.
    """
    folder = output / "studies"
    folder.mkdir(exist_ok=True)
    names = {study: f"{folder_name(study)}.html" for study in studies}
    for study, records in studies.items():
        with written_beside(folder / names[study]) as path:
            path.write_text(study_page(study, records, output), encoding="utf-8")
    for stale in set(folder.glob("*.html")) - {folder / name for name in names.values()}:
        stale.unlink()
    rows = "".join(
        f'<tr><td><a href="studies/{quote(names[study])}">{escaped(study)}</a></td><td class="number">{counts[study]}</td></tr>'
        for study in studies
    )
    body = [f"<table><tr><th>Study</th><th>Files</th></tr>{rows}</table>"]
    if failed:
        lines = "".join(f"<tr><td>{escaped(name)}</td><td>{escaped(reason)}</td></tr>" for name, reason in failed)
        body.append(f'<h2>Could not be analysed</h2><div class="scroll"><table>{lines}</table></div>')
    with written_beside(output / "index.html") as path:
        path.write_text(_page("Ultrasound examinations", body), encoding="utf-8")


def study_page(study: str, records: Iterable[Record], output: Path) -> str:
    """The page of a study, HTML; all texts are escaped.

    Args:
        study: its name.
        records: of its files.
        output: the output folder, whose preview pictures go into the page.
    """
    cards: list[str] = []
    models: Record = {}
    for record in records:
        cards.append(_card(record, output))
        models |= record["models"]
    rows = "".join(
        f"<tr><td>{escaped(name)}</td><td>{escaped(facts['task'])}</td><td>{escaped(facts['source'])}</td>"
        f'<td class="soft">{escaped(facts["sha256"][:12])}</td></tr>'
        for name, facts in models.items()
    )
    table = f"<table><tr><th>Model</th><th>Task</th><th>Checkpoint</th><th>SHA-256</th></tr>{rows}</table>"
    return _page(f"Study {study}", [*cards, "<h2>Models</h2>", f'<div class="scroll">{table}</div>'])


def _page(title: str, body: Sequence[str]) -> str:
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaped(title)}</title><style>{_STYLE}\n{REPORT_STYLE}</style></head><body><main>",
            f"<h1>{escaped(title)}</h1>",
            f'<div class="notice">{escaped(NOT_A_DEVICE)}</div>',
            *body,
            "</main></body></html>\n",
        )
    )


def _card(record: Record, output: Path) -> str:
    outputs = record["outputs"]
    links = [
        f'<a href="../{quote(place)}">{escaped(_link_name(kind))}</a>'
        for kind, place in outputs.items()
        if kind != "preview"
    ]
    picture = ""
    if "preview" in outputs:
        picture = f'<img alt="{escaped(record["name"])}" src="{jpeg_data(output / outputs["preview"])}">'
        if "overlay" in outputs:
            picture = f'<a href="../{quote(outputs["overlay"])}">{picture}</a>'
    warnings = "".join(f'<div class="warn">{escaped(line)}</div>' for line in record["warnings"])
    measured = "" if "report" in record else _measurements(record)  # they stand in the report
    return (
        f"<article><div>{picture}</div><div><h2>{escaped(record['name'])}</h2>"
        f'<div class="soft">{escaped(_facts(record))}</div>{warnings}{_scores(record)}{measured}'
        f'<div class="soft">{" · ".join(links)}</div></div>{draft_section(record, output)}</article>'
    )


def _link_name(kind: str) -> str:
    first, sign, model = kind.partition(" of ")
    return f"{_OUTPUT_NAMES.get(first, first)}{sign}{model}"


def _facts(record: Record) -> str:
    spacing = record["spacing_mm"]
    parts = [record["kind"], f"{record['width']} x {record['height']} pixels"]
    if "clip" in record:
        parts.append(f"{record['num_frames']} frames")
    if record["modality"] != "unknown":
        parts.append(record["modality"])
    parts.append(f"{spacing[0]:.3g} x {spacing[1]:.3g} mm per pixel" if spacing else "spacing unknown")
    if "familiarity" in record:
        parts.append(f"familiarity {record['familiarity']:.2f}")
    return ", ".join(parts)


def _scores(record: Record) -> str:
    lines = [(f"{'  ' * depth}{label['label']}", label["score"]) for depth, label in enumerate(record["anatomy_path"])]
    found = record.get("still") or record.get("clip") or {}
    for labels in found.get("classes", {}).values():
        lines += [(label["label"], label["score"]) for label in labels[:_MOST_CLASSES]]
    return "".join(
        f'<div class="score"><span>{escaped(name)}</span><meter min="0" max="1" value="{score:.3f}"></meter><span>{score:.2f}</span></div>'
        for name, score in lines
    )


def _measurements(record: Record) -> str:
    if not record["measurements"]:
        return ""
    is_clip = "clip" in record
    several = len({each["model"] for each in record["measurements"]}) > 1
    head = "<th>Measurement</th><th>Of</th><th>Value</th><th>Score</th>"
    head += ("<th>Frame</th>" if is_clip else "") + ("<th>Model</th>" if several else "")
    rows = []
    for each in record["measurements"]:
        value = (
            "not finite"
            if each.get("value") is None
            else quantity_text(each["value"], each["unit"], each.get("spread"))
        )
        cells = [
            f"<td>{escaped(each['name'])}</td><td>{escaped(each.get('of', ''))}</td>",
            f'<td class="number">{escaped(value)}</td>',
        ]
        cells.append(f'<td class="number">{each["score"]:.2f}</td>' if "score" in each else "<td></td>")
        if is_clip:
            cells.append(f'<td class="number">{each.get("frame", "")}</td>')
        if several:
            cells.append(f'<td class="soft">{escaped(each["model"])}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


__all__ = ["study_page", "write_pages"]
