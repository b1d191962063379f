"""Fits the machine by which `echocare curate` tells ultrasound from other pictures, and measures them on sources they were not fitted to.

    python eval/curation/train_filter.py --data DATA --pictures PICTURES                  # the tables below
    python eval/curation/train_filter.py --data DATA --pictures PICTURES --write          # and the file that the package ships

DATA holds real ultrasound (real_images.py), PICTURES other pictures (pictures.py). A support vector machine on the numbers of
`echocare_hf.curation.texture`; sources weigh by the root of their size. Ultrasound is fitted as it is, darker, brighter and upside down;
other pictures also turned by 90 degrees. The limit is the largest multiple of 0.05 at which at most 0.5 % of the ultrasound images are
lost by a machine that was fitted without their source, and at most 1 % of those of three data sets together by one that was fitted to the
other five. Nothing is fitted to the held-out pictures.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from pictures import read_pictures
from real_images import SOURCES, sample
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tqdm import tqdm

from echocare_hf.curation import quality
from echocare_hf.curation.burnt_text import remove_text
from echocare_hf.curation.record import FoundFile, Item
from echocare_hf.curation.region import find_region
from echocare_hf.curation.texture import NAMES, texture_of
from echocare_hf.data.phantom import PHANTOM_KINDS, make_phantom
from echocare_hf.data.reading import read_ultrasound

C, GAMMA = 1.0, 0.02
_ELONGATION = NAMES.index("elongation_1")
MOST_LOST = 0.005
"""Share of real ultrasound that a machine fitted without its source may lose."""

MOST_LOST_APART = 0.01
"""The same for the three data sets of the held-out part together, by a machine fitted to the other five."""


@dataclass
class Example:
    """A picture as the filter sees it: cut to its region, text removed; `variants` are the textures of its altered copies."""

    source: str
    part: str  # ultrasound, phantom, tuning or held-out
    simple: bool  # whether a rule drops it before the machine is asked
    plain: np.ndarray
    variants: list[np.ndarray]
    turned: np.ndarray | None


def example(source: str, part: str, pixels: np.ndarray, regions: tuple = ()) -> Example | None:
    """None if nothing is left of the picture once its surroundings are removed."""
    items, _ = find_region([Item(FoundFile(source, source, source, 1), 0, pixels, regions=regions)])
    if not items:
        return None
    ((item,), _) = remove_text(items)
    shown = item.pixels
    turned, texture = np.ascontiguousarray(np.rot90(shown)), texture_of(shown)
    variants = []
    if part != "held-out":
        variants = [(255 * (shown / 255) ** gamma).round().astype(np.uint8) for gamma in (1.5, 0.75)]
        variants.append(turned if part == "tuning" else np.ascontiguousarray(shown[::-1]))
    return Example(
        source,
        part,
        quality.simple_rule(shown) is not None or texture[_ELONGATION] < quality.LEAST_ELONGATION,
        texture,
        [texture_of(variant) for variant in variants],
        texture_of(turned) if part == "ultrasound" else None,
    )


def collect(data: Path, pictures: Path | None, number: int) -> list[Example]:
    found: list[Example | None] = []
    for image in tqdm(sample(data, number), desc="ultrasound"):
        record = read_ultrasound(image.path)
        found.append(example(image.source, "ultrasound", record.frames[0], record.regions))
    for kind in PHANTOM_KINDS:
        for seed in range(4):
            grey = make_phantom(kind, seed=seed).image
            found.append(example(kind, "phantom", np.repeat(grey[..., None], 3, axis=2)))
    for picture in tqdm(read_pictures(pictures), desc="other pictures"):
        found.append(example(picture.source, "tuning" if picture.tuning else "held-out", picture.pixels))
    return [one for one in found if one is not None]


def fit(examples: Sequence[Example]) -> quality.Machine:
    """A machine for textures as they are, whose limit is 0."""
    rows, labels, sources = [], [], []
    for one in examples:
        for texture in (one.plain, *one.variants):
            rows.append(texture)
            labels.append(one.part in ("ultrasound", "phantom"))
            sources.append(one.source)
    truth, names = np.array(labels), np.array(sources)
    weight = np.zeros(len(names))
    for name in np.unique(names):
        weight[names == name] = (names == name).sum() ** -0.5
    for label in (False, True):
        weight[truth == label] *= len(truth) / 2 / weight[truth == label].sum()
    scaler = StandardScaler().fit(rows)
    machine = SVC(C=C, gamma=GAMMA).fit(scaler.transform(rows), truth, weight)
    return quality.Machine(
        scaler.mean_,
        scaler.scale_,
        machine.support_vectors_,
        machine.dual_coef_[0],
        float(machine.intercept_[0]),
        GAMMA,
        0.0,
    )


def decisions(textures: Iterable[np.ndarray], machine: quality.Machine) -> np.ndarray:
    return machine.decide(np.array(list(textures)))


def left_out(examples: Sequence[Example]) -> np.ndarray:
    """The decision on each example by a machine that was fitted without its source; held-out pictures never enter."""
    usable = [one for one in examples if one.part != "held-out"]
    scores = np.full(len(examples), np.nan)
    for source in sorted({one.source for one in usable}):
        machine = fit([one for one in usable if one.source != source])
        for place, one in enumerate(examples):
            if one.part != "held-out" and one.source == source:
                scores[place] = decisions([one.plain], machine)[0]
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with real ultrasound and its index.csv")
    parser.add_argument("--pictures", type=Path, help="folder with wheels and unpacked packages (see pictures.py)")
    parser.add_argument("--images", type=int, default=60, help="images a data set, default 60")
    parser.add_argument("--write", action="store_true", help="write the file that the package ships")
    given = parser.parse_args()
    try:
        examples = collect(given.data, given.pictures, given.images)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    parts = np.array([one.part for one in examples])
    sources = np.array([one.source for one in examples])
    simple = np.array([one.simple for one in examples])
    scores = left_out(examples)
    real = parts == "ultrasound"
    tuning = [one for one in examples if one.part != "held-out" and SOURCES.get(one.source, True)]
    apart = [one for one in examples if one.part == "ultrasound" and not SOURCES[one.source]]
    unseen = decisions((one.plain for one in apart), fit(tuning))
    least = max(
        step / 20
        for step in range(-40, 21)
        if (scores[real] < step / 20).mean() <= MOST_LOST and (unseen < step / 20).mean() <= MOST_LOST_APART
    )
    print(f"limit {least}; a source left out in turn: `lost` is real ultrasound, `found` are other pictures\n")
    print("| source | images | lost or found by the machine | with the rules |\n|---|---|---|---|")
    for part in ("ultrasound", "phantom", "tuning"):
        for source in ["all", *sorted(set(sources[parts == part]))]:
            of = (parts == part) & ((sources == source) | (source == "all"))
            below = scores[of] < least
            print(f"| {part}: {source} | {of.sum()} | {below.mean():.3f} | {(below | simple[of]).mean():.3f} |")
    held = [one for one in examples if one.part == "held-out"]
    lost = int((unseen < least).sum())
    print(f"\nfitted to five data sets alone: {lost} of {len(apart)} images of the other three lost")
    machine = replace(fit([one for one in examples if one.part != "held-out"]), least=least)
    found = decisions((one.plain for one in held), machine) < least
    rules = np.array([one.simple for one in held])
    print(
        f"held-out pictures found: {found.mean():.3f} by the machine, {(found | rules).mean():.3f} with the rules, of {len(held)}"
    )
    turned = [one.turned for one in examples if one.turned is not None]
    print(f"ultrasound turned by 90 degrees that is lost: {(decisions(turned, machine) < least).mean():.3f}")
    if given.write:
        stored = {name: np.asarray(value, np.float32) for name, value in asdict(machine).items()}
        np.savez_compressed(quality.MACHINE_FILE, **stored)
        print(
            f"written: {quality.MACHINE_FILE.name}, {len(machine.vectors)} vectors, {quality.MACHINE_FILE.stat().st_size} bytes"
        )


if __name__ == "__main__":
    main()
