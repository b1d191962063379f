"""The folder of a run, and what makes it start, stop and go on.

OUTPUT/recipe.json          every value of the run
OUTPUT/metrics.jsonl        one line a look: losses while training, figures of the held-out images
OUTPUT/checkpoints/         what the run goes on from
OUTPUT/samples/             reconstructions at each look
OUTPUT/best/, OUTPUT/final/ models for `from_pretrained`: of the lowest held-out loss, and of the last step
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError
from torch import nn

from echocare_hf.files import written_beside
from echocare_hf.inference import bfloat16_is_fast

from .checkpoints import Checkpoints
from .optimization import MovingAverage
from .recipe import Recipe, changed_values
from .sharding import load_whole, save_whole, shard_on_cpu


def make_accelerator(recipe: Recipe, output: Path) -> Accelerator:
    """The accelerator of a run: the processes and devices that the launcher gives, the precision and trackers of the recipe.

    Raises:
        ValueError: if a tracker is not installed.
    """
    from accelerate.utils import is_tensorboard_available, is_trackio_available

    there = {"tensorboard": is_tensorboard_available, "trackio": is_trackio_available}
    for tracker in recipe.trackers:
        if not there[tracker]():
            raise ValueError(
                f"the tracker {tracker} is not installed: pip install 'echocare-hf[trackers]', or leave it out of trackers"
            )
    on_cpu = not torch.accelerator.is_available()
    use_bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and (not on_cpu or bfloat16_is_fast()))
    accelerator = Accelerator(
        mixed_precision="bf16" if use_bf16 else "no",
        cpu=on_cpu,
        log_with=list(recipe.trackers) or None,
        project_dir=str(output),
    )
    shard_on_cpu(accelerator)
    return accelerator


def set_threads(wanted: int, before: dict[str, Any], processes: int) -> str:
    """Sets the number of PyTorch's threads: sums of a CPU are rounded in another order by another number.

    With equal numbers of processes and threads a step on a CPU gives the same bits (`tests/training/test_threads.py`), so a run that goes
    on takes as many threads as it had.

    Args:
        wanted: `threads` of the recipe, 0 for no wish.
        before: `processes` and `threads` of the checkpoint that the run goes on from, empty at its start.
        processes: how many there are now.

    Returns:
        A line for people, "" if there is nothing to say.
    """
    now, had = torch.get_num_threads(), int(before.get("threads", 0))
    threads = wanted or (had if before.get("processes") == processes and had <= (os.cpu_count() or 1) else 0) or now
    if threads != now:
        torch.set_num_threads(threads)
    if not had or (had == threads and had == now) or before.get("processes") != processes:
        return ""
    if had == threads:
        return f"with {had} threads of PyTorch, as before, not {now}: other numbers round otherwise (--threads {now} to have them)"
    return f"was run with {had} threads of PyTorch, now {threads}: the last digits will not be those of a run that was not cut off"


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds torch's own random numbers (dropout) by step and process: a run that goes on needs no state of them."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]))


def same_everywhere(accelerator: Accelerator, facts: Any, what: str) -> None:
    """Raises a ValueError in every process unless all have the same facts."""
    if accelerator.num_processes == 1:
        return
    everyone = gather_object([facts])
    for rank, theirs in enumerate(everyone):
        if theirs != everyone[0]:
            raise ValueError(
                f"process {rank} has another {what} than process 0 ({theirs} and {everyone[0]}); give all the same"
            )


def end_process(code: int) -> NoReturn:
    """Ends this process.

    One of several ends without taking down its process group: gloo's destructor holds Python's lock while it waits for threads that may
    want it (seen with PyTorch 2.13: one process of two hung after all was done).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        os._exit(code)
    sys.exit(code)


