"""Tables of labels: one csv (or its likes) a data set, further csvs beside it, and which column means what.

Every format that `read_labelled` knows is first brought into one shape, a `Table` of rows; what the rows mean for a task is decided
once, in `samples`.
"""

import codecs
import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .json_text import parse_json

Row = dict[str, Any]

# Names that columns go by, in order of preference; case does not matter.
IMAGE_COLUMNS = ("file_name", "image", "image_path", "filename", "file", "path", "img", "file_path", "video", "frames")
MASK_COLUMNS = ("mask", "mask_path", "label_path", "mask_file", "segmentation", "segmentation_path", "seg")
LABEL_COLUMNS = ("label", "class", "diagnosis", "category", "labels")
PATIENT_COLUMNS = (
    *("patient", "patient_id", "patientid", "subject", "subject_id", "participant", "participant_id"),
    *("group", "case", "case_id", "study"),
)
SEQUENCE_COLUMNS = ("clip", "sequence", "cine", "series", "video")
FRAME_COLUMNS = ("frame", "frame_number", "frame_index")
TIME_COLUMNS = ("frame_time_ms", "time_ms")
FRAME_RATE_COLUMNS = ("framerate", "frame_rate", "fps")
SPLIT_COLUMNS = ("split", "subset", "partition")
SPACING_COLUMNS = ("pixel_size_mm", "spacing", "spacing_mm", "pixel_spacing", "pixel size(mm)")
LICENCE_COLUMNS = ("licence", "license")
TARGET_IMAGE_COLUMNS = ("target_image", "clean", "high_quality", "reference")
QUALITY_COLUMNS = ("quality", "image_quality")
LABELLED_CLASSES_COLUMNS = ("labelled_classes", "labeled_classes")

METADATA_NAMES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
TABLE_FORMATS = (".csv", ".tsv", ".jsonl")
_BLANK = {"", "nan", "na", "n/a", "null"}

_DECIMAL_COMMA = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:\.\d{3})+),\d+")  # 10,0 or 1.234,5
# Columns whose commas stand between names or numbers of classes, or are part of a name.
_NO_NUMBERS = {*IMAGE_COLUMNS, *MASK_COLUMNS, *LABEL_COLUMNS, *LABELLED_CLASSES_COLUMNS}


@dataclass
class Table:
    """Rows of labels, of whatever format they were read from.

    Attributes:
        source: the file or data set, for messages.
        root: folder that file names are relative to; None where images are no files.
        rows: one dict a row. Readers of other formats than csv may put more than text into a cell: a `RowReference` or
            `DrawnMask` for an image, and the columns `objects` (a list of `(class name, x, y, width, height)`) and `keypoints` (a
            list of (x, y), NaN for a missing one), both with 0 at the outer edge of the first pixel.
        columns: names of the columns, in order.
        index_columns: columns of `rows` that came from an index of several data sets.
        sides: further tables, joined on demand.
        class_names: for columns whose classes the format states, all of them in their order.
        mask_classes: names of raw mask values, where the format states them.
        keypoint_names: names for the column `keypoints`.
        problems: one line each, see `LabelledData.problems`.
    """

    source: str
    root: Path | None
    rows: list[Row]
    columns: tuple[str, ...]
    index_columns: tuple[str, ...] = ()
    sides: list["Table"] = field(default_factory=list)
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    mask_classes: dict[int, str] | None = None
    keypoint_names: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)

    def find(self, names: Iterable[str]) -> str | None:
        """The first of `names` that is a column, as the table spells it; None if none is. "Patient ID" is found as `patient_id`."""
        columns = (*self.index_columns, *reversed(self.columns))
        spelled = {_joined(column): column for column in columns} | {c.strip().lower(): c for c in columns}
        return next((spelled[key] for name in names for key in (name, _joined(name)) if key in spelled), None)

    def need(self, column: str, option: str) -> str:
        """The column that the user named.

        Raises:
            ValueError: naming the columns there are, in this table and the ones beside it.
        """
        for table in (self, *self.sides):
            if column in table.columns:
                return column
        beside = "".join(f"; {Path(side.source).name} has {', '.join(side.columns)}" for side in self.sides)
        raise ValueError(
            f"{self.source}: there is no column {column!r} for --{option}; it has {', '.join(self.columns)}{beside}"
        )


