"""Image-report pairs of one's own, in any language, from JSON, JSONL, CSV, parquet or a `datasets` folder.

    data = read_pairs("pairs.json")
    data.pairs[0].images, data.pairs[0].report, data.pairs[0].organ
    print(data.summary())

A row is a report with its images. What a column is called does not matter much, see `COLUMNS`; `docs/reports.md` has examples. JSON is a
list of objects, or an object of such lists, one a split, as the USreport data set has it. Images may be PNG, JPEG, DICOM, video or any
other format of `read_ultrasound`; a clip stands for its key frames.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from echocare_hf.data.labelled.folder import split_name
from echocare_hf.data.labelled.record import ImageSource, Sample
from echocare_hf.data.labelled.table import Row, Table, is_blank, text

from .languages import language_of
from .pair_cells import clean_report, finding_cell, listed_cell, source_of
from .pair_images import fingerprint
from .pair_tables import COLUMNS, columns_of, open_pairs


@dataclass(frozen=True)
class ReportPair(Sample):
    """One report with the images it is about; a `Sample`, so that `split_by_group` takes it.

    Attributes:
        report: the text; lines keep their ends, other white space is one space.
        organ: as the data calls it, "" if it does not say.
        indication: why the examination was asked for, "" if unknown.
        views: what each image shows, one a file, or empty.
        findings: "present", "absent" or "unknown" by name, where the data states them; else they are read from the text.
        language: "en", "zh", ... as the data says, else as the script tells.
    """

    report: str = ""
    organ: str = ""
    indication: str = ""
    views: tuple[str, ...] = ()
    findings: Mapping[str, str] = field(default_factory=dict)
    language: str = "en"


@dataclass(frozen=True)
class ReportData:
    """What `read_pairs` returns.

    Attributes:
        source: the file or folder that was read.
        pairs: in the order of the source, with distinct names.
        problems: one line each: what was left out or changed, and what to do about it.
        unpaired: always False; fine-tuning asks it of its data.
        task: always "report".
    """

    source: str
    pairs: tuple[ReportPair, ...]
    problems: tuple[str, ...] = ()
    unpaired: bool = False
    task: str = "report"

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def licences(self) -> dict[str, int]:
        """Number of pairs of each licence, the most frequent first; "unknown" where none is stated."""
        return dict(Counter(pair.licence or "unknown" for pair in self.pairs).most_common())

    @property
    def languages(self) -> dict[str, int]:
        """Number of reports in each language, the most frequent first."""
        return dict(Counter(pair.language for pair in self.pairs).most_common())

    def summary(self) -> str:
        """A few lines for people."""
        images = Counter(len(pair.images) for pair in self.pairs)
        organs = Counter(pair.organ or "no organ" for pair in self.pairs).most_common()
        groups = {pair.group or pair.name for pair in self.pairs}
        lines = [
            f"{self.source}: {len(self.pairs)} reports, {len(groups)} groups",
            "files a report: " + ", ".join(f"{count} ({number} reports)" for count, number in sorted(images.items())),
            "organs: " + ", ".join(f"{organ} {number}" for organ, number in organs),
            "languages: " + ", ".join(f"{language} {number}" for language, number in self.languages.items()),
            "licences: " + ", ".join(f"{name} {count}" for name, count in self.licences.items()),
        ]
        return "\n".join(lines + [f"problem: {problem}" for problem in self.problems])


def read_pairs(
    data: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    organ: str = "",
    language: str | None = None,
    strict: bool = False,
    check_images: bool = True,
) -> ReportData:
    """Reads image-report pairs and checks all of them.

    Args:
        data: a .json, .jsonl, .csv, .tsv or .parquet file, a folder that holds one, or one that `datasets` saved.
        images: folder that the names of images are relative to, if it is not that of the file.
        columns: which column means what where its name does not tell: keys of `COLUMNS` to names, such as `{"report": "report_md"}`.
        organ: of all reports without an organ of their own.
        language: of all reports without one of their own, such as `"de"`; told by the script if not given.
        strict: make a pair that cannot be used an error, rather than leave it out and name it in `problems`.
        check_images: open every image once. Without it a damaged file shows later, and equal images under two names stay two.

    Returns:
        A `ReportData`.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if it holds no pairs that can be used, or a pair cannot be used and `strict` is set; one line that names the file, the
            row and the cure.
        ImportError: if a format needs an extra that is not installed.
    """
    table = open_pairs(Path(data))
    if images is not None and not Path(images).is_dir():
        raise FileNotFoundError(f"{images}: there is no such folder of images; check the path")
    found = columns_of(table, columns or {})
    root = Path(images) if images is not None else table.root
    usual = {"organ": organ, "language": language}
    pairs: list[ReportPair] = []
    problems = list(table.problems)
    seen: dict[tuple[Any, ...], str] = {}
    names: set[str] = set()
    for number, row in enumerate(tqdm(table.rows, desc="reading pairs", unit="pair", leave=False, disable=None), 1):
        where = f"{table.source}: {_called(row, found, number)}"
        try:
            pair, remarks = _pair(row, found, root, where, usual, number, table)
            key = (tuple(map(str, pair.images)), pair.report)
            if (first := seen.setdefault(key, where)) != where:
                raise ValueError(f"{where} is the same as {first.removeprefix(table.source + ': ')}; remove one")
            pair = fingerprint(pair) if check_images else pair
        except (ValueError, OSError) as error:
            if strict:
                raise ValueError(str(error)) from error
            problems.append(f"{error} (left out)")
            continue
        if strict and remarks:
            raise ValueError(remarks[0])
        problems += remarks
        name = pair.name if pair.name not in names else f"{pair.name} (row {number})"
        names.add(name)
        pairs.append(replace(pair, name=name))
    if not pairs:
        reason = f"; the first: {problems[0]}" if problems else ""
        raise ValueError(f"{table.source}: holds no image-report pair that can be used{reason}")
    return ReportData(table.source, tuple(pairs), tuple(problems))


def _called(row: Row, found: Mapping[str, list[str]], number: int) -> str:
    name = next((text(row[column]) for column in found["name"] if not is_blank(row.get(column))), None)
    return f"row {number}" if name is None else f"row {number} ({name})"


def _pair(
    row: Row,
    found: Mapping[str, list[str]],
    root: Path | None,
    where: str,
    usual: Mapping[str, str | None],
    number: int,
    table: Table,
) -> tuple[ReportPair, list[str]]:
    """A pair, and what was changed in it.

    Raises:
        ValueError: if it cannot be used.
    """

    def first(what: str) -> Any:
        return next((row[column] for column in found[what] if not is_blank(row.get(column))), None)

    report, remarks = clean_report(first("report"), where)
    cells = [cell for column in found["images"] for cell in listed_cell(row.get(column))]
    if not cells:
        raise ValueError(f"{where} has no image; name its files in the column {found['images'][0]}")
    images: tuple[ImageSource, ...] = tuple(source_of(cell, root, where) for cell in cells)
    if len(set(map(str, images))) < len(images):
        raise ValueError(f"{where} names an image twice; remove one")
    views = tuple(text(view) for view in listed_cell(first("views")))
    if views and len(views) != len(images):
        raise ValueError(f"{where} has {len(views)} views for {len(images)} images; name one an image")
    split = first("split")
    if split is not None and split_name(str(split)) is None:
        raise ValueError(f"{where} has the split {split!r}; write train, validation or test")
    optional = {what: first(what) for what in ("name", "group", "licence", "organ", "indication", "language")}
    told = {what: text(value) for what, value in optional.items() if value is not None}
    return ReportPair(
        name=told.get("name", f"row {number}"),
        images=images,
        group=told.get("group"),
        split=None if split is None else split_name(str(split)),
        licence=told.get("licence"),
        report=report,
        organ=told.get("organ", usual["organ"] or ""),
        indication=told.get("indication", ""),
        views=views,
        findings=finding_cell(row, found["findings"], where),
        language=told.get("language") or usual["language"] or language_of(report),
    ), remarks


__all__ = ["COLUMNS", "ReportData", "ReportPair", "read_pairs"]
