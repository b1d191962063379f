"""An even choice of a clip's frames, taken while the clip goes by: constant memory, however long it is."""

from typing import Generic, TypeVar

import numpy as np

Thing = TypeVar("Thing")

SPARE = 16
"""So many times as many frames as are wanted are held at most; a clip that is not longer gives exactly even ones."""


class ClipSample(Generic[Thing]):
    """Keeps every frame, then every second, every fourth, ... so that about `SPARE` times the wanted number are held.

    Args:
        wanted: frames to choose.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self._step, self._count = 1, 0
        self._kept: list[tuple[int, float | None, Thing]] = []
        self._last: tuple[int, float | None, Thing] | None = None

    def add(self, thing: Thing, time_ms: float | None) -> None:
        """The next frame."""
        self._last = (self._count, time_ms, thing)
        if self._count % self._step == 0:
            self._kept.append(self._last)
            if len(self._kept) > SPARE * self.wanted:
                self._kept = self._kept[::2]
                self._step *= 2
        self._count += 1

    def choose(self) -> tuple[list[Thing], list[float | None]]:
        """The chosen frames and their times: evenly in time, by number where times are not known or do not rise.

        All frames if there are not more than wanted.
        """
        kept = list(self._kept)
        if self._last is not None and kept[-1][0] != self._last[0]:
            kept.append(self._last)
        if len(kept) > self.wanted:
            times = np.array([np.nan if time is None else time for _, time, _ in kept])
            by_time = bool((np.diff(times) > 0).all())  # nan is not above
            places = times if by_time else np.array([number for number, _, _ in kept], dtype=float)
            targets = np.linspace(places[0], places[-1], self.wanted)
            chosen = dict.fromkeys(int(np.abs(places - target).argmin()) for target in targets)
            kept = [kept[index] for index in chosen]
        return [thing for _, _, thing in kept], [time for _, time, _ in kept]


__all__ = ["ClipSample"]
