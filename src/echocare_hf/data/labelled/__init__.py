"""Labelled images in the forms that people have them: a table, folders, COCO, the `datasets` library, the Hub.

    data = read_labelled("breast_busi", "classification")
    print(data.summary())
    image = read_image(data.samples[0])           # (height, width, 3) uint8
    parts = split_by_group(data.samples, seed=0)  # echocare_hf.data.splits

Every form is brought into a table (`table` and the readers beside it), the columns are read for the task
(`samples`), and every file is looked at once (`check`).
"""

import os
import re
from pathlib import Path
from typing import Any

from .check import check
from .coco import find_coco, table_from_coco
from .common import add_index
from .datasets import find_parquet, is_saved_dataset, table_from_hub, table_from_parquet, table_from_saved
from .folder import table_from_folder
from .options import Options
from .pixels import Clip, read_clip, read_image, read_mask, read_target_image
from .record import (
    IGNORE_INDEX,
    TASKS,
    Box,
    DrawnMask,
    LabelledData,
    RowReference,
    Sample,
    Task,
)
from .samples import draft_samples
from .table import (
    IMAGE_COLUMNS,
    METADATA_NAMES,
    TABLE_FORMATS,
    Table,
    add_side_tables,
    files_with_suffix,
    read_table,
)

__all__ = [
    "IGNORE_INDEX",
    "TASKS",
    "Box",
    "Clip",
    "DrawnMask",
    "LabelledData",
    "RowReference",
    "Sample",
    "Task",
    "read_clip",
    "read_image",
    "read_labelled",
    "read_mask",
    "read_target_image",
]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def read_labelled(data: str | os.PathLike[str], task: Task, **options: Any) -> LabelledData:
    """Describe labelled images for one task, and check all of them.

    `data` is one of:

    - a folder with `metadata.csv` (or `.tsv`, `.jsonl`; else `index.csv`, else its only table). Columns are known by their usual
      names: `file_name`; `label`, `class`, `diagnosis`; `mask`; `x0, y0, x1, y1` or `ellipse_cx, ...` or `cx, cy, long_axis, short_axis,
      angle` for boxes, of which an image may have several rows; `<name>_x`, `<name>_y` for landmarks; `patient`, `subject`, `group`,
      `clip`, `sequence`; `frame`, `framerate`; `split`; `pixel_size_mm`; `licence`; for enhancement `target_image`,
      or `quality` (low, high) where there are no pairs. Further tables in the folder are joined where a column is only there; several
      rows of one image in them are its observers, whose numbers are averaged. Images may be DICOM or video files.
    - a folder of images: one subfolder a class (for clips, one subfolder below that a clip), or `images` and `masks`, or masks named
      `<image>_mask` beside their images, or `low` and `high` for enhancement (pairs where names are the same); folders `train`, `val`,
      `test` above are the split.
    - a COCO json, or a folder with one or with one a split.
    - a folder that `datasets` saved, parquet shards, or the id of a data set on the Hub.

    Files that cannot be read are left out and named in `problems`. For some public data sets it is known which images are of one patient
    and what their masks mean (`known`).

    Args:
        data: folder, file, or Hub id.
        task: what the data shall be used for, one of `TASKS`.
        label: column of classes; several columns of 0 and 1 are findings that may occur together, not known where a cell is empty or -1;
            so is a column of lists of their names (jsonl, `datasets`).
        classes: the classes in their order (for ordinal ones), and no others. Else sorted, numbers by value.
        one_class: detection: the name of the one class that all boxes belong to.
        group: column of what must stay together in a split.
        group_pattern: the same by a regular expression on paths, whose parentheses name the group, e.g. `"(P\\d+)_"`.
        split: column of train, validation and test; "ignore" to ignore it.
        image: column of images.
        mask: column of masks.
        mask_values: what the values of masks mean: `{1: "nerve", 255: "ignore"}`, or `["1=nerve", "#ff0000=vessel"]`; 0 is background. Or
            "threshold" (or `["threshold"]`) for masks of one class that were saved as JPEG.
        target: column or columns of measured values; for "video", this makes it a regression.
        keypoints: names of the landmarks; all `<name>_x`, `<name>_y` if not given.
        keypoint_pairs: pairs of names of landmarks whose order has no meaning: `[("left", "right")]`, or `["left=right"]`.
        first_pixel: whether coordinates in a table count from the "centre" or the outer "edge" of the first pixel. If not given: landmarks
            and OpenCV's ellipses (`axis1`, `axis2`) from the centre, everything else from the edge.
        sequence: column of the clip that a frame belongs to.
        clip_frames: most frames of a clip where the value changes from frame to frame.
        min_frames: sequences of fewer frames are left out.
        frame_rate: frames a second, where no column says it.
        metadata: name of the table or json in the folder, where there are several.
        strict: make a file that cannot be read an error.

    Returns:
        `LabelledData`, which holds no pixels: see `read_image`, `read_mask`, `read_clip`, `read_target_image`.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if the data does not serve the task or contradicts itself, in one line that names the file and the cure. Messages write
            these arguments as the command line of fine-tuning does: `--mask_values 1=nerve` is `mask_values=["1=nerve"]`.
        ImportError: if a file needs an extra that is not installed.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
    known = Options(**options)
    return check(draft_samples(open_table(data, known), task, known), known.strict)


def open_table(data: str | os.PathLike[str], options: Options) -> Table:
    """The table of whatever `data` is."""
    path = Path(data)
    if not path.exists():
        if isinstance(data, str) and _HUB_ID.fullmatch(data):
            return table_from_hub(data)
        raise FileNotFoundError(f"{path}: there is no such file or folder; check the path")
    if path.is_file():
        return _open_file(path)
    if options.metadata is not None:
        if not (path / options.metadata).is_file():
            raise FileNotFoundError(
                f"{path / options.metadata}: there is no such file; --metadata names a file in {path}"
            )
        return _open_file(path / options.metadata, path)
    if is_saved_dataset(path):
        return table_from_saved(path)
    tables = files_with_suffix(path, *TABLE_FORMATS)
    for name in METADATA_NAMES:
        if named := _named(tables, name):
            return _open_file(named)
    if files := find_coco(path):
        return table_from_coco(files, path)
    if files := find_parquet(path):
        return table_from_parquet(files, path)
    listing = [table for table in tables if _lists_images(table)]
    listing = [table for table in listing if table.suffix.lower() == ".csv"] or listing
    chosen = _named(listing, "index.csv") or (listing[0] if len(listing) == 1 else None)
    if chosen is None and len(listing) > 1:
        raise ValueError(
            f"{path}: holds the tables {', '.join(table.name for table in listing)}; say with --metadata which one lists the images"
        )
    return table_from_folder(path) if chosen is None else _open_file(chosen)


def _named(files: list[Path], name: str) -> Path | None:
    """The first file of a name in any case."""
    return next((file for file in files if file.name.lower() == name), None)


def _lists_images(path: Path) -> bool:
    try:
        return read_table(path).find(IMAGE_COLUMNS) is not None
    except ValueError:
        return False  # a csv that is no table of images does not keep its folder from being read


def _open_file(path: Path, root: Path | None = None) -> Table:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return table_from_coco([path], root or path.parent)
    if suffix == ".parquet":
        return table_from_parquet([path], path.parent)
    if suffix not in (*TABLE_FORMATS, ".txt"):  # Excel's "Unicode text" ends with .txt
        raise ValueError(f"{path}: is no table of labels; give a folder, a csv, tsv, jsonl, COCO json or parquet file")
    table = read_table(path)
    if root is not None:
        table.root = root
    if path.name.lower() != "index.csv":  # an index lists whole data sets, whose tables are not its side tables
        add_side_tables(table, path)
        add_index(table, path.parent)
    return table
