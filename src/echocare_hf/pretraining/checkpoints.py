"""Checkpoints of a run: written beside and renamed, with a list of their files; one that is cut short is noticed and skipped."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints in a folder, `step-00000500` and so on.

    Args:
        folder: where they lie.
        keep: how many, at least 2: the last one stays until the next is complete.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, max(keep, 2)

    @property
    def is_empty(self) -> bool:
        return not self._steps()

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08}"

    def partial(self, step: int) -> Path:
        """Where a checkpoint is written before it is complete."""
        return self.folder / f".step-{step:08}.partial"

    def clear_partial(self) -> None:
        """Removes what a killed run was about to write or remove."""
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)

    def finish(self, step: int, facts: dict[str, Any]) -> Path:
        """Lists the files in the partial folder, puts it in its place, and removes the oldest ones. One process does it."""
        partial, final = self.partial(step), self.path(step)
        files = {}
        for path in sorted(partial.rglob("*")):
            if path.is_file():
                files[path.relative_to(partial).as_posix()] = [path.stat().st_size, _digest(path)]
                _to_disk(path)
        manifest = partial / MANIFEST
        manifest.write_text(json.dumps({"step": step, **facts, "files": files}, indent=1) + "\n", encoding="utf-8")
        _to_disk(manifest)
        if final.exists():
            self._remove(final)
        partial.rename(final)
        _to_disk(self.folder)
        for old in self._steps()[: -self.keep]:
            self._remove(self.path(old))
        return final

    def save(self, step: int, write: Callable[[Path], None], facts: dict[str, Any]) -> Path:
        """Writes a checkpoint in a process that is alone.

        Raises:
            ValueError: if it cannot be written, such as on a full disk; what was there before stays.
        """
        partial = self.partial(step)
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            write(partial)
            return self.finish(step, facts)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise self.failure(step, error) from error

    def failure(self, step: int, error: BaseException) -> ValueError:
        """Clears up after a checkpoint that could not be written, and says so in one line."""
        shutil.rmtree(self.partial(step), ignore_errors=True)
        steps = self._steps()
        last = f"the checkpoint of step {steps[-1]} is intact" if steps else "there is none before it"
        return ValueError(
            f"{self.path(step)}: the checkpoint cannot be written ({' '.join(str(error).split())[:200]}); {last}. Make room on the disk "
            "and give the same command again"
        )

    def latest(self) -> tuple[Path | None, dict[str, Any], list[str]]:
        """The newest complete checkpoint.

        Returns:
            Its folder and manifest, None and {} if there is none; and one line for each newer one that is damaged.

        Raises:
            OSError: if one cannot be read for another reason, such as its permissions: it may be whole.
        """
        damaged: list[str] = []
        for step in reversed(self._steps()):
            path = self.path(step)
            manifest, fault = _check(path)
            if not fault:
                return path, manifest, damaged
            damaged.append(f"{path}: is damaged ({fault})")
        return None, {}, damaged

    def drop_after(self, step: int) -> None:
        """Removes checkpoints of later steps: damaged ones that were passed over."""
        for later in self._steps():
            if later > step:
                self._remove(self.path(later))

    def _steps(self) -> list[int]:
        return sorted(int(path.name[5:]) for path in self.folder.glob("step-*") if path.name[5:].isdigit())

    def _remove(self, path: Path) -> None:
        """First out of sight, then away: a run that is killed meanwhile leaves no half of it."""
        hidden = path.with_name(f".{path.name}.old")
        shutil.rmtree(hidden, ignore_errors=True)
        path.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def _check(path: Path) -> tuple[dict[str, Any], str]:
    """The manifest of a checkpoint, and what is wrong with it, "" if nothing."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        for name, (size, digest) in files.items():
            if not (path / name).is_file():
                return {}, f"{name} is missing"
            if (path / name).stat().st_size != size:
                return {}, f"{name} has {(path / name).stat().st_size} of {size} bytes"
            if _digest(path / name) != digest:
                return {}, f"{name} has other contents than were written"
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"its {MANIFEST} cannot be read: {error}"
    return manifest, ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
