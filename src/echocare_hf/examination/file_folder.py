"""The folder of one file's results: pictures, masks, frames, DICOM objects, and result.json, written frame by frame."""

import hashlib
import json
import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from echocare_hf.data.reading_record import one_line
from echocare_hf.drawing_sheet import contact_sheet

from .clip_video import ClipVideo
from .events import Analysed, Finished, Opened
from .label_map_file import LabelMapFile
from .overlays import Style, clip_picture, clip_size, quantity_text, still_picture, within
from .reader import is_still
from .records import Record, file_record, frame_from_record, frame_record, label_record
from .report_draft import draft_record
from .report_text import draft_text
from .results import FrameResult

PREVIEW_SIDE = 420
MOST_KEY_PICTURES = 6
PNG: dict[str, Any] = {"compress_level": 1, "compress_type": 3}
"""Run-length coding: half the time of Pillow's fastest, and hardly larger for speckle."""

_UNSAFE = re.compile(r"[^\w.\-]+")
_LONGEST_NAME = 56  # characters of four bytes then leave room for the rest within 255


def folder_name(name: str) -> str:
    """A folder's name for a file's: the name itself where it is a plain one, else a readable form with eight digits of its hash."""
    safe = _UNSAFE.sub("_", name).strip("._")[-_LONGEST_NAME:].strip("._")
    if safe == name:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{safe}-{digest}" if safe else digest


@dataclass(frozen=True)
class Outputs:
    """What is written beside result.json.

    Attributes:
        overlays: pictures with the findings.
        dicom: DICOM objects for DICOM input.
        every_mask: masks of all frames of a clip, not of its key frames alone.
        surroundings: pictures show what is around the analysed region too. It may hold the patient's name.
    """

    overlays: bool = True
    dicom: bool = True
    every_mask: bool = False
    surroundings: bool = False


class SourceLostError(Exception):
    """The file that results are of is not there any more, or not what it was."""


