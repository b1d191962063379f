"""Archives, opened without trust: zip, tar (plain or compressed), gz, and rar where `bsdtar` is installed.

No member is ever written under its own path: on disk it gets a folder and a name made from it, and its real name is kept as text. So no
path can escape, whatever an archive says; one that tries is refused all the same, as a whole, because somebody meant harm with it.
"""

import errno
import gzip
import lzma
import re
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, Self

from .options import digest

MAX_MEMBERS = 2_000_000
"""Most members of one archive, those of archives in it included."""

MAX_MEMBER_BYTES = 16 * 1024**3
"""Most bytes of one unpacked member: 16 GiB."""

MAX_TOTAL_BYTES = 2 * 1024**4
"""Most bytes of one unpacked archive, archives in it included: 2 TiB."""

MAX_RATIO = 50
"""Most unpacked bytes for one packed byte, once `RATIO_FLOOR` bytes are out. Images hardly shrink; bombs do 100 to 1,000 times."""

RATIO_FLOOR = 1024**2
"""Unpacked bytes from which the ratio counts: 1 MiB."""

MAX_DEPTH = 3
"""How deep archives may lie in archives."""

_BLOCK = 1024**2
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# Of zipfile and tarfile, for a header that makes no sense.
_NONSENSE = (IndexError, OverflowError, TypeError, struct.error)
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    *_NONSENSE,
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class ArchiveError(ValueError):
    """An archive that is not opened, or not to its end. The message is one line with the limit and the cure.

    Attributes:
        reason: a code: "unsafe_archive", "archive_limit", "encrypted_archive", "damaged_archive" or "no_rar_tool".
    """

    def __init__(self, path: Path, reason: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.reason = reason


class Member(NamedTuple):
    """A file that was taken out of an archive: its name in there, where it lies now, and its bytes."""

    name: str
    path: Path
    size: int


class Skipped(NamedTuple):
    """A member that was left out: its name and why ("link_or_device" or "same_name")."""

    name: str
    reason: str


@dataclass
class Budget:
    """What one archive may unpack to, all archives inside it together.

    Attributes:
        packed: bytes of the outermost archive.
        members: members so far.
        total: unpacked bytes so far.
    """

    packed: int
    members: int = 0
    total: int = 0

    def add_member(self, archive: Path) -> None:
        """Count a member of `archive`.

        Raises:
            ArchiveError: above the limit.
        """
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise _over(archive, f"more than {MAX_MEMBERS:,} members")

    def add_bytes(self, archive: Path, count: int, member_total: int) -> None:
        """Count unpacked bytes of a member of `archive` that has `member_total` by now.

        Raises:
            ArchiveError: above a limit.
        """
        self.total += count
        if member_total > MAX_MEMBER_BYTES:
            raise _over(archive, f"a member of more than {MAX_MEMBER_BYTES // 1024**3} GiB")
        if self.total > MAX_TOTAL_BYTES:
            raise _over(archive, f"more than {MAX_TOTAL_BYTES // 1024**4} TiB")
        if self.total > RATIO_FLOOR and self.total > MAX_RATIO * max(1, self.packed):
            raise _over(
                archive, f"more than {MAX_RATIO} times its size when unpacked, counted from the outermost archive"
            )


def _over(archive: Path, what: str) -> ArchiveError:
    message = f"holds {what}, above the limit; unpack it yourself if you trust it, and give the folder"
    return ArchiveError(archive, "archive_limit", message)


def is_archive(name: str) -> bool:
    """Whether a file is an archive by its name. A gzipped NIfTI volume is none."""
    name = name.lower()
    if name.endswith((".nii.gz", ".mha.gz")):
        return False
    return name.endswith((*_TAR_SUFFIXES, ".zip", ".gz", ".rar"))


def unpack(path: Path, target: Path, budget: Budget | None = None) -> tuple[list[Member], list[Skipped]]:
    """Take all files out of an archive.

    Args:
        path: the archive.
        target: an empty folder for the files.
        budget: what is left of the outermost archive that `path` lies in; its own by default.

    Returns:
        The files in the order of the archive, and the members that were left out: links, devices, and those that have the name of an
        earlier one, since a name has to tell which file is meant.

    Raises:
        ArchiveError: if the archive is damaged, encrypted, tries to write outside of its folder, or is above a limit.
        OSError: if the disk is full.
    """
    budget = budget or Budget(path.stat().st_size)
    members: list[Member] = []
    skipped: list[Skipped] = []
    taken: set[str] = set()
    try:
        for name, stream in _streams(path):
            budget.add_member(path)
            if stream is None:
                skipped.append(Skipped(_safe_name(path, name), "link_or_device"))
                continue
            name = _safe_name(path, name)
            if name in taken:
                skipped.append(Skipped(name, "same_name"))
                continue
            taken.add(name)
            place = _place(target, name, len(members))
            members.append(Member(name, place, _copy(stream, place, path, budget)))
    except ArchiveError:
        raise
    except NotImplementedError as error:  # a RuntimeError too, but of another kind: deflate64, strong encryption
        message = f"cannot be read ({error}); unpack it yourself and give the folder"
        raise ArchiveError(path, "damaged_archive", message) from error
    except RuntimeError as error:  # what zipfile raises where a password is asked for
        raise ArchiveError(
            path, "encrypted_archive", "is encrypted; unpack it yourself and give the folder"
        ) from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise OSError(error.errno, error.strerror, str(target)) from error
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)  # without a path
        raise ArchiveError(path, "damaged_archive", f"is a damaged archive ({problem}); copy it again") from error
    return members, skipped


