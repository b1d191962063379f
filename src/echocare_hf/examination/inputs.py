"""Which files an examination is of: what the user names, opened up to single files with a name and a study.

files, problems = find_inputs(["PAT1", "more.zip", "scans/*.mp4", "dicom://PACS@host:104/1.2.3"], Path("work"))

A file each beside this one says what a kind of input means: `inputs_places` (folders, globs, links), `inputs_archive`, `inputs_kind`
(image or not), `inputs_dicom` (study, DICOMDIR), `dicom_node` and `dicomweb` (the network, only hosts that the user names).
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from echocare_hf.curation.fetched import without_secrets

from .inputs_dicom import missing_references
from .inputs_found import NamedFile, Problem, Progress, no_progress
from .inputs_kind import judge
from .inputs_places import open_places

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InputFile:
    """A file to examine.

    Attributes:
        path: readable on disk.
        name: as the user named it, relative to what was given ("study.zip/IM0001", "PAT1/S2/IM3.dcm"); unique in a run.
        study: what files are put together by: 12 hexadecimal digits of the Study Instance UID's SHA-256 for DICOM, else the folder's
            name, or "files" for a file that was named itself. Safe as a file name.
        source: 12 hexadecimal digits of the SHA-256 of where it came from, "" if that is not known. The same in each run.
    """

    path: Path
    name: str
    study: str
    source: str = field(default="", compare=False)


@dataclass(frozen=True)
class InputProblem:
    """Something that was given, or found in what was given, and cannot be examined: its name, and one line with the cure."""

    name: str
    reason: str


def find_inputs(
    given: Sequence[str],
    work: Path,
    *,
    without: Sequence[Path] = (),
    tell: Callable[[str], None] = _logger.info,
    progress: Progress = no_progress,
) -> tuple[list[InputFile], list[InputProblem]]:
    """Find all files in what a user names.

    Files that are no images (texts, tables, reports) are passed over inside of folders, globs and archives, and counted for `tell`; one
    that is named itself is a problem. Hidden files and what operating systems leave behind are not looked at. Links are followed, each
    folder once. A file that is reached twice is taken once. A file that should be an image, by its suffix, is returned whatever it
    holds: `open_frames` says what is wrong with it.

    Args:
        given: files, folders, globs, archives (.zip, .tar, .tar.gz, .gz, .rar), DICOMDIR files, `dicom://AE@host:port/STUDYUID` (with
            TLS: `dicoms://`) and `dicomweb+https://host/path/studies/STUDYUID`.
        work: folder for what is unpacked or fetched; used again by the next run.
        without: folders that are not searched, such as the output folder.
        tell (optional): called with a line of text that a user may want to know.
        progress (optional): called with a stage, jobs done and jobs in all (0 where they are not known).

    Returns:
        The files in the order of `given`, then by name with numbers as numbers; and what cannot be examined.

    Raises:
        ValueError: if nothing is given, or something that is given holds nothing to examine, naming it.
        FileNotFoundError: if something that is given is not there.
        ImportError: if a network source needs an extra that is not installed.
        OSError: if a disk is full or a host cannot be reached.
    """
    if not given:
        raise ValueError("no input; name files, folders, archives, a DICOM node or a DICOMweb address")
    files, problems = open_places(given, work, without, progress)
    inputs: list[tuple[NamedFile, str]] = []
    passed_over: Counter[int] = Counter()
    for done, file in enumerate(files, 1):
        found = judge(file)
        if found.kind == "image":
            inputs.append((file, found.study or _folder_key(file.name)))
        elif found.kind == "disc":
            problems += missing_references(file, files)
        elif file.is_named:
            problems.append(Problem(file.given, file.name, found.problem))
        else:
            passed_over[file.given] += 1
        progress("find images", done, len(files))
    fruitful = {file.given for file, _ in inputs} | {problem.given for problem in problems}
    for number, count in passed_over.items():
        if number not in fruitful:
            raise ValueError(
                f"{without_secrets(given[number])}: holds no image ({count:,} other file{'s' * (count > 1)}); give the images"
            )
    if not inputs and not problems:
        raise ValueError(f"{without_secrets(given[0])}: holds nothing to examine; give the images")
    if count := passed_over.total():
        tell(f"{count:,} file{'s are no images' if count > 1 else ' is no image'}")
    return (
        [
            InputFile(file.path, name, study, _source_key(file))
            for (file, study), name in zip(inputs, _unique(inputs), strict=True)
        ],
        [InputProblem(problem.name, problem.reason) for problem in problems],
    )


def _folder_key(name: str) -> str:
    """The folder of a file as a file name of its own."""
    folder = str(PurePosixPath(name).parent)
    return "files" if folder == "." else re.sub(r"[^\w.-]+", "_", folder).strip("_.")[:80] or "files"


def _source_key(file: NamedFile) -> str:
    return hashlib.sha256(file.origin.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _unique(inputs: Sequence[tuple[NamedFile, str]]) -> list[str]:
    """The names, with a number behind those that were there before."""
    names: dict[str, None] = {}
    for file, _ in inputs:
        name, number = file.name, 1
        while name in names:
            number += 1
            name = f"{file.name} ({number})"
        names[name] = None
    return list(names)
