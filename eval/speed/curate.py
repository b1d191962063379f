"""Speed and memory of `echocare curate`: images a second of each step and of the whole, peak memory at two sizes.

Each size is a process of its own. Its files are copies of the images of a folder (phantoms without one), made different by a byte at
their end, so near-copies are kept. Seconds of steps, and of the whole run, are those of the processor, so that other work on the machine
does not count; stages go by the clock. The second table goes through everything that sees all images at once, with invented hashes, a
tenth of them near-copies, and without reading any file, which shows what an image costs in memory.

    python eval/speed/curate.py                                   # 2,000 and 8,000 phantoms
    python eval/speed/curate.py --data some/images --workers 2
    python eval/speed/curate.py --sizes 500 2000 --states 20000 100000

Needs the extra `curate`, and Linux for the memory of worker processes.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from tqdm import tqdm

PHANTOMS = 32
SIDE = 256
WATCH_SECONDS = 0.2


def make_files(folder: Path, count: int, data: Path | None) -> None:
    """Copies of images, 500 a folder, each with a number behind its last byte, where image formats do not look."""
    from echocare_hf.data.labelled.folder import find_images
    from echocare_hf.data.phantom import PHANTOM_KINDS, make_phantom

    if data is not None:
        paths = [path for path in find_images(data) if path.suffix.lower() in (".png", ".jpg", ".jpeg")]
        if not paths:
            raise SystemExit(f"error: {data}: holds no PNG or JPEG images")
        originals = [(path.suffix, path.read_bytes()) for path in paths[:: max(1, len(paths) // PHANTOMS)]]
    else:
        originals = []
        for number in range(PHANTOMS):
            place = folder / "original.png"
            Image.fromarray(make_phantom(PHANTOM_KINDS[number % 3], seed=number, size=SIDE).image).save(place)
            originals.append((".png", place.read_bytes()))
            place.unlink()
    for number, (suffix, content) in enumerate(islice(cycle(originals), count)):
        place = folder / f"liver_{number // 500}" / f"{number:06d}{suffix}"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content + number.to_bytes(4, "big"))


def run_curation(count: int, data: Path | None, workers: int, shard_megabytes: int) -> dict:
    from echocare_hf.curation import CurateOptions, curate

    with tempfile.TemporaryDirectory() as place:
        study = Path(place, "study")
        study.mkdir()
        make_files(study, count, data)
        start = time.perf_counter()
        options = CurateOptions(workers=workers, near_distance=-1, shard_megabytes=shard_megabytes)
        with WorkerPeaks() as workers_seen:
            result = curate([str(study)], Path(place, "corpus"), options)
        whole = time.perf_counter() - start
    return {
        "steps": result.seconds,
        "stages": result.stages,
        "whole": whole,
        "processor": time.process_time() + workers_seen.seconds,
        "images": result.frames,
        "worker_mb": workers_seen.peak_mb,
    }


class WorkerPeaks(threading.Thread):
    """Watches the processes that this one starts, which Daft does not always wait for, so that the system does not add them up.

    Attributes:
        peak_mb: largest resident size of one of them so far, 0 without any.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self._seconds: dict[str, float] = {}
        self._over = threading.Event()

    @property
    def seconds(self) -> float:
        """Of the processor, of all of them together."""
        return sum(self._seconds.values())

    def __enter__(self) -> "WorkerPeaks":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(WATCH_SECONDS):
            for listed in Path("/proc/self/task").glob("*/children"):
                try:
                    for number in listed.read_text().split():
                        self._look(number)
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it has ended between listing and reading

    def _look(self, number: str) -> None:
        place = Path("/proc", number)
        status = (place / "status").read_text()
        if "VmHWM:" not in status:
            return  # ended, and not yet waited for
        self.peak_mb = max(self.peak_mb, int(status.split("VmHWM:")[1].split()[0]) / 1024)
        fields = (place / "stat").read_text().rpartition(")")[2].split()
        self._seconds[number] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system


