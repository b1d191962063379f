"""Parquet files that are complete or not there, and the same bytes for the same rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_parquet(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], path: Path, row_group_size: int = 1024
) -> None:
    """Write rows beside a file and rename them into place.

    Args:
        rows: dicts; a column that is missing in one is null.
        columns: name to Arrow type, in order.
        path: the file.
        row_group_size: rows that a reader has to take at a time.
    """
    schema = pa.schema([pa.field(name, pa.type_for_alias(kind)) for name, kind in columns.items()])
    write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path, row_group_size)


def write_table(table: pa.Table, path: Path, row_group_size: int = 1024) -> None:
    """Write an Arrow table beside a file and rename it into place. Images do not compress again; the rest does, with zstd."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    pq.write_table(table, beside, row_group_size=row_group_size, compression="zstd", write_page_index=True)
    beside.rename(path)


def write_text(path: Path, text: str) -> None:
    """Write a text beside a file and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    beside.write_text(text, encoding="utf-8")
    beside.rename(path)
