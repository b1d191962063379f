"""Fits and measures how `echocare predict` tells ultrasound from other pictures, and known from unknown views.

    python eval/heads.py test_files --data DATA > held_out.txt             # images that no pretraining has seen
    python eval/familiarity.py fit --model FOLDER --data DATA --pictures PICTURES --held_out held_out.txt   # writes into FOLDER
    python eval/familiarity.py measure --model FOLDER --data DATA --pictures PICTURES --held_out held_out.txt
    python eval/familiarity.py compare --model FOLDER --data DATA --pictures PICTURES --held_out held_out.txt
    python eval/familiarity.py quality --data DATA                         # the limits on black, flat, saturated, blurred frames

DATA holds real ultrasound with an index.csv (eval/curation/real_images.py), PICTURES other pictures (eval/curation/pictures.py, which says
how to get them). Real images whose licence is not among `--licences` are not fitted to. Of the held-out images one half, by group (by
their order where there are no groups), calibrates; the other half is only measured. Of the pictures, those of the tuning sources are
fitted to and the others are only measured. `compare` reads no measured half: it is what the method was chosen by.
"""

import argparse
import csv
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).with_name("curation")))
from pictures import read_pictures
from real_images import sample

from echocare_hf import EchoCareImageProcessorPil, EchoCareModel
from echocare_hf.data.reading import read_ultrasound
from echocare_hf.examination import image_quality
from echocare_hf.examination.familiarity import (
    KNOWN_THRESHOLD,
    ULTRASOUND_THRESHOLD,
    Familiarity,
    FeatureTap,
    fit_known,
    fit_ultrasound,
    source_weights,
    texture_channels,
    weights_hash,
)
from echocare_hf.examination.gaussian import Gaussian
from echocare_hf.examination.region import find_region
from echocare_hf.files import written_beside

LICENCES = ("CC0", "CC BY 4.0", "CC BY 3.0", "MIT", "Apache")
NOISES = 20
"""Pictures of each kind of noise, in each part."""

SHUFFLED = 60
BATCH = 32
GROUPS = {
    "photographs": ("photograph", "nebula"),
    "CT": ("CT",),
    "MR": ("MR", "tissue map"),
    "X-ray, nuclear medicine": ("X-ray", "nuclear medicine"),
    "microscopy, histology, retina": ("microscopy", "histology", "retina"),
    "documents, charts, drawings": ("document", "chart", "drawing", "figure", "gradient"),
    "noise, constant": ("noise", "salt and pepper", "constant"),
    "shuffled ultrasound": ("shuffled ultrasound",),
}


@dataclass(frozen=True, eq=False)
class Images:
    """Features of images `(images, channels)`, and of each its source, kind, and part: "fit", "calibrate", "measure", or "" for none."""

    features: np.ndarray
    sources: np.ndarray
    kinds: np.ndarray
    parts: np.ndarray

    def of(self, part: str) -> "Images":
        chosen = self.parts == part
        return Images(self.features[chosen], self.sources[chosen], self.kinds[chosen], self.parts[chosen])


def crop(pixels: np.ndarray, regions: Sequence = ()) -> np.ndarray:
    return find_region([pixels], regions).crop(pixels)


def features_of(folder: Path, images: Sequence[np.ndarray]) -> np.ndarray:
    """Features of images, each uint8 `(height, width, 3)`, as `echocare predict` gets them."""
    encoder = EchoCareModel.from_pretrained(folder).eval()
    processor = EchoCareImageProcessorPil.from_pretrained(folder)
    with FeatureTap(encoder) as tap, torch.inference_mode():
        for start in tqdm(range(0, len(images), BATCH), desc="encoder", unit="batch"):
            encoder(**processor(list(images[start : start + BATCH]), return_tensors="pt"))
        return tap.take()