def run_state(count: int) -> dict:
    """Everything between measuring and writing, for `count` images that nobody has drawn."""
    from echocare_hf.anatomy import AnatomyTree
    from echocare_hf.curation import CurateOptions
    from echocare_hf.curation.chunks import Chunk, drop_exact_copies
    from echocare_hf.curation.decide import decide
    from echocare_hf.curation.drops import Drops
    from echocare_hf.curation.exclude import ExcludeList
    from echocare_hf.curation.facts import Facts
    from echocare_hf.curation.inventory import Inventory, read_files, write_inventory
    from echocare_hf.curation.mapping import LabelMapper
    from echocare_hf.curation.measure import CHUNK_COLUMNS
    from echocare_hf.curation.record import FoundFile
    from echocare_hf.curation.tables import write_parquet

    numbers = np.random.default_rng(0)
    fixed = {"frame": 0, "width": 400, "height": 300, "scale_row": 1.0, "scale_column": 1.0, "modality": "unknown"}
    fixed |= {"region_width": 400, "region_height": 300, "text_removed": 0, "text_suspected": 0, "shape": "full"}
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        entries = (
            (
                FoundFile(
                    "study", f"liver_{i // 500}/patient{i // 4}/{i:08d}.png", f"/data/study/{i:08d}.png", 50_000
                ),
                Facts("study", (("organ", "liver"),), "normal", f"study/{i // 4}", "CC BY 4.0"),
            )
            for i in range(count)
        )
        start = time.perf_counter()
        write_inventory(work, "study", entries)
        inventory = Inventory(work, ("study",))
        contents, chunks = [], []
        for bucket in inventory.buckets():
            files = read_files(inventory.path("study"), range(bucket.start, bucket.stop))
            hashes = numbers.integers(0, 2**64, len(files), dtype=np.uint64)
            near = numbers.integers(0, len(files), len(files) // 10)  # a tenth are near-copies of others
            hashes[: len(near)] = hashes[near] ^ np.uint64(1 << 40)
            rows = [
                {
                    "key": f.key,
                    "source": f.source,
                    "name": f.name,
                    "image_bytes": 40_000,
                    "hash": value,
                    "raw_hash": value,
                }
                | fixed
                for f, value in zip(files, hashes.tolist(), strict=True)
            ]
            chunks.append(Chunk(work / "chunks" / f"{bucket.number}.parquet", bucket))
            write_parquet(rows, CHUNK_COLUMNS, chunks[-1].path)
            contents.append(work / "contents" / f"{bucket.number}.parquet")
            digests = [{"digest": numbers.bytes(32)} for _ in files]
            write_parquet(digests, {"digest": pa.binary(32)}, contents[-1])
        prepared = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        drops = Drops(work / "dropped")
        _, copies = drop_exact_copies(inventory, contents, lambda texts: True, drops)
        mapper = LabelMapper(AnatomyTree.default())
        decisions = decide(
            chunks, inventory, copies, mapper, ExcludeList(), {}, CurateOptions(), work / "decided", drops
        )
        decided = time.perf_counter()
    return {
        "images": len(decisions.kept),
        "before_mb": before / 1024,
        "inventory": prepared - start,
        "decide": decided - prepared,
    }


def measured(*arguments: str) -> dict:
    """The result of one of the two above in a process of its own, with the peak memory of all its processes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(result.stdout.splitlines()[-1])


def print_speed(results: dict[int, dict], workers: int) -> None:
    largest = results[max(results)]
    images = largest["images"]
    print(f"\n### Images a second of the processor ({images:,} images)\n\n| step | images/s |\n|---|---|")
    for step, seconds in largest["steps"].items():
        print(f"| {step} | {images / seconds:,.0f} |")
    print(f"| **all steps** | **{images / sum(largest['steps'].values()):,.0f}** |")
    print(f"| **the whole run** | **{images / largest['processor']:,.0f}** |")
    print(f"\n| stage | images/s by the clock, {workers} worker(s) |\n|---|---|")
    for stage, seconds in (largest["stages"] | {"whole": largest["whole"]}).items():
        print(f"| {stage} | {images / seconds:,.0f} |")


def print_memory(title: str, results: dict[int, dict]) -> None:
    print(f"\n### {title}\n\n| images | peak MB | of a worker process | images/s by the clock |\n|---|---|---|---|")
    for count, result in results.items():
        seconds = result.get("whole") or result["inventory"] + result["decide"]
        print(f"| {count:,} | {result['self_mb']:.0f} | {result.get('worker_mb', 0):.0f} | {count / seconds:,.0f} |")
    (small, first), (large, last) = min(results.items()), max(results.items())
    if large > small:
        print(f"\n{(last['self_mb'] - first['self_mb']) * 1024**2 / (large - small):,.0f} bytes an image more.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of images (default: phantoms)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[2_000, 8_000], help="files to curate")
    parser.add_argument("--states", type=int, nargs="*", default=[20_000, 200_000], help="images to decide over")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--shard_megabytes", type=int, default=64, help="full shards of a large corpus, with few images"
    )
    parser.add_argument("--one", choices=("curation", "state"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        (count,) = given.sizes
        if given.one == "state":
            result = run_state(count)
        else:
            result = run_curation(count, given.data, given.workers, given.shard_megabytes)
        result["self_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result))
        return
    same = ["--data", str(given.data)] if given.data else []
    same += ["--workers", str(given.workers), "--shard_megabytes", str(given.shard_megabytes)]
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, {given.workers} worker(s), 1 thread each")
    runs, states = {}, {}
    for count in tqdm(given.sizes, desc="curate", unit="size"):
        runs[count] = measured("--one", "curation", "--sizes", str(count), *same)
    for count in tqdm(given.states, desc="state", unit="size"):
        states[count] = measured("--one", "state", "--sizes", str(count))
    if runs:
        print_speed(runs, given.workers)
        print_memory("Memory of the whole", runs)
    if states:
        print_memory("Memory of what sees all images at once", states)


if __name__ == "__main__":
    main()
