"""Mus-V: segmentation of arteries and veins.

Layout: `Videos/train/` and `Videos/valid/` with frames `<clip>_<NNN>.png`, `Annotations/` with masks of the same names,
`Forces/<clip>.txt` (a row a frame, not read here). Frames and masks may lie in folders of their own below these.

Verified in its authors' code (evelynskip/artery-vein-segmentation, `utils/generate_dataset.py` and `vessel_loader.py`): folders,
names, the official split into train and valid, mask values 0 background, 1 vein, 2 artery, frames counted from 001.

Assumed: a clip is what must stay together. The names do not say which of the 11 volunteers a clip is of, so that only the official
split keeps people apart.
"""

from pathlib import Path

from echocare_hf.data.labelled import LabelledData, Sample
from echocare_hf.data.labelled.record import SplitName

from .common import BenchmarkTask, Counts, complete
from .layout import by_stem, files_of, find_root, need, shortened, without_images

PARTS: dict[str, SplitName] = {"train": "train", "valid": "test"}
PAPER = Counts(train=2203, test=911, unit="frames")


def read(folder: Path, *, strict: bool = True) -> LabelledData:
    """Mus-V as its authors publish it."""
    root = find_root(folder, ("Videos", "Annotations"), "Mus-V: Videos/train, Videos/valid and Annotations")
    masks = by_stem(files_of(need(root, "Annotations", "the masks of Mus-V"), below=True))
    samples, alone, used = [], [], set()
    for part, split in PARTS.items():
        frames = need(root, f"Videos/{part}", "the official split of Mus-V")
        for path in files_of(frames, below=True):
            clip, _, number = path.stem.rpartition("_")
            if not clip or not number.isdigit():
                raise ValueError(f"{path}: is not named <clip>_<number>.png as Mus-V's frames are; restore its name")
            if path.stem not in masks:
                alone.append(path.name)
                continue
            used.add(path.stem)
            samples.append(
                Sample(
                    name=f"{part}/{path.name}",
                    images=(str(path),),
                    group=clip,
                    split=split,
                    mask=(str(masks[path.stem]),),
                )
            )
    if not samples:
        raise ValueError(f"{root / 'Annotations'}: no mask has the name of a frame in Videos; unpack Mus-V again")
    problems = (f"{root}: {len(alone)} frames have no mask and are no examples: {shortened(alone)}",) if alone else ()
    problems += without_images(root, "masks", [path.name for stem, path in masks.items() if stem not in used])
    data = LabelledData(str(root), "segmentation", tuple(samples), problems=problems)
    return complete(data, strict, {0: "background", 1: "vein", 2: "artery"})


TASK = BenchmarkTask(
    key="musv",
    task="segmentation",
    metrics=("dice", "normalized_surface_dice"),
    split="official: Videos/train and Videos/valid",
    reader=read,
    data_set="musv",
    paper=PAPER,
    figures={"dice_over_second_best": 1.36, "nsd_over_second_best": 1.03},
)
