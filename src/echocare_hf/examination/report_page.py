"""The draft report on the page of a study: the frames beside the sentences that they support, then what was measured."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from echocare_hf.reports.draft import FLAG, flag_words

from .overlays import quantity_text
from .page_text import escaped, jpeg_data
from .records import Record
from .report_draft import frames_text
from .report_words import number_notes, page_language, page_words
from .results import Measurement

REPORT_STYLE = """
.draft { grid-column: 1 / -1; border-top: 1px solid var(--line); padding-top: .75rem; min-width: 0 }
.draft h3 { margin: 0; font-size: 1.02rem } .draft h4 { margin: 1rem 0 .25rem; font-size: .92rem }
.stamp { display: inline-block; margin-right: .6rem; padding: 0 .5rem; border: 2px solid var(--warn); border-radius: 4px;
  color: var(--warn); font-size: .8rem; font-weight: 700; letter-spacing: .08em; vertical-align: middle }
.said { display: grid; grid-template-columns: minmax(0, 15rem) minmax(0, 1fr); gap: .25rem 1rem; padding: .7rem 0;
  border-bottom: 1px solid var(--line) }
@media (max-width: 38rem) { .said { grid-template-columns: minmax(0, 1fr) } }
.shots { display: flex; flex-wrap: wrap; gap: .4rem; align-content: flex-start }
.shots figure { margin: 0; width: 7.2rem } .shots figure:only-child { width: 100% }
.shots img { width: 100%; max-height: 11rem; object-fit: contain }
.shots figcaption { color: var(--soft); font-size: .78rem; overflow-wrap: anywhere }
.sentence { display: grid; grid-template-columns: minmax(0, 1fr) 5.5rem 2.5rem; gap: .1rem .5rem; align-items: start;
  margin-bottom: .5rem }
