"""Results are written beside their place and then renamed, so that nothing half-written stands where a result belongs."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to, a file or a folder; it takes the target's place only if all went well."""
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        yield partial
        if target.is_dir():
            shutil.rmtree(target)
        partial.replace(target)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def readable_weights(folder: Path) -> None:
    """Lets whoever may read a folder's configuration read its weights too: safetensors makes its files readable by their owner alone."""
    for path in folder.glob("*.safetensors"):
        path.chmod((folder / "config.json").stat().st_mode)
