"""USenhance 2023: enhancement of images of a low-end scanner, five organs.

Layout: `train_datasets/<organ>/low_quality/` and `high_quality/`, PNG files of 256 x 256 pixels, a pair by name.

Verified in code that prepares the published archive (rajpurkarlab/ReX-MLE, `challenges/usenhance/prepare.py`) and in a
participant's README (YoonChiHo/USenhance23_POAS): folders, the organs breast, carotid, kidney, liver and thyroid, pairs by name.

Not in the names: which of the 109 patients an image is of, so that only the two images of a pair stay together.

Assumed: the two images of a pair show one place but are not aligned pixel by pixel (the paper calls them unpaired).
"""

from dataclasses import replace
from pathlib import Path

from echocare_hf.data.labelled import LabelledData, Sample

from .common import BenchmarkTask, Counts, complete, deal
from .layout import by_stem, files_of, find_root, need, place, roots

PAPER = Counts(
    train=837,
    test=213,
    unit="pairs",
    by="group",
    classes={"thyroid": (232, 59), "breast": (161, 41), "kidney": (97, 25), "liver": (119, 30), "carotid": (228, 58)},
    note="the paper's text has 837 and 213 pairs, which are 1,674 and 426 images; its table says 1,654 and 426",
)


def read(folder: Path, *, strict: bool = True, paired: bool = False) -> LabelledData:
    """USenhance as its authors publish it.

    Args:
        paired: take the high image as what the low one shall look like, pixel by pixel. They are not aligned: a network then learns to
            blur. If False, they are images of low and of high quality; both of a pair have one group and one part.
    """
    if not isinstance(paired, bool):
        raise ValueError(f"paired is true or false, not {paired!r}")
    organs = tuple(PAPER.classes)
    root = next((path for path in roots(folder) if any(place(path, organ) for organ in organs)), folder)
    root = find_root(root, organs, "USenhance: a folder an organ, with low_quality and high_quality in each")
    parts = [_organ(root, organ, strict, paired) for organ in organs]
    dealt = [deal(part, *PAPER.classes[organ]) for organ, part in zip(organs, parts, strict=True)]
    return replace(
        dealt[0],
        samples=tuple(sample for part in dealt for sample in part.samples),
        problems=tuple(problem for part in dealt for problem in part.problems),
    )


def _organ(root: Path, organ: str, strict: bool, paired: bool) -> LabelledData:
    low, high = (
        by_stem(files_of(need(root, f"{organ}/{name}_quality", f"images of {organ}"))) for name in ("low", "high")
    )
    if alone := sorted(set(low) ^ set(high)):
        here, there = ("low", "high") if alone[0] in low else ("high", "low")
        raise ValueError(
            f"{root / organ / f'{there}_quality' / alone[0]}.png: was expected here, the pair of the image in {here}_quality; "
            "unpack it again"
        )
    samples = []
    for stem in low:
        name = f"{organ}/{stem}"
        worse = Sample(name=name, images=(str(low[stem]),), group=name, attributes={"organ": organ})
        if paired:
            samples.append(replace(worse, target_image=str(high[stem])))
        else:
            samples.append(replace(worse, name=f"{name} low", quality="low"))
            samples.append(replace(worse, name=f"{name} high", images=(str(high[stem]),), quality="high"))
    return complete(LabelledData(str(root), "enhancement", tuple(samples)), strict)


TASK = BenchmarkTask(
    key="usenhance",
    task="enhancement",
    metrics=("niqe", "brisque", "piqe", "frechet_distance", "psnr_ssim", "lncc"),
    split="by pair within each organ, seed 0, in the paper's shares of that organ; the files name no patients",
    reader=read,
    data_set="usenhance",
    paper=PAPER,
    figures={"niqe": 6.35, "brisque": 17.62, "piqe": 30.16, "fid": 57.38},
)