def parts_of(rows: Sequence[dict[str, str]], held_out: set[str], licences: Sequence[str]) -> list[str]:
    """The part of each row of an index. Where a source has no groups, parts follow its order, so that neighbours stay together."""
    parts = []
    counts: dict[tuple[str, bool], int] = {}
    totals: dict[tuple[str, bool], int] = {}
    for row in rows:
        key = (row["dataset"], row["path"] in held_out)
        totals[key] = totals.get(key, 0) + 1
    for row in rows:
        key = (row["dataset"], row["path"] in held_out)
        place = counts.get(key, 0) / totals[key]
        counts[key] = counts.get(key, 0) + 1
        share = zlib.crc32(row["group"].encode()) % 1000 / 1000 if row["group"] else place
        usable = row["licence"].startswith(tuple(licences))
        if key[1]:
            parts.append("measure" if share >= 0.5 else "calibrate" if usable else "")
        elif not usable:
            parts.append("")
        else:
            parts.append("calibrate" if share >= 0.8 and not held_out else "fit")
    return parts


def real_images(given: argparse.Namespace) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Regions of real images, their sources and parts."""
    with (given.data / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    held_out = set(given.held_out.read_text(encoding="utf-8").split("\n")) - {""} if given.held_out else set()
    if held_out and not held_out & {row["path"] for row in rows}:
        raise ValueError(f"{given.held_out}: names no image of {given.data / 'index.csv'}")
    parts = parts_of(rows, held_out, given.licences)
    chosen = []
    for source in sorted({row["dataset"] for row in rows}):
        for part in ("fit", "calibrate", "measure", ""):
            own = [place for place, row in enumerate(rows) if row["dataset"] == source and parts[place] == part]
            number = given.images if part in ("fit", "") else given.images // 2
            chosen += own if len(own) <= number else [own[step * len(own) // number] for step in range(number)]
    shown = []
    for place in tqdm(chosen, desc="ultrasound", unit="image"):
        record = read_ultrasound(given.data / rows[place]["path"])
        shown.append(crop(record.frames[0], record.regions))
    sources = np.array([rows[place]["dataset"] for place in chosen])
    return shown, sources, np.array([parts[place] for place in chosen])


def noises(random: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    for _ in range(NOISES):
        size = random.integers(120, 600, 2)
        smooth = ndimage.gaussian_filter(random.normal(size=size), random.uniform(2, 20))
        speckle = np.abs(
            ndimage.gaussian_filter(random.normal(size=size), (random.uniform(0.5, 1.5), random.uniform(1, 4)))
        )
        yield "Gaussian noise", random.normal(random.uniform(40, 200), random.uniform(10, 60), size)
        yield "uniform noise", random.uniform(0, random.uniform(60, 255), size)
        yield "salt and pepper", 255.0 * (random.uniform(size=size) < random.uniform(0.05, 0.5))
        yield "smooth noise", (smooth - smooth.min()) / np.ptp(smooth) * 255
        yield "speckled noise", speckle / speckle.max() * 380
        yield "constant", np.full(size, float(random.integers(1, 255)))


def shuffle(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An image of 256 x 256 pixels whose 4, 8 or 16 patches a side have changed places."""
    number = int(random.choice([4, 8, 16]))
    side = 256 // number
    image = np.asarray(Image.fromarray(pixels).resize((256, 256)))
    patches = image.reshape(number, side, number, side, 3).transpose(0, 2, 1, 3, 4).reshape(-1, side, side, 3)
    patches = patches[random.permutation(len(patches))].reshape(number, number, side, side, 3)
    return patches.transpose(0, 2, 1, 3, 4).reshape(256, 256, 3)


def collect(given: argparse.Namespace) -> tuple[Images, Images]:
    """Real images and other pictures; from `--features` if it is there, else written to it."""
    if given.features is not None and given.features.is_file():
        with np.load(given.features, allow_pickle=False) as stored:
            if str(stored["weights"]) != weights_hash(given.model):
                raise ValueError(f"{given.features}: holds features of other weights than {given.model}; remove it")
            fields = Images.__dataclass_fields__
            real, others = (Images(*(stored[f"{name}.{field}"] for field in fields)) for name in ("real", "others"))
            return real, others
    real, others = encode(given)
    if given.features is not None:
        stored = {
            f"{name}.{field}": value
            for name, of in (("real", real), ("others", others))
            for field, value in vars(of).items()
        }
        with written_beside(given.features) as partial, partial.open("wb") as file:
            np.savez(file, weights=weights_hash(given.model), **stored)
    return real, others


