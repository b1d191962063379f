"""What one request of the page may cost."""

from dataclasses import dataclass
from pathlib import Path

MEGABYTE = 1024**2


@dataclass(frozen=True)
class Limits:
    """What one request may cost: megabytes of its file, and seconds of the models' time."""

    megabytes: float = 64
    seconds: float = 60

    def __post_init__(self) -> None:
        if not self.megabytes > 0:
            raise ValueError(f"--max-mb must be above 0, got {self.megabytes:g}")
        if not self.seconds > 0:
            raise ValueError(f"--max-seconds must be above 0, got {self.seconds:g}")

    def check_size(self, path: Path, name: str) -> None:
        """Refuses a file that is too large.

        Raises:
            ValueError: says how large it is, and what is allowed.
        """
        megabytes = path.stat().st_size / MEGABYTE
        if megabytes > self.megabytes:
            raise ValueError(
                f"{name}: is {megabytes:.1f} MB; this page takes files up to {self.megabytes:g} MB. "
                "Cut the clip, or start the page with a larger --max-mb"
            )


__all__ = ["MEGABYTE", "Limits"]
