"""What every sample has whatever its task: its file, its group, its split, its scale, its licence."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from .folder import MaskFinder, find_images, split_name, stem_of
from .known import known_group, known_set
from .options import Options
from .pixels import may_be_cine
from .record import ImageSource, RowReference, Sample, SplitName
from .table import (
    FRAME_COLUMNS,
    IMAGE_COLUMNS,
    LICENCE_COLUMNS,
    PATIENT_COLUMNS,
    SEQUENCE_COLUMNS,
    SPACING_COLUMNS,
    SPLIT_COLUMNS,
    Entries,
    Table,
    is_blank,
    number,
    read_table,
    text,
)

INDEX_LICENCE, INDEX_GROUP = "licence in index.csv", "group in index.csv"
"""Columns that `add_index` makes of what it finds one folder up."""


MOST_NEAREST = 20
"""For so many files that are not there the nearest name is looked up; more would not be read."""


class Files:
    """Finds the files that a table names, below one folder.

    Args:
        root: the folder; None where images are no files.

    Attributes:
        respelled: name in the table to the file that was taken for it, where only upper case or the suffix differ.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self.respelled: dict[str, Path] = {}
        self._taken: set[Path] = set()
        self._claimed: set[Path] = set()
        self._missing: dict[str, Path] = {}

    @cached_property
    def _everything(self) -> list[Path]:
        return find_images(self.root) if self.root is not None else []

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in self._everything:
            found.setdefault(path.name, []).append(path)
        return found

    @cached_property
    def _by_spelling(self) -> dict[tuple[str, bool], list[Path]]:
        """Files by their name in lower case, with and without suffix, and whether they are masks."""
        found: dict[tuple[str, bool], list[Path]] = {}
        for path in self._everything:
            for name in {path.name.lower(), stem_of(path.name).lower()}:
                found.setdefault((name, path in self.masks.masks), []).append(path)
        return found

    @cached_property
    def masks(self) -> MaskFinder:
        """Finds masks by the names of files."""
        assert self.root is not None
        return MaskFinder(self.root, self._everything)

    def source(self, cell: Any, mask: bool = False) -> ImageSource:
        """The image, or the mask, that a cell stands for: a row of a data set as it is, else the path of a file.

        A file that is not where the table says is searched by its name below the folder, then by its name without regard to case,
        then without suffix, and taken if there is only one.
        """
        if isinstance(cell, RowReference):
            return cell
        path = self._place(cell)
        if not path.exists() and self.root is not None:
            path = self._search(path, self.relative(cell), mask)
        self._taken.add(path)
        return str(path)

    def claim(self, cells: Iterable[Any]) -> None:
        """Notes the images that cells (names or lists of names) call as they are called, so that no other cell is given one of them."""
        names = (name for cell in cells for name in (cell if isinstance(cell, list) else [cell]))
        places = (self._place(name) for name in names if not isinstance(name, RowReference))
        self._claimed.update(place for place in places if place.exists())

    def _place(self, cell: Any) -> Path:
        path = Path(self.relative(cell))
        return self.root / path if self.root is not None and not path.is_absolute() else path

    def _search(self, path: Path, written: str, mask: bool) -> Path:
        free = [other for other in self._by_name.get(path.name, []) if other not in self._claimed]
        masks = [other for other in free if other in self.masks.masks]
        same_name = (masks or free) if mask else [other for other in free if other not in masks]
        if len(same_name) == 1:
            return same_name[0]
        for name in (path.name.lower(), stem_of(path.name).lower()):
            alike = [other for other in self._by_spelling.get((name, mask), []) if other not in self._claimed]
            beside = [other for other in alike if str(other.parent).lower() == str(path.parent).lower()]
            for found in (beside, alike):
                if len(found) == 1:
                    self.respelled[written] = found[0]
                    return found[0]
        self._missing[str(path)] = path
        return path

    def nearest(self) -> dict[str, str]:
        """Path that is not there to the most similar name of a file that nothing else stands for, for the first `MOST_NEAREST` of them."""
        missing = list(self._missing.items())[:MOST_NEAREST]
        free = sorted({path.name for path in self._everything if path not in self._taken}) if missing else []
        found = ((name, get_close_matches(path.name, free, 1)) for name, path in missing)
        return {name: nearest[0] for name, nearest in found if nearest}

    def notes(self) -> list[str]:
        """A line on the files that the table writes otherwise than they are called, if there are any."""
        if not self.respelled:
            return []
        written, path = next(iter(self.respelled.items()))
        assert self.root is not None
        return [
            f"{self.root}: {len(self.respelled)} files are called otherwise than the table says and were taken by their like, first "
            f"{path.relative_to(self.root)} for {written}; correct the table if one is wrong"
        ]

    @staticmethod
    def relative(cell: Any) -> str:
        """The text of a cell that names a file, with forward slashes."""
        return text(cell).replace("\\", "/")