def encode(given: argparse.Namespace) -> tuple[Images, Images]:
    """Reads all images and runs the encoder on them."""
    real, sources, parts = real_images(given)
    shown, rows = [], []
    for picture in read_pictures(given.pictures):
        shown.append(crop(picture.pixels))
        rows.append((picture.source, picture.kind, "fit" if picture.tuning else "measure"))
    for seed, part in enumerate(("fit", "measure")):
        random = np.random.default_rng(seed)
        for kind, values in noises(random):
            shown.append(np.repeat(np.clip(values, 0, 255).astype(np.uint8)[..., None], 3, axis=2))
            rows.append((f"formulas {part}", kind, part))
        own = np.flatnonzero(parts == part)
        for place in random.choice(own, min(SHUFFLED, len(own)), replace=False):
            shown.append(shuffle(real[place], random))
            rows.append((f"shuffled {part}", "shuffled ultrasound", part))
    features = features_of(given.model, real + shown)
    names, kinds, other_parts = (np.array(column) for column in zip(*rows, strict=True))
    return (
        Images(features[: len(real)], sources, sources, parts),
        Images(features[len(real) :], names, kinds, other_parts),
    )


def fit(given: argparse.Namespace) -> None:
    real, others = collect(given)
    training, held_out, pictures = real.of("fit"), real.of("calibrate"), others.of("fit")
    gate = fit_known(training.features, held_out.features, training.sources.tolist())
    channels = texture_channels(EchoCareModel.from_pretrained(given.model).config)
    gate.ultrasound = fit_ultrasound(training.features, training.sources.tolist(), pictures.features, channels)
    gate.facts |= {"sources": len(set(training.sources)), "other_pictures": len(pictures.features)}
    output = given.output or given.model
    if weights_hash(output) != weights_hash(given.model):
        raise ValueError(
            f"{output}: holds other weights than {given.model}, and statistics belong to one set of weights"
        )
    path = gate.save(output)
    print(f"written: {path.name}, {path.stat().st_size} bytes, {gate.facts}")


def auc(real: np.ndarray, others: np.ndarray) -> float:
    """Of distances, real images against others; 1 where every other picture is farther away."""
    return float(roc_auc_score(np.repeat([0, 1], [len(real), len(others)]), np.concatenate([real, others])))


def measure(given: argparse.Namespace) -> None:
    gate = Familiarity.load(given.model)
    if not gate.is_own or gate.ultrasound is None:
        raise ValueError(f"{given.model}: has no statistics with a gate for ultrasound; make them with fit")
    real, others = collect(given)
    images, pictures = real.of("measure"), others.of("measure")
    ultrasound, known = gate.ultrasound, gate.known
    print(
        f"\nHeld-out real images ({len(images.features)}) against other pictures; warned: ultrasound score below {ULTRASOUND_THRESHOLD}, "
        f"or known score below {KNOWN_THRESHOLD}\n"
    )
    print(
        "| other pictures | number | AUC, ultrasound | AUC, known | warned: not ultrasound | warned at all |\n|---|---|---|---|---|---|"
    )
    near = ultrasound.distance(images.features), known.distance(images.features)
    for name, kinds in {"all": ("",), "all but shuffled and noise": ("!",), **GROUPS}.items():
        if name == "all but shuffled and noise":
            of = np.array(
                [
                    not any(word in kind for word in ("noise", "salt", "constant", "shuffled"))
                    for kind in pictures.kinds
                ]
            )
        else:
            of = np.array([any(word in kind for word in kinds) for kind in pictures.kinds])
        if of.any():
            far = pictures.features[of]
            foreign = gate.score(far) < ULTRASOUND_THRESHOLD
            warned = foreign | (gate.known_score(far) < KNOWN_THRESHOLD)
            values = (
                auc(near[0], ultrasound.distance(far)),
                auc(near[1], known.distance(far)),
                foreign.mean(),
                warned.mean(),
            )
            print(f"| {name} | {of.sum()} | {' | '.join(f'{value:.3f}' for value in values)} |")
    print(
        "\nFalse alarms on held-out real images\n\n| source | images | not ultrasound | not known |\n|---|---|---|---|"
    )
    for source in ["all", *sorted(set(images.sources))]:
        own = images.features[(images.sources == source) | (source == "all")]
        shares = (gate.score(own) < ULTRASOUND_THRESHOLD).mean(), (gate.known_score(own) < KNOWN_THRESHOLD).mean()
        print(f"| {source} | {len(own)} | {' | '.join(f'{share:.3f}' for share in shares)} |")
    training, calibration, background = real.of("fit"), real.of("calibrate"), others.of("fit")
    print(
        "\nA source left out of the fit and of the calibration, all its images, against held-out pictures\n\n"
        "| source | images | AUC, ultrasound | warned: not ultrasound | warned: not known | pictures warned: not ultrasound |\n"
        "|---|---|---|---|---|---|"
    )
    for source in sorted(set(real.sources)):
        rest, other = training.sources != source, calibration.sources != source
        names = training.sources[rest].tolist()
        channels = slice(ultrasound.first, ultrasound.last)
        unseen = fit_ultrasound(training.features[rest], names, background.features, channels)
        strange = fit_known(training.features[rest], calibration.features[other], names)
        own = real.features[real.sources == source]
        values = (
            auc(unseen.distance(own), unseen.distance(pictures.features)),
            (unseen.score(own) < ULTRASOUND_THRESHOLD).mean(),
            (strange.known_score(own) < KNOWN_THRESHOLD).mean(),
            (unseen.score(pictures.features) < ULTRASOUND_THRESHOLD).mean(),
        )
        print(f"| {source} | {len(own)} | {' | '.join(f'{value:.3f}' for value in values)} |")


