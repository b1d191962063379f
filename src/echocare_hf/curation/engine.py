"""Daft as the engine: a list of jobs goes in, results come back as they finish, on this machine or on a Ray cluster.

A job is one piece of a plan (a chunk of files, a shard) with a text that says what to do; it writes its own result beside and renames
it, so that a job which was cut off leaves nothing, and the run that follows does it again.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import Lock
from typing import Any

from .options import Runner

_EXTRA = 'pip install "echocare-hf[curate]"'
_OBJECT_STORE_BYTES = 128 * 1024**2  # jobs and results are short texts
_CONNECT_SECONDS = 10
_NAMES: dict[Runner, str] = {"local": "native", "ray": "ray"}  # of runners, as Daft has them
_started: Runner | None = None
_LOCK = Lock()


def import_daft() -> Any:
    """Daft without its usage statistics, its own progress bars, and log lines that say what its exceptions say.

    Raises:
        ImportError: naming the extra to install.
    """
    os.environ["DAFT_ANALYTICS_ENABLED"] = "0"
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    try:
        import daft
    except ImportError as error:
        raise ImportError(f"curating a corpus needs Daft: {_EXTRA}") from error
    for name in ("daft_io", "daft_local_execution"):
        if logging.getLogger(name).level == logging.NOTSET:  # nobody wants them
            logging.getLogger(name).setLevel(logging.CRITICAL)
    return daft


def start(runner: Runner, workers: int = 1) -> None:
    """Choose where Daft runs. A process can choose once; choosing the same again does nothing.

    Args:
        runner: "local", or "ray": the cluster that the environment variable RAY_ADDRESS names, else one on this machine, which ends
            with this process.
        workers: processors that a Ray on this machine may use.

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
    try:
        if runner == "ray":
            _join_ray(workers)
            daft.set_runner_ray()
        else:
            daft.set_runner_native()
    except daft.exceptions.DaftCoreException:  # somebody has used Daft in this process before
        if daft.runners.get_or_infer_runner_type() != _NAMES[runner]:
            raise ValueError(
                f"runner {runner}: Daft already runs elsewhere in this process; start a new one"
            ) from None
    _started = runner


def _join_ray(workers: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError('runner ray: Ray is not installed: pip install "echocare-hf[ray]"') from error
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not address:
        ray.init(num_cpus=workers, object_store_memory=_OBJECT_STORE_BYTES, include_dashboard=False, **quiet)
        return
    host, _, port = address.rpartition("//")[2].rpartition(":")
    try:
        if port.isdigit():  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
        ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({str(error)[:100]})") from error


def run_jobs(function: Callable[[str], str], jobs: Sequence[str], workers: int) -> Iterator[str]:
    """Run a function on every job, each in one of `workers` processes, or in this one if that is one; `start` comes first.

    Args:
        function: of one text, at the top of a module, so that another process can import it.
        jobs: a text each.
        workers: processes at a time, at least 1.

    Returns:
        The results in the order in which they finish.

    Raises:
        ValueError, OSError: what a job raised, with its message.
    """
    if not jobs:
        return
    daft = import_daft()
    step = _in_this_process if workers == 1 and _started == "local" else partial(_in_processes, workers=workers)
    frame = daft.from_pydict({"job": list(jobs)})
    if _started == "ray":
        frame = frame.into_partitions(min(len(jobs), 4 * workers))
    for row in frame.select(step(daft, function)(daft.col("job")).alias("result")).iter_rows():
        outcome = row["result"]
        if outcome[0] != _DONE:
            raise _ERRORS[outcome[0]](outcome[1:])
        yield outcome[1:]


_DONE = "+"
_ERRORS: dict[str, type[Exception]] = {"v": ValueError, "o": OSError}


def _attempt(function: Callable[[str], str], text: str) -> str:
    """The result of a job, or the message of the error it ended with: Daft would wrap the error in others, with tracebacks."""
    try:
        return _DONE + function(text)
    except ValueError as error:
        return f"v{error}"
    except OSError as error:
        return f"o{error.filename}: {error.strerror}" if error.filename else f"o{error}"


def _alone(function: Callable[[str], str], text: str) -> str:
    """One job while no other runs in this process; Daft calls from several threads, and pickles what it calls, but no lock."""
    with _LOCK:
        return _attempt(function, text)


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
            return [_attempt(function, text) for text in texts.to_pylist()]

    return daft.cls(Worker, use_process=True, max_concurrency=workers)().run
