"""What `read_labelled` returns: a light, picklable description of labelled images. No pixels are in it.

Coordinates are those of the model (`ResizeGeometry`): continuous (x, y) in pixels of the stored image, x to the right, y down, 0
at the outer edge of the first pixel, so that the centre of pixel `i` lies at `i + 0.5`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

Task = Literal["classification", "segmentation", "detection", "keypoints", "video", "regression", "enhancement"]
TASKS: tuple[str, ...] = get_args(Task)

SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)

Quality = Literal["low", "high"]

IGNORE_INDEX = 255
"""Mask value of pixels that take part in no loss and no metric (`config.semantic_loss_ignore_index`)."""


class Box(NamedTuple):
    """One object: an oriented ellipse, or the rectangle around it.

    Attributes:
        class_index: index into `LabelledData.class_names`.
        cx: centre, pixels from the left edge.
        cy: centre, pixels from the upper edge.
        long_axis: full length of the long axis, in pixels.
        short_axis: full length of the short axis, in pixels.
        angle: direction of the long axis in degrees, from +x (right) towards +y (down), in [0, 180).
    """

    class_index: int
    cx: float
    cy: float
    long_axis: float
    short_axis: float
    angle: float


@dataclass(frozen=True, eq=False)
class RowReference:
    """An image (or one of a list of images) in a row of a `datasets.Dataset`.

    Attributes:
        dataset: the data set, with only the columns of images, in the format "arrow" that leaves them undecoded; pickling it copies
            no pixels of a data set on disk.
        row: row number.
        column: name of the column.
        index: which image of a list of images; None where the cell is one image.
        name: how messages call it.
    """

    dataset: Any = field(repr=False)
    row: int
    column: str
    index: int | None
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class DrawnMask:
    """A mask that an annotation file draws, rather than a file of its own.

    Attributes:
        size: height and width in pixels.
        regions: in drawing order, `(value, shape)`: the mask value, and either polygons `((x0, y0, x1, y1, ...), ...)` in
            pixels or run lengths down the columns, `{"size": [height, width], "counts": [...] or "..."}` (COCO).
        name: how messages call it.
    """

    size: tuple[int, int]
    regions: tuple[tuple[int, Any], ...]
    name: str

    def __str__(self) -> str:
        return self.name


ImageSource = str | RowReference
MaskSource = str | RowReference | DrawnMask


@dataclass(frozen=True)
class Sample:
    """One training example.

    Attributes:
        name: path relative to the data, or the row; unique, and the same wherever the data lies.
        images: what the frames are read from: one file (an image, or a whole cine loop), or one file a frame, in order.
        frame: which frame of a cine file to take, from 0; None for the first frame, or for all of them in a clip.
        group: what must not be torn apart by a split (patient, sequence); None if unknown.
        split: "train", "validation" or "test" where the data says so.
        mask: label masks, read as one; several are united (the largest class index wins).
        labelled_classes: indices of the classes that were looked for in this mask; None for all.
        label: class index; for findings that may occur together, 0 or 1 for each of `LabelledData.class_names`, -1 where not known.
        targets: measured values by name.
        readings: for targets with several observers, the value of each.
        boxes: objects; an empty tuple says that there is none, None that nobody looked.
        keypoints: (x, y) for each of `LabelledData.keypoint_names`; NaN where it is not in the image.
        target_image: the better image that an enhanced one shall look like.
        quality: enhancement, where the data has worse and better images that are no pairs: which of them this is.
        spacing: (row_mm, column_mm), millimetres per pixel down and across.
        frame_times_ms: time of each of `images`, in milliseconds from any origin.
        licence: as the data states it.
        attributes: what the data says of the case and no label is, by name: `device`, `sex`, `age` (years), `laterality`; for results by
            subgroup. Text or a number, the same kind for all samples that have it.
        mask_classes: indices of the classes that the mask shows, once it was checked.
        size: height and width in pixels of the first image, once it was checked.
        digests: fingerprint of the pixels of each image, once checked: equal only for equal pixels.
        perceptual_hash: 64 bits that similar images share nearly all of, of the first image, once checked.
    """

    name: str
    images: tuple[ImageSource, ...]
    frame: int | None = None
    group: str | None = None
    split: SplitName | None = None
    mask: tuple[MaskSource, ...] = ()
    labelled_classes: tuple[int, ...] | None = None
    label: int | tuple[int, ...] | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    readings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    boxes: tuple[Box, ...] | None = None
    keypoints: tuple[tuple[float, float], ...] | None = None
    target_image: ImageSource | None = None
    quality: Quality | None = None
    spacing: tuple[float, float] | None = None
    frame_times_ms: tuple[float, ...] | None = None
    licence: str | None = None
    attributes: Mapping[str, str | float] = field(default_factory=dict)
    mask_classes: tuple[int, ...] = ()
    size: tuple[int, int] | None = None
    digests: tuple[str, ...] = ()
    perceptual_hash: int | None = None


@dataclass(frozen=True)
class LabelledData:
    """Labelled images for one task.

    Attributes:
        source: folder, file or Hub id that was read.
        task: one of `TASKS`.
        samples: the examples, in the order of the source.
        class_names: classification and clips: the classes, or the findings that may occur together; detection: the classes of
            objects; segmentation: the classes of pixels, with "background" at index 0. Empty for other tasks.
        multi_label: whether `class_names` are findings that may occur together.
        mask_values: raw value of a mask file to class index, `IGNORE_INDEX` for pixels to leave out; a colour is the number
            0xRRGGBB.
        target_names: names of the measured values.
        target_units: unit of each, "" if unknown.
        keypoint_names: names of the landmarks.
        keypoint_pairs: indices of landmarks whose order within the pair has no meaning.
        problems: one line each: what was left out or looks wrong, and what to do about it.
    """

    source: str
    task: Task
    samples: tuple[Sample, ...]
    class_names: tuple[str, ...] = ()
    multi_label: bool = False
    mask_values: Mapping[int, int] = field(default_factory=dict)
    target_names: tuple[str, ...] = ()
    target_units: tuple[str, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    keypoint_pairs: tuple[tuple[int, int], ...] = ()
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def problem_type(self) -> str | None:
        """Value of `config.problem_type` for heads that classify or measure; None for the other tasks."""
        if self.target_names:
            return "regression"
        if self.task not in ("classification", "video"):
            return None
        return "multi_label_classification" if self.multi_label else "single_label_classification"

    @property
    def unpaired(self) -> bool:
        """Whether there are low images, for enhancement, whose better version nobody has."""
        return any(sample.quality == "low" for sample in self.samples)

    @property
    def licences(self) -> dict[str, int]:
        """Number of samples of each licence, the most frequent first; "unknown" where none is stated."""
        return dict(Counter(sample.licence or "unknown" for sample in self.samples).most_common())

    @property
    def num_groups(self) -> int:
        """Number of groups; a sample without one counts as a group of its own."""
        named = {sample.group for sample in self.samples if sample.group is not None}
        return len(named) + sum(sample.group is None for sample in self.samples)

    def class_counts(self) -> dict[str, int]:
        """Number of samples that show each class; empty for tasks without classes."""
        counts = dict.fromkeys(self.class_names, 0)
        for sample in self.samples:
            shown = set(sample.mask_classes)
            if isinstance(sample.label, int):
                shown = {sample.label}
            elif sample.label is not None:
                shown = {index for index, present in enumerate(sample.label) if present == 1}
            elif self.task == "detection":
                shown = {box.class_index for box in sample.boxes or ()}
            for index in shown:
                counts[self.class_names[index]] += 1
        return counts

    def summary(self) -> str:
        """A few lines for people: how many samples and groups of what, under which licences, and the problems."""
        lines = [f"{self.source}: {len(self.samples)} samples for {self.task}, {self.num_groups} groups"]
        if counts := self.class_counts():
            lines.append("classes: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
        if self.target_names:
            units = zip(self.target_names, self.target_units, strict=True)
            lines.append("targets: " + ", ".join(f"{name} ({unit or 'no unit'})" for name, unit in units))
        if self.keypoint_names:
            lines.append("keypoints: " + ", ".join(self.keypoint_names))
        if self.unpaired:
            low = sum(sample.quality == "low" for sample in self.samples)
            lines.append(f"no pairs: {low} low images without a better one, {len(self.samples) - low} others")
        lines.append("licences: " + ", ".join(f"{name} {count}" for name, count in self.licences.items()))
        return "\n".join(lines + [f"problem: {problem}" for problem in self.problems])
