"""The whole job: from sources to a corpus, in stages that each leave finished pieces behind, so that a second run goes on where the
first one stopped.

Everything unfinished lies in `<output>.work`; `<output>` appears at the end, whole, by a rename.
"""

import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.data.labelled.table import need_cells, read_table, text
from echocare_hf.files import locked

from .chunks import drop_exact_copies, hash_contents, measure_all, rows_of
from .contact_sheet import doubtful_images, write_contact_sheet
from .decide import decide
from .drops import Drops
from .engine import start
from .exclude import read_exclude, write_hashes
from .facts import Facts, read_facts
from .inventory import Inventory, write_inventory
from .mapping import LabelMapper, read_aliases
from .options import CurateOptions, Progress, no_progress
from .record import FoundFile, drop_file
from .report import summarise, write_reports
from .shards import write_shards
from .sources import Source, discover, open_source, sort_by_type

MANIFEST = "manifest.json"
_WRITTEN = re.compile(
    r"README\.md|manifest\.json|report\.json|labels\.csv|audit\.csv|dropped\.parquet|plots/[a-z]+\.png"
    r"|data/(train|validation)-\d+-of-\d+\.parquet|contact_sheet/\w+\.html"
)
"""The files of a corpus, by their paths in it."""


@dataclass(frozen=True)
class CurateResult:
    """What a run made.

    Attributes:
        output: folder of the corpus.
        report: what report.json holds.
        seconds: of the processor, of each step, added up over the worker processes of this run; empty for what an earlier run had done.
        frames: images that this run has decoded.
        stages: seconds of each stage of this run, one after the other, on the wall clock.
    """

    output: Path
    report: dict[str, Any]
    seconds: dict[str, float]
    frames: int
    stages: dict[str, float]


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
    if output.is_symlink():
        output = output.resolve()  # the folder is replaced, not the link to it
    report_to = progress or no_progress
    _check_output(output)
    _check_hashes(hashes)
    tree = AnatomyTree.default()
    excluded = read_exclude(exclude)
    mapper = LabelMapper(tree, read_aliases(aliases, tree) if aliases else {})
    marked = _read_marks(marks) if marks else {}
    work = output.with_name(output.name + ".work")
    replaced = work / "replaced"
    stages = _Stopwatch()
    with _lock(work):
        _clear_up(output, replaced)
        start(options.runner, options.workers)
        opened = _open_sources(sources, work, report_to)
        own = (output, work)
        for source in opened:
            if source.root.resolve() in {place.resolve() for place in (*own, output / "data")}:
                raise ValueError(f"{source.root}: is the output itself; give another --output")
        described = [{"name": source.name, "given": source.given} for source in opened]
        drops = Drops(work / "dropped")
        inventory, problems = _discover(opened, work, drops, report_to, own)
        del opened  # rows of manifests
        stages.end("discover")
        contents = hash_contents(inventory, work, options.workers, report_to)

        def labelled(texts: str) -> bool:
            return any(mapper.look_up(where, text).node is not None for where, text in json.loads(texts))

        originals, copies = drop_exact_copies(inventory, contents, labelled, drops)
        stages.end("hash")
        chunks, measured = measure_all(inventory, contents, originals, work, options, report_to)
        stages.end("measure")
        del contents, originals
        found = len(drops) + rows_of(chunks)  # each file, or each of its frames
        folder = work / "decided"
        decisions = decide(chunks, inventory, copies, mapper, excluded, marked, options, folder, drops)
        if marks and decisions.marks_found < len(marked):
            missing = f"{len(marked) - decisions.marks_found} of {len(marked)} marks"
            problems.append(f"{marks.name}: {missing} name no image of these sources (were they named otherwise?)")
        report = summarise(decisions.kept, drops, found, decisions.near_groups) | {"problems": problems}
        if not len(decisions.kept):
            raise ValueError(_nothing_left(report, output))
        stages.end("decide")
        shards = write_shards(decisions.kept, chunks, work, options, report_to)
        stages.end("write")
        result = work / "result"
        shutil.rmtree(result, ignore_errors=True)
        names = _link_shards(shards, result)
        write_reports(result, output.name, report, decisions.kept, drops, mapper.report(), described, options, names)
        if options.contact_images:
            doubtful = doubtful_images(decisions.kept, options.contact_images)
            write_contact_sheet(result, names, options, doubtful)
        _put_in_place(result, output, replaced)
        if hashes is not None:
            write_hashes([chunk.path for chunk in chunks], hashes)
        stages.end("report")
    seconds: Counter[str] = Counter()
    for entry in measured:
        seconds.update(entry["seconds"])
    return CurateResult(output, report, dict(seconds), sum(entry["frames"] for entry in measured), stages.seconds)


