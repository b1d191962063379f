"""The whole job: from sources to a corpus, in stages that each leave finished pieces behind, so that a second run goes on where the
first one stopped.

Everything unfinished lies in `<output>.work`; `<output>` appears at the end, whole, by a rename.
"""

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.data.labelled.table import read_table

from .chunks import Progress, drop_exact_copies, hash_contents, measure_all
from .contact_sheet import write_contact_sheet
from .decide import decide
from .engine import start
from .exclude import exclude_from_chunks, read_exclude
from .facts import Facts, read_facts
from .mapping import LabelMapper, read_aliases
from .options import CurateOptions
from .record import Drop, FoundFile, drop_file
from .report import summarise, write_reports
from .shards import write_shards
from .sources import Source, discover, open_source, sort_by_type
from .tables import write_text

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class CurateResult:
    """What a run made.

    Attributes:
        output: folder of the corpus.
        report: what report.json holds.
        seconds: of each step, added up over the worker processes of this run; empty for what an earlier run had done.
        frames: images that this run has decoded.
    """

    output: Path
    report: dict[str, Any]
    seconds: dict[str, float]
    frames: int


def curate(
    sources: Sequence[str],
    output: str | os.PathLike[str],
    options: CurateOptions | None = None,
    *,
    exclude: Sequence[Path] = (),
    aliases: Path | None = None,
    marks: Path | None = None,
    hashes: Path | None = None,
    progress: Progress | None = None,
) -> CurateResult:
    """Make a clean, labelled corpus that `datasets.load_dataset(output, streaming=True)` reads.

    Args:
        sources: what `open_source` takes.
        output: folder of the corpus; absent, empty, or a corpus of an earlier run, which is replaced at the end.
        options: the settings.
        exclude: lists of hashes of images to keep out (see `exclude`).
        aliases: a table with the columns `text` and `node`, the user's own names of anatomy nodes.
        marks: a table with the column `id`, and perhaps `note`: images that a person has marked on the contact sheet.
        hashes: where to write the hashes of all images that were read, as a list for `exclude`.
        progress: called with the name of a stage, jobs done, and jobs in all.

    Returns:
        A `CurateResult`.

    Raises:
        ValueError: for a source, an output or a list that cannot be used, with one line that names it and the cure.
        OSError: if a file cannot be read or written.
        ImportError: if Daft, or Ray where it is wanted, is not installed.
    """
    options = options or CurateOptions()
    output = Path(output)
    report_to: Progress = progress or (lambda stage, done, total: None)
    _check_output(output)
    tree = AnatomyTree.default()
    excluded = read_exclude(exclude)
    mapper = LabelMapper(tree, read_aliases(aliases, tree) if aliases else {})
    marked = _read_marks(marks) if marks else {}
    work = output.with_name(output.name + ".work")
    with _lock(work):
        start(options.runner)
        opened = _open_sources(sources, work)
        images, facts, drops, problems = _discover(opened, work)
        contents = hash_contents(images, work, options.workers, report_to)
        order = {source.name: place for place, source in enumerate(opened)}

        def rank(file: FoundFile) -> tuple[Any, ...]:
            mapped = mapper.look_up(*facts[file.source, file.name].texts[0]).node
            return mapped is None, order[file.source], file.name

        kept_files, copies = drop_exact_copies(images, contents, rank)
        drops += copies
        chunks, measured = measure_all(kept_files, contents, work, options, report_to)
        decisions = decide(chunks, facts, mapper, excluded, marked, options)
        shards = write_shards(decisions.kept, chunks, work, options, report_to)
        found = len(drops) + sum(
            pq.read_metadata(chunk).num_rows for chunk in chunks
        )  # each file, or each of its frames
        drops = sorted([*drops, *decisions.drops])
        report = summarise(decisions.kept, drops, found, decisions.near_groups)
        if not len(decisions.kept):
            raise ValueError(_nothing_left(report, output))
        result = work / "result"
        shutil.rmtree(result, ignore_errors=True)
        names = _link_shards(shards, result)
        described = [{"name": source.name, "given": source.root.name} for source in opened]
        write_reports(
            result, output.name, report, decisions.kept, drops, mapper.report(), problems, described, options, names
        )
        if options.contact_images:
            write_contact_sheet(result, names, options)
        if hashes is not None:
            write_text(hashes, "\n".join(exclude_from_chunks(chunks).lines()) + "\n")
        _put_in_place(result, output)
    seconds: Counter[str] = Counter()
    for entry in measured:
        seconds.update(entry["seconds"])
    return CurateResult(output, report, dict(seconds), sum(entry["frames"] for entry in measured))


