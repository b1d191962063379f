"""Speed of the streaming reader beside a plain Pillow loop over the same images as files.

The images of a curated corpus are written out as files, byte for byte. Both sides read them, decode them, and give uint8 arrays (height,
width, 3), one after another, in one process and thread; they take turns. Both read from the page cache, and time is that of the processor,
so that neither the disc nor other work on the machine counts. With weights an epoch shows other images, some of them several times: it has
a loop of its own, over the same files as often.

    echocare curate breast_busi --output corpus
    python eval/speed/stream.py corpus
    python eval/speed/stream.py corpus --draft 128 --repeats 9
    python eval/speed/stream.py corpus --colour                 # of images that are made RGB first
"""

import argparse
import hashlib
import io
import platform
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import PIL
import pyarrow
import pyarrow.parquet as parquet
from PIL import Image, features
from tqdm import tqdm

from echocare_hf.data import stream
from echocare_hf.data.streaming.files import ShardAccess, find_shards


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
    parser.add_argument("--colour", action="store_true", help="make RGB images of all first")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count; default: %(default)s")
    arguments = parser.parse_args()
    if min(arguments.repeats, arguments.draft) < 1:
        parser.error("--repeats and --draft are at least 1")
    pyarrow.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as place:
        try:
            corpus = (
                coloured(arguments.corpus, arguments.split, Path(place, "copy.parquet"))
                if arguments.colour
                else arguments.corpus
            )
            files = as_files(Path(place, "files"), corpus, arguments.split)
            drawn = as_files(Path(place, "files"), corpus, arguments.split, weights="balanced")
        except ValueError as error:
            parser.error(str(error))
        draft = arguments.draft
        pairs = {  # for each case its plain loop, and the options of the stream
            "images only": (files, None, {"columns": ["image"]}),
            "all columns": (files, None, {}),
            "all columns, balanced": (drawn, None, {"weights": "balanced"}),
            f"all columns, draft mode to {draft}": (files, draft, {"draft": draft}),
        }
        cases: dict[str, Callable[[], object]] = {}
        for name, (paths, side, options) in pairs.items():
            cases[f"loop, {name}"] = lambda paths=paths, side=side: pillow_loop(paths, side)
            cases[f"stream, {name}"] = reader(corpus, arguments.split, **options)
        sides, modes = [], Counter()
        for file in files:
            with Image.open(file) as image:
                sides.append(image.size)
                modes[image.mode] += 1
        seconds = processor_seconds(cases, arguments.repeats)
    width, height = np.median(sides, axis=0)
    print(
        f"{date.today()}, Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, 1 thread, "
        f"{platform.machine()}, {arguments.repeats} rounds, medians of processor time; {len(files)} images "
        f"({', '.join(f'{number} {mode}' for mode, number in modes.items())}), median {width:.0f} x {height:.0f}\n"
    )
    print("| | plain Pillow loop, images/s | stream, images/s | ratio |\n|---|---|---|---|")
    for name, (paths, _, _) in pairs.items():
        loop, streamed = (len(paths) / seconds[f"{who}, {name}"] for who in ("loop", "stream"))
        print(f"| {name} | {loop:.0f} | {streamed:.0f} | {streamed / loop:.2f} |")


def as_files(folder: Path, corpus: str | Path, split: str, **options) -> list[Path]:
    """What an epoch shows, in its order without shuffling; an image shown twice is one file."""
    folder.mkdir(exist_ok=True)
    files = []
    images = stream(corpus, split, shuffle=False, image_as="bytes", columns=["image"], **options)
    for row in images:
        files.append(folder / hashlib.sha256(row["image"]).hexdigest())
        files[-1].write_bytes(row["image"])
    return files


def coloured(corpus: str, split: str, copy: Path) -> Path:
    """A copy of a split in one shard, with each image as an RGB JPEG of quality 95."""
    table = pyarrow.concat_tables(parquet.read_table(shard) for shard in find_shards(corpus, split, ShardAccess()))
    images = []
    for row in stream(corpus, split, shuffle=False, image_as="pil", columns=["image"]):
        buffer = io.BytesIO()
        row["image"].save(buffer, "JPEG", quality=95)
        images.append({"bytes": buffer.getvalue(), "path": None})
    field = table.schema.field("image")
    place = table.schema.get_field_index("image")
    parquet.write_table(
        table.set_column(place, field, pyarrow.array(images, field.type)), copy, row_group_size=128, compression="none"
    )
    return copy


def reader(corpus: str | Path, split: str, **options) -> Callable[[], None]:
    images = stream(corpus, split, rank=0, world_size=1, **options)

    def run() -> None:
        for _ in images:
            pass

    return run


if __name__ == "__main__":
    main()
