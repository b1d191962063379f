"""What the page says, as HTML: every text of a file or a model is escaped, for the browser and for Gradio's templates."""

import html
import re
from collections.abc import Sequence
from typing import Any

from echocare_hf.drawing_page import NOT_A_DEVICE
from echocare_hf.drawing_style import Colour
from echocare_hf.examination.overlays import quantity_text
from echocare_hf.examination.report_page import draft_section
from echocare_hf.examination.results import FileResult, Label, Measurement, ModelFacts

from .analysis import Answer
from .limits import Limits
from .occlusion import OcclusionMap, Target
from .occlusion_clip import ClipOcclusion
from .pictures import Layers

_LINK = re.compile(r"</?a\b[^>]*>")
MOST_CLASSES = 8
MOST_NODES = 14

WAITING = (
    '<div class="ec-empty"><div class="ec-fan" aria-hidden="true"></div><p>Drop an image, a DICOM file or a clip, '
    "or choose an example.</p></div>"
)
WORKING = '<div class="ec-empty" role="status"><div class="ec-fan ec-busy" aria-hidden="true"></div><p>Analysing ...</p></div>'


def text(value: Any) -> str:
    """A text for HTML; braces and dollar signs too, which Gradio's templates would read."""
    return _no_template(html.escape(str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")))


def _no_template(markup: str) -> str:
    return markup.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;")


def header(where: str) -> str:
    """Title, what the page is, and what it is not."""
    return (
        '<header class="ec-header"><div class="ec-brand"><span class="ec-mark" aria-hidden="true"></span>'
        "<div><h1>EchoCare</h1><p>An ultrasound foundation model looks at your image: what it shows, where things are, how large they are."
        "</p></div></div>"
        f'<div class="ec-notice" role="note"><strong>{text(NOT_A_DEVICE)}</strong> {text(where)}</div></header>'
    )


def where_files_go(host: str) -> str:
    """What becomes of a visitor's file, as it is for this address."""
    kept = "are removed when you leave the page, or after half an hour"
    if host in ("127.0.0.1", "localhost", "::1"):
        return f"Nothing leaves this machine: files are analysed here, and {kept}."
    return f"Files are sent to this server alone, analysed there, and {kept}. Do not send what identifies a person."


def limits_line(limits: Limits) -> str:
    """What the page takes."""
    return (
        f"PNG, JPEG, TIFF, GIF, DICOM, MP4, AVI, NIfTI; up to {limits.megabytes:g} MB and {limits.seconds:g} seconds "
        "of analysis."
    )


def models_panel(models: Sequence[ModelFacts]) -> str:
    """Which models look at a file, and write of it."""
    rows = "".join(
        f'<li><span class="ec-task">{text(model.task)}</span><span>{text(model.name)}</span>'
        f'<span class="ec-soft">{text(model.sha256[:8])}</span></li>'
        for model in models
    )
    return f'<h2 class="ec-small">Models</h2><ul class="ec-models">{rows}</ul>'


def problem(message: str) -> str:
    """Why there is no answer."""
    return f'<div class="ec-problem" role="alert"><strong>No result.</strong> {text(message)}</div>'


def summary(answer: Answer) -> str:
    """The file, how familiar it is, and the warnings."""
    result = answer.result
    parts = [result.kind, f"{result.width} x {result.height} pixels"]
    if answer.is_clip:
        parts.append(f"{result.num_frames} frames analysed")
    if result.modality != "unknown":
        parts.append(result.modality)
    if result.spacing:
        parts.append(f"{result.spacing[0]:.3g} x {result.spacing[1]:.3g} mm per pixel")
    parts.append(f"{result.seconds:.1f} s")
    chips = "".join(f"<li>{text(part)}</li>" for part in parts)
    warnings = "".join(f"<li>{text(line[:1].upper() + line[1:])}.</li>" for line in dict.fromkeys(result.warnings))
    familiar = ""
    if result.familiarity is not None:
        familiar = _meter("Looks like ultrasound", result.familiarity, "ec-familiar")
    listed = f'<ul class="ec-warnings" aria-label="Warnings">{warnings}</ul>' if warnings else ""
    return f'<div class="ec-summary"><h2>{text(result.name)}</h2><ul class="ec-facts">{chips}</ul>{familiar}{listed}</div>'


def layers_panel(layers: Layers, name: str, control: str, share: float = 1.0, wipe: bool = False) -> str:
    """Two pictures one over the other with a slider: the upper one's opacity, or where it begins (`wipe`)."""
    if layers.upper is None:
        return f'<figure class="ec-viewer"><div class="ec-stage"><img alt="{text(name)}" src="{layers.base}"></div></figure>'
    kind = "ec-wipe" if wipe else "ec-fade"
    line = '<span class="ec-line" aria-hidden="true"></span>' if wipe else ""
    marks = "<span>before</span><span>after</span>" if wipe else ""
    stage = (
        f'<div class="ec-stage"><img alt="{text(name)}" src="{layers.base}">'
        f'<img class="ec-upper" alt="" src="{layers.upper}">{line}{f"<div class=ec-marks>{marks}</div>" if marks else ""}</div>'
    )
    legend = "".join(f"<li>{_swatch(colour)}{text(entry)}</li>" for entry, colour in layers.legend)
    return (
        f'<figure class="ec-viewer {kind}" style="--share:{share:g}">{stage}'
        f'<label class="ec-slider"><span>{text(control)}</span>'
        f'<input type="range" min="0" max="100" value="{round(100 * share)}" data-ec-share></label>'
        f"{f'<ul class=ec-legend>{legend}</ul>' if legend else ''}</figure>"
    )


def findings(answer: Answer) -> str:
    """The anatomy tree, classes and measurements."""
    result = answer.result
    parts = [anatomy(answer)]
    whole = [result.clip] if result.clip is not None else []
    for found in (*whole, answer.found):
        for model, labels in found.classes.items():
            rows = "".join(_meter(label.label, label.score) for label in labels[:MOST_CLASSES])
            parts.append(f'<section><h3>Classes <span class="ec-soft">{text(model)}</span></h3>{rows}</section>')
    measured = list(result.measurements)
    if answer.is_clip:
        measured += [each for each in answer.found.measurements if each not in measured]
    parts.append(measurements(measured, result))
    return f'<div class="ec-findings">{"".join(part for part in parts if part)}</div>'


def anatomy(answer: Answer) -> str:
    """The anatomy path as an indented tree with scores; likely nodes beside the path are in it too."""
    path = {label.path: label for label in answer.result.anatomy_path}
    nodes: dict[tuple[str, ...], Label] = {}
    for labels in answer.found.anatomy.values():
        nodes |= {label.path: label for label in labels[:MOST_NODES]}
    if not answer.found.anatomy:
        return ""
    if answer.is_clip:
        nodes |= path
    if not nodes:
        return '<section><h3>Anatomy</h3><p class="ec-soft">No node of the anatomy tree is likely.</p></section>'
    missing = {label.path[:end] for label in nodes.values() for end in range(1, len(label.path))} - set(nodes)
    nodes |= {each: Label(each[-1], 0.0, path=each) for each in missing}
    rows = "".join(_branch((), nodes, path))
    note = "" if path else '<p class="ec-soft">Nothing reaches the threshold; what comes nearest:</p>'
    return f'<section><h3>Anatomy</h3>{note}<ul class="ec-tree">{rows}</ul></section>'


def _branch(
    above: tuple[str, ...], nodes: dict[tuple[str, ...], Label], path: dict[tuple[str, ...], Label]
) -> list[str]:
    children = [label for label in nodes.values() if label.path[:-1] == above]
    rows = []
    for label in sorted(children, key=lambda each: (each.path not in path, -each.score)):
        below = "".join(_branch(label.path, nodes, path))
        on_path = ' class="ec-on-path"' if label.path in path else ""
        score = _meter(label.label, label.score) if label.score else f'<div class="ec-soft">{text(label.label)}</div>'
        rows.append(f"<li{on_path}>{score}{f'<ul>{below}</ul>' if below else ''}</li>")
    return rows


def measurements(measured: Sequence[Measurement], result: FileResult) -> str:
    """A table of numbers with their units."""
    if not measured:
        return ""
    in_pixels = any(each.unit.startswith("{pixels}") for each in measured)
    note = ""
    if in_pixels:
        note = '<p class="ec-soft">In pixels: the file states no pixel spacing. You can give it under Options.</p>'
    elif result.spacing:
        source = "the file" if result.facts.get("spacing_source") == "file" else "your options"
        note = f'<p class="ec-soft">In physical units, by the pixel spacing of {source}.</p>'
    with_frame = any(each.frame is not None for each in measured)
    head = "<th>Measurement</th><th class=ec-number>Value</th><th class=ec-number>Score</th>"
    head += "<th class=ec-number>Frame</th>" if with_frame else ""
    models = {
        (each.of, each.name): {other.model for other in measured if (other.of, other.name) == (each.of, each.name)}
        for each in measured
    }
    rows = []
    for each in measured:
        name = f"{text(each.of)}: {text(each.name)}" if each.of else text(each.name)
        if len(models[each.of, each.name]) > 1:
            name += f' <span class="ec-soft">{text(each.model)}</span>'
        value = text(quantity_text(each.value, each.unit, each.spread))
        score = "" if each.score is None else f"{each.score:.2f}"
        cells = f"<td>{name}</td><td class=ec-number>{value}</td><td class=ec-number>{score}</td>"
        if with_frame:
            cells += f"<td class=ec-number>{'clip' if each.frame is None else each.frame}</td>"
        rows.append(f"<tr>{cells}</tr>")
    return (
        f'<section><h3>Measurements</h3>{note}<div class="ec-scroll" tabindex="0" role="region" aria-label="Measurements">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def report(answer: Answer) -> str:
    """The draft report: frames beside the sentences that they support, the notice, what was measured; "" without one."""
    section = draft_section(answer.record, answer.folder / "results")
    unlinked = _LINK.sub("", section)  # the pictures lie in the folder of the request, which nobody can open
    return f'<div class="ec-draft">{_no_template(unlinked)}</div>' if section else ""


def target_name(target: Target) -> str:
    """A score that can be explained, in the list of them."""
    score = "" if target.score is None else f"{target.score:.2f}  "
    return f"{target.label}  {score}({target.model})"


def occlusion(label: str, found: OcclusionMap) -> str:
    """What the map says in numbers."""
    fall = float(found.values.max())
    return (
        f'<p class="ec-soft">{text(label)} scores {found.score:.2f}. Covering the most important place lowers that by {max(fall, 0):.2f}. '
        f"{found.evaluations} images were analysed for this map.</p>"
    )


def clip_occlusion(label: str, found: ClipOcclusion) -> str:
    """What the map of a clip says in numbers, and how much the score rests on each frame."""
    largest = max(float(found.frames.max()), 1e-6)
    names = [f"{time / 1000:.2f} s" for time in found.times_ms or ()] or [
        f"{n + 1}." for n in range(len(found.frames))
    ]
    rows = "".join(
        _meter(name, fall, width=fall / largest) for name, fall in zip(names, found.frames.tolist(), strict=True)
    )
    places = found.places
    return (
        f'<p class="ec-soft">{text(label)} scores {places.score:.2f} for the clip. Covering the most important place in all '
        f"frames lowers that by {max(float(places.values.max()), 0):.2f}. {places.evaluations} clips were analysed for this map.</p>"
        f'<section class="ec-frames"><h3>How far the score falls while a frame is covered</h3>{rows}</section>'
    )


def _meter(name: str, score: float, kind: str = "", width: float | None = None) -> str:
    """A name, a bar and a number; the bar has the length of the number, or `width`, 0 to 1."""
    width = round(100 * min(max(score if width is None else width, 0.0), 1.0), 1)
    low = " ec-low" if kind and score < 0.1 else ""
    return (
        f'<div class="ec-score {kind}{low}"><span class="ec-name">{text(name)}</span>'
        f'<span class="ec-bar" aria-hidden="true"><span style="width:{width}%"></span></span>'
        f'<span class="ec-value">{score:.2f}</span></div>'
    )


def _swatch(colour: Colour) -> str:
    return f'<span class="ec-swatch" style="background:rgb{colour}" aria-hidden="true"></span>'
