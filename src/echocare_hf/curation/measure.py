"""The work on one chunk of files: every step that looks at one file at a time, from reading to the encoded image.

A chunk becomes one parquet file with a row for every image and for everything that was dropped. It is written beside and renamed, so a
chunk that is there is complete.
"""

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .burnt_text import remove_text
from .decode import decode
from .encode import encode, shrink
from .inventory import read_files
from .modality import tell_modality
from .options import CurateOptions, digest
from .patient import is_dicom, patient_of
from .quality import drop_empty, drop_other_images
from .record import Drop, Item
from .region import find_region
from .tables import write_parquet


def chunk_job(inventory: Path, rows: Sequence[int], target: Path, options: CurateOptions) -> str:
    """The job of a chunk as text, for `run_chunk` in whatever process.

    Args:
        inventory: Arrow file of a source.
        rows: of it.
        target: the parquet file to write.
        options: the settings.
    """
    given = {"files": str(inventory), "rows": list(rows), "target": str(target), "options": asdict(options)}
    return json.dumps(given)


def run_chunk(job: str) -> str:
    """Measure the files of a chunk and write its parquet file.

    Args:
        job: text of `chunk_job`.

    Returns:
        JSON: `{"seconds": {step: seconds of the processor}, "frames": images decoded, "files": number of files}`.
    """
    given = json.loads(job)
    options = CurateOptions(**given["options"])
    seconds: dict[str, float] = defaultdict(float)
    rows: list[dict[str, Any]] = []
    files = read_files(Path(given["files"]), given["rows"])
    frames = 0
    for file in files:
        items, drops = _timed(seconds, "decode", decode, file, options)
        frames += len(items)
        patient = patient_of(file.path) if items and is_dicom(file.path) else None
        items, lost = measure(items, options, seconds)
        rows += [_dropped_row(drop) for drop in (*drops, *lost)]
        for item in items:
            content = _timed(seconds, "encode", encode, item.pixels, options)
            rows.append(_row(item, content) | {"patient": patient})
    rows.sort(key=lambda row: (row["key"], row["frame"]))
    start = time.process_time()
    write_parquet(rows, CHUNK_COLUMNS, Path(given["target"]), row_group_size=64)
    seconds["write"] += time.process_time() - start
    return json.dumps({"seconds": seconds, "frames": frames, "files": len(files)})


def measure(
    items: list[Item], options: CurateOptions, seconds: dict[str, float] | None = None
) -> tuple[list[Item], list[Drop]]:
    """The steps between reading and storing, in order, on the images of one file.

    Args:
        items: images as they were read.
        options: what to do.
        seconds (optional): where to add the seconds of the processor that each step took.

    Returns:
        The images to store, and what was dropped. Every image is in exactly one of the two.
    """
    seconds = defaultdict(float) if seconds is None else seconds
    dropped: list[Drop] = []
    if options.find_region:
        items, lost = _timed(seconds, "region", find_region, items)
        dropped += lost
    if options.remove_text:
        items, _ = _timed(seconds, "text", remove_text, items)
    items, lost = _timed(seconds, "nonzero", drop_empty, items, options)
    dropped += lost
    if options.check_ultrasound:
        items, lost = _timed(seconds, "ultrasound", drop_other_images, items)
        dropped += lost
    items, _ = _timed(seconds, "modality", tell_modality, items)
    items = _timed(seconds, "shrink", lambda: [shrink(item, options.max_side) for item in items])
    return items, dropped


def _timed(seconds: dict[str, float], step: str, function: Any, *arguments: Any) -> Any:
    start = time.process_time()
    try:
        return function(*arguments)
    finally:
        seconds[step] += time.process_time() - start


CHUNK_COLUMNS = {
    "key": "string",
    "source": "string",
    "name": "string",
    "frame": "int32",
    "step": "string",
    "reason": "string",
    "detail": "string",
    "image": "binary",
    "image_bytes": "int32",
    "width": "int32",
    "height": "int32",
    "spacing_row_mm": "float32",
    "spacing_column_mm": "float32",
    "scale_row": "float32",
    "scale_column": "float32",
    "modality": "string",
    "pixel_digest": "string",
    "raw_hash": "uint64",
    "hash": "uint64",
    "shape": "string",
    "region_width": "int32",
    "region_height": "int32",
    "text_removed": "int32",
    "text_suspected": "int32",
    "ultrasound_score": "float32",
    "patient": "string",
}
"""Columns of a chunk and their Arrow types. `step` is null in rows that are kept."""


def _row(item: Item, content: bytes) -> dict[str, Any]:
    height, width = item.pixels.shape[:2]
    spacing = item.spacing or (None, None)
    cut_width, cut_height = item.box[2] - item.box[0], item.box[3] - item.box[1]
    return {
        "key": item.file.key,
        "source": item.file.source,
        "name": item.file.name,
        "frame": item.frame,
        "image": content,
        "image_bytes": len(content),
        "width": width,
        "height": height,
        "spacing_row_mm": spacing[0],
        "spacing_column_mm": spacing[1],
        "scale_row": cut_height / height,
        "scale_column": cut_width / width,
        "modality": item.modality,
        "pixel_digest": item.pixel_digest,
        "raw_hash": item.raw_hash,
        "hash": item.hash,
        "shape": item.shape,
        "region_width": cut_width,
        "region_height": cut_height,
        "text_removed": item.text_removed,
        "text_suspected": max(item.text_suspected, int(item.says_text)),
        "ultrasound_score": item.ultrasound_score,
    }


def _dropped_row(drop: Drop) -> dict[str, Any]:
    return {
        "key": digest(drop.source, drop.name),
        "source": drop.source,
        "name": drop.name,
        "frame": drop.frame,
        "step": drop.step,
        "reason": drop.reason,
        "detail": drop.detail,
    }
