"""Daft as the engine: a list of jobs goes in, results come back as they finish, on this machine or on a Ray cluster.

A job is one piece of a plan (a chunk of files, a shard) with a text that says what to do; it writes its own result beside and renames
it, so that a job which was cut off leaves nothing, and the run that follows does it again.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any

from .options import Runner

_EXTRA = 'pip install "echocare-hf[curate]"'
_started: Runner | None = None
_LOCK = Lock()


def import_daft() -> Any:
    """Daft without its usage statistics and its own progress bars.

    Raises:
        ImportError: naming the extra to install.
    """
    os.environ["DAFT_ANALYTICS_ENABLED"] = "0"
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    try:
        import daft
    except ImportError as error:
        raise ImportError(f"curating a corpus needs Daft: {_EXTRA}") from error
    return daft


def start(runner: Runner) -> None:
    """Choose where Daft runs. A process can choose once; choosing the same again does nothing.

    Args:
        runner: "local", or "ray": the cluster that the environment variable RAY_ADDRESS names, else one on this machine.

    Raises:
        ImportError: if Daft, or Ray where it is wanted, is not installed.
        ValueError: if Daft already runs elsewhere in this process.
    """
    global _started
    daft = import_daft()
    if _started == runner:
        return
    if _started is not None:
        raise ValueError(f"runner {runner}: Daft already runs as {_started} in this process; start a new one")
    if runner == "ray":
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise ImportError('runner ray: Ray is not installed: pip install "daft[ray]"') from error
        daft.set_runner_ray(address=os.environ.get("RAY_ADDRESS"), noop_if_initialized=True)
    else:
        daft.set_runner_native()
    _started = runner


def run_jobs(function: Callable[[str], str], jobs: Sequence[str], workers: int) -> Iterator[str]:
    """Run a function on every job, each in one of `workers` processes, or in this one if that is one; `start` comes first.

    Args:
        function: of one text, at the top of a module, so that another process can import it.
        jobs: a text each.
        workers: processes at a time, at least 1.

    Returns:
        The results in the order in which they finish.
    """
    if not jobs:
        return
    daft = import_daft()
    run = (
        _in_this_process(daft, function)
        if workers == 1 and _started == "local"
        else _in_processes(daft, function, workers)
    )
    frame = daft.from_pydict({"job": list(jobs)})
    if _started == "ray":
        frame = frame.repartition(min(len(jobs), 4 * workers))
    for row in frame.select(run(daft.col("job")).alias("result")).iter_rows():
        yield row["result"]


def _alone(function: Callable[[str], str], text: str) -> str:
    """One job while no other runs in this process; Daft calls from several threads, and pickles what it calls, but no lock."""
    with _LOCK:
        return function(text)


def _in_this_process(daft: Any, function: Callable[[str], str]) -> Any:
    """A step of a Daft plan that does one job after the other: a process of its own takes seconds to start and to end."""

    def run(texts: Any) -> list[str]:
        return [_alone(function, text) for text in texts.to_pylist()]

    return daft.func.batch(return_dtype=daft.DataType.string(), batch_size=1, use_process=False)(run)


def _in_processes(daft: Any, function: Callable[[str], str], workers: int) -> Any:
    """A step of a Daft plan that does `workers` jobs at a time, each in a process."""

    class Worker:
        @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=1)
        def run(self, texts: Any) -> list[str]:
            return [function(text) for text in texts.to_pylist()]

    return daft.cls(Worker, use_process=True, max_concurrency=workers)().run
