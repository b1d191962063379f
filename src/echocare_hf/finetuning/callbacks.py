"""What happens beside the steps of training: how much is done, when the encoder joins in, when to stop early."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import ExportableState

from .prepared import PreparedData


class Progress(TrainerCallback, ExportableState):
    """How much of the schedule is done: by steps, or by time where that is capped. Survives a resume.

    Args:
        minutes: of the clock on the wall, evaluations included.
        cpu_minutes: of processor time of this process, evaluations not counted: other work on the machine does not shorten it.
        data: what is trained on; it is told the epoch.

    Attributes:
        seconds_done: training time of an earlier part of the run, on the clock that counts.
    """

    def __init__(
        self, minutes: float | None = None, cpu_minutes: float | None = None, data: PreparedData | None = None
    ) -> None:
        self.minutes, self.cpu_minutes, self.data = minutes, cpu_minutes, data
        self.clock = time.monotonic if cpu_minutes is None else time.process_time
        self.seconds_done = 0.0
        self.total_steps, self.start = 1, self.clock()
        self.end: float | None = None

    def state(self) -> dict[str, Any]:
        return {
            "args": {"minutes": self.minutes, "cpu_minutes": self.cpu_minutes},
            "attributes": {"seconds_done": self.seconds()},
        }

    def seconds(self) -> float:
        return self.seconds_done + (self.clock() if self.end is None else self.end) - self.start

    def share(self, step: int) -> float:
        cap = self.cpu_minutes or self.minutes
        by_steps = step / self.total_steps
        return min(1.0, max(by_steps, self.seconds() / (60 * cap)) if cap else by_steps)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What happens inside counts only on the clock on the wall."""
        start = self.clock()
        yield
        if self.cpu_minutes is not None:
            self.start += self.clock() - start

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = self.clock()

    def on_train_end(self, args, state, control, **kwargs):
        self.end = self.clock()

    def on_epoch_begin(self, args, state, control, **kwargs):
        if self.data is not None:
            self.data.epoch = round(state.epoch or 0)

    def on_step_end(self, args, state, control, **kwargs):
        if self.share(0) >= 1:
            control.should_training_stop = True  # the epoch ends here, which evaluates and saves


class HeadFirst(TrainerCallback):
    """The encoder stays as it is until a share of the schedule is done: a random head would send it random
    gradients, and without them a step takes half the time.

    Args:
        share: 0 to 1.
        progress: says how much is done.

    Attributes:
        learns: whether the encoder learns in the current step; None before the first.

    Source: Kumar et al. 2022 (LP-FT), for heads that have no linear model to start from.
    """

    def __init__(self, share: float, progress: Progress) -> None:
        self.share, self.progress = share, progress
        self.learns: bool | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        if args.world_size > 1:  # DDP settles at the start which gradients it waits for
            print(
                "note: with several processes the encoder learns from the start, --head_first is left out", flush=True
            )
            self.share = 0.0

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        learns = self.progress.share(state.global_step) >= self.share
        if learns != self.learns:
            self.learns = learns
            model.echocare.requires_grad_(learns)


class EarlyStop(EarlyStoppingCallback):
    """Ends training after some epochs without a better validation metric. Epochs before the encoder learns do not count.

    Args:
        patience: epochs.
        head_first: says whether the encoder learns; None where all learns from the start, or the encoder never does.
    """

    def __init__(self, patience: int, head_first: HeadFirst | None = None) -> None:
        super().__init__(patience)
        self.head_first = head_first

    def check_metric_value(self, args, state, control, metric_value):
        if self.head_first is None or self.head_first.learns:
            super().check_metric_value(args, state, control, metric_value)


__all__ = ["EarlyStop", "HeadFirst", "Progress"]
