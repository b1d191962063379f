"""`CorpusStream`: the rows of one rank and worker, in the order of the epoch, from where it stopped."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import fsspec.asyn
import numpy as np
import torch
import torch.distributed
from datasets.utils.file_utils import is_local_path
from torch.utils.data import IterableDataset, get_worker_info

from .files import SHARD_ERRORS, ShardAccess
from .order import EpochOrder, Stretch, rank_stretch
from .rows import MISSING, REASONS, UNREADABLE, BadRowError, Decoder, RowGroup
from .table import CorpusTable
from .weights import repeats

if TYPE_CHECKING:
    from .loader import StreamLoader

MOST_WORKERS = 512


@dataclass(frozen=True)
class StreamOptions:
    """The arguments of the same names of `stream`.

    Raises:
        ValueError: if one is out of range.
    """

    shuffle: bool = True
    seed: int = 0
    mixed_groups: int = 4
    rank: int = 0
    world_size: int = 1
    equal: Literal["repeat", "drop"] | None = "repeat"
    bad_shards: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        checks = (
            (self.seed >= 0, "seed", "0 or more"),
            (self.mixed_groups >= 1, "mixed_groups", "1 or more"),
            (0 <= self.rank < self.world_size, "rank", f"0 to {self.world_size - 1}, below world_size"),
            (self.equal in ("repeat", "drop", None), "equal", '"repeat", "drop" or None'),
            (self.bad_shards in ("error", "skip"), "bad_shards", '"error" or "skip"'),
        )
        for fine, name, wanted in checks:
            if not fine:
                raise ValueError(f"{name} must be {wanted}, not {getattr(self, name)!r}")


def ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and number of ranks: as given, else of torch.distributed, else the variables RANK and WORLD_SIZE, else 0 of 1."""
    if (rank is None) != (world_size is None):
        raise ValueError("rank and world_size are given together, or neither")
    if rank is not None and world_size is not None:
        return rank, world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@dataclass
class Progress:
    """How far a worker is in its stretch.

    Attributes:
        taken: positions that lie behind, bad rows included; may go beyond the stretch, to make up for bad rows.
        given: samples that came of them.
    """

    taken: int = 0
    given: int = 0


