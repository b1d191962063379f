"""From a table to samples: labels, groups and files together, frames joined to clips. No pixel is read yet."""

from dataclasses import dataclass, replace
from typing import Any

from .common import Files, common_samples, is_cine, sequence_column
from .labels import (
    Labels,
    better_images,
    class_labels,
    known_of,
    masks,
)
from .measured import measured_values, target_column
from .options import Options
from .places import landmarks, objects
from .record import LabelledData, Sample, Task
from .sequences import FrameInfo, clips_from_frames, is_labelled
from .table import (
    FRAME_COLUMNS,
    FRAME_RATE_COLUMNS,
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    TIME_COLUMNS,
    Entries,
    Table,
    number,
    text,
)


@dataclass(frozen=True)
class Draft:
    """Samples whose pixels nobody has looked at.

    Attributes:
        data: the data, without what only the pixels tell.
        labels: what was read from the columns, for `mask_names` and `from_masks`.
        looked_for: by name of the sample, the names of the classes that were looked for in its mask, where the data says so.
        nearest: path of a file that is not there to the name that is most like it.
    """

    data: LabelledData
    labels: Labels
    looked_for: dict[str, str]
    nearest: dict[str, str]


def draft_samples(table: Table, task: Task, options: Options) -> Draft:
    """The samples that a table describes for a task.

    Args:
        table: the table, with its side tables.
        task: what they shall be used for.
        options: what the user says about the columns.

    Raises:
        ValueError: if the table does not serve the task, or contradicts itself, in one line that names it and the cure.
    """
    key = table.need(options.image, "image") if options.image else table.find(IMAGE_COLUMNS)
    if key is None:
        raise ValueError(
            f"{table.source}: has no column of images (one of {', '.join(IMAGE_COLUMNS[:6])}); name it with "
            f"--image, of {', '.join(table.columns)}"
        )
    if task == "enhancement":
        _add_unlabelled(table, key)
    entries = Entries(table, key)
    if not len(entries):
        raise ValueError(f"{table.source}: its column {key} is empty; write the path of an image into each row")
    files = Files(table.root)
    files.claim(rows[0][key] for rows in entries.rows)
    labels = _labels(entries, task, options, files)
    common = common_samples(entries, files, options)
    problems = [*table.problems, *labels.problems, *files.notes()]
    if task == "video":  # frames without a label of their own are still part of their clip
        frames = [replace(sample, **fields or {}) for sample, fields in zip(common, labels.fields, strict=True)]
        chosen, more = _clips(frames, _frame_infos(entries, options), options, table.source)
        problems += more
    else:
        labelled = zip(common, labels.fields, strict=True)
        chosen = [replace(sample, **fields) for sample, fields in labelled if fields is not None]
    known = known_of(entries, files)
    if task == "keypoints" and known is not None and known.keypoint_licence is not None:
        chosen = [
            replace(sample, licence=f"{sample.licence or 'unknown'}, landmarks {known.keypoint_licence}")
            for sample in chosen
        ]
    data = LabelledData(
        source=table.source, task=task, samples=tuple(chosen), problems=tuple(problems), **labels.extras
    )
    looked_for = {common[index].name: classes for index, classes in labels.looked_for.items()}
    return Draft(data, labels, looked_for, files.nearest())


def _add_unlabelled(table: Table, key: str) -> None:
    """Images of side tables that the table itself does not list, such as those without labels."""
    listed = {row[key] for row in table.rows}
    for side in table.sides:
        for row in side.rows if key in side.columns else ():
            if row[key] not in listed:
                listed.add(row[key])
                table.rows.append(row)


def _labels(entries: Entries, task: Task, options: Options, files: Files) -> Labels:
    if task == "video":
        measured = options.targets or (
            not options.labels and entries.find(LABEL_COLUMNS) is None and target_column(entries, files) is not None
        )
        return measured_values(entries, options, files) if measured else class_labels(entries, options)
    if task == "classification":
        return class_labels(entries, options)
    if task == "regression":
        return measured_values(entries, options, files)
    if task == "segmentation":
        return masks(entries, options, files)
    if task == "detection":
        return objects(entries, options, files)
    if task == "keypoints":
        return landmarks(entries, options, files)
    return better_images(entries, files)


def _frame_infos(entries: Entries, options: Options) -> list[FrameInfo]:
    """Sequence, number and time of every entry."""
    table = entries.table
    if options.sequence is not None:
        column: str | None = table.need(options.sequence, "sequence")
    else:
        column = sequence_column(entries)
    sequences = entries.first(column)
    numbers = entries.first(entries.find(FRAME_COLUMNS))
    times = entries.first(entries.find(TIME_COLUMNS))
    rates = entries.first(entries.find(FRAME_RATE_COLUMNS, everywhere=True))
    infos = []
    for index in range(len(entries)):
        frame = _number(numbers[index], table.source)
        rate = options.frame_rate or _number(rates[index], table.source)
        time = _number(times[index], table.source)
        if time is None and frame is not None and rate:
            time = 1000 * frame / rate
        infos.append(FrameInfo(None if sequences[index] is None else text(sequences[index]), frame, time))
    return infos


def _number(cell: Any, where: str) -> float | None:
    return None if cell is None else number(cell, where)


def _clips(
    frames: list[Sample], infos: list[FrameInfo], options: Options, source: str
) -> tuple[list[Sample], list[str]]:
    """Clips from frames; where every row is a clip of its own already, they stay as they are."""
    if all(info.sequence is None for info in infos):
        clips = [frame for frame in frames if len(frame.images) > 1 or is_cine(frame.images)]
        whole = [replace(clip, frame=None) for clip in clips if is_labelled(clip)]
        if whole:
            left_out = len(frames) - len(clips)
            note = f"{source}: {left_out} of {len(frames)} rows are stills and were left out"
            return whole, [note] if left_out else []
    try:
        clips, problems = clips_from_frames(frames, infos, options)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return clips, [f"{source}: {problem}" for problem in problems]
