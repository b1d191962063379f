"""How long a visitor of `echocare demo` waits for each task, and whether the page bears several visitors at once.

    python eval/speed/demo.py                              # click to answer: echocare-tiny, then every --model beside it
    python eval/speed/demo.py --model head=runs/head --model runs/lesion --repeats 10
    python eval/speed/demo.py --report runs/reports        # a draft report too
    python eval/speed/demo.py load --seconds 120 --users 8

The page runs in a process of its own, as users start it, and is asked over HTTP by gradio_client. "click to answer" is what the button
fires: upload, queue, models, pictures and downloads ready, and the answer back. Beside it stand the seconds that processors worked for it
in the page's process, which other work on the machine does not stretch. The load test lets each user send an example, wait for the
answer, and send the next one; memory is the resident set of the page's process. Exit code 1 if a request failed.
"""

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from gradio_client import Client, handle_file
from timing import print_machine

from echocare_hf.app.examples import Example, examples_folder, make_examples
from echocare_hf.examination.models import load_models

OPTIONS = (0.5, 1, "")
START_SECONDS = 600
EXPLAINED = ("classification", "segmentation", "detection", "keypoints", "video")


@contextmanager
def served(
    models: Sequence[str], max_seconds: float, report: str | None = None
) -> Iterator[tuple[str, psutil.Process]]:
    """The page with these models: its address, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from echocare_hf.cli import main; main()", "demo", "--no-browser"]
    command += ["--port", str(port), "--max-seconds", str(max_seconds)]
    for model in models:
        command += ["--model", model]
    if report is not None:
        command += ["--report", report]
    environment = {**os.environ, "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            for _ in range(2 * START_SECONDS):
                log.seek(0)
                said = log.read()
                if found := re.search(r"EchoCare is at (\S+)", said):
                    yield found[1], psutil.Process(process.pid)
                    return
                if process.poll() is not None:
                    raise RuntimeError(f"the page ended: {said}")
                time.sleep(0.5)
            raise RuntimeError(f"the page did not start in {START_SECONDS} seconds: {said}")
        finally:
            process.terminate()
            process.wait()


def click(client: Client, path: Path) -> tuple[float, dict[str, Any]]:
    """Seconds from click to answer, and its record; RuntimeError if the answer is a refusal."""
    start = time.perf_counter()
    answer = client.predict(handle_file(str(path)), *OPTIONS, api_name="/show")
    seconds = time.perf_counter() - start
    record = answer[-1]
    if not isinstance(record, dict) or "error" in record or "schema" not in record:
        raise RuntimeError(f"{path.name}: {record}")
    return seconds, record


def measure_tasks(models: Sequence[str], report: str | None, repeats: int, max_seconds: float) -> None:
    """One row a task: the model of the task beside the anatomy of echocare-tiny, on a still; video and all together on a clip."""
    examples = {example.path.name: example.path for example in make_examples(examples_folder())}
    still, clip = examples["phantom_fetal_brain.dcm"], examples["phantom_heart_a4c_clip.dcm"]
    tasks = {source: load_models([source])[0].task for source in models}
    jobs: list[tuple[str, tuple[str, ...], str | None, Path]] = [
        ("anatomy", (), None, still),
        ("anatomy, clip of 24 frames", (), None, clip),
    ]
    jobs += [
        (
            f"anatomy + {task}" + (", clip of 24 frames" if task == "video" else ""),
            (source,),
            None,
            clip if task == "video" else still,
        )
        for source, task in tasks.items()
    ]
    if report is not None:
        jobs += [("anatomy + draft report", (), report, still)]
        jobs += [("anatomy + draft report, clip of 24 frames", (), report, clip)]
    if len(models) > 1:
        jobs.append(("all models, still", tuple(models), report, still))
    rows = []
    for (sources, writer), group in groupby(jobs, key=lambda job: (job[1], job[2])):
        with served(sources, max_seconds, writer) as (address, process):
            client = Client(address, verbose=False, analytics_enabled=False)
            for name, _, _, path in group:
                first, _ = click(client, path)
                worked, times = processor_seconds(process), [click(client, path)[0] for _ in range(repeats)]
                worked = (processor_seconds(process) - worked) / repeats
                numbers = (first, statistics.median(times), max(times), worked)
                rows.append((name, *(f"{number:.2f}" for number in numbers)))
            if writer is None and len(sources) < 2 and all(tasks[source] in EXPLAINED for source in sources):
                task = tasks[sources[0]] if sources else "anatomy"
                name = f"occlusion map, {task}"
                seconds, worked = explain(client, process, clip if task == "video" else still, bool(sources))
                if seconds is not None:
                    rows.append((name, f"{seconds:.2f}", "", "", f"{worked:.2f}"))
    table(("click to answer, seconds", "first", "median", "slowest", "processor seconds"), rows)


def processor_seconds(process: psutil.Process) -> float:
    """Seconds that processors have worked for a process."""
    times = process.cpu_times()
    return times.user + times.system


def explain(client: Client, process: psutil.Process, path: Path, of_head: bool) -> tuple[float | None, float]:
    """Seconds of an occlusion map of a score of a file, the head's best or the anatomy's, and the processor's; None without a score."""
    answer = client.predict(handle_file(str(path)), *OPTIONS, api_name="/show")
    (choices,) = (each["choices"] for each in answer if isinstance(each, dict) and "choices" in each)
    targets = [target for _, target in choices if target.startswith("echocare-tiny\n") != of_head]
    if not targets:
        return None, 0.0
    start, worked = time.perf_counter(), processor_seconds(process)
    heat = client.predict(targets[0], api_name="/explain")  # which result it is about is kept in the session
    if "were analysed for this map" not in heat:
        raise RuntimeError(heat[:200])
    return time.perf_counter() - start, processor_seconds(process) - worked


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a Markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")