class CorpusStream(IterableDataset):
    """An iterable of samples, made by `stream`. It can be pickled, and handed to any DataLoader, with workers or without.

    Iterating gives the samples of this rank (and DataLoader worker) in the current epoch. Samples come in the same order whenever
    corpus, seed, epoch, ranks and workers are the same.

    Attributes:
        table: what is known of the corpus.
        options: the settings.
        skipped_shards: shards left out because they could not be opened, with the reason.
    """

    def __init__(
        self,
        table: CorpusTable,
        access: ShardAccess,
        decoder: Decoder,
        options: StreamOptions,
        expected: np.ndarray | None = None,
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        self.table, self.access, self.decoder, self.options = table, access, decoder, options
        self.expected = expected
        self.transform = _Processed(transform) if hasattr(transform, "preprocess") else transform
        self.skipped_shards = table.skipped
        self.weights_digest = (
            None if expected is None else hashlib.blake2b(expected.tobytes(), digest_size=8).hexdigest()
        )
        self.batch = 1  # workers share a rank's stretch in multiples of it
        self.first_worker = 0  # which part of the stretch DataLoader worker 0 reads
        self.epoch_cell = torch.zeros(1, dtype=torch.int64).share_memory_()
        self.skips = torch.zeros(MOST_WORKERS, len(REASONS), dtype=torch.int64).share_memory_()
        self.workers = 1
        self.progress: dict[int, Progress] = {}
        self.resume: dict[str, Any] | None = None
        self._order: EpochOrder | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_order": None}  # made anew in a moment

    # Epochs and lengths ----------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return int(self.epoch_cell)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, in all workers. A loaded state of another epoch is forgotten.

        Args:
            epoch: 0 or more.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be 0 or more, not {epoch}")
        if epoch != self.epoch:
            self.epoch_cell.fill_(epoch)
            self.resume, self.progress = None, {}

    def __len__(self) -> int:
        """Samples of this rank in the current epoch, all workers together; bad rows make it fewer where they are not made up for."""
        return self.stretch().size

    def stretch(self) -> Stretch:
        """The positions of this rank in the current epoch."""
        return rank_stretch(len(self.order()), self.options.rank, self.options.world_size, self.options.equal)

    def order(self) -> EpochOrder:
        """The order of the current epoch."""
        if self._order is None or self._order.epoch != self.epoch:
            o = self.options
            counts = None if self.expected is None else repeats(self.expected, self.table.keys, o.seed, self.epoch)
            self._order = EpochOrder(self.table, counts, o.shuffle, o.mixed_groups, o.seed, self.epoch)
        return self._order

    def expected_counts(self, column: str = "node") -> dict[str, tuple[int, float]]:
        """Images of the whole corpus, and how many an epoch shows on average, by node or source.

        Args:
            column: "node" or "source", one that was weighted by.

        Raises:
            ValueError: if it was not.
        """
        if self.expected is None or column not in self.table.texts:
            raise ValueError(f"the stream is not weighted by {column}; give weights or source_weights")
        texts, codes = self.table.texts[column], self.table.codes[column]
        images = np.bincount(codes, minlength=len(texts)).tolist()
        shown = np.bincount(codes, self.expected, minlength=len(texts)).tolist()
        return {text: (images[place], shown[place]) for place, text in enumerate(texts)}

    # Iterating -------------------------------------------------------------------------------------

    def loader(self, batch_size: int, num_workers: int = 0, **options: Any) -> "StreamLoader":
        """Batches through a DataLoader, with a state that can be saved. Arguments are those of `StreamLoader`."""
        from .loader import StreamLoader

        return StreamLoader(self, batch_size, num_workers, **options)

    def worker(self) -> tuple[int, int]:
        """Which part of the rank's stretch this process reads, and of how many."""
        info = get_worker_info()
        if info is None:
            return 0, 1
        return (info.id + self.first_worker) % info.num_workers, info.num_workers

    def __iter__(self) -> Iterator[Any]:
        worker, workers = self.worker()
        if get_worker_info() is not None:
            fsspec.asyn.reset_lock()  # a forked process has the lock, but not the thread behind it
        order, stretch = self.order(), self.stretch().worker(worker, workers, self.batch)
        progress = self._begin(worker, workers)
        fill = self.options.equal is not None and self.options.world_size > 1
        while (progress.given if fill else progress.taken) < stretch.size:
            if progress.taken >= stretch.size and not progress.given:
                raise ValueError(f"none of {stretch.size} rows can be used ({self.skipped}); curate the corpus again")
            for group, row, loaded in self._rows(order, stretch, progress.taken % stretch.size):
                progress.taken += 1
                sample = self._sample(loaded, group, row, worker)
                if sample is None:
                    continue
                progress.given += 1
                yield sample if self.transform is None else self.transform(sample)
                if fill and progress.given == stretch.size:
                    return

    def _begin(self, worker: int, workers: int) -> Progress:
        """Where to start, and the record that iterating keeps up to date."""
        begun = Progress()
        if self.resume is not None and self.resume["epoch"] == self.epoch:
            if self.resume["progress"] and (self.resume["workers"], self.resume["batch"]) != (workers, self.batch):
                raise ValueError(
                    f"the state is of {self.resume['workers']} workers and batches of {self.resume['batch']}, this is {workers} and "
                    f"{self.batch} (a DataLoader without workers counts as 1, and any but `loader` as batches of 1); use the same"
                )
            begun = Progress(*self.resume["progress"].get(worker, (0, 0)))
        self.resume = None
        self.workers, self.progress = workers, {worker: begun}
        return begun

    def _rows(
        self, order: EpochOrder, stretch: Stretch, skip: int
    ) -> Iterator[tuple[int, int, RowGroup | BadRowError]]:
        """Row group, row and the group's contents, for the positions of a stretch after the first `skip`."""
        total = len(order)
        first, left = (stretch.start + skip) % total, stretch.size - skip
        until = min(first + left, total)

        def windows() -> Iterator[np.ndarray]:
            yield from order.windows(first, until)
            yield from order.windows(0, first + left - until)

        for places, groups in self._loaded(windows()):
            for group, row in places.tolist():
                yield group, row, groups[group]

    def _loaded(self, windows: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, dict[int, RowGroup | BadRowError]]]:
        """Windows with their row groups; remote ones are fetched while the one before is used."""
        if all(is_local_path(shard) for shard in self.table.shards[:1]):
            for places in windows:
                yield places, self._load(places)
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            for places in windows:
                fetched = places, pool.submit(self._load, places)
                if ahead:
                    yield ahead[0], ahead[1].result()
                ahead = fetched
            if ahead:
                yield ahead[0], ahead[1].result()

    def _load(self, places: np.ndarray) -> dict[int, RowGroup | BadRowError]:
        table, groups = self.table, dict.fromkeys(places[:, 0].tolist())
        loaded: dict[int, RowGroup | BadRowError] = {}
        for place in dict.fromkeys(table.group_shard[list(groups)].tolist()):
            own = [group for group in groups if table.group_shard[group] == place]
            if table.missing[place]:
                loaded |= dict.fromkeys(own, BadRowError(MISSING, f"no column {table.missing[place][0]!r}"))
                continue
            try:
                with self.access.open(table.shards[place]) as shard:
                    for group in own:
                        number = int(table.group_number[group])
                        rows = shard.read_row_group(number, columns=list(table.columns), use_threads=False)
                        loaded[group] = RowGroup(rows, self.decoder)
            except SHARD_ERRORS as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                if self.options.bad_shards == "error":
                    raise ValueError(
                        f"{table.shards[place]}: the shard cannot be read any more ({reason}); copy it again"
                    ) from error
                loaded |= {group: BadRowError(UNREADABLE, reason) for group in own if group not in loaded}
        return loaded

    def _sample(self, loaded: RowGroup | BadRowError, group: int, row: int, worker: int) -> dict[str, Any] | None:
        try:
            if isinstance(loaded, BadRowError):
                raise loaded
            return loaded.sample(row)
        except BadRowError as error:
            if not self.skips.any():
                shard = self.table.shards[self.table.group_shard[group]]
                warnings.warn(
                    f"{shard}, row group {self.table.group_number[group]}, row {row}: {error.text}; the row is skipped. Others will be "
                    "without a warning: see `skipped` of the stream",
                    stacklevel=2,
                )
            self.skips[worker, REASONS.index(error.reason)] += 1
            return None

    # Counters and state ----------------------------------------------------------------------------

    @property
    def skipped(self) -> dict[str, int]:
        """Rows skipped so far by reason, of this rank's workers together, rows that a DataLoader has fetched ahead included."""
        return dict(zip(REASONS, self.skips.sum(0).tolist(), strict=True))

    def settings(self) -> dict[str, Any]:
        """What must be the same for a state to fit."""
        options = {name: value for name, value in asdict(self.options).items() if name != "bad_shards"}
        return {"corpus": self.table.fingerprint, **options, "weights": self.weights_digest}

    def state_dict(self) -> dict[str, Any]:
        """Where iterating stands in this process, in plain numbers and texts. With workers, ask the loader instead."""
        if self.resume is not None:
            return self.resume
        return self.state_of(self.workers, {number: [own.taken, own.given] for number, own in self.progress.items()})

    def state_of(self, workers: int, progress: dict[int, list[int]], next_worker: int = 0) -> dict[str, Any]:
        """A state of the current epoch.

        Args:
            workers: among which the rank's positions are shared out.
            progress: positions taken and samples given, by worker.
            next_worker: whose batch comes next.
        """
        # In a worker's process other rows are still being written, and saved by the others.
        counted = self.skips.any(1).nonzero()[:, 0].tolist() if get_worker_info() is None else progress
        return {
            "settings": self.settings(),
            "epoch": self.epoch,
            "batch": self.batch,
            "workers": workers,
            "next_worker": next_worker,
            "progress": progress,
            "skips": {number: self.skips[number].tolist() for number in counted},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on after the last sample of a state. It also sets the epoch.

        Args:
            state: of `state_dict`, of the same rank.

        Raises:
            ValueError: if it is of another corpus, or of other settings.
        """
        for name, now in self.settings().items():
            if (then := state["settings"].get(name)) != now:
                raise ValueError(
                    f"the state was saved with {name} = {then!r}, now it is {now!r}; use the same to go on exactly"
                )
        self.epoch_cell.fill_(state["epoch"])
        numbers = {
            name: {int(worker): list(own) for worker, own in state[name].items()} for name in ("progress", "skips")
        }
        self.resume = {**state, **numbers}
        if get_worker_info() is None:
            self.skips.zero_()
        for worker, counts in numbers["skips"].items():
            self.skips[worker] = torch.tensor(counts)


@dataclass
class _Processed:
    """A transform that hands the image to an image processor of transformers."""

    processor: Any

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        image = sample.pop("image")
        return {"pixel_values": self.processor(images=image, return_tensors="pt")["pixel_values"][0], **sample}
