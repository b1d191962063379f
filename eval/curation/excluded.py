"""How many altered images of a list `echocare curate --exclude` keeps out, and how many others it takes with them.

    python eval/curation/excluded.py --data DATA --images 6        # images a data set: half of them on the list, half not

Images of the list are altered as in regions.py, and put on a black screen with a line of text. What is found is found by the hashes of
the list alone: of the image as it was read, or as it would be stored, within `EXCLUDE_DISTANCE` of 64 bits. The last row has images of
the same data sets that are not on the list: frames of the same clips among them.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from real_images import sample
from regions import CHANGES
from tqdm import tqdm

from echocare_hf.curation import CurateOptions
from echocare_hf.curation.decode import decode
from echocare_hf.curation.exclude import EXCLUDE_DISTANCE
from echocare_hf.curation.measure import measure
from echocare_hf.curation.near_duplicates import near_any
from echocare_hf.curation.record import FoundFile

OPTIONS = CurateOptions(check_ultrasound=False)


def on_a_screen(image: Image.Image) -> Image.Image:
    screen = Image.new("RGB", (image.width * 5 // 4, image.height * 5 // 4))
    screen.paste(image, (image.width // 8, image.height // 8))
    screen.paste((255, 255, 255), (4, 4, image.width // 3, 8))
    return screen


def hashes_of(path: Path) -> np.ndarray:
    """Both hashes of the first frame of a file: uint64 `(2,)`."""
    items, _ = decode(FoundFile("", path.name, str(path), path.stat().st_size), OPTIONS)
    kept, _ = measure(items[:1], OPTIONS)
    return np.array([item.raw_hash for item in items[:1]] + [item.hash for item in kept], np.uint64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with real ultrasound and its index.csv")
    parser.add_argument("--images", type=int, default=20, help="images a data set, default 20")
    given = parser.parse_args()
    try:
        images = sample(given.data, given.images)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    listed, others = images[::2], images[1::2]
    targets = np.concatenate([hashes_of(image.path) for image in tqdm(listed, "list")])
    changes = {"as it is": lambda image: image, **CHANGES, "on a screen with text": on_a_screen}
    found = dict.fromkeys(changes, 0)
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "image.png")
        for image in tqdm(listed, "altered"):
            if image.path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
                continue
            number += 1
            with Image.open(image.path) as opened:
                plain = opened.convert("RGB")
            for name, change in changes.items():
                change(plain).convert("RGB").save(place)
                found[name] += bool(near_any(hashes_of(place), targets, EXCLUDE_DISTANCE).any())
    print(f"| altered ({len(listed)} files on the list, {number} of them altered) | found | of |\n|---|---|---|")
    for name, count in found.items():
        print(f"| {name} | {count} | {number} |")
    wrong = [image.name for image in others if near_any(hashes_of(image.path), targets, EXCLUDE_DISTANCE).any()]
    print(f"| other images of the same data sets | {len(wrong)} | {len(others)} |")


if __name__ == "__main__":
    main()