class FileFolder:
    """Results of one file, in a folder that is renamed when they are complete.

    Args:
        opened: the file.
        folder: to write to; it must not exist.
        place: of the finished folder relative to the output folder, for `FileResult.outputs`.
        style: of the pictures.
        outputs: what to write.

    Attributes:
        problems: what could not be written, one line each.
    """

    def __init__(self, opened: Opened, folder: Path, place: str, style: Style, outputs: Outputs) -> None:
        self.opened, self.folder, self.place = opened, folder, place
        self.style, self.outputs = style, outputs
        self.result = opened.result
        self.problems: list[str] = []
        folder.mkdir(parents=True)
        region = opened.region
        self._shown = region.whole if outputs.surroundings else region
        self._stack = ExitStack()
        self._still: Analysed | None = None
        self._video: ClipVideo | None = None
        self._enhanced: dict[str, ClipVideo] = {}
        self._maps: dict[str, LabelMapFile] = {}
        self._best: dict[str, tuple[float, int, np.ndarray]] = {}
        self._lines = self._stack.enter_context((folder / "frames.jsonl").open("wb")) if opened.is_clip else None
        self._line_starts, self._line_frames = array("q", [0]), array("q")

    def add(self, event: Analysed) -> None:
        """The next frame."""
        if not self.opened.is_clip:
            self._still = event
            return
        assert self._lines is not None
        found = event.found
        line = json.dumps(frame_record(found), allow_nan=False).encode() + b"\n"
        self._lines.write(line)
        self._line_starts.append(self._line_starts[-1] + len(line))
        self._line_frames.append(found.index)
        if self.outputs.overlays:
            if found.index == self._line_frames[0]:
                self._video = self._open_video("overlay.mp4", clip_size(*self._shown.size))
            if self._video is not None:
                image = None if self.outputs.surroundings else event.grey
                if image is None:
                    image = self._shown.crop(event.pixels)
                seen = within(self._shown, found)
                self._video.add(found.index, found.time_ms, clip_picture(image, seen, self.style, self._video.size))
        self._add_maps(found)
        self._add_enhanced(found)

    def _add_maps(self, found: FrameResult) -> None:
        for model, segmentation in found.segmentations.items():
            if model not in self._maps:
                self._maps[model] = LabelMapFile(self.folder / f".{folder_name(model)}.maps")
                self._stack.callback(self._maps[model].close)
            self._maps[model].add(found.index, segmentation)

    def _add_enhanced(self, found: FrameResult) -> None:
        for model, image in found.enhanced.items():
            score = max((labels[-1].score for labels in found.anatomy.values() if labels), default=0.0)
            if model not in self._best or score > self._best[model][0]:
                self._best[model] = (score, found.index, image)
            if found.index == self._line_frames[0]:
                name = self._file_name("enhanced", model, "enhancement", ".mp4")
                size = clip_size(*self._shown.size, side=max(self._shown.size))
                if (video := self._open_video(name, size)) is not None:
                    self._enhanced[model] = video
            if model in self._enhanced:
                video = self._enhanced[model]
                picture = Image.fromarray(self._shown.crop(image))
                if picture.size != video.size:
                    picture = picture.resize(video.size, Image.Resampling.BILINEAR)
                video.add(found.index, found.time_ms, picture)

    def _open_video(self, name: str, size: tuple[int, int]) -> ClipVideo | None:
        """A video to write; None, and a warning, where PyAV is not installed."""
        try:
            return self._stack.enter_context(ClipVideo(self.folder / name, size))
        except ImportError:
            self.result.warnings.append(f'{name} was not written: it needs PyAV: pip install "echocare-hf[video]"')
            return None

    def finish(self, event: Finished, run: Record) -> Record:
        """Writes what needs all frames, and result.json; `run` is put into that. Returns the record."""
        with self._stack:
            if self._lines is not None:
                self._lines.close()
                self._add_smoothed(event)
                self._note("frames", "frames.jsonl")
                frames = self._write_clip(event)
                still = None
            else:
                assert self._still is not None
                frames, still = [self._still.found], self._still.found
                self._write_still(self._still)
            pictures = self._write_draft(event)
            if self.opened.dataset_path is not None and self.outputs.dicom:
                self._write_dicom(self.opened.dataset_path, frames)
        record = file_record(self.result, still)
        if self.result.draft is not None:
            record["report"] = draft_record(self.result.draft, pictures)
        record["run"] = {**run, "complete": not self.problems}
        text = json.dumps(record, allow_nan=False, indent=1)
        (self.folder / "result.json").write_text(text + "\n", encoding="utf-8")
        return record

    def discard(self) -> None:
        """Lets go of all open files."""
        self._stack.close()

    # Stills ------------------------------------------------------------------------------------------------

    def _write_still(self, event: Analysed) -> None:
        found = event.found
        for model, segmentation in found.segmentations.items():
            name = self._file_name("mask", model, "segmentation", ".png")
            Image.fromarray(segmentation.label_map).save(self.folder / name, **PNG)
            self._note("mask", name, model)
        for model, image in found.enhanced.items():
            name = self._file_name("enhanced", model, "enhancement", ".png")
            shown = self._shown.paste(self._shown.crop(image), np.zeros_like(image))
            Image.fromarray(shown).save(self.folder / name, **PNG)
            self._note("enhanced", name, model)
        image = self._shown.crop(event.pixels)
        picture = Image.fromarray(image)
        if self.outputs.overlays:
            box = self.result.box if self.outputs.surroundings else None
            picture = still_picture(image, within(self._shown, found), self.style, box, self.result.warnings)
            picture.save(self.folder / "overlay.png", **PNG)
            self._note("overlay", "overlay.png")
        self._write_preview(picture)

    def _write_preview(self, picture: Image.Image) -> None:
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE * 2), Image.Resampling.BILINEAR)
        picture.save(self.folder / "preview.jpg", quality=82)
        self._note("preview", "preview.jpg")

    # Clips -------------------------------------------------------------------------------------------------

    def _write_clip(self, event: Finished) -> list[FrameResult]:
        """What is left to write of a clip; its key frames without arrays, or its first frame where it has none."""
        for model, video in self._enhanced.items():
            video.close()
            self._note("enhanced", video.path.name, model)
        indices = sorted(set(self.result.key_frames.values())) or [self._line_frames[0]]
        frames = self._read_frames(indices)
        self._write_masks(indices)
        if self._video is not None:
            self._video.close()
            self._note("overlay", "overlay.mp4")
            pictures = dict(self._video.pictures(indices[:MOST_KEY_PICTURES]))
            texts = [self._key_text(index, frames) for index in pictures]
            sheet = contact_sheet(
                list(pictures.values()), texts, title=self.result.name, subtitle=self._path_text(), columns=None
            )
            sheet.save(self.folder / "key_frames.png", **PNG)
            self._note("key_frames", "key_frames.png")
            self._write_preview(next(iter(pictures.values())))
        return frames

    def _add_smoothed(self, event: Finished) -> None:
        """Adds each frame's path, smoothed over time, to its line: it is known when all frames are."""
        if event.clip is None or all(facts.task != "anatomy" for facts in self.result.models.values()):
            return
        path, whole = self.folder / "frames.jsonl", self.folder / ".frames.jsonl"
        with path.open("rb") as lines, whole.open("wb") as target:
            for place, (line, (_, label)) in enumerate(zip(lines, event.clip.frame_paths(), strict=True)):
                text = json.dumps(None if label is None else label_record(label), allow_nan=False)
                size = target.write(line.rstrip()[:-1] + f', "smoothed": {text}}}\n'.encode())
                self._line_starts[place + 1] = self._line_starts[place] + size
        whole.replace(path)

    def _key_text(self, index: int, frames: Sequence[FrameResult]) -> str:
        shown = [name.replace("_", " ") for name, frame in self.result.key_frames.items() if frame == index]
        found = next(frame for frame in frames if frame.index == index)
        time = "" if found.time_ms is None else f", {found.time_ms:.0f} ms"
        sizes = [
            f"{each.of} {each.name} {quantity_text(each.value, each.unit)}"
            for each in found.measurements
            if each.of is not None
        ]
        return f"frame {index}{time}: {', '.join(shown) or 'first frame'}\n{', '.join(sizes)}"

    def _path_text(self) -> str:
        path = self.result.anatomy_path
        return f"{' -> '.join(path[-1].path)} {path[-1].score:.2f}" if path else ""

    def _read_frames(self, indices: Sequence[int]) -> list[FrameResult]:
        frames = []
        with (self.folder / "frames.jsonl").open("rb") as file:
            for index in indices:
                place = self._line_frames.index(index)
                file.seek(self._line_starts[place])
                frames.append(frame_from_record(json.loads(file.readline())))
        return frames

    def _write_masks(self, indices: Sequence[int]) -> None:
        for model, maps in self._maps.items():
            folder = self._file_name("masks", model, "segmentation", "")
            chosen: Iterator[tuple[int, Any]] = iter(maps)
            if not self.outputs.every_mask:
                chosen = ((index, maps.read(index)) for index in indices)
            (self.folder / folder).mkdir()
            for index, segmentation in chosen:
                path = self.folder / folder / f"{index:06}.png"
                Image.fromarray(segmentation.label_map).save(path, **PNG)
            self._note("masks", folder, model)

    # The draft report --------------------------------------------------------------------------------------

    def _write_draft(self, event: Finished) -> dict[int, str]:
        """The draft as text, and pictures of its frames; returns their places by the frame's index."""
        if event.draft_problem is not None:
            self._add_problem("the draft report", event.draft_problem)
        draft, places = self.result.draft, {}
        if draft is None:
            return {}
        (self.folder / "report_frames").mkdir()
        for frame in draft.pictures:
            picture = Image.fromarray(frame.pixels)
            picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BILINEAR)
            name = f"report_frames/{frame.index:06}.jpg"
            picture.save(self.folder / name, quality=82)
            places[frame.index] = f"{self.place}/{name}"
        self._note("report_frames", "report_frames")
        (self.folder / "draft_report.txt").write_text(
            draft_text(draft, self.result), encoding="utf-8", errors="replace"
        )
        self._note("draft_report", "draft_report.txt")
        return places

    # DICOM -------------------------------------------------------------------------------------------------

    def _write_dicom(self, source: Path, frames: Sequence[FrameResult]) -> None:
        from .dicom_capture import write_enhanced
        from .dicom_draft_report import write_draft_report
        from .dicom_report import write_report
        from .dicom_segmentation import write_segmentation

        segmentations: dict[str, Path] = {}
        found = self._still.found if self._still is not None else None
        masks: dict[str, Any] = dict(self._maps)
        if found is not None:
            masks = {model: [(found.index, each)] for model, each in found.segmentations.items()}
        for model, maps in masks.items():
            name = self._file_name("segmentation", model, "segmentation", ".dcm")
            path = self.folder / name
            with self._problem_of(name):
                write_segmentation(source, iter(maps), self.result, path, model=model)
                segmentations[model] = path
                self._note("segmentation", name, model)
        images = {model: (index, image) for model, (_, index, image) in self._best.items()}
        if found is not None:
            images = {model: (found.index, image) for model, image in found.enhanced.items()}
        for model, (index, image) in images.items():
            name = self._file_name("enhanced", model, "enhancement", ".dcm")
            with self._problem_of(name):
                write_enhanced(source, image, self.result, self.folder / name, frame=index, model=model)
                self._note("enhanced_dicom", name, model)
        with self._problem_of("report.dcm"):
            write_report(source, self.result, frames, self.folder / "report.dcm", segmentations)
            self._note("report", "report.dcm")
        if self.result.draft is not None:
            with self._problem_of("draft_report.dcm"):
                write_draft_report(source, self.result, self.result.draft, self.folder / "draft_report.dcm")
                self._note("draft_report_dicom", "draft_report.dcm")

    @contextmanager
    def _problem_of(self, name: str) -> Iterator[None]:
        """Notes that a DICOM object cannot be made, which must not cost the other results."""
        try:
            yield
        except Exception as error:
            if not is_still(self.opened.file.path, self.result.sha256):
                raise SourceLostError(
                    "was removed, changed or cannot be read any more; run the command again"
                ) from error
            if isinstance(error, OSError):
                raise  # a full disk stops the run
            text = one_line(str(error) or type(error).__name__).replace(str(self.opened.file.path), self.result.name)
            if not isinstance(error, (ValueError, ImportError)):
                text = f"{type(error).__name__}: {text}"
            (self.folder / name).unlink(missing_ok=True)
            self._add_problem(name, text)

    def _add_problem(self, name: str, reason: str) -> None:
        self.problems.append(f"{name} was not written: {reason}")
        self.result.warnings.append(self.problems[-1])

    # Names -------------------------------------------------------------------------------------------------

    def _file_name(self, kind: str, model: str, task: str, suffix: str) -> str:
        """The kind's name; with the model's where several models of the task write one each."""
        several = sum(facts.task == task for facts in self.result.models.values()) > 1
        return f"{kind}_{folder_name(model)}{suffix}" if several else f"{kind}{suffix}"

    def _note(self, kind: str, name: str, model: str | None = None) -> None:
        key = kind if model is None or kind not in self.result.outputs else f"{kind} of {model}"
        self.result.outputs[key] = f"{self.place}/{name}"


__all__ = ["FileFolder", "Outputs", "SourceLostError", "folder_name"]
