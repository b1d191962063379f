"""What lies beside an image in a webdataset shard: `0001.png` with `0001.json`, `0001.cls`, `0001.txt`.

Source: the naming convention of the webdataset project (webdataset.github.io): the files of one sample follow each other in the tar
file and share their path up to the first dot of the file name.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from echocare_hf.data.labelled.json_text import parse_json
from echocare_hf.data.labelled.table import Row, Table

from .record import FoundFile

_IN_TAR = re.compile(r"\.(tar|tar\.(gz|bz2|xz)|tgz|tbz2|txz)!/[^!]*$", re.IGNORECASE)
_SUFFIXES = ("json", "cls", "txt")
_LONGEST = 200  # characters of a class or caption


def in_tar(name: str) -> bool:
    """Whether a file lies in a tar archive, by its name."""
    return bool(_IN_TAR.search(name))


def is_side_car(name: str) -> bool:
    """Whether a file in a tar archive may tell of an image, by its name."""
    return name.lower().endswith(tuple(f".{suffix}" for suffix in _SUFFIXES)) and in_tar(name)


def sample_key(name: str) -> str:
    """The path up to the first dot of the file name, which the files of a sample share."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def read_side_cars(cars: Iterable[FoundFile]) -> Table | None:
    """One row with what the side-cars of an image say, None if they say nothing.

    The plain values of the `.json` object are columns; `.cls`, else the first line of `.txt`, is the column `label` where the object
    has none.

    Raises:
        ValueError: if a `.json` file is no JSON, in one line that names it.
    """
    row: Row = {}
    texts: dict[str, str] = {}
    for car in cars:
        suffix = car.name.rpartition(".")[2].lower()
        content = Path(car.path).read_bytes().decode("utf-8", errors="replace").strip()
        if suffix == "json":
            row.update(_object(car, content))
        elif content:
            texts[suffix] = content.splitlines()[0][:_LONGEST]
    if texts and "label" not in row:
        row["label"] = texts.get("cls", texts.get("txt"))
    return Table(source="side-cars", root=None, rows=[row], columns=tuple(row)) if row else None


def _object(car: FoundFile, content: str) -> Row:
    try:
        found = parse_json(content)
    except ValueError as error:
        raise ValueError(f"{car.name}: is no JSON ({getattr(error, 'msg', error)})") from error
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str | int | float)}