Distance = Callable[[np.ndarray], np.ndarray]


def mahalanobis(real: np.ndarray, sources: np.ndarray, others: np.ndarray) -> Distance:
    return Gaussian.fit(real, source_weights(sources.tolist())).log_distance


def relative(share: float) -> Callable[[np.ndarray, np.ndarray, np.ndarray], Distance]:
    def make(real: np.ndarray, sources: np.ndarray, others: np.ndarray) -> Distance:
        near, far = mahalanobis(real, sources, others), Gaussian.fit(others, np.ones(len(others))).log_distance
        return lambda features: near(features) - share * far(features)

    return make


def nearest(real: np.ndarray, sources: np.ndarray, others: np.ndarray) -> Distance:
    mean, scale = real.mean(0), real.std(0) + 1e-3 * real.std()
    index = NearestNeighbors(n_neighbors=5).fit((real - mean) / scale)
    return lambda features: index.kneighbors((features - mean) / scale)[0][:, -1]


def logistic(real: np.ndarray, sources: np.ndarray, others: np.ndarray) -> Distance:
    mean, scale = real.mean(0), real.std(0) + 1e-3 * real.std()
    weights = source_weights(sources.tolist())
    weights = np.concatenate([weights / weights.sum(), np.full(len(others), 1 / len(others))])
    labels = np.repeat([0, 1], [len(real), len(others)])
    values = np.clip((np.concatenate([real, others]) - mean) / scale, -8, 8)
    machine = LogisticRegression(C=0.1, max_iter=500).fit(values, labels, weights * len(labels))
    return lambda features: machine.decision_function(np.clip((features - mean) / scale, -8, 8))


