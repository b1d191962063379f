"""EchoCare in a few minutes on a laptop: pretrain a tiny model, load it the usual way, look at what it does.

What happens, in this order:

  1. A tiny EchoCare is pretrained on synthetic ultrasound (phantoms) for a few hundred steps: masked reconstruction and
     hierarchical anatomy classification together. The checkpoint is kept, so that a second run skips this step.
     `--model` takes any other EchoCare checkpoint in its place.
  2. The checkpoint is loaded back with `AutoModelForPreTraining` and `AutoImageProcessor`, as any user would.
  3. It is measured on phantoms that it has not seen, beside the trivial answers: the mean and the median of the visible
     pixels, and the commonest organ.
  4. It runs on phantoms, on the real DICOM ultrasound that comes with pydicom, and on your own files (`--data`).
  5. OUTPUT gets gallery.png, index.html (one file, opens anywhere) and results.json.

Why phantoms: they need no download and no licence. Weights made from them show that the machinery works. They are not a
trained model, and what they say about a real image means nothing. The gallery says so too.

    python training/quickstart.py
    python training/quickstart.py --data my_images --output my_gallery
    python training/quickstart.py --model path/to/checkpoint --data scan.dcm

A file that cannot be read is named at the end, with exit code 1; the others are done. A wrong argument ends with one line and
exit code 2. Ctrl-C (exit code 130) leaves no half-written file.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tqdm import tqdm
from transformers import AutoImageProcessor, AutoModelForPreTraining

import echocare_hf  # makes the Auto classes know EchoCare
from echocare_hf import AnatomyTree, EchoCareConfig, EchoCareForPreTraining, EchoCareImageProcessorPil, read_ultrasound
from echocare_hf.data.masking import random_block_mask
from echocare_hf.data.phantom import PHANTOM_KINDS, Phantom, phantom_corpus
from echocare_hf.drawing import GalleryItem, draw_gallery, pixel_mask
from echocare_hf.drawing_page import gallery_page
from echocare_hf.inference import bfloat16_is_fast

DICOM_EXAMPLES = ("ybr_color", "rgb_color", "palette_color", "jpeg2k")  # the ultrasound among pydicom's examples
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif"),
    *(".dcm", ".dicom", ".dic"),
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg"),
    *(".nii", ".nii.gz", ".mhd", ".mha"),
)
GALLERY_KINDS = ("heart_a4c", "fetal_brain", "thyroid", "kidney")
TRAINED_ON_PHANTOMS = "phantoms"
OUT_OF_DOMAIN = "Out of domain: these weights have seen phantoms only. The path means nothing here."


@dataclass(frozen=True)
class Recipe:
    """How the phantom weights are made. `minutes` is a cap: where it bites, the schedule ends early but complete."""

    steps: int = 400
    minutes: float = 3.0
    seed: int = 0
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1  # share of the schedule
    phantoms: int = 440
    image_size: int = 128
    gradient_clip: float = 1.0


# 1. Pretraining -----------------------------------------------------------------------------------------------------


def pretrain(recipe: Recipe, folder: Path) -> None:
    """Pretrains the tiny preset on phantoms and saves a folder that `from_pretrained` and the Hub take.

    Args:
        recipe: how.
        folder: where to; it appears only when all of it is written.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    config = EchoCareConfig.preset("tiny", image_size=recipe.image_size, drop_path_rate=0.0)
    model = EchoCareForPreTraining(config).train()
    processor = EchoCareImageProcessorPil(size={"height": recipe.image_size, "width": recipe.image_size})
    corpus = make_phantoms("training phantoms", recipe.phantoms, 2 * recipe.seed, recipe.image_size)
    images = torch.from_numpy(np.stack([phantom.image for phantom in corpus]))  # (images, height, width) uint8
    tree = AnatomyTree.from_config(config)
    labels = torch.from_numpy(np.stack([tree.labels(phantom.labels) for phantom in corpus]))  # (images, nodes)

    optimizer = make_optimizer(model, recipe)
    losses: list[tuple[float, float]] = []
    start = time.monotonic()
    progress = 0.0
    with tqdm(total=recipe.steps, desc="pretraining", unit="step") as bar:
        while progress < 1 and len(losses) < recipe.steps:
            set_learning_rate(optimizer, recipe, progress)
            rows = torch.randint(len(images), (recipe.batch_size,), generator=generator)
            pixel_values = (images[rows].float() / 255)[:, None].repeat(1, 3, 1, 1)  # (batch, 3, height, width)
            if torch.rand((), generator=generator) < 0.5:
                pixel_values = pixel_values.flip(-1)
            mask = random_block_mask(
                recipe.image_size, config.mask_unit_size, config.mask_ratio, recipe.batch_size, generator
            )
            with autocast():
                outputs = model(pixel_values, bool_masked_pos=mask, labels=labels[rows])
            if not torch.isfinite(outputs.loss):
                raise FloatingPointError(
                    f"the loss is {float(outputs.loss)} at step {len(losses)}: lower the learning rate"
                )
            outputs.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()
            losses.append((float(outputs.reconstruction_loss.detach()), float(outputs.anatomy_loss.detach())))
            bar.update()
            bar.set_postfix(masked_l1=f"{losses[-1][0]:.3f}", anatomy=f"{losses[-1][1]:.3f}")
            elapsed = time.monotonic() - start
            progress = max(len(losses) / recipe.steps, elapsed / (60 * recipe.minutes))
    record = {
        "trained_on": TRAINED_ON_PHANTOMS,
        "recipe": asdict(recipe),
        "steps_done": len(losses),
        "images_seen": len(losses) * recipe.batch_size,
        "seconds": round(time.monotonic() - start, 1),
        "precision": "bf16" if bfloat16_is_fast() else "fp32",
        "losses": [[round(value, 5) for value in pair] for pair in losses],
        "warning": "made by a short run on phantoms, to show that the machinery works: not a trained model",
    }
    with written_beside(folder) as partial:
        partial.mkdir(parents=True)
        model.eval().save_pretrained(partial)
        processor.save_pretrained(partial)
        (partial / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def make_optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; norms, biases and bias tables are not decayed."""
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1 and "bias" not in name and "token" not in name]
    chosen = {id(parameter) for parameter in decayed}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95))


def set_learning_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, progress: float) -> None:
    """Linear warm-up, then a cosine to 0; `progress` runs from 0 to 1."""
    if progress < recipe.warmup:
        factor = (progress + 1 / recipe.steps) / (recipe.warmup + 1 / recipe.steps)
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (progress - recipe.warmup) / (1 - recipe.warmup)))
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * factor


def autocast() -> contextlib.AbstractContextManager:
    """bfloat16 where the CPU is fast at it, else nothing."""
    return torch.autocast("cpu", torch.bfloat16) if bfloat16_is_fast() else contextlib.nullcontext()


def make_phantoms(description: str, count: int, seed: int, size: int | tuple[int, int]) -> list[Phantom]:
    return list(tqdm(phantom_corpus(count, seed, size), total=count, desc=description, unit="image"))


# 2. Loading -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """A loaded checkpoint and what is known of it."""

    name: str
    model: Any
    processor: Any
    tree: AnatomyTree
    training: dict[str, Any]

    @property
    def phantoms_only(self) -> bool:
        return self.training.get("trained_on") == TRAINED_ON_PHANTOMS

    @property
    def description(self) -> str:
        if not self.phantoms_only:
            return f"weights: {self.name}"
        return (
            f"Weights made by a {self.training['steps_done']}-step run on phantoms: not a trained model. "
            "They show that the machinery works, no more."
        )


def load(source: str) -> Weights:
    """Loads a checkpoint from a folder or the Hub through the Auto classes.

    Raises:
        ValueError: if there is no EchoCare checkpoint with an anatomy tree, with one line that says what to give.
    """
    folder = Path(source)
    if source.startswith((".", "/", "~")) and not (folder / "config.json").is_file():
        raise ValueError(f"{source}: there is no checkpoint here (no config.json); give a model folder or a Hub id")
    try:
        model, loading = AutoModelForPreTraining.from_pretrained(source, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(source)
    except OSError as error:
        raise ValueError(f"{source}: no checkpoint can be loaded from it ({str(error).splitlines()[0]})") from error
    if not isinstance(model, EchoCareForPreTraining):
        raise ValueError(f"{source}: holds a {type(model).__name__}; the quickstart needs an EchoCareForPreTraining")
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise ValueError(
            f"{source}: {len(missing)} tensors are missing, e.g. {missing[0]}; give a pretraining checkpoint"
        )
    record = folder / "training.json"
    training = json.loads(record.read_text()) if record.is_file() else {}
    return Weights(source, model.eval(), processor, AnatomyTree.from_config(model.config), training)


# 3. Measuring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What the model did with one image. Errors are mean absolute differences over masked pixels, of values 0 to 1."""

    pixels: np.ndarray  # (height, width, 3) uint8
    mask: np.ndarray  # (rows, columns) bool
    reconstruction: np.ndarray  # (height, width, 3) uint8
    scores: np.ndarray  # (nodes,)
    masked_l1: float
    visible_mean_l1: float
    visible_median_l1: float


@torch.inference_mode()
def run(weights: Weights, images: Sequence[np.ndarray], seed: int, description: str) -> list[Result]:
    """Hides half of every image, lets the model restore it, and scores the anatomy of the whole image.

    Args:
        weights: the model.
        images: uint8 `(height, width, 3)` each, of any size.
        seed: chooses the masks.
        description: label of the progress bar.
    """
    config, generator, results = weights.model.config, torch.Generator().manual_seed(seed), []
    for start in tqdm(range(0, len(images), 8), desc=description, unit="batch"):
        pictures = [Image.fromarray(image) for image in images[start : start + 8]]
        pixel_values = weights.processor(pictures, return_tensors="pt")["pixel_values"]  # (batch, 3, height, width)
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        mask = random_block_mask(size, config.mask_unit_size, config.mask_ratio, len(pictures), generator)
        restored = weights.model(pixel_values, bool_masked_pos=mask).reconstruction
        scores = weights.model(pixel_values).anatomy_scores.float().numpy()  # (batch, nodes)
        seen = weights.processor.reconstruct_images(pixel_values)  # (batch, height, width, 3) uint8
        painted = weights.processor.reconstruct_images(restored)
        for pixels, paint, units, values in zip(seen, painted, mask.numpy(), scores, strict=True):
            hidden = pixel_mask(units, *size)
            visible = pixels[~hidden].astype(float) / 255  # (pixels, 3)
            truth = pixels[hidden].astype(float) / 255
            errors = [
                float(np.abs(truth - guess).mean()) if truth.size else 0.0
                for guess in (paint[hidden] / 255, visible.mean(0), np.median(visible, 0))
            ]
            results.append(Result(pixels, units, paint, values, *errors))
    return results


def measure(weights: Weights, phantoms: Sequence[Phantom], results: Sequence[Result]) -> dict[str, Any]:
    """The numbers of the held-out phantoms, each beside its trivial baseline."""
    tree = weights.tree
    organs = list(tree.level_nodes("organ"))
    known = [
        (tree.labels(phantom.labels)[organs], result.scores[organs])
        for phantom, result in zip(phantoms, results, strict=True)
        if (tree.labels(phantom.labels)[organs] == 1).any()
    ]
    shown = Counter(organ for labels, _ in known for organ in np.flatnonzero(labels == 1))
    return {
        "images": len(results),
        "masked_l1": mean(result.masked_l1 for result in results),
        "visible_mean_l1": mean(result.visible_mean_l1 for result in results),
        "visible_median_l1": mean(result.visible_median_l1 for result in results),
        "organ_images": len(known),
        "organ_accuracy": mean(float(labels[scores.argmax()] == 1) for labels, scores in known),
        "organ_majority": max(shown.values(), default=0) / max(len(known), 1),
    }


def mean(values: Iterator[float]) -> float:
    numbers = list(values)
    return round(sum(numbers) / max(len(numbers), 1), 4)


# 4. Reading -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """One image to look at, and where it comes from."""

    title: str
    details: str
    section: str
    pixels: np.ndarray  # (height, width, 3) uint8
    in_domain: bool


def read_files(files: Sequence[tuple[Path, str]], section: str) -> tuple[list[Picture], list[str]]:
    """The first frame of every file, cut to its ultrasound region; and one line for each file that cannot be read."""
    pictures, failures = [], []
    for path, title in tqdm(files, desc=section, unit="file", disable=not files):
        try:
            record = read_ultrasound(path, max_frames=1)
        except (OSError, ValueError, ImportError) as error:
            failures.append(" ".join(str(error).split()))
            continue
        frame, facts = record.frames[0], [record.metadata.get("format", path.suffix.lstrip(".").upper())]
        tissue = [region for region in record.regions if region.spatial_format == "2D"]
        if tissue:
            x0, y0, x1, y1 = max(tissue, key=lambda r: (r.box[2] - r.box[0]) * (r.box[3] - r.box[1])).box
            frame = frame[y0:y1, x0:x1]
            facts.append("cut to its ultrasound region")
        facts += [f"{frame.shape[1]} x {frame.shape[0]} pixels", record.modality]
        pictures.append(Picture(title, ", ".join(fact for fact in facts if fact != "unknown"), section, frame, False))
    return pictures, failures


def find_files(data: Path, limit: int) -> list[Path]:
    """The ultrasound files in a folder and below it, by name, at most `limit`; a single file is taken as it is.

    Raises:
        ValueError: if there is nothing to read, with one line.
    """
    if data.is_file():
        return [data]
    if not data.is_dir():
        raise ValueError(f"{data}: there is no such folder; give one with images to --data")
    found = [path for path in sorted(data.rglob("*")) if path.is_file() and looks_readable(path)]
    if not found:
        raise ValueError(f"{data}: holds no ultrasound files (PNG, JPEG, TIFF, GIF, DICOM, MP4, AVI, NIfTI, MHD)")
    if len(found) > limit:
        print(f"{data} holds {len(found)} files; the first {limit} are used (--limit)")
    return found[:limit]


def looks_readable(path: Path) -> bool:
    """By its suffix, or as a DICOM file by its first bytes; hidden files and DICOMDIR are left out."""
    if path.name.startswith(".") or path.name == "DICOMDIR":
        return False
    if path.name.lower().endswith(SUFFIXES):
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def dicom_examples() -> list[tuple[Path, str]]:
    """The ultrasound files that pydicom brings along: nothing is downloaded."""
    from pydicom.examples import get_path

    return [(Path(get_path(name)), f"pydicom {name}") for name in DICOM_EXAMPLES]


def phantom_pictures(phantoms: Sequence[Phantom]) -> list[Picture]:
    """One held-out phantom of each of the kinds that the gallery shows."""
    first = {phantom.kind: phantom for phantom in reversed(phantoms)}
    return [
        Picture(
            kind.replace("_", " "),
            f"phantom, seed {first[kind].seed}",
            "Phantoms that it has not seen",
            first[kind].image[..., None].repeat(3, -1),
            True,
        )
        for kind in GALLERY_KINDS
        if kind in first
    ]


# 5. Results -----------------------------------------------------------------------------------------------------------


def gallery_item(weights: Weights, picture: Picture, result: Result) -> GalleryItem:
    path = weights.tree.best_path(result.scores, threshold=0.5)
    height, width = picture.pixels.shape[:2]
    return GalleryItem(
        title=picture.title,
        image=result.pixels,
        mask=result.mask,
        reconstruction=result.reconstruction,
        path=tuple((weights.tree.names[node], score) for node, score in path),
        aspect=width / height,
        details=picture.details,
        numbers=f"masked L1 {result.masked_l1:.3f}, visible median {result.visible_median_l1:.3f}",
        warning=OUT_OF_DOMAIN if weights.phantoms_only and not picture.in_domain else "",
        section=picture.section,
    )


def write_results(
    output: Path, items: Sequence[GalleryItem], weights: Weights, held_out: dict[str, Any], record: dict[str, Any]
) -> None:
    """Writes gallery.png, index.html and results.json, each beside its place and then into it."""
    output.mkdir(parents=True, exist_ok=True)
    masked = (
        f"masked L1 on {held_out['images']} held-out phantoms {held_out['masked_l1']:.4f} "
        f"(visible median {held_out['visible_median_l1']:.4f}, visible mean {held_out['visible_mean_l1']:.4f})"
    )
    organ = f"organ accuracy {held_out['organ_accuracy']:.2f} (majority {held_out['organ_majority']:.2f})"
    title = "EchoCare: half of the image is hidden, the model paints it and names the anatomy"
    sheet = draw_gallery(items, title="EchoCare quickstart", subtitle=weights.description, footer=f"{masked}; {organ}")
    page = gallery_page(
        items,
        title=title,
        introduction="For each image: what went in, what the model was shown, and its reconstruction (hidden blocks "
        "painted by the model, the rest kept). Below, the anatomy path from region to structure, with scores 0 to 1.",
        notices=[weights.description],
        tables=[
            ("Measured", [("Reconstruction", masked), ("Anatomy", f"{organ}, {held_out['organ_images']} phantoms")]),
            ("This run", [(name.replace("_", " "), str(value)) for name, value in record["run"].items()]),
            ("Files that could not be read", [(str(n), line) for n, line in enumerate(record["failures"], start=1)]),
        ],
    )
    with written_beside(output / "gallery.png") as partial:
        sheet.save(partial, "PNG", optimize=True)
    with written_beside(output / "index.html") as partial:
        partial.write_text(page, encoding="utf-8")
    with written_beside(output / "results.json") as partial:
        partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; it takes the target's place only if all went well."""
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        yield partial
        if target.is_dir():
            shutil.rmtree(target)
        partial.replace(target)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def machine() -> str:
    """CPU and threads, as results name them."""
    names = [
        line.partition(":")[2].strip()
        for line in (Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else [])
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


# The run --------------------------------------------------------------------------------------------------------------


def quickstart(arguments: argparse.Namespace) -> int:
    """All five steps; returns the exit code."""
    start = time.monotonic()
    output: Path = arguments.output
    own_files = [(path, path.name) for path in find_files(arguments.data, arguments.limit)] if arguments.data else []

    source, reused = arguments.model, False
    if source is None:
        recipe = Recipe(steps=arguments.steps, minutes=arguments.minutes, seed=arguments.seed)
        key = hashlib.sha256(f"{echocare_hf.__version__} {asdict(recipe)}".encode()).hexdigest()[:8]
        folder = output / f"checkpoint-{key}"
        reused = (folder / "training.json").is_file()
        if reused:
            print(f"Using the weights that an earlier run left in {folder}.")
        else:
            print("No trained weights come with the package yet. Making some on phantoms, to show the machinery:")
            output.mkdir(parents=True, exist_ok=True)
            pretrain(recipe, folder)
        source = str(folder.resolve())
    weights = load(source)
    print(weights.description)

    size = weights.processor.size
    test_seed = 2 * arguments.seed + 1  # training takes the even seeds
    phantoms = make_phantoms("held-out phantoms", arguments.test_phantoms, test_seed, (size["height"], size["width"]))
    greys = [phantom.image[..., None].repeat(3, -1) for phantom in phantoms]
    held_out = measure(weights, phantoms, run(weights, greys, arguments.seed, "held-out phantoms"))

    examples, example_failures = read_files(dicom_examples(), "Real ultrasound (pydicom's example files)")
    own, own_failures = read_files(own_files, "Your images")
    pictures = own + phantom_pictures(phantoms) + examples
    failures = own_failures + example_failures
    results = run(weights, [picture.pixels for picture in pictures], arguments.seed, "gallery")
    items = [gallery_item(weights, picture, result) for picture, result in zip(pictures, results, strict=True)]
    seconds = round(time.monotonic() - start, 1)
    record = {
        "weights": {
            "source": arguments.model or Path(source).name,
            "description": weights.description,
            "training": {name: value for name, value in weights.training.items() if name != "losses"},
            "reused": reused,
        },
        "held_out_phantoms": held_out,
        "images": [
            {
                "title": item.title,
                "section": item.section,
                "details": item.details,
                "masked_l1": round(result.masked_l1, 4),
                "visible_mean_l1": round(result.visible_mean_l1, 4),
                "visible_median_l1": round(result.visible_median_l1, 4),
                "anatomy": [{"name": name, "score": round(score, 4)} for name, score in item.path],
                "warning": item.warning,
            }
            for item, result in zip(items, results, strict=True)
        ],
        "failures": failures,
        "run": {
            "seconds": seconds,
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "echocare_hf": echocare_hf.__version__,
            "seed": arguments.seed,
        },
    }
    write_results(output, items, weights, held_out, record)

    print(
        f"\nHeld-out phantoms: masked L1 {held_out['masked_l1']:.4f} (visible median {held_out['visible_median_l1']:.4f}, "
        f"visible mean {held_out['visible_mean_l1']:.4f}); organ accuracy {held_out['organ_accuracy']:.2f} "
        f"(majority {held_out['organ_majority']:.2f})."
    )
    print(f"Done in {seconds:.0f} s. Open {output / 'index.html'}; the picture is {output / 'gallery.png'}.")
    print(f"Load the weights elsewhere: AutoModel.from_pretrained({source!r}) after `import echocare_hf`.")
    for line in failures:
        print(f"could not read {line}", file=sys.stderr)
    return 1 if failures else 0


def positive(kind: type) -> Any:
    def parse(text: str) -> Any:
        value = kind(text)
        if not value > 0 or value == float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


class OneLineParser(argparse.ArgumentParser):
    """argparse without the usage text in front of an error: one line, exit code 2."""

    def error(self, message: str) -> Any:
        self.exit(2, f"error: {message} (see --help)\n")


def parser() -> argparse.ArgumentParser:
    heading, *rest = (__doc__ or "").split("\n\n")
    recipe = Recipe()
    parser = OneLineParser(
        description=heading, epilog="\n\n".join(rest), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="your images: a folder (searched through) or one file"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("quickstart_output"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--model", help="a checkpoint, folder or Hub id, in place of the weights made here")
    parser.add_argument("--seed", type=int, default=recipe.seed, help="default: %(default)s")
    parser.add_argument(
        "--steps", type=positive(int), default=recipe.steps, help="pretraining steps; default: %(default)s"
    )
    parser.add_argument(
        "--minutes", type=positive(float), default=recipe.minutes, help="cap on pretraining; default: %(default)s"
    )
    parser.add_argument(
        "--limit", type=positive(int), default=24, help="most files taken from DIR; default: %(default)s"
    )
    parser.add_argument(
        "--test-phantoms",
        type=positive(int),
        default=10 * len(PHANTOM_KINDS),
        help="held-out phantoms; default: %(default)s",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        if arguments.seed < 0:
            raise ValueError(f"--seed must be 0 or more, got {arguments.seed}")
        return quickstart(arguments)
    except KeyboardInterrupt:
        print("interrupted: nothing half-written was left; run it again to go on", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