def measure_load(models: Sequence[str], users: int, seconds: float, max_seconds: float) -> int:
    """Users who send one example after the other; returns how many requests failed."""
    examples = [example for example in make_examples(examples_folder()) if "clip" not in example.caption]
    with served(models, max_seconds) as (address, process):
        warm = Client(address, verbose=False, analytics_enabled=False)
        for example in examples:
            click(warm, example.path)
        before = process.memory_info().rss
        times: list[float] = []
        errors: list[str] = []
        start, worked = time.perf_counter(), processor_seconds(process)
        memory: list[int] = []

        def visit(number: int, mine: Sequence[Example]) -> None:
            client, turn = None, number
            while time.perf_counter() - start < seconds:
                try:
                    client = client or Client(address, verbose=False, analytics_enabled=False)
                    times.append(click(client, mine[turn % len(mine)].path)[0])
                except Exception as error:  # whatever goes wrong is what the test counts
                    errors.append(f"{type(error).__name__}: {error}")
                turn += 1

        threads = [threading.Thread(target=visit, args=(number, examples)) for number in range(users)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(process.memory_info().rss)
            time.sleep(1)
        took = time.perf_counter() - start
        after, worked = process.memory_info().rss, processor_seconds(process) - worked
    quarters = [memory[part * len(memory) // 4] for part in (1, 2, 3)]
    p50, p95 = np.percentile(times, [50, 95]) if times else (np.nan, np.nan)
    rows = [
        ("users, seconds", f"{users}, {took:.0f}"),
        ("answers, errors", f"{len(times)}, {len(errors)}"),
        ("answers a second", f"{len(times) / took:.2f}"),
        ("processor seconds an answer", f"{worked / max(len(times), 1):.2f}"),
        ("p50, p95, slowest (s)", f"{p50:.2f}, {p95:.2f}, {max(times, default=np.nan):.2f}"),
        (
            "memory before, after each quarter (MB)",
            ", ".join(f"{each / 1024**2:.0f}" for each in (before, *quarters, after)),
        ),
    ]
    table(("load", ""), rows)
    for line in errors[:5]:
        print(line)
    return len(errors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("tasks", "load"), default="tasks")
    parser.add_argument("--model", action="append", default=[], help="a checkpoint; once for each")
    parser.add_argument("--report", help="a report generator")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--max-seconds", type=float, default=300)
    arguments = parser.parse_args()
    print_machine(torch.get_num_threads(), arguments.repeats)
    if arguments.what == "load":
        return 1 if measure_load(arguments.model, arguments.users, arguments.seconds, arguments.max_seconds) else 0
    measure_tasks(arguments.model, arguments.report, arguments.repeats, arguments.max_seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
