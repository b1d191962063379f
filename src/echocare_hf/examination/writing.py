"""The output folder of a run: one folder a file, and what is assembled from them; a second run leaves out what is done.

A thread of its own draws and writes, so that the models do not wait for it. A file's folder is renamed to its place when it is complete.
"""

import csv
import errno
import hashlib
import json
import os
import platform
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import transformers

from echocare_hf import __version__
from echocare_hf.data.reading_record import one_line
from echocare_hf.files import locked, written_beside

from .events import Analysed, Event, Failed, Finished, Opened, Skipped
from .file_folder import FileFolder, Outputs, SourceLostError, folder_name
from .handover import Handover, HandoverClosed
from .inputs import InputFile
from .models import LoadedModel
from .overlays import Style
from .page import write_pages
from .reader import digest_of
from .records import Record
from .results import RUN_FILE, SCHEMA
from .tables import FAILED_COLUMNS, SUMMARY_COLUMNS, summary_rows

QUEUE_BYTES = 128 * 1024**2
"""Of the frames that wait to be drawn and written."""

INPUTS_FOLDER = ".inputs"
"""What archives and network sources were unpacked to, inside the output folder; removed at the end of a run."""


class OutputError(ValueError):
    """The output folder cannot be written to; the message names it and the cure."""


class ResultFolder:
    """Where the events of `Examination.run` are written to.

    Args:
        output: the folder; made if it is not there.
        models: of the run.
        options: that change results, by name; what is done with others is done again.
        outputs: what is written beside result.json.
        threshold: smallest score of a node that is written in pictures.

    Attributes:
        failed: name and reason of each file that could not be analysed, or of which something could not be written.
        done: files of this run with results.
        skipped: of these, those that a former run had done.

    Raises:
        OutputError: if the folder holds something else, is being written to by another run, or cannot be written.
    """

    def __init__(
        self,
        output: Path,
        models: Sequence[LoadedModel],
        options: Mapping[str, Any],
        outputs: Outputs | None = None,
        threshold: float = 0.5,
    ) -> None:
        self.output, self.outputs = output, outputs or Outputs()
        self.style = Style.of(models, threshold)
        self.failed: list[tuple[str, str]] = []
        self.done = self.skipped = 0
        self._files = output / "files"
        facts = {model.name: model.facts.sha256 for model in models}
        told = {**options, **vars(self.outputs), "precision": {model.name: model.precision for model in models}}
        text = json.dumps([SCHEMA, __version__, facts, told], sort_keys=True)
        self.run: Record = {
            "key": hashlib.sha256(text.encode()).hexdigest(),
            "options": told,
            "versions": {
                "echocare_hf": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "python": platform.python_version(),
            },
        }
        self._current: FileFolder | None = None
        self._error: BaseException | None = None
        self._queue: Handover[Event | None] = Handover(64, QUEUE_BYTES)
        with _writing(output):
            self._prepare()
        self._thread = threading.Thread(target=self._write_all, name="writer", daemon=True)
        self._thread.start()

    def _prepare(self) -> None:
        check_output(self.output)
        self.output.mkdir(parents=True, exist_ok=True)
        self._lock = locked(self.output / ".lock")
        if self._lock is None:
            raise OutputError(f"{self.output}: another run is writing to it; wait for it, or give another folder")
        for left in self._files.glob(".*.partial-*"):  # of a run that was killed
            shutil.rmtree(left)
        with written_beside(self.output / RUN_FILE) as path:
            path.write_text(json.dumps({"schema": SCHEMA, **self.run}, indent=1) + "\n", encoding="utf-8")
        self._files.mkdir(exist_ok=True)

    def is_done(self, file: InputFile, sha256: str) -> bool:
        """Whether a former run of the same models and options has analysed the same bytes under this name."""
        record = _read_record(self._files / folder_name(file.name) / "result.json")
        if record is None or record.get("name") != file.name or record.get("sha256") != sha256:
            return False
        run = record.get("run", {})
        return run.get("key") == self.run["key"] and bool(run.get("complete"))

    def write(self, event: Event) -> None:
        """Hands an event to the writing thread; waits while too much is waiting there.

        Raises:
            OutputError: if the folder cannot be written to any more.
        """
        size = 0
        if isinstance(event, Analysed):
            maps = sum(each.label_map.nbytes for each in event.found.segmentations.values())
            size = event.pixels.nbytes + maps + sum(image.nbytes for image in event.found.enhanced.values())
            size += 0 if event.grey is None else event.grey.nbytes
        try:
            self._queue.put(event, size)
        except HandoverClosed:
            self._raise()

    def close(self) -> None:
        """Waits for what is waiting, then assembles the tables and pages from all files' results.

        Raises:
            OutputError: if the folder cannot be written to.
        """
        with suppress(HandoverClosed):
            self._queue.put(None)
        self._thread.join()
        self._raise()
        self._assemble()
        self._unlock()

    def interrupt(self) -> None:
        """Drops the file in the making, and assembles what is complete, as far as that can be written."""
        self._queue.close()
        self._thread.join()
        if self._error is None:
            self._assemble()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            (self.output / ".lock").unlink(missing_ok=True)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    # In the writing thread ---------------------------------------------------------------------------------

    def _write_all(self) -> None:
        try:
            with _writing(self.output):
                while (event := self._queue.get()) is not None:
                    self._write(event)
        except HandoverClosed:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._queue.close()
            with suppress(OSError):
                self._drop()

    def _write(self, event: Event) -> None:
        if isinstance(event, Opened):
            name = folder_name(event.file.name)
            partial = self._files / f".{name}.partial-{os.getpid()}"
            self._current = FileFolder(event, partial, f"files/{name}", self.style, self.outputs)
        elif isinstance(event, Failed):
            self._fail(event.file.name, event.reason, event.is_unread)
        elif isinstance(event, Skipped):
            self.done += 1
            self.skipped += 1
        elif self._current is not None:  # else it has failed before
            name = self._current.result.name
            try:
                self._add(self._current, event)
            except OSError:
                raise
            except SourceLostError as error:
                self._fail(name, str(error), is_unread=True)
            except Exception as error:
                if os.environ.get("ECHOCARE_DEBUG"):
                    raise
                self._fail(name, f"could not be written ({type(error).__name__}: {one_line(str(error))})")

    def _add(self, folder: FileFolder, event: Analysed | Finished) -> None:
        if isinstance(event, Analysed):
            folder.add(event)
            return
        folder.finish(event, {**self.run, "source": folder.opened.file.source})
        target = self._files / folder_name(folder.result.name)
        if target.exists():
            shutil.rmtree(target)
        folder.folder.replace(target)
        self._current = None
        self.failed += [(folder.result.name, problem) for problem in folder.problems]
        self.done += 1

    def _fail(self, name: str, reason: str, is_unread: bool = False) -> None:
        self._drop()
        former = self._files / folder_name(name)
        if former.exists() and not is_unread:  # else the file may be what it was
            shutil.rmtree(former)  # of other bytes or options: no result of this file as it is now
        self.failed.append((name, reason))

    def _drop(self) -> None:
        """Removes the folder in the making."""
        if self._current is not None:
            current, self._current = self._current, None
            try:
                current.discard()
            finally:
                shutil.rmtree(current.folder, ignore_errors=True)

    # At the end --------------------------------------------------------------------------------------------

    def _assemble(self) -> None:
        with _writing(self.output):
            studies: dict[str, list[Path]] = {}
            with (
                written_beside(self.output / "results.jsonl") as lines,
                written_beside(self.output / "summary.csv") as summary,
                lines.open("w", encoding="utf-8", errors="backslashreplace") as results,
                _table(summary, SUMMARY_COLUMNS) as table,
            ):
                for path in sorted(self._files.glob("*/result.json")):
                    if (record := _read_record(path)) is not None:
                        results.write(json.dumps(record) + "\n")
                        table.writerows(summary_rows(record))
                        studies.setdefault(record["study"], []).append(path)
            with written_beside(self.output / "failed.csv") as path, _table(path, FAILED_COLUMNS) as table:
                table.writerows(self.failed)
            counts = {study: len(paths) for study, paths in sorted(studies.items())}
            pages = {study: filter(None, map(_read_record, studies[study])) for study in counts}
            write_pages(self.output, pages, counts, self.failed)


