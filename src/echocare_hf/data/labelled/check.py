"""The look at every file before training: what cannot be read is left out and named, what contradicts itself is refused."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from ..reading import read_ultrasound
from .common import is_cine
from .consistency import check_consistency
from .fingerprint import grey_values, perceptual_hash, pixel_digest
from .geometry import boxes_from_mask
from .masks import choose_mask_values, looked_for_classes
from .pixels import raw_values, read_mask, read_raw_mask, read_record, read_source
from .record import ImageSource, LabelledData, MaskSource, RowReference, Sample
from .samples import Draft

# What reading a file raises for good reasons; an extra that is not installed (ImportError) is the user's to install.
_UNREADABLE = (ValueError, OSError)


class ImageFacts(NamedTuple):
    """What the pixels of an image tell: height and width, the two fingerprints, the spacing that the file states."""

    size: tuple[int, int]
    digest: str
    perceptual_hash: int
    spacing: tuple[float, float] | None


class MaskFacts(NamedTuple):
    """Height and width of a mask, and the raw values in it."""

    size: tuple[int, int]
    values: frozenset[int]


@dataclass(frozen=True)
class Failure:
    """Why a file cannot be used, in one line that names it."""

    reason: str


def check(draft: Draft, strict: bool) -> LabelledData:
    """Read every image and mask once, and complete the samples with what they tell.

    Args:
        draft: the samples.
        strict: whether a file that cannot be read is an error; else it is left out and becomes one of `problems`.

    Returns:
        The data without unreadable samples.

    Raises:
        ValueError: for an unreadable file if `strict`, if nothing readable is left, for masks of another size than their image, for
            mask values without a class, and for what `check_consistency` refuses.
    """
    data = draft.data
    whole = data.task == "video"
    wanted = [
        (source, sample) for sample in data.samples for source in (*sample.images, sample.target_image) if source
    ]
    images = _inspect(
        {_key(source, sample): (source, sample) for source, sample in wanted}, _image_facts(whole), "images"
    )
    masks = _inspect({str(mask): mask for sample in data.samples for mask in sample.mask}, _mask_facts, "masks")
    samples, failures = [], []
    for sample in data.samples:
        checked, reasons = _complete(sample, images, masks)
        failures += reasons
        if checked is not None:
            samples.append(checked)
    failures = [_with_nearest(reason, draft.nearest) for reason in dict.fromkeys(failures)]
    if failures and (strict or not samples):
        others = f" ({len(failures)} such files)" if len(failures) > 1 else ""
        raise ValueError(f"{failures[0]}{others}")
    notes = tuple(f"{reason}; left out" for reason in failures)
    data = replace(data, samples=tuple(samples), problems=(*data.problems, *notes))
    try:
        return check_consistency(_with_masks(data, draft, masks) if masks else data)
    except ValueError as error:
        if not failures:
            raise
        raise ValueError(f"{error} ({len(failures)} files could not be read, first {failures[0]})") from error


def _with_nearest(reason: str, nearest: Mapping[str, str]) -> str:
    """Why a file cannot be used, with the name that is most like it if it is not there."""
    path = reason.partition(": there is no such ")[0]
    return f"{reason} (the nearest name is {nearest[path]})" if path in nearest else reason


def _key(source: ImageSource, sample: Sample) -> tuple[str, int | None]:
    return str(source), sample.frame


def _inspect(items: dict[Any, Any], look: Callable[[Any], Any], what: str) -> dict[Any, Any]:
    """Look at every item on all cores; a failure takes the place of what could not be read."""
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        found = pool.map(look, items.values())
        return dict(zip(items, tqdm(found, f"checking {what}", len(items), delay=2, leave=False), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)  # or Ctrl-C would wait for every file


def _image_facts(whole: bool) -> Callable[[tuple[ImageSource, Sample]], ImageFacts | Failure]:
    def look(item: tuple[ImageSource, Sample]) -> ImageFacts | Failure:
        source, sample = item
        try:
            if isinstance(source, RowReference):
                frame, spacing = read_source(source), None
            else:
                # A cine loop that is a sample as a whole is read to its end.
                record = read_ultrasound(source) if whole and is_cine((source,)) else read_record(source, sample.frame)
                frame, spacing = record.frames[0 if whole else -1], record.spacing
        except _UNREADABLE as error:
            return Failure(str(error))
        grey = grey_values(frame)
        return ImageFacts((frame.shape[0], frame.shape[1]), pixel_digest(grey), perceptual_hash(grey), spacing)

    return look


def _mask_facts(source: MaskSource) -> MaskFacts | Failure:
    try:
        mask = read_raw_mask(source)
    except _UNREADABLE as error:
        return Failure(str(error))
    return MaskFacts((mask.shape[0], mask.shape[1]), frozenset(raw_values(mask)))


def _complete(
    sample: Sample, images: dict[Any, ImageFacts | Failure], masks: dict[str, MaskFacts | Failure]
) -> tuple[Sample | None, list[str]]:
    """A sample with what its pixels tell, and what could not be read; None if what is left is no example.

    A clip goes on without frames that cannot be read, unless it is the last one, whose value is asked for.
    """
    looks = [images[_key(source, sample)] for source in sample.images]
    others: list[Any] = [masks[str(mask)] for mask in sample.mask]
    if sample.target_image is not None:
        others.append(images[_key(sample.target_image, sample)])
    reasons = [look.reason for look in (*looks, *others) if isinstance(look, Failure)]
    facts = [look for look in looks if not isinstance(look, Failure)]
    if not facts or isinstance(looks[-1], Failure) or any(isinstance(look, Failure) for look in others):
        return None, reasons
    keep = [index for index, look in enumerate(looks) if not isinstance(look, Failure)]
    times = sample.frame_times_ms
    complete = replace(
        sample,
        images=tuple(sample.images[index] for index in keep),
        frame_times_ms=None if times is None else tuple(times[index] for index in keep),
        spacing=sample.spacing or facts[0].spacing,
        size=facts[0].size,
        digests=tuple(fact.digest for fact in facts),
        perceptual_hash=facts[0].perceptual_hash,
    )
    for mask, look in zip(sample.mask, others, strict=False):
        if look.size != facts[0].size:
            (height, width), (image_height, image_width) = look.size, facts[0].size
            raise ValueError(
                f"{mask}: the mask is {width} x {height} pixels, its image {sample.name} {image_width} x {image_height}; save both in "
                "one size"
            )
    return complete, reasons


def _with_masks(data: LabelledData, draft: Draft, masks: dict[str, MaskFacts]) -> LabelledData:
    """The data with its mask classes, or with the boxes read off the masks."""
    used = {str(mask): mask for sample in data.samples for mask in sample.mask}
    seen = {name: masks[name].values for name in used}
    mask_values, class_names, problems = choose_mask_values(seen, draft.labels, data.source)
    if draft.labels.from_masks:
        found = _inspect(
            {sample.name: sample for sample in data.samples},
            lambda sample: boxes_from_mask(read_mask(sample, mask_values)),
            "masks",
        )
        samples = tuple(replace(sample, boxes=found[sample.name], mask=()) for sample in data.samples)
        return replace(data, samples=samples, class_names=class_names[1:], problems=(*data.problems, *problems))
    completed = []
    for sample in data.samples:
        values = {mask_values[value] for mask in sample.mask for value in seen[str(mask)]}
        looked_for = draft.looked_for.get(sample.name)
        completed.append(
            replace(
                sample,
                mask_classes=tuple(sorted(values & set(range(len(class_names))))),
                labelled_classes=None
                if looked_for is None
                else looked_for_classes(looked_for, class_names, mask_values, sample.name),
            )
        )
    return replace(
        data,
        samples=tuple(completed),
        class_names=class_names,
        mask_values=mask_values,
        problems=(*data.problems, *problems),
    )
