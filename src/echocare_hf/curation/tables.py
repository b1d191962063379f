"""Tables in order, and files that are complete or not there: the same bytes for the same rows."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from echocare_hf.files import written_beside


def write_parquet(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str | pa.DataType], path: Path, row_group_size: int = 1024
) -> None:
    """Write rows beside a file and rename them into place.

    Args:
        rows: dicts; a column that is missing in one is null.
        columns: name to Arrow type or its alias, in order.
        path: the file.
        row_group_size: rows that a reader has to take at a time.
    """
    schema = pa.schema(
        [(name, pa.type_for_alias(kind) if isinstance(kind, str) else kind) for name, kind in columns.items()]
    )
    write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path, row_group_size)


def write_table(table: pa.Table, path: Path, row_group_size: int = 1024) -> None:
    """Write an Arrow table beside a file and rename it into place, all but encoded images compressed with zstd.

    Images do not get smaller, and reading them would cost a tenth of the time that decoding takes (docs/streaming.md).
    """
    write_tables([table], table.schema, path, row_group_size)


def write_tables(tables: Iterable[pa.Table], schema: pa.Schema, path: Path, row_group_size: int = 1024) -> None:
    """Write Arrow tables one after the other as `write_table` does; each has a whole number of row groups, but for the last one."""
    codecs = {leaf: "none" if leaf == "image.bytes" else "zstd" for leaf in _leaves(schema)}
    with (
        whole_file(path) as partial,
        pq.ParquetWriter(partial, schema, compression=codecs, write_page_index=True) as writer,
    ):
        for table in tables:
            writer.write_table(table, row_group_size)


def _leaves(fields: Iterable[pa.Field], above: str = "") -> Iterator[str]:
    """The columns of a parquet file by their paths in it, such as image.bytes and labels.list.element."""
    for field in fields:
        path = above + field.name
        if pa.types.is_struct(field.type):
            yield from _leaves(field.type, path + ".")
        elif pa.types.is_list(field.type):
            yield from _leaves([field.type.value_field.with_name("element")], path + ".list.")
        else:
            yield path


def write_text(path: Path, text: str) -> None:
    """Write a text beside a file and rename it into place."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside a file to write to; renamed into place if all goes well. Folders above it are made.

    Raises:
        OSError: naming `path` if it cannot be written, as on a full disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(path) as partial:
            yield partial
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
