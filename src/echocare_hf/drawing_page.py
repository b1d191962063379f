"""A gallery as one web page: everything inside the file, readable on a phone, without scripts."""

import base64
import html
import io
from collections.abc import Sequence
from itertools import groupby

from PIL import Image

from echocare_hf.drawing import PANEL_NAMES, GalleryItem, item_panels

NOT_A_DEVICE = "Research software. Not a medical device: do not use it for diagnosis or treatment."

_STYLE = """
:root { color-scheme: light dark; --ink: #16212b; --soft: #5c6b78; --ground: #f4f6f8; --card: #fff; --line: #d9dfe5;
  --accent: #0f768c; --warn: #b0540c; --faint: #e4e9ee }
@media (prefers-color-scheme: dark) { :root { --ink: #e8edf2; --soft: #9fb0bf; --ground: #11181f; --card: #1a232c;
  --line: #2c3945; --accent: #4fb6cc; --warn: #f0a060; --faint: #2c3945 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 76rem; margin: auto; padding: 1.25rem }
h1 { margin: .5rem 0 0; font-size: 1.9rem; line-height: 1.2 }
h2 { margin: 2rem 0 .75rem; font-size: 1.2rem; color: var(--accent) }
h3 { margin: .5rem 0 .25rem; font-size: 1.05rem }
.notice { margin: 1rem 0; padding: .75rem 1rem; border-left: 4px solid var(--warn); background: var(--card) }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)) }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem }
.panels { display: grid; grid-template-columns: repeat(3, 1fr); gap: 6px }
figure { margin: 0 } figure img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #000; display: block }
figcaption, .soft { color: var(--soft); font-size: .85rem } .warn { color: var(--warn); font-size: .9rem }
.wide { width: 100%; height: auto; display: block }
.node { display: grid; grid-template-columns: 1fr 7rem 2.5rem; gap: .5rem; align-items: center }
meter { width: 100% }
table { border-collapse: collapse; width: 100%; background: var(--card) }
td, th { text-align: left; vertical-align: top; padding: .4rem .6rem; border: 1px solid var(--line);
  overflow-wrap: anywhere }
""".strip()


def gallery_page(
    items: Sequence[GalleryItem],
    *,
    title: str,
    introduction: str,
    notices: Sequence[str],
    tables: Sequence[tuple[str, Sequence[tuple[str, str]]]],
    pictures: Sequence[tuple[str, Image.Image]] = (),
) -> str:
    """The page of a gallery.

    Args:
        items: what to show, section by section.
        title: heading of the page.
        introduction: one paragraph below it.
        notices: lines that no reader may miss; `NOT_A_DEVICE` is always the first.
        tables: `(heading, rows)`, each row a name and a value.
        pictures: `(heading, picture)`, shown in full width below the items.

    Returns:
        HTML, complete and self-contained. All texts given are escaped.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{html.escape(title)}</h1><p>{html.escape(introduction)}</p>",
        '<div class="notice">' + "<br>".join(html.escape(line) for line in (NOT_A_DEVICE, *notices)) + "</div>",
    ]
    for section, members in groupby(items, key=lambda item: item.section):
        parts.append(f'<section><h2>{html.escape(section)}</h2><div class="cards">')
        parts.extend(_card(item) for item in members)
        parts.append("</div></section>")
    for heading, picture in pictures:
        parts.append(f"<section><h2>{html.escape(heading)}</h2>")
        parts.append(f'<img class="wide" alt="{html.escape(heading)}" src="{_data_url(picture)}"></section>')
    for heading, rows in tables:
        parts.append(f"<section><h2>{html.escape(heading)}</h2><table>")
        parts.extend(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
        parts.append("</table></section>")
    parts.append("</main></body></html>\n")
    return "\n".join(parts)


def _card(item: GalleryItem) -> str:
    title = html.escape(item.title)
    figures = "".join(
        f'<figure><img alt="{title}: {name}" src="{_data_url(panel)}"><figcaption>{name}</figcaption></figure>'
        for name, panel in zip(PANEL_NAMES, item_panels(item, 192), strict=True)
    )
    nodes = "".join(
        f'<div class="node"><span style="padding-left:{depth}rem">{html.escape(name)}</span>'
        f'<meter min="0" max="1" value="{score:.3f}"></meter><span>{score:.2f}</span></div>'
        for depth, (name, score) in enumerate(item.path)
    )
    nodes = nodes or '<div class="soft">No region of the tree scores above the threshold.</div>'
    lines = "".join(
        f'<div class="{style}">{html.escape(line)}</div>'
        for style, line in (("soft", item.numbers), ("soft", item.details), ("warn", item.warning))
        if line
    )
    return f'<article><div class="panels">{figures}</div><h3>{title}</h3>{nodes}{lines}</article>'


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


__all__ = ["NOT_A_DEVICE", "gallery_page"]