def is_lost_process(error: RuntimeError) -> bool:
    """Whether an error says that another process of the run has gone: gloo's comes without a type of its own."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


class StopRequest:
    """SIGTERM and Ctrl-C end the run after the step, with a checkpoint; a second one ends it at once. Holds inside `with`."""

    def __init__(self) -> None:
        self.signal = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number

    def agreed(self, accelerator: Accelerator) -> bool:
        """Whether any process was asked to stop."""
        if accelerator.num_processes == 1:
            return bool(self.signal)
        asked = torch.tensor([self.signal], device=accelerator.device)
        self.signal = int(accelerator.gather(asked).max())
        return bool(self.signal)


class RunFolder:
    """The folder of a run.

    Args:
        output: the folder.
        recipe: of the run.
        accelerator: of the run.

    Raises:
        ValueError: if the folder holds a run that this one cannot go on with.
    """

    def __init__(self, output: Path, recipe: Recipe, accelerator: Accelerator) -> None:
        self.output, self.accelerator = output, accelerator
        self.threads = recipe.threads
        self.checkpoints = Checkpoints(output / "checkpoints", recipe.keep)
        self.log_file = output / "metrics.jsonl"
        self._open(recipe)

    def _open(self, recipe: Recipe) -> None:
        record = self.output / "recipe.json"
        # A run that ended before its first checkpoint, such as for a wrong value, binds nobody.
        if record.is_file() and (self.is_done or not self.checkpoints.is_empty):
            if not recipe.resume:
                raise ValueError(
                    f"{self.output}: holds a run already; choose another --output_dir, remove it, or leave out --resume"
                )
            try:
                before = json.loads(record.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{record}: is damaged ({error}); choose another --output_dir") from error
            if changed := changed_values(before, recipe):
                raise ValueError(
                    f"{self.output}: holds a run with another {', '.join(changed)}; give the same values, or another --output_dir"
                )
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            try:
                self.checkpoints.folder.mkdir(parents=True, exist_ok=True)
                self.checkpoints.clear_partial()
                with written_beside(record) as partial:
                    partial.write_text(json.dumps(asdict(recipe), indent=1) + "\n", encoding="utf-8")
            except OSError as error:
                raise ValueError(
                    f"{self.output}: no run can be written there ({error}); choose another --output_dir"
                ) from error
        self.accelerator.wait_for_everyone()

    @property
    def is_done(self) -> bool:
        return (self.output / "final" / "training.json").is_file()

    def restore(self, network: nn.Module, optimizer: AcceleratedOptimizer, average: MovingAverage) -> dict[str, Any]:
        """Loads the newest complete checkpoint.

        Args:
            network, optimizer: as the accelerator has prepared them.
            average: of the network.

        Returns:
            Its facts, among them `step`, the number of steps that are done; `{"step": 0}` without a checkpoint.

        Raises:
            ValueError: if it is of another architecture; if there are checkpoints and all are damaged.
        """
        found: list[Any] = [self.checkpoints.latest() if self.accelerator.is_main_process else None]
        broadcast_object_list(found)
        path, facts, damaged = found[0]
        if damaged and path is None:
            raise ValueError(
                f"{damaged[0]}, and no other checkpoint of the run is whole; nothing was removed. "
                "Choose another --output_dir, or delete the damaged ones to begin anew"
            )
        for line in damaged:
            self.say(f"{line} and is passed over")
        facts = {"step": 0} if path is None else facts
        if self.accelerator.device.type == "cpu" and (
            line := set_threads(self.threads, facts, self.accelerator.num_processes)
        ):
            self.say(line)
        if path is not None:
            try:
                if self.accelerator.is_fsdp2:
                    load_whole(network, optimizer.optimizer, path)
                else:
                    self.accelerator.load_state(str(path))
                state = torch.load(path / "average.bin", map_location="cpu", weights_only=True)
                average.load_state_dict(state)
            except (RuntimeError, KeyError, ValueError, SafetensorError) as error:
                raise ValueError(
                    f"{path}: does not fit the network of the recipe ({' '.join(str(error).split())[:200]}); choose another --output_dir"
                ) from error
            self.say(f"going on after step {facts['step']}")
        if self.accelerator.is_main_process:
            self.checkpoints.drop_after(facts["step"])
            self._shorten_log(facts["step"])
        self.accelerator.wait_for_everyone()
        return facts

    def save(
        self, network: nn.Module, optimizer: AcceleratedOptimizer, average: MovingAverage, facts: dict[str, Any]
    ) -> None:
        """A checkpoint of everything that the run goes on from. All processes call it.

        Args:
            network, optimizer, average: as for `restore`.
            facts: what `restore` returns, among it `step`.

        Raises:
            ValueError: in every process, if it cannot be written; the one before it is intact.
        """
        accelerator, step = self.accelerator, facts["step"]
        facts = facts | {"processes": accelerator.num_processes, "threads": torch.get_num_threads()}
        partial = self.checkpoints.partial(step)
        failure = ""
        try:
            if accelerator.is_fsdp2:
                save_whole(network, optimizer.optimizer, partial, accelerator.is_main_process)
            else:
                accelerator.save_state(str(partial))
            if accelerator.is_main_process:
                torch.save(average.state_dict(), partial / "average.bin")
        except (OSError, RuntimeError, SafetensorError) as error:
            failure = " ".join(str(error).split())[:200]
        failures = gather_object([failure]) if accelerator.num_processes > 1 else [failure]
        if accelerator.is_main_process and not any(failures):
            try:
                self.checkpoints.finish(step, facts)
            except OSError as error:
                failures = [str(error)]
        told: list[Any] = [next((text for text in failures if text), "")]
        if accelerator.num_processes > 1:
            broadcast_object_list(told)
        if told[0]:
            raise self.checkpoints.failure(step, told[0])

    @contextmanager
    def tracked(self, recipe: Recipe, step: int) -> Iterator[None]:
        """The trackers of the recipe, from after `step` on; what they hold is written however the run ends.

        TensorBoard's events lie in OUTPUT/echocare; trackio's are a run with the name of the folder in its project echocare.
        """
        values = {
            "tensorboard": {"purge_step": step + 1} if step else {},  # what is done again takes the place of what was
            "trackio": {"name": self.output.resolve().name, "resume": "allow"},
        }
        config = {name: value for name, value in asdict(recipe).items() if isinstance(value, int | float | str)}
        self.accelerator.init_trackers("echocare", config, {name: values[name] for name in recipe.trackers})
        try:
            yield
        finally:
            for tracker in self.accelerator.trackers:
                tracker.finish()

    def log(self, entry: dict[str, Any]) -> None:
        """A line of the log, and the trackers."""
        step = int(entry["step"])
        values = {name: value for name, value in entry.items() if name != "step" and isinstance(value, int | float)}
        self.accelerator.log(values, step=step)
        if self.accelerator.is_main_process:
            try:
                with self.log_file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
            except OSError as error:
                raise ValueError(
                    f"{self.log_file}: cannot be written ({error}); the checkpoints are intact. Make room on the disk and give the same "
                    "command again"
                ) from error

    def read_log(self) -> list[dict[str, Any]]:
        return read_log(self.log_file)

    def _shorten_log(self, step: int) -> None:
        """Takes back the lines after `step`, which will be written again."""
        kept = [entry for entry in read_log(self.log_file) if entry["step"] <= step]
        with written_beside(self.log_file) as partial:
            partial.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")

    def say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            print(text, flush=True)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; one that a killed run left unfinished is passed over."""
    entries: list[dict[str, Any]] = []
    lines: Sequence[str] = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines):
        try:
            entries.append(json.loads(line))
        except ValueError as error:
            if number < len(lines) - 1:
                raise ValueError(f"{path}: line {number + 1} is damaged ({error})") from error
    return entries