def check_output(output: Path) -> None:
    """Refuses a folder that results do not belong in.

    Raises:
        OutputError: if it is a file, holds something else than results, or cannot be written to.
    """
    with _writing(output):
        if output.exists() and not output.is_dir():
            raise OutputError(f"{output}: is a file; --output takes a folder")
        held = [path.name for path in output.iterdir() if path.name[0] != "."] if output.is_dir() else []
        if held and RUN_FILE not in held:
            raise OutputError(
                f"{output}: holds something else than results of echocare predict; give an empty or a new folder"
            )
        there = next(place for place in (output, *output.absolute().parents) if place.exists())
        if not os.access(there, os.W_OK | os.X_OK):  # now, not after the models and inputs are there
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def check_names(output: Path, files: Sequence[InputFile]) -> None:
    """Refuses files that would replace results of files from elsewhere, whose names are the same.

    Raises:
        ValueError: naming the first of them and the results.
    """
    for file in files:
        folder = output / "files" / folder_name(file.name)
        record = _read_record(folder / "result.json")
        if record is None or record.get("name") != file.name:
            continue
        former = record.get("run", {}).get("source")
        if not former or not file.source or former == file.source:
            continue
        try:
            is_same = digest_of(file.path) == record.get("sha256")
        except OSError:
            continue  # it will be a failed file, which replaces nothing
        if not is_same:
            place = file.name if INPUTS_FOLDER in file.path.parts else file.path
            raise ValueError(
                f"{place}: {folder} holds results of another file that is called {file.name} too, from elsewhere; "
                "give another --output, or name the folder above, so that names differ"
            )


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Tells in one line that the folder cannot be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        cure = "check its permissions" if isinstance(error, PermissionError) else "free space"
        raise OutputError(
            f"{output}: cannot be written ({reason}); {cure} or give another folder, and run the command again: "
            "what is complete is kept"
        ) from error


@contextmanager
def _table(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """A CSV file to write rows to."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        yield writer


def _read_record(path: Path) -> Record | None:
    """A file's results, None if there are none of this schema."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA else None


__all__ = ["INPUTS_FOLDER", "OutputError", "ResultFolder", "check_names", "check_output"]
