"""The files inside an archive, with the limits and messages of the curation's archives."""

from pathlib import Path

from echocare_hf.curation.record import ROWS_TABLE, FoundFile
from echocare_hf.curation.unpacked import open_container

from .inputs_found import NamedFile, Problem

_NOT_OPENED = {
    "link_or_device": "is a link or a device inside an archive, which is not followed; unpack it yourself and give the folder",
    "same_name": "has the name of an earlier file of the archive; rename one of them",
}


def open_archive(file: NamedFile, work: Path) -> tuple[list[NamedFile], list[Problem]]:
    """Take the files out of an archive, and out of archives in it.

    Args:
        file: the archive.
        work: folder for its files; what an earlier run took out is used again.

    Returns:
        The files, called `study.zip/IM0001`, and what could not be opened.

    Raises:
        OSError: if the disk is full.
    """
    found, drops = open_container(FoundFile("", file.name, str(file.path), file.path.stat().st_size), work)
    members = [
        NamedFile(Path(each.path), _plain(each.name), file.given, source=f"{file.origin}!{_plain(each.name)}")
        for each in found
    ]
    problems = []
    for drop in drops:
        reason = _NOT_OPENED.get(drop.reason) or drop.detail.removeprefix(f"{drop.name}: ")
        if drop.reason == "no_image_inside":
            reason += "; check the archive"
        problems.append(Problem(file.given, _plain(drop.name), reason))
    return [member for member in members if not _is_litter(member.name)], problems


def _plain(name: str) -> str:
    return name.replace("!/", "/")


def _is_litter(name: str) -> bool:
    """Whether a file is hidden, one that an operating system put into the archive, or the table that is made of a shard's rows."""
    return name.endswith(f"/{ROWS_TABLE}") or any(
        part.startswith(".") or part == "__MACOSX" for part in name.split("/")
    )
