"""Clips from single frames: a clip a sequence, or a clip a measured frame."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from .findings import Findings, contradict, united
from .options import Options, natural_key
from .record import Sample


@dataclass(frozen=True)
class FrameInfo:
    """Where a frame belongs.

    Attributes:
        sequence: name of its sequence; None for one that stands alone.
        number: frame number, which gives the order; None to order by the name of the file.
        time_ms: when it was taken, in milliseconds from any origin; None if unknown.
    """

    sequence: str | None
    number: float | None
    time_ms: float | None


def clips_from_frames(
    frames: Sequence[Sample], infos: Sequence[FrameInfo], options: Options
) -> tuple[list[Sample], list[str]]:
    """Join frames to clips.

    Where a label or a measured value is the same throughout every sequence, each sequence becomes one clip. Where a value changes from
    frame to frame, each frame that has it becomes the last of a clip of up to `options.clip_frames` frames that lead up to it.

    Args:
        frames: single frames. Those with neither label nor targets may be part of a clip, but make none.
        infos: for each frame where it belongs.
        options: `clip_frames`, and `min_frames` below which a clip is left out.

    Returns:
        The clips, in the order of their first frames in `frames`, and the problems.

    Raises:
        ValueError: for a class that changes within a sequence, or groups or splits that do.
    """
    sequences: dict[str, list[int]] = {}
    for index, (frame, info) in enumerate(zip(frames, infos, strict=True)):
        sequences.setdefault(info.sequence or f"frame {frame.name}", []).append(index)
    for name, members in sequences.items():
        sequences[name] = sorted(members, key=lambda index: _order(frames[index], infos[index]))
        _check_constant(name, [frames[index] for index in members])
    moving = any(
        len({tuple(frames[index].targets.values()) for index in members if frames[index].targets}) > 1
        for members in sequences.values()
    )
    clips: list[Sample] = []
    short = 0
    for name, members in sequences.items():
        if len(members) < options.min_frames:
            short += 1
        elif moving:
            clips += _windows(members, frames, infos, options)
        else:
            labelled = next((index for index in members if is_labelled(frames[index])), None)
            if labelled is not None:
                clip = _clip(members, frames, infos, labelled)
                clips.append(replace(clip, name=name, label=_joint_label([frames[index] for index in members])))
    problems = []
    if short:
        problems.append(
            f"{short} of {len(sequences)} sequences have fewer than {options.min_frames} frames and were left out; --min_frames 1 keeps "
            "stills"
        )
    if not clips:
        raise ValueError(
            f"no sequence has {options.min_frames} frames and a label; name the column of sequences with --sequence, or lower --min_frames"
        )
    return clips, problems


def _order(frame: Sample, info: FrameInfo) -> tuple:
    return (info.number is None, info.number or 0.0, natural_key(frame.name))


def is_labelled(frame: Sample) -> bool:
    """Whether a frame or clip has a class, findings or measured values."""
    return frame.label is not None or bool(frame.targets)


def _check_constant(name: str, frames: Sequence[Sample]) -> None:
    for what in ("label", "group", "split"):
        values = {getattr(frame, what) for frame in frames} - {None}
        if any(contradict(first, second) for first, second in combinations(values, 2)):
            shown = ", ".join(sorted(str(value) for value in values))
            raise ValueError(f"sequence {name}: its frames have more than one {what} ({shown}); correct the table")


def _joint_label(frames: Sequence[Sample]) -> int | Findings | None:
    """The label that frames share; of findings, each may be known from another frame."""
    findings = [frame.label for frame in frames if isinstance(frame.label, tuple)]
    if findings:
        return united(findings)
    return next((frame.label for frame in frames if frame.label is not None), None)


def _windows(
    members: Sequence[int], frames: Sequence[Sample], infos: Sequence[FrameInfo], options: Options
) -> list[Sample]:
    clips = []
    for place, last in enumerate(members):
        window = members[max(0, place + 1 - options.clip_frames) : place + 1]
        if is_labelled(frames[last]):
            clips.append(_clip(window, frames, infos, last))
    return clips


def _clip(members: Sequence[int], frames: Sequence[Sample], infos: Sequence[FrameInfo], labelled: int) -> Sample:
    """One clip with the labels of one of its frames, and that frame's name."""
    times = [infos[index].time_ms for index in members]
    known = tuple(time for time in times if time is not None)
    return replace(
        frames[labelled],
        images=tuple(image for index in members for image in frames[index].images),
        frame=None,
        frame_times_ms=known if len(known) == len(times) else None,
    )
