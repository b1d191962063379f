"""How well the ultrasound region is found in the pixels: intersection over union with known outlines.

    python eval/curation/regions.py --data DATA       # phantoms on a screen with text; DICOM files of DATA with regions in their headers;
                                                      # images of DATA beside altered ones

A phantom's outline is its field of view; its convex hull counts, since what is cut is convex. Of a DICOM file the box around the 2D
regions of its header counts, beside the box that is found when these are kept back. An altered image has the outline of the one it
was made of, whatever that is: a near-copy that is cut differently is found less easily.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont
from real_images import sample
from skimage.morphology import convex_hull_image

from echocare_hf.curation.channels import brightness
from echocare_hf.curation.record import FoundFile, Item
from echocare_hf.curation.region import Box, dicom_box, find_region, hull_of, polygon_mask
from echocare_hf.data.phantom import PHANTOM_KINDS, make_phantom
from echocare_hf.data.reading import read_ultrasound

_MARGIN = 60  # pixels of screen around a phantom


def on_a_screen(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A phantom with a name, a scale and a grey bar around it, and where its field of view is."""
    made = make_phantom(kind, seed=seed, size=(300, 360))
    image = Image.new("L", (360 + 2 * _MARGIN, 300 + 2 * _MARGIN))
    image.paste(Image.fromarray(made.image), (_MARGIN, _MARGIN))
    draw = ImageDraw.Draw(image)
    draw.text((8, 8), "QUINZEL HARLEEN  22.07.1963", 255, ImageFont.load_default(18))
    for y in range(_MARGIN, 300 + _MARGIN, 30):
        draw.line([(_MARGIN - 14, y), (_MARGIN - 8, y)], 255, 1)
    image.paste(Image.linear_gradient("L").resize((10, 150)), (460, 120))
    inside = np.zeros((image.height, image.width), bool)
    inside[_MARGIN : _MARGIN + 300, _MARGIN : _MARGIN + 360] = made.field_of_view
    return np.repeat(np.asarray(image)[..., None], 3, axis=2), convex_hull_image(inside)


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 30": lambda image: recompressed(image, 30),
    "20 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "20 % darker, 75 %, JPEG 60": lambda image: recompressed(
        ImageEnhance.Brightness(image).enhance(0.8).resize((image.width * 3 // 4, image.height * 3 // 4)), 60
    ),
    "resized to 50 %": lambda image: image.resize((image.width // 2, image.height // 2)),
    "blurred, 2 pixels": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
}


def found_mask(pixels: np.ndarray) -> np.ndarray:
    """The region of an image `(height, width, 3)`, bool `(height, width)`."""
    hull = hull_of(brightness(pixels))
    return np.ones(pixels.shape[:2], bool) if hull is None else polygon_mask(hull, pixels.shape[:2])


def mask_iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def print_stability(data: Path, number: int) -> None:
    scores: dict[str, list[float]] = {name: [] for name in CHANGES}
    for image in sample(data, number):
        with Image.open(image.path) as opened:
            plain = opened.convert("RGB")
        before = found_mask(np.asarray(plain))
        for name, change in CHANGES.items():
            after = Image.fromarray(found_mask(np.asarray(change(plain).convert("RGB")))).resize(plain.size)
            scores[name].append(mask_iou(before, np.asarray(after)))
    print("\n| altered | images | mean IoU | least | below 0.95 |\n|---|---|---|---|---|")
    for name, values in scores.items():
        low = sum(value < 0.95 for value in values)
        print(f"| {name} | {len(values)} | {np.mean(values):.3f} | {min(values):.3f} | {low} |")


def box_iou(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0, width) * max(0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with real ultrasound and its index.csv")
    parser.add_argument("--images", type=int, default=20, help="images a data set that are altered, default 20")
    given = parser.parse_args()
    print("| phantom | images | mean IoU | least |\n|---|---|---|---|")
    for kind in PHANTOM_KINDS:
        scores = []
        for seed in range(4):
            pixels, truth = on_a_screen(kind, seed)
            scores.append(mask_iou(found_mask(pixels), truth))
        print(f"| {kind} | {len(scores)} | {np.mean(scores):.3f} | {min(scores):.3f} |")
    if given.data is not None:
        print("\n| DICOM file | IoU of the boxes |\n|---|---|")
        for path in sorted(given.data.rglob("*.dcm")):
            record = read_ultrasound(path, max_frames=1)
            item = Item(FoundFile("", path.name, str(path), 1), 0, record.frames[0], regions=record.regions)
            stated = dicom_box(item)
            if stated is not None:
                item.regions = ()
                kept, _ = find_region([item])
                print(f"| {path.name} | {box_iou(stated, kept[0].box) if kept else 0:.3f} |")
        print_stability(given.data, given.images)


if __name__ == "__main__":
    main()
