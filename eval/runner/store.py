"""The folder of results: OUTPUT/<subject>/<contender>/<seed>/ with metrics.json and cases.parquet.

A trial is trained in <seed>.partial and appears whole. Several processes may work on one folder of results: a lock beside each trial, and
one for the tables, lets one at a time write.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from echocare_hf.files import written_beside

RECORD, CASES, SETTINGS = "metrics.json", "cases.parquet", "settings.json"
NEEDED = ("seed", "model", "kind", "train_share", "best_metric", "settings", "provenance", "test")
"""What a record holds at least."""


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Attributes:
        folder: of it.
        record: what metrics.json holds.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def seed(self) -> int:
        return int(self.record["seed"])

    def cases(self) -> pd.DataFrame:
        """The cases of both parts.

        Raises:
            ValueError: if they cannot be read.
        """
        try:
            return pd.read_parquet(self.folder / CASES)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"{self.folder / CASES}: cannot be read ({reason}); remove the folder to repeat the trial"
            ) from error


def trial_folder(output: Path, subject: str, slug: str, seed: int) -> Path:
    return output / subject / slug / str(seed)


def work_folder(folder: Path) -> Path:
    """Where a trial trains before it is finished."""
    return folder.with_name(f"{folder.name}.partial")


def read_trial(folder: Path) -> Trial | None:
    """The finished trial in a folder; None if there is none.

    Raises:
        ValueError: for a record that cannot be read.
    """
    if not (folder / RECORD).is_file() or not (folder / CASES).is_file():
        return None
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder / RECORD}: cannot be read ({error}); remove the folder to repeat the trial"
        ) from error
    return Trial(folder, record)


def cases_of(origin: Mapping[str, Any]) -> tuple[Any, Any]:
    """Of a trial's provenance the hash of the data, and of the split but for the training part, of which a trial may have had a share."""
    return origin.get("data_sha256"), origin.get("measured_sha256")


def whole(trial: Trial) -> Trial:
    """The trial, if its record says what tables need.

    Raises:
        ValueError: if it does not.
    """
    missing = [name for name in NEEDED if name not in trial.record]
    if missing:
        raise ValueError(
            f"{trial.folder / RECORD}: says nothing of {', '.join(missing)}; remove the folder to repeat the trial"
        )
    return trial


@contextmanager
def one_at_a_time(place: Path) -> Iterator[None]:
    """Waits until no other process works on a trial, or on the tables of a folder of results; one that was killed works on nothing."""
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{place}: another process is at work on it; waiting for its end", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def finished_trial(folder: Path, settings: Mapping[str, Any]) -> Trial | None:
    """The finished trial in a folder, if it was made with these settings.

    Raises:
        ValueError: if it was made with others, or its record is damaged.
    """
    trial = read_trial(folder)
    if trial is None:
        return None
    _refuse_others(folder, "a trial", whole(trial).record["settings"], settings)
    return trial


def keep_settings(work: Path, settings: Mapping[str, Any], goes_on: bool) -> None:
    """Writes what an unfinished trial is trained with into its folder, or compares it with what stands there.

    Args:
        work: its folder.
        settings: see `Bench.settings`.
        goes_on: whether it was begun by another process.

    Raises:
        ValueError: if it was begun with others, such as other weights under the same name.
    """
    if goes_on:
        _refuse_others(
            work, "an unfinished trial", json.loads((work / SETTINGS).read_text(encoding="utf-8")), settings
        )
    else:
        (work / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _refuse_others(folder: Path, what: str, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    now = json.loads(json.dumps(settings))
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if changed:
        raise ValueError(
            f"{folder}: holds {what} with another {', '.join(changed)}; give the same settings to go on, choose another --output, "
            "or remove the folder"
        )


def write_trial(
    folder: Path,
    record: Mapping[str, Any],
    cases: pd.DataFrame,
    add: Callable[[pd.DataFrame, Path], pd.DataFrame] | None = None,
) -> None:
    """Writes a finished trial; the folder appears whole.

    Args:
        folder: of the trial.
        record: of it.
        cases: its table.
        add (optional): writes more files, such as pictures, into the folder that it gets, and returns the table that names them.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for rest in folder.parent.glob(f".{folder.name}.partial-*"):  # of a process that was killed while it wrote
        shutil.rmtree(rest)
    with written_beside(folder) as partial:
        partial.mkdir()
        (partial / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (cases if add is None else add(cases, partial)).to_parquet(partial / CASES, index=False)


def seed_folders(contender: Path) -> list[Path]:
    """The folders of the trials of a contender, by seed."""
    found = [path for path in contender.glob("*") if re.fullmatch(r"\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name))


def trials_of(output: Path, subject: str) -> Iterator[Trial]:
    """All finished trials of a subject, by contender and seed."""
    for contender in sorted(path for path in (output / subject).glob("*") if path.is_dir()):
        for folder in seed_folders(contender):
            trial = read_trial(folder)
            if trial is not None:
                yield trial