.sentence p { margin: 0; overflow-wrap: anywhere } .sentence meter { margin-top: .3rem }
.sentence .warn, .sentence .soft { grid-column: 1 / -1 } .unsupported { font-weight: 600 }
.flagged p { border-left: 3px solid var(--warn); padding-left: .5rem }
""".strip()


def draft_section(record: Record, output: Path) -> str:
    """The draft report of a file as HTML; "" where none was written.

    Args:
        record: of the file, as result.json has it.
        output: the output folder, whose pictures go into the page.
    """
    report = record.get("report")
    if report is None:
        return ""
    spoken = page_language(report["language"])
    pictures = {frame["frame"]: frame for frame in report["frames"]}
    rows = []
    for (frames, basis), group in groupby(
        report["sentences"], key=lambda each: (tuple(each["frames"]), each["basis"])
    ):
        shots = "".join(_shot(pictures[index], output, _is_clip(record)) for index in frames if index in pictures)
        note = (
            f'<div class="soft" lang="{spoken}">{escaped(page_words(f"basis {basis}", spoken))}</div>'
            if shots and _is_clip(record)
            else ""
        )
        said = "".join(_sentence(each, report) for each in group)
        rows.append(f'<div class="said"><div><div class="shots">{shots}</div>{note}</div><div>{said}</div></div>')
    flags = [
        f"{FLAG} {flag_words('omitted', spoken, finding=name, probability=report['findings'][name])}"
        for name in report["omitted"]
    ]
    if not report["is_checked"]:
        flags.append(flag_words("unchecked", spoken))
    flags += [f"{FLAG} {warning}" for warning in report["warnings"]]
    said = "".join(f'<div class="warn">{escaped(line)}</div>' for line in flags)
    return (
        f'<section class="draft" lang="{escaped(report["language"])}"><h3 lang="{spoken}">'
        f'<span class="stamp">{page_words("draft", spoken)}</span>{page_words("report", spoken)}</h3>'
        f'<div class="warn">{escaped(report["notice"])}</div>'
        f'<div class="soft" lang="{spoken}">{escaped(_told(record, report, spoken))}</div>'
        f'{"".join(rows)}<div lang="{spoken}">{said}<h4>{escaped(page_words("measured", spoken))}</h4>'
        f"{_measured(report, _is_clip(record), spoken)}</div></section>"
    )


def _is_clip(record: Record) -> bool:
    return "clip" in record


def _told(record: Record, report: Mapping[str, Any], spoken: str) -> str:
    parts = [page_words("written by", spoken, report["model"])]
    if _is_clip(record):
        parts.append(_seen(report["generated_from"], spoken))
    if report["organ"]:
        source = page_words("told by the anatomy", spoken) if report["organ_source"] == "anatomy" else ""
        parts.append(page_words("organ", spoken, report["organ"]) + source)
    if report["indication"]:
        parts.append(page_words("indication", spoken, report["indication"]))
    return ", ".join(parts)


def _seen(frames: Sequence[int], spoken: str) -> str:
    """The frames that the generator saw."""
    if spoken == "en":
        return f"from {frames_text(frames)}"
    return f"{page_words('frame', spoken)} {', '.join(map(str, frames))}"


def _shot(frame: Mapping[str, Any], output: Path, is_clip: bool) -> str:
    time = "" if frame["time_ms"] is None else f", {frame['time_ms'] / 1000:.2f} s"
    shows = ", ".join(name.replace("_", " ") for name in frame["shows"])
    caption = f"frame {frame['frame']}{time}{f': {shows}' if shows else ''}" if is_clip else ""
    if "picture" not in frame:
        return f"<figure><figcaption>{escaped(caption)}</figcaption></figure>"
    picture = f'<img alt="{escaped(caption or "the image")}" src="{jpeg_data(output / frame["picture"])}">'
    return f'<figure><a href="../{quote(frame["picture"])}">{picture}</a><figcaption>{escaped(caption)}</figcaption></figure>'


def _sentence(sentence: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    share, spoken = sentence["confidence"], page_language(report["language"])
    meter = "<span></span><span></span>"
    if share is not None:
        meter = f'<meter min="0" max="1" value="{share:.3f}" title="{page_words("confidence", spoken)}"></meter><span>{share:.2f}</span>'
    notes = []
    for found in sentence["contradictions"]:
        notes.append(("warn", f"{FLAG} {flag_words(found['said'], spoken, **found)}"))
    if others := ", ".join(sentence.get("other_organs", [])):
        notes.append(("warn", f"{FLAG} {flag_words('elsewhere', spoken, others=others, organ=report['organ'])}"))
    for is_flag, text in number_notes(_numbers(sentence), report["measurements"], spoken):
        notes.append(("warn unsupported", f"{FLAG} {text}") if is_flag else ("soft", text))
    lines = "".join(f'<div class="{kind}" lang="{spoken}">{escaped(text)}</div>' for kind, text in notes)
    flagged = " flagged" if sentence["is_flagged"] else ""
    return f'<div class="sentence{flagged}"><p>{escaped(sentence["text"])}</p>{meter}{lines}</div>'


def _numbers(sentence: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The numbers of a sentence; a result of an earlier version names those alone that no measurement supports."""
    return sentence.get("numbers", [{"text": text} for text in sentence["unsupported_numbers"]])


def _measured(report: Mapping[str, Any], is_clip: bool, spoken: str) -> str:
    if not report["measurements"]:
        return f'<div class="soft">{page_words("nothing measured", spoken)}</div>'
    columns = ("measurement", "value", "frame", "model") if is_clip else ("measurement", "value", "model")
    head = "".join(f"<th>{page_words(column, spoken)}</th>" for column in columns)
    rows = []
    for record in report["measurements"]:
        own = Measurement(**record) if record.get("value") is not None else None
        value = page_words("not finite", spoken) if own is None else quantity_text(own.value, own.unit, own.spread)
        name = f"{record['of']}: {record['name']}" if record.get("of") else record["name"]
        frame = f'<td class="number">{record.get("frame", "")}</td>' if is_clip else ""
        rows.append(
            f'<tr><td>{escaped(name)}</td><td class="number">{escaped(value)}</td>{frame}'
            f'<td class="soft">{escaped(record["model"])}</td></tr>'
        )
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


__all__ = ["REPORT_STYLE", "draft_section"]
