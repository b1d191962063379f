"""AbdomenUS: segmentation of five abdominal organs, of which each image has at least one labelled.

Nothing is known of its files: the EchoCare paper describes the set (BGI Genomics, 64 volunteers, 4,217 images, organs numbered 1
liver, 2 pancreas, 3 kidney, 4 bladder, 5 spleen) and gives no address. It is not the set of the same name on Kaggle.

Assumed, and to be brought about by renaming where the files come otherwise: `images/<case>/<name>.png`, and either
`masks/<case>/<name>.png` with the values above, or a mask an organ, `masks/<case>/<name>_<organ>.png`, white in the organ. Without
folders of cases, the part of the name before the first `_` is the case. An organ that a mask does not show is unknown in that
image, not background; a file `labelled.csv` (`file_name`, `organs`, such as `case1/0001.png`, `liver; kidney`) says it where an
organ was looked for and is not there.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from echocare_hf.data.labelled import LabelledData, Sample
from echocare_hf.data.labelled.pixels import read_raw_mask
from echocare_hf.data.labelled.record import DrawnMask, MaskSource

from .common import BenchmarkTask, Counts, complete, deal
from .layout import files_of, find_root, need, place, read_rows, shortened, without_images

ORGANS = {1: "liver", 2: "pancreas", 3: "kidney", 4: "bladder", 5: "spleen"}
PAPER = Counts(train=3345, test=872, unit="images", patients=(51, 13))


def read(folder: Path, *, strict: bool = True) -> LabelledData:
    """AbdomenUS in the layout that the head of this file assumes."""
    what = "AbdomenUS, whose own layout is not published: images/<case>/ and masks/<case>/"
    root = find_root(folder, ("images", "masks"), what)
    images, masks = need(root, "images", "the images"), need(root, "masks", "the masks")
    by_place = {_key(path, masks): path for path in files_of(masks, below=True)}
    looked_for = _stated(root)
    samples, alone, used = [], [], set()
    for path in files_of(images, below=True):
        relative = path.relative_to(images)
        name, key = relative.as_posix(), _key(path, images)
        apart = {value: by_place[f"{key}_{organ}"] for value, organ in ORGANS.items() if f"{key}_{organ}" in by_place}
        if not apart and key not in by_place:
            alone.append(name)
            continue
        mask: MaskSource = _united(apart, path) if apart else str(by_place[key])
        case = relative.parts[0] if len(relative.parts) > 1 else relative.stem.partition("_")[0]
        samples.append(Sample(name=name, images=(str(path),), group=case, mask=(mask,)))
        looked_for[name.lower()] = {*looked_for.get(name.lower(), ()), *apart}
        used |= {f"{key}_{ORGANS[value]}" for value in apart} or {key}
    if unknown := sorted(set(looked_for) - {sample.name.lower() for sample in samples}):
        raise ValueError(f"{root / 'labelled.csv'}: names {unknown[0]}, which has no image and mask; correct the name")
    problems = (f"{root}: {len(alone)} images have no mask and are no examples: {shortened(alone)}",) if alone else ()
    spare = [path.relative_to(masks).as_posix() for key, path in by_place.items() if key not in used]
    problems += without_images(root, "masks", spare)
    data = LabelledData(str(root), "segmentation", tuple(samples), problems=problems)
    data = complete(data, strict, {0: "background"} | ORGANS)
    known = tuple(
        replace(sample, labelled_classes=tuple(sorted({0, *sample.mask_classes, *looked_for[sample.name.lower()]})))
        for sample in data.samples
    )
    return deal(replace(data, samples=known), PAPER.train, PAPER.test)


def _key(path: Path, folder: Path) -> str:
    """What an image and its mask have in common: the place in their folders without the suffix, in lower case."""
    return path.relative_to(folder).with_suffix("").as_posix().lower()


def _united(masks: dict[int, Path], image: Path) -> DrawnMask:
    """One mask of organ numbers from one file an organ."""
    regions, size = [], None
    for value, path in masks.items():
        inside = read_raw_mask(str(path)) > 0
        if size is not None and inside.shape != size:
            raise ValueError(f"{path}: has another size than the other masks of {image}; save it again")
        size = inside.shape
        columns = inside.T.ravel()
        edges = np.flatnonzero(np.diff(columns)) + 1
        runs = np.diff([0, *edges, columns.size]).tolist()
        counts = [0, *runs] if columns[0] else runs
        regions.append((value, {"size": list(size), "counts": counts}))
    assert size is not None
    return DrawnMask(size, tuple(regions), name=f"{image}: its masks")


def _stated(root: Path) -> dict[str, set[int]]:
    """The organs that `labelled.csv` says were looked for, by image, in lower case."""
    numbers = {organ: value for value, organ in ORGANS.items()}
    path = place(root, "labelled.csv")
    stated = {}
    for where, row in read_rows(path, ("file_name", "organs")) if path is not None else ():
        words = [word.strip().lower() for word in row["organs"].replace(",", ";").split(";") if word.strip()]
        if unknown := [word for word in words if word not in numbers]:
            raise ValueError(f"{where} names {unknown[0]!r}, which is none of {', '.join(numbers)}; correct it")
        stated[row["file_name"].lower()] = {numbers[word] for word in words}
    return stated


TASK = BenchmarkTask(
    key="abdomenus",
    task="segmentation",
    metrics=("dice", "normalized_surface_dice"),
    split="by patient (case), seed 0, in the paper's shares 3,345 : 872",
    reader=read,
    data_set="abdomenus",
    paper=PAPER,
    figures={"dice_over_second_best": 2.10, "nsd_over_second_best": 4.36},
)
