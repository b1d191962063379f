"""What the quickstart shows of a pretrained model: half of each image is hidden, the model paints it and names the anatomy."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import AutoImageProcessor, AutoModelForPreTraining

from echocare_hf import AnatomyTree, EchoCareForPreTraining, read_ultrasound
from echocare_hf.data.masking import random_block_mask
from echocare_hf.data.phantom import Phantom
from echocare_hf.drawing import GalleryItem, pixel_mask

DICOM_EXAMPLES = ("ybr_color", "rgb_color", "palette_color", "jpeg2k")  # the ultrasound among pydicom's examples
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif"),
    *(".dcm", ".dicom", ".dic"),
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg"),
    *(".nii", ".nii.gz", ".mhd", ".mha"),
)
GALLERY_KINDS = ("heart_a4c", "fetal_brain", "thyroid", "kidney")


@dataclass(frozen=True)
class Weights:
    """A loaded checkpoint and what is known of it."""

    name: str
    model: Any
    processor: Any
    tree: AnatomyTree


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
    return Weights(source, model.eval(), processor, AnatomyTree.from_config(model.config))


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


@dataclass(frozen=True)
class Picture:
    """One image to look at, and where it comes from."""

    title: str
    details: str
    section: str
    pixels: np.ndarray  # (height, width, 3) uint8


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
        pictures.append(Picture(title, ", ".join(fact for fact in facts if fact != "unknown"), section, frame))
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
        )
        for kind in GALLERY_KINDS
        if kind in first
    ]


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
        section=picture.section,
    )
