"""The paper's inspection by hand: pages with up to 100 random images a class, one of those that look least like ultrasound, and a key that
marks the wrong ones.

A page is one file that needs no network. Marks are kept by the browser, apart for each folder of a corpus, and saved as `marks.csv`,
which `echocare curate --marks` takes.
"""

import base64
import html
import io
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from echocare_hf.anatomy import AnatomyTree

from .kept import Kept
from .options import CurateOptions
from .quality import DOUBTFUL
from .tables import whole_file, write_text

FOLDER = "contact_sheet"
_THUMBNAIL = 160  # pixels, longest side
_UNLABELLED = "unlabelled"
_DOUBTFUL = "doubtful"
_TITLES = {_UNLABELLED: "Without a label", _DOUBTFUL: "Perhaps no ultrasound"}
_FIGURES = "\0"  # where the figures of a page go

_STYLE = """
:root { color-scheme: dark } body { margin: 1rem; background: #11181f; color: #e8edf2; font: 15px/1.4 system-ui, sans-serif }
a { color: #4fb6cc } main { display: grid; gap: 8px; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)) }
figure { margin: 0; padding: 4px; border: 3px solid #2c3945; border-radius: 6px; cursor: pointer; outline-offset: 2px }
figure.wrong { border-color: #e5484d; background: #3a1214 } img { width: 100%; height: 160px; object-fit: contain; background: #000 }
figcaption { font-size: 12px; color: #9fb0bf; overflow-wrap: anywhere }
header { position: sticky; top: 0; background: #11181f; padding: 6px 0 }
button { font: inherit; padding: 4px 10px }
""".strip()

_SCRIPT = """
const figures = [...document.querySelectorAll("figure")];
const key = "echocare-marks " + location.pathname.replace(/[^/]*$/, "");
const marks = new Map(JSON.parse(localStorage.getItem(key) || "[]"));
let place = 0;
function show() {
  figures.forEach(f => f.classList.toggle("wrong", marks.has(f.id)));
  document.getElementById("count").textContent = marks.size + " marked on all pages";
  localStorage.setItem(key, JSON.stringify([...marks]));
}
function toggle(figure) {
  if (marks.has(figure.id)) marks.delete(figure.id); else marks.set(figure.id, document.title);
  show();
}
figures.forEach((f, i) => { f.onclick = () => { place = i; toggle(f); f.focus(); }; f.onfocus = () => { place = i; }; });
document.onkeydown = event => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step) { place = (place + step + figures.length) % figures.length; figures[place].focus(); event.preventDefault(); }
  if (event.key === "x") toggle(figures[place]);
};
document.getElementById("save").onclick = () => {
  const quote = text => '"' + text.replaceAll('"', '""') + '"';
  const rows = ["id,note", ...[...marks].map(([id, note]) => id + "," + quote(note))];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([rows.join("\\n") + "\\n"], { type: "text/csv" }));
  link.download = "marks.csv";
  link.click();
};
show();
""".strip()


def write_contact_sheet(
    folder: Path, shards: Mapping[str, Sequence[str]], options: CurateOptions, doubtful: Collection[str] = ()
) -> None:
    """Write `contact_sheet/index.html`, a page a class, and one of doubtful images if there are any, into the folder of a corpus.

    Args:
        folder: the corpus.
        shards: for each split the paths of its shards within the folder.
        options: `contact_images` is the number of images a class.
        doubtful: ids of images that may be no ultrasound, see `doubtful_images`.
    """
    paths = [folder / name for names in shards.values() for name in names]
    chosen = _choose(paths, options.contact_images)
    if doubtful:
        chosen[_DOUBTFUL] = set(doubtful)
    tree = AnatomyTree.default()
    lines = []
    pages: dict[str, TextIO] = {}
    ends = {}
    with ExitStack() as stack:
        for node in sorted(chosen, key=lambda name: (name in _TITLES, tree.path(name) if name in tree else name)):
            title, number = _TITLES.get(node) or tree.path(node), len(chosen[node])
            place = stack.enter_context(whole_file(folder / FOLDER / f"{node}.html"))
            pages[node] = stack.enter_context(place.open("w", encoding="utf-8"))
            start, ends[node] = _page(title, number)
            pages[node].write(start)
            lines.append(f'<li><a href="{html.escape(node)}.html">{html.escape(title)}</a>: {number} images</li>')
        for path in paths:
            for row in _rows(path, chosen):
                figure = _figure(row)
                for name in _pages_of(row, chosen):
                    pages[name].write(figure)
        for node, end in ends.items():
            pages[node].write(end)
    index = _document("Contact sheet", f"<h1>Contact sheet</h1><ul>{''.join(lines)}</ul>")
    write_text(folder / FOLDER / "index.html", index)


def doubtful_images(kept: Kept, count: int) -> set[str]:
    """Ids of the images that look least like ultrasound, `count` at most."""
    scores: dict[str, float] = {}
    for table in kept.tables(["id", "ultrasound_score"]):
        low = table.filter(pc.less(table["ultrasound_score"], DOUBTFUL))
        scores |= zip(low["id"].to_pylist(), low["ultrasound_score"].to_pylist(), strict=True)
        scores = dict(sorted(scores.items(), key=itemgetter(1, 0))[:count])
    return set(scores)


def _pages_of(row: Mapping, chosen: Mapping[str, set[str]]) -> list[str]:
    """The pages that show an image."""
    return [name for name in (row["node"] or _UNLABELLED, _DOUBTFUL) if row["id"] in chosen.get(name, ())]


def _choose(paths: Sequence[Path], count: int) -> dict[str, set[str]]:
    """Ids of `count` images of each class; ids are hashes, so the smallest ones are a random sample."""
    by_node: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        table = pq.read_table(path, columns=["id", "node"])
        for name, node in zip(table["id"].to_pylist(), table["node"].to_pylist(), strict=True):
            by_node[node or _UNLABELLED].append(name)
        for node, names in by_node.items():
            by_node[node] = sorted(names)[:count]
    return {node: set(names) for node, names in by_node.items()}


def _rows(path: Path, chosen: Mapping[str, set[str]]) -> Iterator[dict]:
    """The chosen rows of a shard, one row group after the other: a shard may hold every image that is shown."""
    wanted = ["id", "node", "source", "source_path", "frame", "image"]
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            names = file.read_row_group(group, columns=["id", "node"]).to_pylist()
            places = [place for place, row in enumerate(names) if _pages_of(row, chosen)]
            if places:
                yield from file.read_row_group(group, columns=wanted).take(pa.array(places)).to_pylist()


def _figure(row: dict) -> str:
    with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    caption = f"{row['source']}: {row['source_path']}" + (f", frame {row['frame']}" if row["frame"] else "")
    return (
        f'<figure id="{row["id"]}" tabindex="0"><img alt="" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _page(title: str, number: int) -> tuple[str, str]:
    """What stands before and after the figures of a page."""
    head = (
        f'<header><a href="index.html">all classes</a> <b>{html.escape(title)}</b>, {number} images. Mark what is wrong: click, or '
        'arrow keys and x. <button id="save">Save marks.csv</button> <span id="count"></span></header>'
    )
    start, end = _document(title, f"{head}<main>{_FIGURES}</main><script>{_SCRIPT}</script>").split(_FIGURES)
    return start, end


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )
