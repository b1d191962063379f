"""Speed of the streaming reader beside a plain Pillow loop over the same images as files.

The images of a curated corpus are written out as files, byte for byte. Both sides read them, decode them, and give uint8 arrays (height,
width, 3), one after another, in one process and thread; they take turns. Both read from the page cache, and time is that of the processor,
so that neither the disc nor other work on the machine counts.

    echocare curate breast_busi --output corpus
    python eval/speed/stream.py corpus
    python eval/speed/stream.py corpus --draft 128 --repeats 9
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import PIL
import pyarrow
from PIL import Image, features
from timing import print_table
from tqdm import tqdm

from echocare_hf.data import stream


def pillow_loop(files: list[Path], draft: int | None = None) -> None:
    for file in files:
        with Image.open(file) as image:
            if draft:
                image.draft("RGB", (draft, draft))
            np.array(image.convert("RGB"))


def processor_seconds(cases: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of the processor of each case; all take turns, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_ in tqdm(range(repeats + 1), "rounds", leave=False):
        for name, run in cases.items():
            start = time.process_time()
            run()
            if round_:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="a folder of `echocare curate`")
    parser.add_argument("--split", default="train", help="default: %(default)s")
    parser.add_argument(
        "--draft", type=int, default=128, help="side for the rows with draft mode; default: %(default)s"
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count; default: %(default)s")
    arguments = parser.parse_args()
    if min(arguments.repeats, arguments.draft) < 1:
        parser.error("--repeats and --draft are at least 1")
    pyarrow.set_cpu_count(1)
    try:
        encoded = list(stream(arguments.corpus, arguments.split, shuffle=False, image_as="bytes", columns=["image"]))
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, row in enumerate(encoded):
            files.append(Path(folder, f"{number:06d}"))
            files[-1].write_bytes(row["image"])
        cases: dict[str, Callable[[], object]] = {
            "plain Pillow loop": lambda: pillow_loop(files),
            "stream, images only": reader(arguments, columns=["image"]),
            "stream, all columns": reader(arguments),
            "stream, all columns, balanced": reader(arguments, weights="balanced"),
            f"plain Pillow loop, draft {arguments.draft}": lambda: pillow_loop(files, arguments.draft),
            f"stream, all columns, draft {arguments.draft}": reader(arguments, draft=arguments.draft),
        }
        drawn = {name: len(files) for name in cases} | {
            "stream, all columns, balanced": len(stream(arguments.corpus, arguments.split, weights="balanced"))
        }
        sides = []
        for file in files:
            with Image.open(file) as image:
                sides.append(image.size)
        seconds = processor_seconds(cases, arguments.repeats)
    width, height = np.median(sides, axis=0)
    print(
        f"{date.today()}, Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, 1 thread, "
        f"{platform.machine()}, {arguments.repeats} rounds, medians of processor time; {len(files)} images, "
        f"median {width:.0f} x {height:.0f}"
    )
    rates = {name: drawn[name] / value for name, value in seconds.items()}
    print_table("Decoding, one core", rates, "images/s", "plain Pillow loop")
    plain, drafted = list(rates)[-2:]
    print(f"\nwith draft mode: {rates[drafted] / rates[plain]:.2f} of the plain loop with draft mode")


def reader(arguments: argparse.Namespace, **options) -> Callable[[], None]:
    images = stream(arguments.corpus, arguments.split, rank=0, world_size=1, **options)

    def run() -> None:
        for _ in images:
            pass

    return run


if __name__ == "__main__":
    main()