def _joined(column: str) -> str:
    """A name of a column in lower case, without what may part its words."""
    return re.sub(r"[\s_-]+", "", column).lower()


def need_cells(table: Table, columns: Iterable[str]) -> None:
    """Check that every row has some columns; objects of a jsonl file may lack names that others have.

    Raises:
        ValueError: naming the first row that lacks one.
    """
    for number, row in enumerate(table.rows, 1):
        for column in columns:
            if column not in row:
                raise ValueError(f"{table.source}: row {number} has no {column!r}; give it to every row, empty or not")


class Entries:
    """The rows of a table, one entry an image (its boxes and its observers may each have a row), joined with its side tables.

    Args:
        table: the table.
        key: column of the images.
    """

    def __init__(self, table: Table, key: str) -> None:
        self.table, self.key = table, key
        grouped: dict[Any, list[Row]] = {}
        for row in table.rows:
            cell = row.get(key)
            if not is_blank(cell):
                grouped.setdefault(tuple(cell) if isinstance(cell, list) else cell, []).append(row)
        self.rows = list(grouped.values())
        self.used: list[Table] = [table]  # the tables that labels came from

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, column: str) -> list[list[Any]]:
        """Every value of a column for each entry, blanks left out; from a side table if the table itself lacks the column."""
        if column in (*self.table.columns, *self.table.index_columns):
            return [[row[column] for row in rows if not is_blank(row.get(column))] for rows in self.rows]
        # The side table with most rows is the one that keeps several observers apart.
        sides = [side for side in self.table.sides if column in side.columns and self._shared_key(side)]
        if not sides:
            return [[] for _ in self.rows]
        side = max(sides, key=lambda side: len(side.rows))
        if side not in self.used:
            self.used.append(side)
        key = self._shared_key(side) or self.key
        found: dict[Any, list[Any]] = {}
        for row in side.rows:
            if not is_blank(row.get(column)):
                found.setdefault(row.get(key), []).append(row[column])
        return [found.get(rows[0].get(key), []) for rows in self.rows]

    def first(self, column: str | None) -> list[Any]:
        """The first value of a column for each entry; None where there is none, or for no column."""
        if column is None:
            return [None] * len(self)
        return [values[0] if values else None for values in self.values(column)]

    def find(self, names: Sequence[str], everywhere: bool = False) -> str | None:
        """A column by its usual names: in the table, in the tables that labels came from, or `everywhere`."""
        tables = [*self.used, *self.table.sides] if everywhere else self.used
        return next((column for table in tables if (column := table.find(names)) is not None), None)

    def _shared_key(self, side: Table) -> str | None:
        """The column that joins a side table: the images, else the sequence or the patient."""
        for column in (self.key, *(self.table.find([name]) for name in (*SEQUENCE_COLUMNS, *PATIENT_COLUMNS))):
            if column is not None and column in side.columns:
                return column
        return None


def is_blank(value: Any) -> bool:
    """Whether a cell says nothing: empty, or not a number."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().lower() in _BLANK


def number(value: Any, where: str) -> float:
    """A cell as a finite number.

    Raises:
        ValueError: if it is none, starting with `where`.
    """
    try:
        result = float(value)
    except (TypeError, ValueError):
        result = math.nan
    if not math.isfinite(result):
        cure = "correct the cell or leave it empty"
        if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()):
            cure = f"write it with a point, {with_point(value)}"
        raise ValueError(f"{where}: {value!r} is not a number; {cure}")
    return result


def with_point(cell: str) -> str:
    """Numbers with a decimal comma, one or several with blanks between, as numbers with a point; any other text as it is."""
    parts = cell.split()
    if not parts or not all(map(_DECIMAL_COMMA.fullmatch, parts)):
        return cell
    return " ".join(part.replace(".", "").replace(",", ".") for part in parts)


def is_number(value: Any) -> bool:
    """Whether a cell is a finite number."""
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def text(value: Any) -> str:
    """A cell as text; a whole number has no decimal point, whatever the table's writer made of it."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def numeric_columns(table: Table) -> list[str]:
    """The columns whose cells, as far as they are filled, are all numbers."""
    return [column for column in table.columns if _is_numeric(row.get(column) for row in table.rows)]


