"""Benchmark for 2D foetal brain ultrasound: 24 landmarks.

Verified: 104 images, 24 landmarks an image and their structures in this order: skull 4, thalami 3, cerebellum 8, cavum septi
pellucidi 4, Sylvian fissure 3, midline 2 (EchoCare paper; summaries of Cabezas et al. 2024). No page that could be read shows the
files.

Assumed, all of it: images in `images/` or beside the tables, and the points as CSV in any of these forms, in pixels:
  - one table, a row an image: a column of file names and 24 pairs `<landmark>_x`, `<landmark>_y` in the order of the table;
  - one table, a row a point: columns of the file name, the landmark, `x` and `y`;
  - a table an image, `<image>.csv`, with the columns `x` and `y` and 24 rows.

Points count from the centre of the first pixel. The patient is a column `patient` or `subject`, else the part of the file name before
the last `_` if every name has one and some share it; else images that look alike stay together. The paper splits image by image,
though 26 of the 70 women were scanned two or three times; here a known patient is never torn apart.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from echocare_hf.data.labelled import LabelledData, Sample

from .common import BenchmarkTask, Counts, complete, deal
from .layout import Row, by_stem, files_of, place, read_number, read_rows, roots

Point = tuple[float, float]

STRUCTURES = {"skull": 4, "thalami": 3, "cerebellum": 8, "cavum": 4, "sylvian_fissure": 3, "midline": 2}
LANDMARKS = tuple(f"{name}_{number}" for name, count in STRUCTURES.items() for number in range(1, count + 1))
NAME_COLUMNS = ("file_name", "image", "filename", "name", "id", "ID")
POINT_COLUMNS = ("landmark", "point", "label")
PATIENT_COLUMNS = ("patient", "subject")
PAPER = Counts(train=80, test=24, unit="images")


def read(folder: Path, *, strict: bool = True) -> LabelledData:
    """The foetal brain benchmark in any of the forms above."""
    root = next((path for path in roots(folder) if files_of(path, (".csv",), below=True)), folder)
    tables = files_of(root, (".csv",), below=True)
    if not tables:
        raise ValueError(
            f"{folder / 'landmarks.csv'}: was expected here (foetal brain benchmark: images and a CSV of 24 points), but there is "
            "no CSV file; give the folder that holds both"
        )
    images = by_stem(files_of(place(root, "images") or root, below=True))
    names, points, patients = _one_table(tables[0], images) if len(tables) == 1 else _a_table_an_image(tables, images)
    groups = patients or _patients_in_names(list(points))
    samples = tuple(
        Sample(name=images[stem].name, images=(str(images[stem]),), group=groups.get(stem), keypoints=found)
        for stem, found in points.items()
    )
    data = LabelledData(str(root), "keypoints", samples, keypoint_names=names)
    if unmarked := sorted(set(images) - set(points)):
        data = replace(
            data, problems=(f"{root}: {len(unmarked)} images have no points and are no examples, first {unmarked[0]}",)
        )
    return deal(complete(data, strict), PAPER.train, PAPER.test)


def _one_table(
    table: Path, images: dict[str, Path]
) -> tuple[tuple[str, ...], dict[str, tuple[Point, ...]], dict[str, str]]:
    rows = read_rows(table)
    columns = tuple(rows[0][1])
    key = next((name for name in NAME_COLUMNS if name in columns), None)
    if key is None:
        raise ValueError(
            f"{table}: was expected to have a column of file names ({', '.join(NAME_COLUMNS[:3])}), its columns are "
            f"{', '.join(columns[:6])}; rename one"
        )
    of_patient = next((name for name in PATIENT_COLUMNS if name in columns), None)
    patients = {_image_of(row[key], images, where): row[of_patient] for where, row in rows if of_patient is not None}
    each = next((name for name in POINT_COLUMNS if name in columns), None)
    if each is not None and {"x", "y"} <= set(columns):
        return *_row_a_point(table, rows, key, each, images), patients
    names = tuple(name[:-2] for name in columns if name.endswith("_x") and f"{name[:-2]}_y" in columns)
    _check_count(len(names), f"{table}: its columns <landmark>_x and <landmark>_y")
    points = {}
    for where, row in rows:
        stem = _image_of(row[key], images, where)
        points[stem] = tuple(_point(row[f"{name}_x"], row[f"{name}_y"], f"{where}, {name},") for name in names)
    return names, points, patients


def _row_a_point(
    table: Path, rows: Sequence[tuple[str, Row]], key: str, each: str, images: dict[str, Path]
) -> tuple[tuple[str, ...], dict[str, tuple[Point, ...]]]:
    listed: dict[str, dict[str, Point]] = {}
    for where, row in rows:
        stem = _image_of(row[key], images, where)
        listed.setdefault(stem, {})[row[each]] = _point(row["x"], row["y"], where)
    names = tuple(dict.fromkeys(name for found in listed.values() for name in found))
    for stem, found in listed.items():
        if missing := [name for name in names if name not in found]:
            raise ValueError(f"{table}: {stem} lacks the point {missing[0]}; add it, or remove the image")
    _check_count(len(names), f"{table}: an image")
    return names, {stem: tuple(found[name] for name in names) for stem, found in listed.items()}


def _a_table_an_image(
    tables: Sequence[Path], images: dict[str, Path]
) -> tuple[tuple[str, ...], dict[str, tuple[Point, ...]], dict[str, str]]:
    points = {}
    for table in tables:
        stem = _image_of(table.name, images, str(table))
        points[stem] = tuple(_point(row["x"], row["y"], where) for where, row in read_rows(table, ("x", "y")))
        _check_count(len(points[stem]), str(table))
    return LANDMARKS, points, {}


def _check_count(count: int, where: str) -> None:
    if count != len(LANDMARKS):
        raise ValueError(
            f"{where}: {count} points, expected {len(LANDMARKS)} ({', '.join(STRUCTURES)}); use the file as published"
        )


def _image_of(name: str, images: dict[str, Path], where: str) -> str:
    stem = PurePath(name).stem
    if stem not in images:  # maybe spelled otherwise
        stem = next((found for found in images if found.lower() == stem.lower()), stem)
    if stem not in images:
        raise ValueError(f"{where} belongs to the image {stem}, which is not in the folder; copy it there")
    return stem


def _point(x: str, y: str, where: str) -> Point:
    return read_number(x, where) + 0.5, read_number(y, where) + 0.5


def _patients_in_names(stems: Sequence[str]) -> dict[str, str]:
    """The part before the last `_`, where every name has one and some images share it."""
    heads = {stem: stem.rpartition("_")[0] for stem in stems}
    shared = all(heads.values()) and len(set(heads.values())) > 1 and max(Counter(heads.values()).values()) > 1
    return heads if shared else {}


TASK = BenchmarkTask(
    key="brain_landmarks",
    task="keypoints",
    metrics=("landmark_error",),
    split="by patient where the files tell, else by looks, seed 0, in the paper's shares 80 : 24",
    reader=read,
    data_set="brain_landmarks",
    paper=PAPER,
    figures={"mse": 7.71, "sdr_2px": 36.27, "sdr_4px": 49.13, "sdr_10px": 80.16},
)
