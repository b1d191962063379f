"""Folders of the page: one for each request, gone when the visitor leaves, when they are old, or when the program ends."""

import shutil
import tempfile
import threading
import time
from pathlib import Path

LONGEST_KEPT = 30 * 60.0
"""Seconds after which a request's folder is removed, even if its visitor is still there."""


class RequestFolders:
    """Temporary folders by request.

    Args:
        keep_seconds: age at which a folder is removed.

    Attributes:
        root: holds them all, readable by this user alone.
    """

    def __init__(self, keep_seconds: float = LONGEST_KEPT) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="echocare-demo-"))
        self.keep_seconds = keep_seconds
        self._owned: dict[str, tuple[str, float]] = {}
        self._uploads: dict[str, set[Path]] = {}
        self._lock = threading.Lock()

    def new(self, visitor: str) -> Path:
        """An empty folder for a visitor's request; removes those that are too old."""
        self.sweep()
        folder = Path(tempfile.mkdtemp(prefix="request-", dir=self.root))
        with self._lock:
            self._owned[folder.name] = (visitor, time.monotonic())
        return folder

    def find(self, token: str) -> Path:
        """The folder of an earlier request by its name.

        Raises:
            ValueError: if it is gone.
        """
        with self._lock:
            known = token in self._owned
        if not known:
            raise ValueError("this result is not kept any more: analyse the file again")
        return self.root / token

    def uses(self, visitor: str, upload: Path) -> None:
        """Notes that a visitor sent a file, which goes when he leaves, unless another one sent the same. Files outside are not noted."""
        if self.root.resolve() in upload.resolve().parents:
            with self._lock:
                self._uploads.setdefault(visitor, set()).add(upload)

    def remove(self, folder: Path) -> None:
        """Removes one folder."""
        with self._lock:
            self._owned.pop(folder.name, None)
        shutil.rmtree(folder, ignore_errors=True)

    def drop_former(self, visitor: str, but: str) -> None:
        """Removes all folders of a visitor's requests but one."""
        with self._lock:
            names = [name for name, (owner, _) in self._owned.items() if owner == visitor and name != but]
        for name in names:
            self.remove(self.root / name)

    def leave(self, visitor: str) -> None:
        """Removes all that belongs to a visitor."""
        self.drop_former(visitor, but="")
        with self._lock:
            sent = self._uploads.pop(visitor, set()).difference(*self._uploads.values())
        for upload in sent:
            upload.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes what is too old."""
        oldest = time.monotonic() - self.keep_seconds
        with self._lock:
            names = [name for name, (_, made) in self._owned.items() if made < oldest]
            for visitor, sent in list(self._uploads.items()):
                self._uploads[visitor] = {upload for upload in sent if upload.exists()}
                if not self._uploads[visitor]:
                    del self._uploads[visitor]
        for name in names:
            self.remove(self.root / name)

    def close(self) -> None:
        """Removes all of them."""
        shutil.rmtree(self.root, ignore_errors=True)


__all__ = ["LONGEST_KEPT", "RequestFolders"]
