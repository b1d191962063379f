"""The pipeline: files in, findings out, frame after frame.

    examination = Examination(["echocare-tiny"])
    result, frames = examination.examine("clip.dcm")

One thread reads, decodes, crops and resizes; the thread that asks for results runs the models on batches that may hold frames of several
files. What is in flight is bounded, so a clip of any length needs the same memory. A file that cannot be analysed never stops the others.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.data.reading_record import Spacing, clean_spacing

from .events import Analysed, Event, Failed, Finished, Opened, Skipped
from .gates import OWN_RUN_EVERY, Gates, Judgement
from .handover import Handover
from .inputs import InputFile
from .models import LoadedModel, load_models
from .open_file import OpenFile
from .reader import End, Read, Reader, reason_of
from .region import Region
from .report_writer import ReportWriter
from .results import FileResult, FrameResult
from .task_findings import Findings, find

QUEUE_BYTES = 256 * 1024**2
"""Of the frames that wait for the models."""


class Examination:
    """Any set of checkpoints, run on any number of files.

    Args:
        models: checkpoints as `load_models` takes them, or loaded ones.
        batch_size: frames that go through a model together.
        threshold: smallest score, 0 to 1, of objects and of nodes on an anatomy path.
        spacing: (row_mm, column_mm), millimetres per pixel of files that do not state theirs.
        search_region: whether the ultrasound region is looked for; without it whole images are analysed.
        every: analyse every n-th frame of a clip.
        max_frames: at most this many frames of a clip.
        familiarity: whether to tell how much each frame looks like what the encoder knows.
        device: see `load_models`.
        precision: see `load_models`.
        report: writes a draft report on each file.

    Raises:
        ValueError: for an option outside its range, or a checkpoint that cannot be loaded.
    """

    def __init__(
        self,
        models: Sequence[str | LoadedModel],
        *,
        batch_size: int = 16,
        threshold: float = 0.5,
        spacing: Spacing | None = None,
        search_region: bool = True,
        every: int = 1,
        max_frames: int | None = None,
        familiarity: bool = True,
        device: str = "auto",
        precision: str = "auto",
        report: ReportWriter | None = None,
    ) -> None:
        for name, number in (("batch_size", batch_size), ("every", every), ("max_frames", max_frames)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold lies between 0 and 1, got {threshold:g}")
        if spacing is not None and clean_spacing(*spacing) is None:
            raise ValueError(f"spacing is two numbers above 0, millimetres per pixel down and across, got {spacing}")
        self.batch_size, self.threshold = batch_size, threshold
        texts = [model for model in models if isinstance(model, str)]
        loaded = iter(load_models(texts, device, precision) if texts else [])
        self.models = [next(loaded) if isinstance(model, str) else model for model in models]
        self.report = report
        names = [model.name for model in self.models] + ([report.facts.name] if report else [])
        if len(set(names)) < len(names):
            raise ValueError("two models have one name: give them names of their own with NAME=FOLDER")
        anatomy = next((model for model in self.models if model.task == "anatomy"), None)
        self.tree = AnatomyTree.from_config(anatomy.config) if anatomy else AnatomyTree.default()
        self.gates = Gates(self.models) if familiarity else None
        extra = [self.gates.extra] if self.gates and self.gates.extra else []
        inputs = {model.input_key: model for model in (*self.models, *extra)}
        warnings = (self.gates.problem,) if self.gates and self.gates.problem else ()
        self._reader = Reader(self.models, inputs, spacing, search_region, every, max_frames, warnings)
        self._open: OpenFile | None = None
        self._given_up: InputFile | None = None

    def examine(self, path: str | Path) -> tuple[FileResult, list[FrameResult]]:
        """One file, with all its frames in memory.

        Raises:
            ValueError: if it cannot be analysed.
        """
        path = Path(path)
        frames: list[FrameResult] = []
        for event in self.run([InputFile(path, path.name, "files")]):
            if isinstance(event, Analysed):
                frames.append(event.found)
            elif isinstance(event, Failed):
                raise ValueError(f"{path}: {event.reason}")
            elif isinstance(event, Finished):
                return event.result, frames
        raise AssertionError("a file ends with Finished or Failed")

    def run(
        self, files: Iterable[InputFile], is_done: Callable[[InputFile, str], bool] | None = None
    ) -> Iterator[Event]:
        """The events of all files, in their order: `Opened`, `Analysed` for each frame, then `Finished`; or `Failed`, or `Skipped`.

        Args:
            files: what to analyse.
            is_done: tells from a file and the SHA-256 of its bytes whether it can be left out; called in the reading thread.

        Raises:
            ValueError: if a model runs out of memory.
        """
        queue: Handover[Any] = Handover(2 * self.batch_size, QUEUE_BYTES)
        arguments = (files, queue, is_done)
        reader = threading.Thread(target=self._reader.read_all, args=arguments, name="reader", daemon=True)
        reader.start()
        waiting: list[Any] = []
        num_frames = 0
        self._open = self._given_up = None
        try:
            while True:
                event = queue.get()
                if isinstance(event, BaseException):
                    raise event
                last = isinstance(event, End) and event.file is None
                if not last:
                    waiting.append(event)
                    num_frames += isinstance(event, Read)
                if last or not num_frames or num_frames == self.batch_size:
                    with self._memory_advice():
                        events = self._analyse(waiting)
                    yield from events
                    waiting, num_frames = [], 0
                if last:
                    return
        finally:
            queue.close()
            reader.join()

    def _analyse(self, events: Sequence[Any]) -> list[Event]:
        """Runs the models on the frames among the events, and gives all events with their findings, in order.

        Where a model fails on frames of several files, each file goes through alone, so that only those it fails on are given up.
        """
        events = self._without_given_up(events)
        try:
            found = self._find_all(events)
        except Exception as error:
            if _out_of_memory(error):
                raise
            parts = _by_file(events)
            if len(parts) > 1:
                return [answer for part in parts for answer in self._analyse(part)]
            opened = next((event for event in events if isinstance(event, Opened)), None) or self._open_file.opened
            return [self._give_up(opened.file, error)]
        answers: list[Event] = []
        for event in events:
            if isinstance(event, Opened):
                least = self.gates.threshold if self.gates is not None else 0.0
                self._open = OpenFile(event, self.models, self.tree, self.threshold, least)
                answers.append(event)
            elif isinstance(event, Read):
                answers.append(self._open_file.collect(event, *next(found)))
            elif isinstance(event, End):
                answers.append(self._finish())
            else:  # Failed, Skipped
                self._open = None
                answers.append(event)
        return answers

    @property
    def _open_file(self) -> OpenFile:
        assert self._open is not None
        return self._open

    def _without_given_up(self, events: Sequence[Any]) -> list[Any]:
        """Without what the reader still says of a file that a model failed on."""
        kept = []
        for event in events:
            if isinstance(event, (Opened, Skipped)) or getattr(event, "file", self._given_up) != self._given_up:
                self._given_up = None
            if self._given_up is None:
                kept.append(event)
        return kept

    def _give_up(self, file: InputFile, error: Exception) -> Failed:
        if os.environ.get("ECHOCARE_DEBUG"):
            raise error
        self._open, self._given_up = None, file
        return Failed(file, f"a model failed on it: {reason_of(file, error)}")

    def _finish(self) -> Event:
        """The end of the open file; the models of clips run here."""
        file = self._open_file.opened.file
        try:
            finished = self._open_file.finish()
        except Exception as error:
            if _out_of_memory(error):
                raise
            return self._give_up(file, error)
        if self.report is not None:
            self._write_draft(self.report, finished)
        return finished

    def _write_draft(self, report: ReportWriter, finished: Finished) -> None:
        """The draft report on the open file. Where the generator fails, the other results stay."""
        opened, result = self._open_file.opened, finished.result
        start = time.perf_counter()
        result.models = {**result.models, report.facts.name: report.facts}
        try:
            with self._memory_advice():
                result.draft = report.write(opened.file.path, result, finished.clip, opened.region)
        except Exception as error:
            if os.environ.get("ECHOCARE_DEBUG"):
                raise
            finished.draft_problem = reason_of(opened.file, error)
        result.seconds += time.perf_counter() - start

    def _find_all(self, events: Sequence[Any]) -> Iterator[tuple[dict[str, Findings], Judgement]]:
        """Findings and familiarity of each frame among the events."""
        regions: list[Region] = []
        region = self._open.opened.region if self._open else None
        frames: list[Read] = []
        for event in events:
            if isinstance(event, Opened):
                region = event.region
            elif isinstance(event, Read):
                assert region is not None
                regions.append(region)
                frames.append(event)
        judgements = [Judgement() for _ in frames]
        return iter(list(zip(self._find(frames, regions, judgements), judgements, strict=True)))

    def _find(
        self, frames: Sequence[Read], regions: Sequence[Region], judgements: Sequence[Judgement]
    ) -> list[dict[str, Findings]]:
        """For each frame what each model of single images found, by the model's name; and how familiar it is, put into `judgements`."""
        found: list[dict[str, Findings]] = [{} for _ in frames]
        if not frames:
            return found
        pixels = [item.frame.pixels for item in frames]
        for model in self.models:
            if model.task == "video":
                continue
            inputs = torch.stack([item.inputs[model.input_key] for item in frames])
            seen = [region.whole for region in regions] if model.sees_whole_image else list(regions)
            listening = self.gates.listen(model, judgements) if self.gates is not None else nullcontext()
            with listening:
                results = find(model, inputs, seen, pixels, self.threshold)
            for each, findings in zip(found, results, strict=True):
                each[model.name] = findings
        if self.gates is not None and self.gates.extra is not None:
            key = self.gates.extra.input_key
            chosen = [place for place, item in enumerate(frames) if item.number % OWN_RUN_EVERY == 0]
            if chosen:
                inputs = torch.stack([frames[place].inputs[key] for place in chosen])
                self.gates.run_extra(inputs, [judgements[place] for place in chosen])
        return found

    @contextmanager
    def _memory_advice(self) -> Iterator[None]:
        """Turns running out of memory in a model into one line with the cure."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise ValueError(
                f"the models ran out of memory with batches of {self.batch_size}: give a smaller --batch-size"
            ) from error


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _by_file(events: Sequence[Any]) -> list[list[Any]]:
    """The events in parts; no part has frames of two files."""
    parts: list[list[Any]] = []
    for event in events:
        if not parts or isinstance(event, (Opened, Failed, Skipped)):
            parts.append([])
        parts[-1].append(event)
    return parts


__all__ = ["Examination"]
