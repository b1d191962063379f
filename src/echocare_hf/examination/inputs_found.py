"""What passes between the steps that find inputs."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, jobs done and jobs in all (0 where they are not known)."""


def no_progress(stage: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


class NamedFile(NamedTuple):
    """A file that was found.

    Attributes:
        path: where it lies.
        name: as the user named it, relative to what was given, with forward slashes.
        given: number of what was given that it was found in.
        is_named: whether the user named this very file.
        source: where it came from if not from `path`: inside an archive, or over the network.
    """

    path: Path
    name: str
    given: int
    is_named: bool = False
    source: str = ""

    @property
    def origin(self) -> str:
        """Where it came from, the same in each run, though what is unpacked or fetched may lie elsewhere."""
        return self.source or str(self.path.resolve())


class Problem(NamedTuple):
    """Something that cannot be examined: number of what was given, its name, and one line with the cure."""

    given: int
    name: str
    reason: str
