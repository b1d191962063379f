"""`echocare curate`: a progress bar for each stage, and what came out of it in a few lines."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .options import CurateOptions
from .run import curate

_MOST_PROBLEMS = 10
"""Lines about tables and marks that are said; report.json has all."""


class _Bars:
    """One bar a stage, shown from the first finished job on."""

    def __init__(self) -> None:
        self.stage = ""
        self.bar: tqdm | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self.stage:
            self.close()
            self.stage, self.bar = stage, tqdm(total=total, desc=stage, unit="job", delay=1)
        if self.bar is not None:
            self.bar.total = total
            self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def run_command(
    sources: Sequence[str],
    output: Path,
    options: Mapping[str, Any],
    exclude: Sequence[Path],
    aliases: Path | None,
    marks: Path | None,
    hashes: Path | None,
    say: Callable[[str], None],
) -> None:
    """Run `curate` with bars, then say what was kept, what was dropped and why, and where to look.

    Args:
        sources: as `curate` takes them.
        output: folder of the corpus.
        options: of `CurateOptions`.
        exclude: lists of hashes.
        aliases: table of the user's own names.
        marks: table of marked images.
        hashes: where to write hashes.
        say: prints a line.
    """
    bars = _Bars()
    try:
        result = curate(
            sources,
            output,
            CurateOptions(**options),
            exclude=exclude,
            aliases=aliases,
            marks=marks,
            hashes=hashes,
            progress=bars,
        )
    finally:
        bars.close()
    report = result.report
    say(f"{output}: {report['kept']:,} images kept, {report['dropped']:,} dropped of {report['found']:,} found")
    for entry in report["dropped_by"]:
        say(f"  dropped {entry['number']:>9,}  {entry['step']}: {entry['reason']}")
    for split, number in report["images"]["split"].items():
        say(f"  {split:<11} {number:>9,}  in {report['clusters'][split]:,} clusters")
    unlabelled = report["images"]["node"].get("not stated", 0)
    say(f"  without an anatomy node {unlabelled:,} (labels.csv says what could not be mapped)")
    problems = report["problems"]
    for problem in problems[:_MOST_PROBLEMS]:
        say(f"Note: {problem}")
    if len(problems) > _MOST_PROBLEMS:
        say(f"Note: {len(problems) - _MOST_PROBLEMS:,} more in {output}/report.json, problems")
    sheet = ", contact_sheet/index.html" if (output / "contact_sheet").is_dir() else ""
    say(f"Look at {output}/README.md, audit.csv{sheet}.")