def _check_output(output: Path) -> None:
    if not output.name:
        raise ValueError(f"{output}: is no folder that can be made; give the output another name")
    if output.is_file():
        raise ValueError(f"{output}: is a file; give a folder that is not there yet")
    if output.is_dir() and any(output.iterdir()) and not (output / MANIFEST).is_file():
        raise ValueError(f"{output}: holds something else than a curated corpus; give another folder, or empty it")


@contextmanager
def _lock(work: Path) -> Iterator[None]:
    """Keep other runs out of a work folder; the lock ends with the process, however that ends."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{work}: another run is writing here; wait for it, or choose another --output") from None
        yield


def _open_sources(given: Sequence[str], work: Path) -> list[Source]:
    if not given:
        raise ValueError("no source given; name a folder, an archive, a manifest, a URL or a data set of the Hub")
    opened = [open_source(text, work) for text in given]
    names = Counter(source.name for source in opened)
    for source in opened:
        if names[source.name] > 1:
            raise ValueError(
                f"{source.root}: another source is called {source.name} too; name one of them, as in other={source.root}"
            )
    return opened


def _discover(
    sources: Sequence[Source], work: Path
) -> tuple[list[FoundFile], dict[tuple[str, str], Facts], list[Drop], list[str]]:
    """The images of all sources, what is known of them, what is none, and tables that could not be read."""
    images: list[FoundFile] = []
    facts: dict[tuple[str, str], Facts] = {}
    drops: list[Drop] = []
    problems: list[str] = []
    for source in sources:
        files, lost = discover(source, work)
        candidates, tables, others = sort_by_type(files)
        known, unread = read_facts(source.name, source.root, candidates, tables, source.table)
        drops += [*lost, *others]
        problems += unread
        for file in candidates:
            if known[file.name].is_label:
                drops.append(drop_file(file, "discover", "label_file", "a mask or a target image, not an image"))
            else:
                images.append(file)
                facts[file.source, file.name] = known[file.name]
    return images, facts, drops, problems


def _read_marks(path: Path) -> dict[str, str]:
    table = read_table(path)
    if "id" not in table.columns:
        raise ValueError(f"{path}: has no column id; save the marks with the button of the contact sheet")
    return {row["id"]: row.get("note") or "" for row in table.rows}


def _nothing_left(report: dict[str, Any], output: Path) -> str:
    reasons = ", ".join(f"{entry['number']} {entry['reason']}" for entry in report["dropped_by"])
    return f"{output}: no image is left of {report['found']} found ({reasons}); check the sources"


def _link_shards(shards: dict[str, list[Path]], result: Path) -> dict[str, list[str]]:
    """Put the shards under the names that `datasets` expects, without copying where the file system allows it."""
    (result / "data").mkdir(parents=True)
    names: dict[str, list[str]] = {}
    for split, paths in shards.items():
        for number, path in enumerate(paths):
            name = f"data/{split}-{number:05d}-of-{len(paths):05d}.parquet"
            try:
                os.link(path, result / name)
            except OSError:
                shutil.copyfile(path, result / name)
            names.setdefault(split, []).append(name)
    return names


def _put_in_place(result: Path, output: Path) -> None:
    """Swap the new corpus for the old one: at every moment one of the two is there under its name or beside it."""
    old = output.with_name(output.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    result.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def load_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a corpus: settings, sources, shards, and the ids of the anatomy tree it was labelled with."""
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
