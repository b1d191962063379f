"""What the speed measurements share: models take turns in one process, tables give medians and ratios.

Machines that other work shares give noisy times: quote the ratios.
"""

import platform
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from pathlib import Path

import torch
from tqdm import tqdm

from echocare_hf.inference import bfloat16_is_fast


def bf16(enabled: bool = True) -> torch.autocast | nullcontext:
    return torch.autocast("cpu", torch.bfloat16) if enabled else nullcontext()


def interleaved(
    cases: dict[str, Callable[[], object]],
    repeats: int,
    description: str,
    clock: Callable[[], float] | None = None,
) -> dict[str, float]:
    """Median seconds of each case; all cases take turns, after one round that does not count.

    `clock` is that of the wall; `time.process_time` counts what all threads of this process worked, which others do not stretch.
    """
    clock = clock or time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    with tqdm(total=(repeats + 1) * len(cases), desc=description, leave=False) as bar:
        for round_ in range(repeats + 1):
            for name, run in cases.items():
                start = clock()
                run()
                if round_:
                    seconds[name].append(clock() - start)
                bar.update()
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_machine(threads: int, repeats: int) -> None:
    """One line that says what was measured with."""
    print(
        f"{date.today()}, torch {torch.__version__}, {threads} threads, {platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}, bf16 in hardware: {bfloat16_is_fast()}, "
        f"{repeats} rounds, medians"
    )


def print_table(title: str, rows: dict[str, float], unit: str, reference: str) -> None:
    """A Markdown table; a ratio above 1 means faster than the reference.

    Args:
        title: heading.
        rows: value of each row.
        unit: of the values; what ends in "/s" is a rate, anything else a time.
        reference: the row that ratios refer to.
    """
    print(f"\n### {title}\n\n| | {unit} | ratio to {reference} |\n|---|---|---|")
    for name, value in rows.items():
        ratio = value / rows[reference] if unit.endswith("/s") else rows[reference] / value
        print(f"| {name} | {value:.3f} | {ratio:.2f} |")


def peak_memory() -> float:
    """The largest resident size of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would include the process that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