def _is_numeric(cells: Iterable[Any]) -> bool:
    filled = [cell for cell in cells if not is_blank(cell)]
    return bool(filled) and all(map(is_number, filled))


def read_table(path: Path) -> Table:
    """Read a csv, tsv or jsonl file with a header; comma, semicolon and tab are recognised, and UTF-8, UTF-16 and Windows-1252 text.

    Where semicolons part the cells, a comma in a number is its decimal point, as Excel writes it in many countries.

    Raises:
        ValueError: for a file without a header, without rows or with rows longer than the header, in one line that names it.
        OSError: if it cannot be opened.
    """
    if path.suffix.lower() == ".jsonl":
        return _read_jsonl(path)
    content = table_text(path)
    if not content.partition("\n")[0].strip():
        raise ValueError(f"{path}: has no header in its first line; name the columns there, e.g. file_name,label")
    delimiter = delimiter_of(content)
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows = []
    try:
        columns = tuple(name.strip() for name in reader.fieldnames or ())
        reader.fieldnames = list(columns)
        for row in reader:
            if None in row:
                raise ValueError(
                    f"{path}: line {reader.line_num} has more cells than the header; quote cells with a comma"
                )
            rows.append(row)
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {reader.reader.line_num} cannot be read ({error}); close its quotes, or shorten the cell"
        ) from error
    if delimiter == ";":
        numbers = [name for name in columns if name.lower() not in _NO_NUMBERS]
        rows = [row | {name: with_point(row[name]) for name in numbers if row[name]} for row in rows]
    if not rows:
        raise ValueError(f"{path}: has a header but no rows; add one row an image")
    return Table(source=str(path), root=path.parent, rows=rows, columns=columns)


def delimiter_of(content: str) -> str:
    """What parts the cells of a table: comma, semicolon or tab, whichever its first line has most of."""
    header = content.partition("\n")[0]
    return max(",;\t", key=header.count)


def table_text(path: Path) -> str:
    """The text of a file in UTF-8, in UTF-16 by its byte order mark (Excel's "Unicode text"), else in Windows-1252 (Excel in the west)."""
    raw = path.read_bytes()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def _read_jsonl(path: Path) -> Table:
    rows: list[Row] = []
    for line_number, line in enumerate(table_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            problem = getattr(error, "msg", error)
            raise ValueError(f"{path}: line {line_number} is no JSON ({problem}); write one object a line") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {line_number} is no object; write one object of named values a line")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: is empty; write one object a line, one line an image")
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    return Table(source=str(path), root=path.parent, rows=rows, columns=columns)


def find_tables(folder: Path) -> list[Path]:
    """The csv, tsv and jsonl files in a folder and its direct subfolders, in alphabetical order."""
    return files_with_suffix(folder, *TABLE_FORMATS, below=True)


def files_with_suffix(folder: Path, *suffixes: str, below: bool = False) -> list[Path]:
    """The files in a folder, with `below` in its direct subfolders too, whose suffix is one of `suffixes` in any case, sorted by path."""
    found = [*folder.glob("*"), *(folder.glob("*/*") if below else ())]
    return sorted(path for path in found if path.suffix.lower() in suffixes and path.is_file())


def add_side_tables(table: Table, path: Path) -> None:
    """Put the other tables beside the one at `path` at its side; a broken one becomes a problem."""
    for other in find_tables(path.parent):
        if other == path:
            continue
        try:
            table.sides.append(read_table(other))
        except ValueError as error:
            table.problems.append(f"{error} (the file was not used)")