class _Stopwatch:
    """Seconds from the end of one stage to the end of the next."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def end(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self._last = now - self._last, now


def _check_output(output: Path) -> None:
    if not output.name:
        raise ValueError(f"{output}: is no folder that can be made; give the output another name")
    if output.is_file():
        raise ValueError(f"{output}: is a file; give a folder that is not there yet")
    if output.is_dir() and any(output.iterdir()) and not (output / MANIFEST).is_file():
        raise ValueError(f"{output}: holds something else than a curated corpus; give another folder, or empty it")
    if output.is_mount():
        raise ValueError(f"{output}: is a mount point, which no rename can replace; give a folder in it")


def _check_hashes(hashes: Path | None) -> None:
    if hashes is not None and hashes.is_dir():
        raise ValueError(f"{hashes}: is a folder; give the name of a file for the hashes")


@contextmanager
def _lock(work: Path) -> Iterator[None]:
    """Keep other runs out of a work folder; the lock ends with the process, however that ends."""
    work.mkdir(parents=True, exist_ok=True)
    file = locked(work / "lock")
    if file is None:
        raise ValueError(f"{work}: another run is writing here; wait for it, or choose another --output")
    with file:
        for left in [*work.glob("*/.*.partial-*")]:  # of a run that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        try:
            yield
        finally:
            if [entry.name for entry in work.iterdir()] == ["lock"]:  # sources that could not be opened
                shutil.rmtree(work)


def _open_sources(given: Sequence[str], work: Path, progress: Progress) -> list[Source]:
    if not given:
        raise ValueError("no source given; name a folder, an archive, a manifest, a URL or a data set of the Hub")
    opened = [open_source(text, work, progress) for text in given]
    names = Counter(source.name for source in opened)
    for source in opened:
        if names[source.name] > 1:
            raise ValueError(
                f"{source.root}: another source is called {source.name} too; name one of them, as in other={source.root}"
            )
    return opened


def _discover(
    sources: Sequence[Source], work: Path, drops: Drops, progress: Progress, left_out: Sequence[Path]
) -> tuple[Inventory, list[str]]:
    """The images of all sources with what is known of them, and tables that could not be read; what is no image goes to `drops`."""
    inventory = Inventory(work / "found", tuple(source.name for source in sources))
    problems: list[str] = []
    for source in sources:
        files, tables = sort_by_type(discover(source, work, drops, progress, left_out), work, drops)
        known = read_facts(source.name, source.root, files, tables, source.table, problems)
        write_inventory(inventory.folder, source.name, _without_labels(known, drops))
    return inventory, problems


def _without_labels(known: Iterable[tuple[FoundFile, Facts]], drops: Drops) -> Iterator[tuple[FoundFile, Facts]]:
    for file, facts in known:
        if facts.is_label:
            drops.append(drop_file(file, "discover", "label_file", "a mask or a target image, not an image"))
        else:
            yield file, facts


def _read_marks(path: Path) -> dict[str, str]:
    table = read_table(path)
    if "id" not in table.columns:
        raise ValueError(f"{path}: has no column id; save the marks with the button of the contact sheet")
    need_cells(table, ["id"])
    return {text(row["id"]): text(row.get("note") or "") for row in table.rows}


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


def _clear_up(output: Path, replaced: Path) -> None:
    """What a run that was killed while it put the corpus in its place has left: the old one goes back if no new one is there."""
    if replaced.is_dir() and not output.exists():
        replaced.rename(output)
    shutil.rmtree(replaced, ignore_errors=True)


def _put_in_place(result: Path, output: Path, replaced: Path) -> None:
    """Swap the new corpus for the old one: at every moment one of the two is there under its name or in the work folder."""
    _take_along(output, result)
    if output.exists():
        output.rename(replaced)
    result.rename(output)
    shutil.rmtree(replaced, ignore_errors=True)


def _take_along(output: Path, result: Path) -> None:
    """Bring what no run wrote (marks, notes, a repository) from the old corpus into the new one, without copying where possible."""
    for folder, folders, names in os.walk(output):
        for name in (*names, *(entry for entry in folders if Path(folder, entry).is_symlink())):
            path = Path(folder, name)
            inside = path.relative_to(output)
            target = result / inside
            if _WRITTEN.fullmatch(inside.as_posix()) or os.path.lexists(target):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target, follow_symlinks=False)
            except OSError:
                shutil.copy2(path, target, follow_symlinks=False)


def load_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a corpus: settings, sources, shards, and the ids of the anatomy tree it was labelled with."""
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