def _safe_name(path: Path, name: str) -> str:
    """The name of a member with forward slashes.

    Raises:
        ArchiveError: if it is absolute or climbs out of the archive.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or (parts.parts and parts.parts[0].endswith(":")) or "\0" in name:
        shown = name if len(name) < 100 else name[:97] + "..."
        raise ArchiveError(
            path, "unsafe_archive", f"its member {shown!r} points outside of the archive; do not trust it"
        )
    return str(parts)


def _place(target: Path, name: str, number: int) -> Path:
    """Where a member is stored: files of one folder stay together, because a header (.mhd) finds its data (.raw) that way."""
    pure = PurePosixPath(name)
    folder = target / digest(str(pure.parent), size=8)
    folder.mkdir(exist_ok=True)
    plain = re.sub(r"[^\w.+-]", "_", pure.name, flags=re.ASCII).lstrip(".")
    place = folder / (plain if 0 < len(plain) <= 128 else f"{number:07d}{pure.suffix[:16]}")
    return place if not place.exists() else folder / f"{number:07d}_{place.name}"


def _copy(stream: IO[bytes], place: Path, archive: Path, budget: Budget) -> int:
    size = 0
    with place.open("wb") as file:
        while block := stream.read(_BLOCK):
            size += len(block)
            budget.add_bytes(archive, len(block), size)
            file.write(block)
    return size


def _streams(path: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Name and content of every member but folders; None for the content of what is no plain file."""
    name = path.name.lower()
    if name.endswith(".zip"):
        yield from _zip_streams(path)
    elif name.endswith(".rar"):
        with _rar_as_tar(path) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive:
            yield from _tar_streams(archive)
    elif name.endswith(_TAR_SUFFIXES):
        with tarfile.open(path, mode="r|*", tarinfo=_Header) as archive:
            yield from _tar_streams(archive)
    else:
        with gzip.open(path) as file:
            yield path.name[: -len(".gz")], file  # type: ignore[misc]


def _zip_streams(path: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            kind = (entry.external_attr >> 16) & 0o170000
            if kind not in (0, 0o100000):
                yield entry.filename, None
                continue
            with archive.open(entry) as file:
                yield entry.filename, file


class _Header(tarfile.TarInfo):
    """A header that is an error when it is damaged or cut short: `tarfile` takes a later one that is for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"a member has a damaged header, {error}") from error


def _tar_streams(archive: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes] | None]]:
    for entry in archive:
        if entry.isdir():
            continue
        yield entry.name, archive.extractfile(entry) if entry.isfile() else None


@contextmanager
def _rar_as_tar(path: Path) -> Iterator[IO[bytes]]:
    """The members of a rar archive as a stream in tar format, made by libarchive's `bsdtar` (BSD licence).

    Raises:
        ArchiveError: if there is no bsdtar, or it could not read all of the archive.
    """
    tool = shutil.which("bsdtar")
    if tool is None:
        raise ArchiveError(
            path, "no_rar_tool", "rar needs bsdtar (libarchive); install it, or unpack and give the folder"
        )
    command = [tool, "-c", "--format=pax", "-f", "-", f"@{path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
            while process.stdout.read(_BLOCK):  # zeros behind the end of the tar
                pass
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ArchiveError(
            path,
            "damaged_archive",
            "could not be read to its end by bsdtar; copy it again, or unpack and give the folder",
        )
