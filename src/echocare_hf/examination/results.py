"""What an examination finds in one file: objects that the engine fills, and that pictures, JSON, tables and DICOM are written from.

Positions are in pixels of the original grid, as the file stores it, x to the right and y down, 0 at the outer edge of the first pixel;
never of the crop or of the model's input. Lengths are in millimetres where the file states its spacing, else in pixels, and the unit of
each measurement says which. Units are UCUM codes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .report_draft import ExaminationDraft

SCHEMA = "echocare-examination/1"
RUN_FILE = "run.json"
"""Marks a folder as one of results."""

MILLIMETRE, SQUARE_MILLIMETRE, PIXEL, SQUARE_PIXEL = "mm", "mm2", "{pixels}", "{pixels}2"
RATIO, PERCENT, MILLISECOND = "1", "%", "ms"
MILLILITRE, PER_MINUTE = "mL", "/min"

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the original grid, half-open."""


@dataclass(frozen=True)
class Measurement:
    """One number with its unit.

    Attributes:
        name: "circumference", "area", "long axis", "cardiothoracic ratio", "ejection fraction", ...
        value: in `unit`.
        unit: UCUM: "mm", "mm2", "1", "%", "ms", or "{pixels}", "{pixels}2" where the spacing is unknown.
        model: name of the model, a key of `FileResult.models`.
        of: what was measured, as the model's label has it ("head", "lesion"); None for the image as a whole.
        node: id of the anatomy tree's node that `of` stands for, None where the label is not in the tree.
        frame: index of the frame, None for a value of the clip.
        spread: standard deviation in `unit` that the model states, None if it states none.
        score: 0 to 1, the model's confidence in what was measured, None if it has none.
    """

    name: str
    value: float
    unit: str
    model: str
    of: str | None = None
    node: str | None = None
    frame: int | None = None
    spread: float | None = None
    score: float | None = None


@dataclass(frozen=True)
class Label:
    """A class, or a node of the anatomy tree, with its score from 0 to 1. `path` holds the names from the region down, for nodes."""

    label: str
    score: float
    node: str | None = None
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ellipse:
    """An object: centre, full axes and the angle of the long one in degrees from +x towards +y, in [0, 180), all in pixels."""

    label: str
    score: float
    centre_x: float
    centre_y: float
    long_axis: float
    short_axis: float
    angle: float
    node: str | None = None


@dataclass(frozen=True)
class Landmark:
    """A named point in pixels. `visible` is whether the model takes it to be in the image."""

    label: str
    score: float
    x: float
    y: float
    visible: bool = True


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A label map of the original grid.

    Attributes:
        label_map: uint8 `(height, width)`; 0 is background, 255 is "not analysed" (outside the region).
        classes: value of the map to the label's name, background not among them.
        nodes: value of the map to the id of the tree's node, for labels that are in the tree.
    """

    label_map: np.ndarray
    classes: Mapping[int, str]
    nodes: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What all models found in one frame; each mapping goes from the name of a model to its findings.

    Attributes:
        index: of the frame in the file, from 0.
        time_ms: after the file's first frame, None where the file does not say.
        anatomy: likely nodes, best path first.
        classes: class scores, best first.
        values: numbers of a regression head by name.
        segmentations: label maps.
        ellipses: objects, best first.
        landmarks: points in the model's order.
        enhanced: uint8 `(height, width, 3)` images of the original grid, unchanged outside the region.
        measurements: of this frame.
        familiarity: 0 to 1, how much the frame looks like what the model knows; None if it was not asked.
        warnings: one line each.
    """

    index: int
    time_ms: float | None = None
    anatomy: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)
    classes: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    segmentations: Mapping[str, Segmentation] = field(default_factory=dict)
    ellipses: Mapping[str, tuple[Ellipse, ...]] = field(default_factory=dict)
    landmarks: Mapping[str, tuple[Landmark, ...]] = field(default_factory=dict)
    enhanced: Mapping[str, np.ndarray] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    familiarity: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelFacts:
    """Which model found something: what a reader needs to repeat it.

    Attributes:
        name: short and unique in this run, the key of all mappings.
        source: folder name or Hub id as the user gave it (never a path of this machine beyond the folder's own name).
        task: "anatomy", "classification", "segmentation", "detection", "keypoints", "video", "enhancement" or "regression".
        sha256: of the weights.
        revision: of the Hub, if any.
    """

    name: str
    source: str
    task: str
    sha256: str
    revision: str | None = None


@dataclass(eq=False)
class FileResult:
    """One input file as a whole. Frames are written as they come and not kept here, so that a clip of any length fits into memory.

    Attributes:
        name: as the user named it, relative to what was given ("study.zip/IM0001"); unique in a run.
        sha256: of the file's bytes.
        study: what files are put together by on one page: a hash of the Study Instance UID, or the folder's name.
        kind: "DICOM", "PNG", "MP4", ... as the reader found it.
        height, width: of the original grid, pixels.
        num_frames: that were analysed.
        spacing: (row_mm, column_mm), millimetres per pixel, None if the file does not say.
        box: the ultrasound region that was analysed.
        modality: "B-mode", "Doppler", ... or "unknown".
        models: by name.
        clip: findings about the clip as a whole, in the form of a frame with index -1: classes and values of the video model,
            measurements over the cycle (frame None).
        anatomy_path: the most likely path over all frames, from the region down.
        key_frames: id of a node, or label, to the index of the frame that shows it best.
        end_diastoles, end_systoles: indices of frames, one each a heart cycle; empty where no cycle was measured.
        measurements: of stills and of key frames, and of the clip: what a report would list.
        familiarity: lowest of the analysed frames (0 to 1), None if not asked.
        warnings: one line each.
        outputs: what was written for it, by kind ("overlay", "segmentation", "report", ...), relative to the output folder.
        draft: report on it, where one was asked for.
        seconds: wall time of reading and analysing.
    """

    name: str
    sha256: str
    study: str
    kind: str
    height: int
    width: int
    num_frames: int = 0
    spacing: tuple[float, float] | None = None
    box: Box | None = None
    modality: str = "unknown"
    models: dict[str, ModelFacts] = field(default_factory=dict)
    clip: FrameResult | None = None
    anatomy_path: tuple[Label, ...] = ()
    key_frames: dict[str, int] = field(default_factory=dict)
    end_diastoles: tuple[int, ...] = ()
    end_systoles: tuple[int, ...] = ()
    measurements: list[Measurement] = field(default_factory=list)
    familiarity: float | None = None
    warnings: list[str] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    draft: "ExaminationDraft | None" = None
    seconds: float = 0.0