def compare(given: argparse.Namespace) -> None:
    """Methods, each fitted without one source of ultrasound and one quarter of the pictures' sources at a time, and measured on these."""
    real, others = collect(given)
    training, near, pictures = real.of("fit"), real.of("calibrate"), others.of("fit")
    names = sorted(set(pictures.sources))
    folds = np.array([names.index(name) % 4 for name in pictures.sources])
    generated = np.array([name.startswith(("formulas fit", "shuffled")) for name in pictures.sources])
    folds[generated] = np.arange(generated.sum()) % 4
    texture = texture_channels(EchoCareModel.from_pretrained(given.model).config)
    methods = {
        "Mahalanobis": mahalanobis,
        "relative Mahalanobis, 0.3": relative(0.3),
        "relative Mahalanobis, 0.5": relative(0.5),
        "relative Mahalanobis, 0.8": relative(0.8),
        "fifth nearest neighbour": nearest,
        "logistic regression": logistic,
    }
    sources = sorted(set(training.sources))
    print(
        "\n| maps | method | AUC, sources seen | AUC, sources left out | worst source | pictures found at 5 % of all sources |"
    )
    print("|---|---|---|---|---|---|")
    for maps, channels in {"stages 1 and 2": texture, "all": slice(None)}.items():
        for name, make in methods.items():
            seen, unseen, found = [], {}, []
            for number, source in enumerate(sources):
                own, fold = training.sources == source, folds == number % 4
                values = (
                    training.features[~own][:, channels],
                    training.sources[~own],
                    pictures.features[~fold][:, channels],
                )
                distance = make(*values)
                far = distance(pictures.features[fold][:, channels])
                known = distance(near.features[near.sources != source][:, channels])
                new = distance(training.features[own][:, channels])
                seen.append(auc(known, far))
                unseen[source] = auc(new, far)
                limit = max(np.quantile(known, 0.95), np.quantile(new, 0.95))
                found.append((far > limit).mean())
            worst = min(unseen, key=lambda source: unseen[source])
            mean = np.mean(list(unseen.values()))
            row = f"{np.mean(seen):.3f} | {mean:.3f} | {unseen[worst]:.3f} ({worst}) | {np.mean(found):.3f}"
            print(f"| {maps} | {name} | {row} |", flush=True)


def quality(given: argparse.Namespace) -> None:
    """Real images as they are, blurred, darkened, flattened and brightened: the share that is warned about."""
    rows: dict[str, list[tuple[bool, float]]] = {}
    for image in tqdm(sample(given.data, 40), desc="ultrasound", unit="image"):
        record = read_ultrasound(image.path)
        pixels = crop(record.frames[0], record.regions)
        shown = Image.fromarray(pixels)
        step = max(shown.size) / image_quality.WORK_SIDE
        values = pixels.astype(np.float64)
        changed = {"as it is": pixels}
        changed |= {
            f"blurred by {by} pixels": np.asarray(shown.filter(ImageFilter.GaussianBlur(by * step)))
            for by in (1, 2, 4)
        }
        changed |= {
            "a twentieth as bright": values / 20,
            "a twentieth of its contrast": 100 + values / 20,
            "six times as bright": values * 6,
        }
        for name, altered in changed.items():
            altered = np.clip(altered, 0, 255).astype(np.uint8)
            grey = image_quality.work_grey(altered)
            rows.setdefault(name, []).append(
                (bool(image_quality.quality_warnings(altered)), image_quality.sharpness(grey))
            )
    print("| real images | number | warned | sharpness: least, median, most |\n|---|---|---|---|")
    for name, found in rows.items():
        warned, sharp = zip(*found, strict=True)
        print(
            f"| {name} | {len(found)} | {np.mean(warned):.3f} | {min(sharp):.2f}, {np.median(sharp):.2f}, {max(sharp):.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for action in (fit, measure, compare, quality):
        command = commands.add_parser(action.__name__, help=(action.__doc__ or "see above").splitlines()[0])
        command.set_defaults(action=action)
        command.add_argument("--data", type=Path, required=True, help="folder with real ultrasound and its index.csv")
        if action is quality:
            continue
        command.add_argument("--model", type=Path, required=True, help="folder of an EchoCare checkpoint")
        command.add_argument(
            "--pictures", type=Path, help="folder with other pictures (see eval/curation/pictures.py)"
        )
        command.add_argument(
            "--held_out", type=Path, help="file with images that the encoder was not trained on, one a line"
        )
        command.add_argument(
            "--features", type=Path, help="file to keep the features in, for the next command on the same images"
        )
        command.add_argument("--images", type=int, default=300, help="images a source and part, default 300")
        command.add_argument(
            "--licences", nargs="+", default=LICENCES, help="licences of images to fit to, by how they begin"
        )
        if action is fit:
            command.add_argument(
                "--output", type=Path, help="another folder with the same weights that the statistics go to"
            )
    given = parser.parse_args()
    try:
        given.action(given)
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
