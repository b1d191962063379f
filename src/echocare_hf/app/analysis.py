"""One file through the engine of `echocare predict`, within the page's limits of size and time.

    analyser = Analyser(load_models(["echocare-tiny"]), Limits(megabytes=64, seconds=60))
    answer = analyser.analyse(Path("scan.dcm"), "scan.dcm", folder)

The models are loaded once, for all visitors. They look at one file at a time; reading, drawing and writing of others go on meanwhile.
"""

import json
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from echocare_hf.data.reading_record import Spacing
from echocare_hf.examination.engine import Examination
from echocare_hf.examination.events import Analysed, Event, Failed, Finished, Opened, SeenClip
from echocare_hf.examination.file_folder import Outputs, folder_name
from echocare_hf.examination.inputs import InputFile
from echocare_hf.examination.inputs_found import NamedFile
from echocare_hf.examination.inputs_kind import judge
from echocare_hf.examination.models import LoadedModel
from echocare_hf.examination.overlays import Style
from echocare_hf.examination.records import Record
from echocare_hf.examination.region import Region
from echocare_hf.examination.report_writer import ReportWriter
from echocare_hf.examination.results import FileResult, FrameResult, ModelFacts
from echocare_hf.examination.writing import ResultFolder

from .limits import Limits

BATCH_SIZE = 8
"""Frames between two looks at the clock."""
MOST_EXAMINATIONS = 16
"""Sets of options that an engine is kept for."""

Tell = Callable[[int, int | None], None]
"""Called with the frames that are done and those that there will be, None where the file does not say."""

Check = Callable[[str, str], None]
"""Raises ValueError when the time is over; takes what is stopped then, and how far it came, as the two ends of the sentence."""


@dataclass(frozen=True)
class Choices:
    """What a visitor may choose; see `Examination`."""

    threshold: float = 0.5
    every: int = 1
    spacing: Spacing | None = None


@dataclass(eq=False)
class Answer:
    """What was found in a file, and what of it is shown.

    Attributes:
        result: of the file.
        found: of the frame that is shown: a still, or the frame of a clip that shows its anatomy best; in pixels of the file's grid.
        pixels: of that frame, uint8 `(height, width, 3)`.
        region: what of it was analysed.
        is_clip: whether the file has more than one frame.
        folder: of the request.
        files: what can be downloaded, an archive of all first.
        record: what result.json says.
        seen: what each model of clips saw, by its name.
    """

    result: FileResult
    found: FrameResult
    pixels: np.ndarray
    region: Region
    is_clip: bool
    folder: Path
    files: list[Path]
    record: Record
    seen: Mapping[str, SeenClip]

    @property
    def crop(self) -> np.ndarray:
        """The analysed region alone, black around it: what pictures show, since names may be burnt into the rest."""
        return self.region.crop(self.pixels)


