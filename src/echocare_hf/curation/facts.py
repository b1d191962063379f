"""What the tables beside the images, and the names of folders, say of each file: labels, group, licence, spacing."""

import codecs
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path, PurePosixPath

from echocare_hf.data.labelled.folder import MaskFinder, split_name, stem_of
from echocare_hf.data.labelled.known import known_group, known_set
from echocare_hf.data.labelled.table import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    LICENCE_COLUMNS,
    MASK_COLUMNS,
    METADATA_NAMES,
    PATIENT_COLUMNS,
    SEQUENCE_COLUMNS,
    SPACING_COLUMNS,
    TARGET_IMAGE_COLUMNS,
    Row,
    Table,
    delimiter_of,
    is_blank,
    read_table,
    text,
)
from echocare_hf.data.reading_record import Spacing, clean_spacing

from .record import ROWS_TABLE, FoundFile
from .webdataset import in_tar, is_side_car, read_side_cars, sample_key

NODE_COLUMNS = ("node", "anatomy_node", "anatomy")
VIEW_COLUMNS = ("view", "plane", "structure")
ORGAN_COLUMNS = ("organ", "body_part", "region", "site", "muscle")
MODALITY_COLUMNS = ("modality", "mode")
DATASET_COLUMNS = ("dataset", "data_set", "source_dataset")
_TABLE_NAMES = (ROWS_TABLE, *METADATA_NAMES, "index.csv", "labels.csv", "train.csv")
_MASK_WORD = re.compile(
    r"[ _-](?:mask|gt|seg|annotation|label)", re.IGNORECASE
)  # all that `MaskFinder` knows begin like this
_HEADER_BYTES = 65536  # of a table, in which its first line is looked for
_PLAIN_FOLDERS = ("images", "image", "imgs", "img", "frames", "videos", "video", "dicom", "data")


@dataclass(frozen=True)
class Facts:
    """What is said of one file.

    Attributes:
        dataset: data set it belongs to.
        texts: `(where, text)` that may name an anatomy node, the most telling first; where is "node", "view", "organ", "label" or
            "folder".
        label: the source's own label, or None.
        group: patient, else clip, with the data set before it, or None.
        licence: as the table states it, or None.
        modality: as the table states it, or None.
        spacing: mm per pixel down and across, or None.
        is_label: whether the file is itself a label (a mask, a better version of an image), not an image.
    """

    dataset: str
    texts: tuple[tuple[str, str], ...] = ()
    label: str | None = None
    group: str | None = None
    licence: str | None = None
    modality: str | None = None
    spacing: Spacing | None = None
    is_label: bool = False


@dataclass
class _Spoken:
    """A table by the files it speaks of.

    Attributes:
        table: the table.
        name: of its file within the source; empty for what is no file there.
        rows: by name of the file.
        unmet: names of files that have not been found so far.
        labels: names of files that are masks or target images.
        datasets: data sets that the table states.
    """

    table: Table
    name: str = ""
    rows: dict[str, list[Row]] = field(default_factory=dict)
    unmet: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    datasets: set[str] = field(default_factory=set)


def reading_order(name: str) -> tuple[str, str, str]:
    """Where a file stands in the order in which `read_facts` wants them: a folder before those in it, and in it side by side what one
    image may come with (its masks, its side-cars), whose names begin with the same text, the second one.
    """
    folder, _, last = name.rpartition("/")
    begin = stem_of(last) if not in_tar(name) else last.partition(".")[0]
    return folder.replace("/", "\0"), _MASK_WORD.split(begin, maxsplit=1)[0], name


def read_facts(
    source: str,
    root: Path,
    files: Iterable[tuple[str, str, bytes, int]],
    tables: Iterable[FoundFile],
    manifest: Table | None,
    problems: list[str],
) -> Iterator[tuple[FoundFile, Facts]]:
    """The facts of every image of a source, folder by folder; a table is held only while the folder it lies in is gone through.

    Tables called metadata.csv (or .tsv, .jsonl), index.csv, labels.csv or train.csv are read, with file names relative to the table, and
    so are the side-cars of webdataset shards. Where several speak of one file, the one nearest to it goes first, but for anatomy
    nodes, data set and licence, where the outermost one (the index of a collection) does.

    Args:
        source: name of the source.
        root: folder or file of the source; the names of known public data sets in its path count.
        files: what may be images, and side-cars, of `sources.sort_by_type`.
        tables: what may be tables.
        manifest: the rows of a source that is a manifest, else None.
        problems: gets one line for each table that cannot be read, is not read, or names files that are not there.

    Yields:
        Each image with its facts.
    """
    by_folder: dict[str, list[FoundFile]] = {}
    others: list[FoundFile] = []
    for file in tables:
        if PurePosixPath(file.name).name.lower() in _TABLE_NAMES:
            by_folder.setdefault(_folder(file.name), []).append(file)
        else:
            others.append(file)
    problems += [_not_read(file) for file in sorted(others) if _folder(file.name) not in by_folder and _tells(file)]
    innermost = [_spoken("", manifest)] if manifest is not None else []
    outermost = [_spoken("", table) for table in _index_above(root, problems)]
    opened: dict[str, list[_Spoken]] = {}
    for folder, rows in groupby(files, key=lambda row: _folder(row[1])):
        above = _folders_above(folder)
        problems += _unmet(table for place in opened.keys() - above for table in opened[place])
        opened = {
            place: opened[place] if place in opened else _open(place, by_folder.pop(place, ()), problems)
            for place in above
        }
        spoken = [*innermost, *(table for place in above for table in opened[place]), *outermost]
        datasets = {dataset for table in spoken for dataset in table.datasets}
        for _, members in groupby(rows, key=lambda row: reading_order(row[1])[1]):
            images, cars = _images_and_side_cars(members)
            masks = _masks(root, images)
            for file in images:
                names = _archives_around(file.name)
                said = [(row, table.table) for table in spoken for name in names for row in table.rows.get(name, ())]
                for table in spoken:
                    table.unmet.difference_update(names)
                if beside := cars.get(sample_key(file.name)):
                    said = [*_side_car_rows(beside, problems), *said]
                is_label = file.name in masks or any(file.name in table.labels for table in spoken)
                yield file, _facts(source, root, file.name, said, is_label, datasets)
    problems += _unmet(table for tables_there in opened.values() for table in tables_there)
    problems += [
        f"{file.name}: there is no image in its folder or below (the table was not used)"
        for file in sorted(chain(*by_folder.values()))
    ]