def add_index(table: Table, folder: Path) -> None:
    """Take licences and groups from an `index.csv` one folder up, for images whose own table does not state them.

    Such an index lists the files of several data sets side by side, with `path` relative to itself.
    """
    index_path = folder.parent / "index.csv"
    key = table.find(IMAGE_COLUMNS)
    if not index_path.is_file() or key is None:
        return
    index = read_table(index_path)
    if "path" not in index.columns:
        return
    rows = {row["path"]: row for row in index.rows}
    licence, group = index.find(LICENCE_COLUMNS) or "", index.find(("group",)) or ""
    for part in (table, *table.sides):
        if part.root is None or key not in part.columns:
            continue
        for row in part.rows:
            found = rows.get(f"{folder.name}/{row[key]}", {})
            row[INDEX_LICENCE] = found.get(licence)
            row[INDEX_GROUP] = found.get(group)
    table.index_columns = (INDEX_LICENCE, INDEX_GROUP)


def common_samples(entries: Entries, files: Files, options: Options) -> list[Sample]:
    """A sample for each entry, with everything that does not depend on the task."""
    names = [entry_name(entries, index) for index in range(len(entries))]
    groups = _groups(entries, names, files, options)
    splits = _splits(entries, names, options)
    spacings = entries.first(entries.find(SPACING_COLUMNS))
    licences = entries.first(entries.find((*LICENCE_COLUMNS, INDEX_LICENCE)))
    frames = entries.first(entries.find(FRAME_COLUMNS))
    samples = []
    for index, rows in enumerate(entries.rows):
        cell = rows[0][entries.key]
        images = tuple(files.source(item) for item in (cell if isinstance(cell, list) else [cell]))
        cine = is_cine(images)
        where = f"{entries.table.source}, {names[index]}"
        spacing = spacings[index]
        samples.append(
            Sample(
                name=names[index],
                images=images,
                frame=int(number(frames[index], f"{where}, frame")) if cine and frames[index] is not None else None,
                group=groups[index],
                split=splits[index],
                spacing=None if spacing is None else _spacing(spacing, where),
                licence=None if licences[index] is None else text(licences[index]),
            )
        )
    return samples


def is_cine(images: Sequence[ImageSource]) -> bool:
    """Whether images are one file that may hold a whole cine loop."""
    return len(images) == 1 and isinstance(images[0], str) and may_be_cine(images[0])


def entry_name(entries: Entries, index: int) -> str:
    """How messages call an entry, and what it is sorted by: its path in the data, or its row."""
    cell = entries.rows[index][0][entries.key]
    if isinstance(cell, list):
        return str(cell[0]) if cell else f"row {index}"
    return str(cell) if isinstance(cell, RowReference) else Files.relative(cell)


def _groups(entries: Entries, names: Sequence[str], files: Files, options: Options) -> list[str | None]:
    """The group of each entry, by the first of these that says something: the user, a patient, a known file name, a sequence."""
    table = entries.table
    if options.group is not None:
        column = table.need(options.group, "group")
        return [None if value is None else text(value) for value in entries.first(column)]
    if options.group_pattern is not None:
        matches = [re.search(options.group_pattern, name) for name in names]
        if not any(matches):
            raise ValueError(
                f"{table.source}: --group_pattern {options.group_pattern!r} fits no file, such as {names[0]!r}; correct it"
            )
        return [None if match is None else "/".join(part for part in match.groups() if part) for match in matches]
    patients = entries.first(entries.find(PATIENT_COLUMNS))
    sequences = entries.first(sequence_column(entries))
    indexed = entries.first(entries.find((INDEX_GROUP,)))
    groups = []
    for index, name in enumerate(names):
        path = PurePath(files.root.resolve(), name) if files.root is not None else PurePath(name)
        known = known_set(path)
        found = patients[index], known and known_group(known, name), sequences[index], indexed[index]
        groups.append(next((text(value) for value in found if value), None))
    return groups


def sequence_column(entries: Entries) -> str | None:
    """The column that names the sequence of a frame, None if there is none."""
    return entries.find([name for name in SEQUENCE_COLUMNS if name != entries.key.lower()])


def _splits(entries: Entries, names: Sequence[str], options: Options) -> list[SplitName | None]:
    """The split of each entry; all None where the data puts everything into one."""
    if options.split == "ignore":
        return [None] * len(entries)
    if options.split is None:
        column = entries.find(SPLIT_COLUMNS)
    else:
        column = entries.table.need(options.split, "split")
    splits: list[SplitName | None] = []
    for name, value in zip(names, entries.first(column), strict=True):
        split = None if value is None else split_name(text(value))
        if split is None and not is_blank(value):
            raise ValueError(
                f"{entries.table.source}: {name} has the split {value!r}; write train, validation or test, or pass --split ignore"
            )
        splits.append(split)
    return splits if len(set(splits) - {None}) > 1 else [None] * len(entries)


def _spacing(value: Any, where: str) -> tuple[float, float]:
    """One number, or row and column spacing as a list or as text such as "0.1 0.2"."""
    parts = value if isinstance(value, list | tuple) else re.split(r"[,;\\\s]+", text(value).strip("[]() "))
    numbers = [number(part, f"{where}, spacing") for part in parts]
    if len(numbers) not in (1, 2) or min(numbers) <= 0:
        raise ValueError(
            f"{where}: the spacing {value!r} is not one or two numbers above 0, in mm per pixel; correct it"
        )
    return numbers[0], numbers[-1]
