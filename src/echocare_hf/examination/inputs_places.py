"""From what a user names to single files: folders, globs and links here, archives, discs and the network behind their own files."""

import glob
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from echocare_hf.curation.archives import is_archive
from echocare_hf.curation.record import readable
from echocare_hf.data.labelled.options import natural_key

from .inputs_archive import open_archive
from .inputs_dicom import is_disc, missing_reason, references, same_name
from .inputs_found import NamedFile, Problem, Progress
from .inputs_network import fetch_study
from .results import RUN_FILE, SCHEMA

_LITTER = {"__macosx", "thumbs.db", "desktop.ini", "system volume information", "$recycle.bin", "lost+found", "@eadir"}


class _Root(NamedTuple):
    """A file or folder that a user named: where, whether itself or by a pattern, and what it is called if not by its path."""

    path: Path
    given: int
    is_named: bool
    label: str | None = None


def open_places(
    given: Sequence[str], work: Path, without: Sequence[Path], progress: Progress
) -> tuple[list[NamedFile], list[Problem]]:
    """All files in what a user names, archives opened and network sources fetched.

    Args and errors are those of `inputs.find_inputs`.

    Returns:
        The files, each once, and what could not be opened.
    """
    problems: list[Problem] = []
    roots = [root for number, text in enumerate(given) for root in _roots(number, text, work, problems, progress)]
    found: dict[Path, NamedFile] = {}
    opened: set[Path] = set()
    skipped = {path.resolve() for path in without}
    for root, label in zip(roots, _labels(roots), strict=True):
        count, lost_before = 0, len(problems)
        for file in _files_of(root, label, skipped, problems):
            count += 1
            if root.label is not None:
                file = file._replace(source=f"network:{file.name}")
            place = file.path.resolve()
            if not is_archive(file.path.name):
                found.setdefault(place, file)
            elif place not in opened:
                opened.add(place)
                progress(f"open {file.name}", 0, 0)
                members, lost = open_archive(file, work / "unpacked")
                problems += lost
                found |= {member.path: member for member in members}
        if count == 0 and len(problems) == lost_before and root.label is None:
            if is_results(root.path):
                if not root.is_named:
                    continue
                raise ValueError(f"{given[root.given]}: holds results of echocare predict; give the images")
            raise ValueError(f"{given[root.given]}: holds no files; give the folder that holds the images")
    return list(found.values()), problems


def _roots(number: int, text: str, work: Path, problems: list[Problem], progress: Progress) -> Iterator[_Root]:
    """What one input stands for.

    Raises:
        FileNotFoundError: if there is no such file or folder, or none that matches.
        ValueError: if it is an address of a kind that is not supported.
    """
    if "://" in text:
        folder, label, lost = fetch_study(text, work / "fetched", progress)
        problems += [Problem(number, name, reason) for name, reason in lost]
        yield _Root(folder, number, False, label)
        return
    path = Path(text).expanduser()
    if os.path.lexists(path):
        yield _Root(path, number, True)
        return
    matches = sorted(glob.glob(str(path), recursive=True), key=natural_key) if glob.has_magic(text) else []  # noqa: PTH207
    if not matches:
        what = "no file matches this pattern" if glob.has_magic(text) else "there is no such file or folder"
        raise FileNotFoundError(f"{text}: {what}; check the path")
    # "**" also finds what lies in the folders that it finds.
    for match in matches:
        if not ("**" in text and Path(match).is_dir()) and not any(map(is_results, Path(match).absolute().parents)):
            yield _Root(Path(match), number, False)


def is_results(folder: Path) -> bool:
    """Whether a folder holds results of this command, which are pictures but no images to analyse."""
    try:
        run = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no such file, or somebody else's
        return False
    return isinstance(run, dict) and str(run.get("schema", "")).startswith(SCHEMA.partition("/")[0] + "/")


def _labels(roots: Sequence[_Root]) -> list[str]:
    """The last part of each path; where paths share it, as many parts before as tell them apart."""
    paths = [_absolute(root.path) for root in roots]
    depths = [1] * len(roots)
    while True:
        labels = [
            root.label or "/".join(path.parts[1:][-depth:]) or "root"
            for root, path, depth in zip(roots, paths, depths, strict=True)
        ]
        owners: dict[str, set[Path]] = {}
        for label, path in zip(labels, paths, strict=True):
            owners.setdefault(label, set()).add(path)
        deeper = [
            depth + (len(owners[label]) > 1 and root.label is None and depth < len(path.parts) - 1)
            for root, path, depth, label in zip(roots, paths, depths, labels, strict=True)
        ]
        if deeper == depths:
            return [readable(label) for label in labels]
        depths = deeper


def _absolute(path: Path) -> Path:
    """The path without "." and "..", but with links as the user named them."""
    return Path(os.path.normpath(path.absolute()))


def _files_of(root: _Root, label: str, skipped: set[Path], problems: list[Problem]) -> Iterator[NamedFile]:
    """The files of a folder, those that a disc's DICOMDIR lists, or the one file."""
    path = root.path
    try:
        kind = path.stat().st_mode
    except OSError as error:
        problems.append(_unreachable(root.given, label, path, error))
        return
    if stat.S_ISDIR(kind):
        yield from _walk(path, label, root.given, skipped, set(), problems)
    elif not stat.S_ISREG(kind):
        problems.append(Problem(root.given, label, "is no file but a device or a pipe; give a file"))
    elif root.is_named and is_disc(path):
        yield from _disc(path, label, root.given, problems)
    else:
        yield NamedFile(path, label, root.given, root.is_named)


def _walk(
    folder: Path, label: str, given: int, skipped: set[Path], seen: set[tuple[int, int]], problems: list[Problem]
) -> Iterator[NamedFile]:
    """All files below a folder in natural order; `seen` folders, by device and inode, are not entered again."""
    try:
        identity = folder.stat()
        entries = sorted((entry.name for entry in folder.iterdir()), key=natural_key)
    except OSError as error:
        problems.append(_unreachable(given, label, folder, error))
        return
    if (identity.st_dev, identity.st_ino) in seen or folder.resolve() in skipped or is_results(folder):
        return
    seen.add((identity.st_dev, identity.st_ino))
    for entry in entries:
        if entry.startswith(".") or entry.lower() in _LITTER:
            continue
        path, name = folder / entry, f"{label}/{readable(entry)}"
        try:
            kind = path.stat().st_mode
        except OSError as error:
            problems.append(_unreachable(given, name, path, error))
            continue
        if stat.S_ISDIR(kind):
            yield from _walk(path, name, given, skipped, seen, problems)
        elif stat.S_ISREG(kind):
            yield NamedFile(path, name, given)


def _disc(path: Path, label: str, given: int, problems: list[Problem]) -> Iterator[NamedFile]:
    """The files that a DICOMDIR lists, whatever the case their names are written in on this machine."""
    folder = readable(_absolute(path).parent.name) or label
    try:
        listed = references(path)
    except ValueError as error:
        problems.append(Problem(given, label, str(error)))
        return
    for parts in listed:
        name, place = "/".join((folder, *parts)), path.parent
        for part in parts:
            place = next((entry for entry in _entries(place) if same_name(entry.name, part)), place / part)
        if place.is_file():
            yield NamedFile(place, name, given)
        else:
            problems.append(Problem(given, name, missing_reason))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _unreachable(given: int, name: str, path: Path, error: OSError) -> Problem:
    if path.is_symlink():
        return Problem(given, name, "is a link that leads nowhere or in a circle; give what it should lead to")
    return Problem(given, name, f"cannot be opened ({error.strerror}); check its permissions")
