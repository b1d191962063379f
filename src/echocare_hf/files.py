"""Results are written beside their place and then renamed, so that nothing half-written stands where a result belongs."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


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


def locked(path: Path) -> IO[str] | None:
    """An open file that no other process has locked; None if one has. The lock ends with the process, however that ends, and is not held
    by the processes that it starts. Where the system or the file system has no such locks, the file is just open."""
    file = path.open("w")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return file
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            file.close()
            raise
        return file
    os.register_at_fork(after_in_child=file.close)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    file.close()  # the run that has just ended removed it
    return locked(path)


@contextlib.contextmanager
def only_run(output: Path, inside: bool = False) -> Iterator[None]:
    """Keeps other runs from a folder while this one makes it. Folders that it made for its lock go again if nothing came into them.

    Args:
        output: that need not be there yet.
        inside: whether the lock is in the folder, which is made for it, or beside, for one that appears when all is done.

    Raises:
        ValueError: if another run is at work on it, or nothing can be written.
    """
    output = output.resolve()
    path = output / ".lock" if inside else output.with_name(f".{output.name}.lock")
    new = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = locked(path)
    except OSError as error:
        raise ValueError(f"{output}: no run can be written there ({error}); choose another folder") from error
    if lock is None:
        raise ValueError(f"{output}: another run is writing to it; wait for it, or give another folder")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
            for folder in new:
                folder.rmdir()
        lock.close()


def readable_weights(folder: Path) -> None:
    """Lets whoever may read a folder's configuration read its weights too: safetensors makes its files readable by their owner alone."""
    for path in folder.glob("*.safetensors"):
        path.chmod((folder / "config.json").stat().st_mode)
