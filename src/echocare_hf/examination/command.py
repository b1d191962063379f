"""`echocare predict`: what is given is found, analysed and written, with a progress bar and a summary."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers.utils import logging

from echocare_hf.data.reading_record import Spacing, clean_spacing, one_line

from .engine import Examination
from .events import Analysed, Failed, Finished, Opened, Skipped
from .file_folder import Outputs
from .inputs import InputFile, find_inputs
from .report_model import load_report_model, split_report_models
from .report_writer import ReportWriter
from .writing import INPUTS_FOLDER, ResultFolder, check_names, check_output

MOST_FAILURES = 20
"""Files that are named at the end; all are in failed.csv."""

DEFAULT_MODEL = "echocare-tiny"
"""Tells the organ and the key frames for a report where no other model is given."""

# They say how a result is computed, not what it is.
_SPEED_OPTIONS = ("batch_size", "device", "precision")


def read_spacing(text: str | None) -> Spacing | None:
    """ "0.2" or "0.2,0.3" (row, column) as millimetres per pixel.

    Raises:
        ValueError: for anything else.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    spacing = clean_spacing(parts[0], parts[-1]) if len(parts) in (1, 2) else None
    if spacing is None:
        raise ValueError(f"--spacing is millimetres per pixel, down and across, such as 0.2,0.2; got {text!r}")
    return spacing


def run_command(
    given: Sequence[str],
    models: Sequence[str],
    output: Path,
    options: Mapping[str, Any],
    outputs: Outputs,
    seed: int,
    say: Callable[[str], None],
    complain: Callable[[str], None],
    report: str | None = None,
    organ: str | None = None,
    indication: str | None = None,
) -> int:
    """Runs an examination and writes its results.

    Args:
        given: files, folders, globs, archives, addresses.
        models: checkpoints; with a report `echocare-tiny` where there is no other than the report generator.
        output: the folder of the results.
        options: of `Examination`.
        outputs: what is written beside result.json.
        seed: of PyTorch. The models draw no random numbers; two runs with one seed give one result all the same.
        say: prints a line of the summary.
        complain: prints a line about a file that failed.
        report: the report generator, "" for the one among `models`, None for no draft reports.
        organ, indication: what it is told.

    Returns:
        0, or 1 if a file could not be analysed or an object not be written.

    Raises:
        ValueError: for wrong input: no such file, no such checkpoint, a folder that cannot be written to.
        KeyboardInterrupt: for Ctrl-C; what is complete is kept, and a second run goes on from there.
    """
    torch.manual_seed(seed)
    check_output(output)
    with _quiet():
        examination = _open(models, options, report, organ, indication)
    told = {name: value for name, value in options.items() if name not in _SPEED_OPTIONS}
    if examination.report is not None:
        told["report"] = {"sha256": examination.report.facts.sha256, **examination.report.options}
    bars = _Bars()
    try:
        work = output / INPUTS_FOLDER
        files, problems = find_inputs(given, work, without=[output], tell=say, progress=bars.stage)
        bars.close()
        check_names(output, files)
        folder = ResultFolder(output, examination.models, told, outputs, examination.threshold)
        folder.failed += [(problem.name, problem.reason) for problem in problems]
        start = time.perf_counter()
        try:
            num_frames = _run(examination, files, folder, bars)
            folder.close()
        except BaseException:
            folder.interrupt()
            raise
    finally:
        bars.close()
    shutil.rmtree(work, ignore_errors=True)
    seconds = time.perf_counter() - start
    analysed = folder.done - folder.skipped
    parts = [f"{_count(analysed, 'file')} analysed"]
    if num_frames:
        parts[0] += f" ({_count(num_frames, 'frame')}, {num_frames / seconds:.1f} a second)"
    if folder.skipped:
        parts.append(f"{folder.skipped:,} done before")
    if folder.failed:
        parts.append(f"{_count(len(folder.failed), 'problem')}, listed in failed.csv")
    say(f"{output}: {', '.join(parts)}. Look at {output / 'index.html'}.")
    for name, reason in folder.failed[:MOST_FAILURES]:
        complain(one_line(f"{name}: {reason}", 400))
    if len(folder.failed) > MOST_FAILURES:
        complain(f"... and {len(folder.failed) - MOST_FAILURES:,} more")
    return 1 if folder.failed else 0


def _open(
    models: Sequence[str], options: Mapping[str, Any], report: str | None, organ: str | None, indication: str | None
) -> Examination:
    """The models, and the report generator where one is asked for."""
    if report is None and (organ or indication):
        raise ValueError("--organ and --indication are told to a report generator: give --report with them")
    others, generator = split_report_models(models, report)
    if generator is None:
        return Examination(others, **options)
    writer = ReportWriter(load_report_model(generator, options.get("device", "auto")), organ, indication)
    return Examination(others or [DEFAULT_MODEL], report=writer, **options)


def _run(examination: Examination, files: Sequence[InputFile], folder: ResultFolder, bars: "_Bars") -> int:
    """Analyses and writes all files; returns how many frames were analysed."""
    num_frames, start = 0, time.perf_counter()
    bar = bars.open("predict", len(files), "file")
    for event in examination.run(files, folder.is_done):
        folder.write(event)
        if isinstance(event, Analysed):
            num_frames += 1
            rate = num_frames / (time.perf_counter() - start)
            bar.set_postfix_str(f"{num_frames:,} frames, {rate:.1f}/s", refresh=False)
            bar.update(0)
        elif isinstance(event, Opened):
            bar.set_description_str(event.file.name[-32:], refresh=False)
        elif isinstance(event, (Finished, Failed, Skipped)):
            bar.update()
    bars.close()
    return num_frames


class _Bars:
    """One progress bar at a time, shown from the second second on."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: tqdm | None = None

    def open(self, stage: str, total: int | None, unit: str = "job") -> tqdm:
        self.close()
        self._stage = stage
        self._bar = tqdm(total=total, desc=stage, unit=unit, delay=2, leave=False)
        return self._bar

    def stage(self, stage: str, done: int, total: int) -> None:
        """Progress of what comes before the models."""
        bar = self._bar
        if bar is None or stage != self._stage:
            bar = self.open(stage, total or None)
        bar.total = total or None
        bar.update(done - bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars of transformers, which count weights."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


__all__ = ["read_spacing", "run_command"]
