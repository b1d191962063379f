"""Real ultrasound for measuring `echocare curate`: a few images of each data set in a folder DATA with an `index.csv`."""

import csv
from dataclasses import dataclass
from pathlib import Path

SOURCES = {
    "breast_busi": True,
    "fetal_head_hc18": True,
    "muscle_timtrack": True,
    "nerve_vessel_usgra": True,
    "liver_sweep_imfusion": True,
    "lung_pocovid": False,
    "eye_itkpocus": False,
    "dicom_samples": False,
}
"""Data sets, and whether they belong to the tuning part."""


@dataclass(frozen=True)
class RealImage:
    """An image of a data set: where it lies, its path in DATA, and its row of the index."""

    source: str
    path: Path
    name: str
    row: dict[str, str]


def sample(data: Path, number: int) -> list[RealImage]:
    """Up to `number` images of each data set, evenly spaced over its part of the index, so that patients and clips are mixed.

    Raises:
        ValueError: if DATA has no index of these data sets.
    """
    index = data / "index.csv"
    if not index.is_file():
        raise ValueError(
            f"{index}: not found; DATA is a folder with the data sets {', '.join(SOURCES)} and their index.csv"
        )
    with index.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = []
    for source in SOURCES:
        own = [row for row in rows if row["dataset"] == source]
        places = range(len(own)) if len(own) <= number else [place * len(own) // number for place in range(number)]
        chosen += [RealImage(source, data / own[place]["path"], own[place]["path"], own[place]) for place in places]
    if not chosen:
        raise ValueError(f"{index}: lists no image of {', '.join(SOURCES)}")
    return chosen
