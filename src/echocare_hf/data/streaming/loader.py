"""`StreamLoader`: a DataLoader over a `CorpusStream` that knows where each of its workers stands.

Each worker sends with its batch how far it was when the batch was complete, so what it has fetched ahead does not count as seen. After a
resume the workers swap parts, such that the one whose turn it was comes first: batches go on in the same order.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from torch.utils.data import DataLoader, default_collate, get_worker_info

from .reader import MOST_WORKERS, CorpusStream


class StreamLoader:
    """Batches of one rank.

    Args:
        stream: what to read.
        batch_size: samples a batch, 1 or more. Only the last batch of an epoch is smaller (and one a worker where bad rows were skipped).
        num_workers: processes that read, 0 for this one.
        collate_fn: from a list of samples to a batch.
        drop_last: leave out batches that are smaller.
        options: further arguments of `torch.utils.data.DataLoader`, such as `pin_memory` or `prefetch_factor`. Workers are started anew
            each epoch, so not `persistent_workers`.
    """

    def __init__(
        self,
        stream: CorpusStream,
        batch_size: int,
        num_workers: int = 0,
        *,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
        drop_last: bool = False,
        **options: Any,
    ) -> None:
        if batch_size < 1 or not 0 <= num_workers <= MOST_WORKERS:
            raise ValueError(
                f"batch_size is 1 or more and num_workers 0 to {MOST_WORKERS}, not {batch_size} and {num_workers}"
            )
        if unfit := {"persistent_workers", "shuffle", "sampler", "batch_sampler"} & set(options):
            raise ValueError(f"{sorted(unfit)[0]} does not fit a stream; leave it out")
        self.stream, self.batch_size, self.num_workers = stream, batch_size, num_workers
        self.collate_fn, self.drop_last, self.options = collate_fn, drop_last, options
        self._loaded: dict[str, Any] | None = None  # where the next iteration begins
        self._state: dict[str, Any] | None = None  # of the iteration under way

    def set_epoch(self, epoch: int) -> None:
        """See `CorpusStream.set_epoch`."""
        self.stream.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches of this rank in the current epoch; bad rows that nothing makes up for can make it fewer."""
        rows = len(self.stream)
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        workers = max(self.num_workers, 1)
        stream, begun = self._stream(), self._loaded
        self._loaded = None
        if begun is None or begun["epoch"] != stream.epoch or not begun["progress"]:
            begun = stream.state_of(workers, {})
        if (begun["workers"], begun["batch"]) != (workers, self.batch_size):
            raise ValueError(
                f"the state is of {begun['workers']} workers and batches of {begun['batch']}, the loader has {workers} and "
                f"{self.batch_size}; use the same to go on exactly"
            )
        self._state = state = copy.deepcopy(begun)
        stream.resume, stream.first_worker = begun, begun["next_worker"]
        batches = DataLoader(
            stream,
            self.batch_size,
            num_workers=self.num_workers,
            collate_fn=_Marked(stream, self.collate_fn),
            drop_last=self.drop_last,
            **self.options,
        )
        for batch, worker, progress, skips in batches:
            state["progress"][worker], state["skips"][worker] = progress, skips
            state["next_worker"] = (worker + 1) % workers
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: after the last batch that it gave. Plain numbers and texts."""
        state = self._loaded or self._state
        if state is None or state["epoch"] != self.stream.epoch:
            return self._stream().state_of(max(self.num_workers, 1), {})
        return copy.deepcopy(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on after the last batch of a state; see `CorpusStream.load_state_dict`."""
        self.stream.load_state_dict(state)
        self._loaded, self.stream.resume = self.stream.resume, None

    def _stream(self) -> CorpusStream:
        """The stream, of the same epoch and counters, as this loader's workers share it out."""
        stream = copy.copy(self.stream)
        stream.batch = self.batch_size
        return stream


class _Marked:
    """A batch, the worker that made it, and how far that worker is."""

    def __init__(self, stream: CorpusStream, collate_fn: Callable[[list[Any]], Any]) -> None:
        self.stream, self.collate_fn = stream, collate_fn

    def __call__(self, samples: list[Any]) -> tuple[Any, int, list[int], list[int]]:
        info = get_worker_info()
        stream = self.stream if info is None else cast(CorpusStream, info.dataset)
        worker, _ = stream.worker()
        own = stream.progress[worker]
        return self.collate_fn(samples), worker, [own.taken, own.given], stream.skips[worker].tolist()