class Analyser:
    """The loaded models, for any number of visitors at once.

    Args:
        models: from `load_models`.
        limits: of each request.
        writer: of draft reports, None for none.
    """

    def __init__(
        self, models: Sequence[LoadedModel], limits: Limits | None = None, writer: ReportWriter | None = None
    ) -> None:
        self.models, self.limits, self.writer = list(models), limits or Limits(), writer
        self._examinations: OrderedDict[Choices, Examination] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def facts(self) -> list[ModelFacts]:
        """Which models there are, the report generator last."""
        return [model.facts for model in self.models] + ([self.writer.facts] if self.writer else [])

    @property
    def clip_models(self) -> list[str]:
        """Names of the models of clips, in their order."""
        return [model.name for model in self.models if model.task == "video"]

    def style(self, threshold: float) -> Style:
        """How findings are drawn."""
        return Style.of(self.models, threshold)

    def model(self, name: str) -> LoadedModel:
        """A model by its name."""
        return next(model for model in self.models if model.name == name)

    @contextmanager
    def turn(self) -> Iterator[Check]:
        """Waits until no other request uses the models; gives a function to call between batches, which ends what takes too long."""
        with self._lock:
            start = time.perf_counter()

            def check(what: str, progress: str) -> None:
                if time.perf_counter() - start > self.limits.seconds:
                    raise ValueError(
                        f"{what}was stopped after {self.limits.seconds:g} seconds{progress}. Analyse fewer frames "
                        "(every n-th frame), give a shorter clip, or start the page with a larger --max-seconds"
                    )

            yield check

    def analyse(
        self, path: Path, name: str, folder: Path, choices: Choices | None = None, tell: Tell | None = None
    ) -> Answer:
        """Everything that the models find in a file; writes what `echocare predict` writes into the folder.

        Args:
            path: of the file.
            name: that it is shown under.
            folder: of the request, empty.
            choices: of the visitor.
            tell: hears of the progress.

        Raises:
            ValueError: one line: the file is too large, cannot be analysed, or took too long.
        """
        choices = choices or Choices()
        self.limits.check_size(path, name)
        judgement = judge(NamedFile(path, name, 0, True))
        if judgement.kind != "image":
            reason = judgement.problem or "is the index of a disc; give one of the images that it lists"
            raise ValueError(f"{name}: {reason}")
        file = InputFile(path, name, judgement.study or "files")
        told = {"every": choices.every, "threshold": choices.threshold, "spacing": choices.spacing}
        output = ResultFolder(folder / "results", self.models, told, Outputs(), choices.threshold)
        try:
            with self.turn() as check:
                opened, shown, finished = self._look(file, choices, output, check, tell)
            output.close()
        except BaseException:
            output.interrupt()
            raise
        place = folder / "results" / "files" / folder_name(name)
        return Answer(
            *(finished.result, shown.found, shown.pixels, opened.region, opened.is_clip, folder),
            files=_downloads(place, folder / f"{Path(name).stem or 'results'}_echocare.zip"),
            record=json.loads((place / "result.json").read_text(encoding="utf-8")),
            seen=finished.seen,
        )

    def _look(
        self,
        file: InputFile,
        choices: Choices,
        output: ResultFolder,
        check: Check,
        tell: Tell | None,
    ) -> tuple[Opened, Analysed, Finished]:
        """The file, its frame that is worth showing, and what all frames show."""
        opened: Opened | None = None
        shown: Analysed | None = None
        best, done = -1.0, 0
        running = cast("Generator[Event, None, None]", self._examination(choices).run([file]))
        with closing(running) as events:
            for event in events:
                if isinstance(event, Failed):
                    raise ValueError(f"{file.name}: {event.reason}")
                output.write(event)
                if isinstance(event, Opened):
                    opened = event
                elif isinstance(event, Analysed):
                    done += 1
                    if (worth := _worth(event.found)) > best:
                        best, shown = worth, event
                    if tell is not None:
                        tell(done, opened.num_frames if opened else None)
                    if opened is not None and opened.is_clip:
                        total = f" of {opened.num_frames}" if opened.num_frames else ""
                        check(f"{file.name}: ", f", at frame {done}{total}")
                elif isinstance(event, Finished):
                    assert opened is not None and shown is not None
                    return opened, shown, event
        raise AssertionError("a file ends with Finished or Failed")

    def _examination(self, choices: Choices) -> Examination:
        """The engine for a visitor's choices; the models in it are the same ones. To be called by whose turn it is."""
        if choices not in self._examinations:
            self._examinations[choices] = Examination(
                self.models,
                batch_size=BATCH_SIZE,
                threshold=choices.threshold,
                spacing=choices.spacing,
                every=choices.every,
                report=self.writer,
            )
            if len(self._examinations) > MOST_EXAMINATIONS:
                self._examinations.popitem(last=False)
        self._examinations.move_to_end(choices)
        return self._examinations[choices]


def _worth(found: FrameResult) -> float:
    """How well a frame shows what it shows: the familiarity, and the score of the last step of its anatomy."""
    anatomy = max((labels[0].score for labels in found.anatomy.values() if labels), default=0.0)
    objects = max((each.score for ellipses in found.ellipses.values() for each in ellipses), default=0.0)
    return (1.0 if found.familiarity is None else found.familiarity) + anatomy + objects


def _downloads(place: Path, archive: Path) -> list[Path]:
    """An archive of all that was written, then the single files of interest."""
    paths = sorted(path for path in place.rglob("*") if path.is_file())
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for path in paths:
            file.write(path, path.relative_to(place))
    single = [path for path in paths if path.parent == place and path.name != "preview.jpg"]
    return [archive, *single]


def as_choices(threshold: Any, every: Any, spacing: str | None) -> Choices:
    """What stands in the form as `Choices`.

    Raises:
        ValueError: for a spacing that is none.
    """
    from echocare_hf.examination.command import read_spacing

    text = (spacing or "").strip()
    try:
        return Choices(round(float(threshold), 3), max(1, int(every)), read_spacing(text or None))
    except ValueError as error:
        raise ValueError(str(error).replace("--spacing", "Pixel spacing")) from None


__all__ = ["Analyser", "Answer", "Check", "Choices", "as_choices"]