def _images_and_side_cars(
    rows: Iterable[tuple[str, str, bytes, int]],
) -> tuple[list[FoundFile], dict[str, list[FoundFile]]]:
    """The images among some files of one folder, and by `sample_key` what lies beside them in a webdataset shard."""
    images: list[FoundFile] = []
    cars: dict[str, list[FoundFile]] = {}
    for source, name, path, size in rows:
        file = FoundFile(source, name, os.fsdecode(path), size)
        if is_side_car(name):
            cars.setdefault(sample_key(name), []).append(file)
        else:
            images.append(file)
    return images, cars


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _folders_above(folder: str) -> list[str]:
    """A folder and those it lies in, the innermost first, the source itself (an empty name) last."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _archives_around(name: str) -> list[str]:
    """A file, and the archives it lies in, the innermost first: what a table says of an archive counts for all in it."""
    parts = name.split("!/")
    return ["!/".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _not_read(file: FoundFile) -> str:
    return f"{file.name}: names images, but tables of this name are not read; call it metadata.csv, or give it as the source"


def _tells(file: FoundFile) -> bool:
    """Whether a table of another name than those that are read states a label or a patient of images, by its first line."""
    if not file.name.lower().endswith((".csv", ".tsv")):
        return False
    try:
        with Path(file.path).open("rb") as content:
            start = content.read(_HEADER_BYTES)
    except OSError:
        return False  # nobody knows; like every file that is no image it has a record among the dropped ones
    encoding = "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    line = start.decode(encoding, errors="replace").partition("\n")[0]
    columns = tuple(name.strip('" \r') for name in line.split(delimiter_of(line)))
    table = Table(file.name, None, [], columns)
    return table.find(IMAGE_COLUMNS) is not None and table.find((*PATIENT_COLUMNS, *LABEL_COLUMNS)) is not None


def _unmet(tables: Iterable[_Spoken]) -> list[str]:
    """A line for each table that names files which were not found."""
    return sorted(
        f"{table.name}: {len(table.unmet):,} of {len(table.rows):,} files that it names are no images that were found, such as"
        f" {min(table.unmet)!r} (names count from the table's folder, with the suffix; capitals matter)"
        for table in tables
        if table.name and table.unmet
    )


def _open(folder: str, files: Iterable[FoundFile], problems: list[str]) -> list[_Spoken]:
    found = []
    for file in sorted(files):
        try:
            spoken = _spoken(folder, read_table(Path(file.path)))
        except (ValueError, OSError) as error:
            problems.append(f"{str(error).replace(file.path, file.name)} (the table was not used)")
            continue
        if PurePosixPath(file.name).name != ROWS_TABLE:
            spoken.name, spoken.unmet = file.name, set(spoken.rows)
            if spoken.table.find(IMAGE_COLUMNS) is None:
                columns = ", ".join(IMAGE_COLUMNS[:4])
                problems.append(f"{file.name}: has no column of files ({columns}, ...) (the table was not used)")
        found.append(spoken)
    return found


def _masks(root: Path, files: Sequence[FoundFile]) -> set[str]:
    """Names of those files that are masks by their names; what a mask belongs to is among them."""
    virtual = Path("/") if not root.name else Path("/", root.name)
    finder = MaskFinder(virtual, [virtual / file.name for file in files])
    return {path.relative_to(virtual).as_posix() for path in finder.masks}


def _side_car_rows(cars: Iterable[FoundFile], problems: list[str]) -> list[tuple[Row, Table]]:
    try:
        table = read_side_cars(cars)
    except (ValueError, OSError) as error:
        problems.append(f"{error} (the side-car was not used)")
        return []
    return [] if table is None else [(table.rows[0], table)]


def _index_above(root: Path, problems: list[str]) -> list[Table]:
    """The rows of an `index.csv` one folder up that speak of this folder, with names relative to it."""
    path = root.parent / "index.csv"
    if not root.is_dir() or not path.is_file():
        return []
    try:
        table = read_table(path)
    except (ValueError, OSError) as error:
        problems.append(f"{str(error).replace(str(path), '../index.csv')} (the table was not used)")
        return []
    column = table.find(IMAGE_COLUMNS)
    if column is None:
        return []
    prefix = f"{root.resolve().name}/"
    rows = [row for row in table.rows if text(row.get(column)).startswith(prefix)]
    masks = [name for name in table.columns if name in MASK_COLUMNS]
    names = [column, *masks]
    cut = [row | {name: text(row[name]).removeprefix(prefix) for name in names if row.get(name)} for row in rows]
    return [replace(table, rows=cut)] if cut else []


def _spoken(folder: str, table: Table) -> _Spoken:
    """A table in a folder by the names of the files it speaks of."""
    spoken = _Spoken(table)
    column = table.find(IMAGE_COLUMNS)
    if column is None:
        return spoken
    label_columns = [name for name in (table.find(MASK_COLUMNS), table.find(TARGET_IMAGE_COLUMNS)) if name]
    for row in table.rows:
        for name in _names(folder, row.get(column)):
            spoken.rows.setdefault(name, []).append(row)
        for label_column in label_columns:
            if label_column != column:
                spoken.labels.update(_names(folder, row.get(label_column)))
        if (dataset := _dataset([(row, table)])) is not None:
            spoken.datasets.add(dataset)
    return spoken


def _names(folder: str, cell: object) -> list[str]:
    """Names of files from a cell: one, or several parted by semicolons."""
    if is_blank(cell):
        return []
    parts = cell if isinstance(cell, list) else re.split(r"\s*;\s*", text(cell))
    return [str(PurePosixPath(folder, text(part).replace("\\", "/"))) for part in parts]


def _dataset(rows: list[tuple[Row, Table]]) -> str | None:
    """The data set that the outermost table states, unless that is a mere number."""
    stated = _first(rows[::-1], DATASET_COLUMNS)
    return None if stated is None or re.fullmatch(r"[\d.]+", stated) else stated


def _facts(
    source: str, root: Path, name: str, rows: list[tuple[Row, Table]], is_label: bool, datasets: set[str]
) -> Facts:
    def nearest(columns: Iterable[str]) -> str | None:
        return _first(rows, columns)

    def outermost(columns: Iterable[str]) -> str | None:
        return _first(rows[::-1], columns)

    parts = PurePosixPath(name).parts[:-1]
    dataset = _dataset(rows) or (parts[0] if parts and parts[0] in datasets else source)
    node = outermost(NODE_COLUMNS)
    texts = [("node", node)] if node else []
    texts += [("view", value) for column in VIEW_COLUMNS if (value := nearest([column]))]
    texts += [("organ", value) for column in ORGAN_COLUMNS if (value := nearest([column]))]
    label = nearest(LABEL_COLUMNS)
    folders = [part for part in reversed(parts) if part.lower() not in _PLAIN_FOLDERS and split_name(part) is None]
    inner = [part for part in folders if not part.endswith("!")]  # a name of an archive is no class
    if label is None and not rows and inner and inner[0] != dataset:
        label = inner[0]
    if label:
        texts.append(("label", label))
    texts += [("folder", part) for part in (*folders, source)]
    spacing_text = nearest(SPACING_COLUMNS)
    modality = nearest(MODALITY_COLUMNS)
    group = _group(root, name, rows)
    return Facts(
        dataset=dataset,
        texts=tuple(dict.fromkeys(texts)),
        label=label,
        group=None if group is None else f"{dataset}/{group}",
        licence=outermost(LICENCE_COLUMNS),
        modality=modality,
        spacing=_spacing(spacing_text) if spacing_text else None,
        is_label=is_label,
    )


def _group(root: Path, name: str, rows: list[tuple[Row, Table]]) -> str | None:
    """The patient that a table states, else the one that the file names of a known set tell, else the clip."""
    patient = _first(rows, [column for column in PATIENT_COLUMNS if column != "group"])
    if patient:
        return patient
    path = root.resolve() / name
    known = known_set(path)
    if known and (told := known_group(known, name)):
        return told
    return _first(rows, ["group"]) or _first(rows, SEQUENCE_COLUMNS)


def _first(rows: list[tuple[Row, Table]], columns: Iterable[str]) -> str | None:
    """The first cell that says something, table by table, in the order of `columns`."""
    names = tuple(columns)
    for row, table in rows:
        for name in names:
            column = table.find([name])
            if column is not None and not is_blank(row.get(column)):
                return text(row[column])
    return None


def _spacing(value: str) -> Spacing | None:
    """One number, or row and column spacing, in mm per pixel; None for anything else."""
    parts = re.split(r"[,;\\\s]+", value.strip("[]() "))
    return clean_spacing(parts[0], parts[-1]) if len(parts) in (1, 2) else None
