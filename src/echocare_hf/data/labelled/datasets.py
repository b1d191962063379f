"""Data sets of the `datasets` library: saved to disk, parquet shards, or on the Hub."""

from pathlib import Path
from typing import Any

from .folder import split_name
from .record import RowReference
from .table import LABEL_COLUMNS, MASK_COLUMNS, Row, Table, files_with_suffix

_ANNOTATION_COLUMNS = (*MASK_COLUMNS, *LABEL_COLUMNS, "annotation")


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder was written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def find_parquet(folder: Path) -> list[Path]:
    """The parquet files in a folder and its direct subfolders, in alphabetical order."""
    return files_with_suffix(folder, ".parquet", below=True)


def table_from_saved(folder: Path) -> Table:
    """Read what `save_to_disk` wrote.

    Raises:
        ValueError: if the folder is damaged.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}: is a damaged datasets folder ({_brief(error)}); save it again") from error
    return _table(loaded, str(folder))


def table_from_parquet(files: list[Path], folder: Path) -> Table:
    """Read parquet shards; several splits are told by the names of the files or their folders.

    Raises:
        ValueError: if a shard is damaged or the shards differ in their columns.
    """
    import datasets

    by_split: dict[str, list[str]] = {}
    for path in files:
        words = (path.parent.name, *path.stem.replace("-", "_").split("_"))
        split = next((name for word in words if (name := split_name(word))), "train")
        by_split.setdefault(split, []).append(str(path))
    try:
        loaded = datasets.load_dataset("parquet", data_files=by_split)
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        raise ValueError(
            f"{folder}: its parquet files cannot be read together ({_brief(error)}); write them again"
        ) from error
    return _table(loaded, str(folder))


def table_from_hub(name: str) -> Table:
    """Load a data set from the Hub by its id.

    Raises:
        ValueError: if there is neither such a folder nor such a data set.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetGenerationError) as error:
        raise ValueError(
            f"{name}: there is no such folder, and no data set of this id could be loaded from the Hub ({_brief(error)}); check the path"
        ) from error
    return _table(loaded, name)


def _brief(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def _table(loaded: Any, source: str) -> Table:
    """A `Dataset` or `DatasetDict` as a table; images stay undecoded."""
    parts = loaded if hasattr(loaded, "items") else {None: loaded}
    table = Table(source=source, root=None, rows=[], columns=())
    for split, dataset in parts.items():
        table.rows += _rows(dataset, split, source, table)
    if not table.rows:
        raise ValueError(f"{source}: the data set has no rows; write it again")
    table.columns = tuple(dict.fromkeys(column for row in table.rows for column in row))
    return table


def _rows(dataset: Any, split: str | None, source: str, table: Table) -> list[Row]:
    import pyarrow.compute
    from datasets import ClassLabel, Features, Image, List

    features: Features = dataset.features
    single = [name for name, feature in features.items() if isinstance(feature, Image)]
    listed = [
        name for name, feature in features.items() if isinstance(feature, List) and isinstance(feature.feature, Image)
    ]
    images = dataset.select_columns(single + listed).with_format("arrow")  # which leaves images undecoded
    counts = {name: pyarrow.compute.list_value_length(images[:][name]).to_pylist() for name in listed}
    rest = [name for name in features if name not in (*single, *listed)]
    cells = dataset.select_columns(rest).with_format(None)[:] if rest else {}
    for name in rest:
        feature = features[name]
        if isinstance(feature, ClassLabel):
            cells[name] = [None if value is None or value < 0 else feature.int2str(value) for value in cells[name]]
            table.class_names[name] = tuple(feature.names)
        elif isinstance(feature, List) and isinstance(feature.feature, ClassLabel):
            cells[name] = [None if cell is None else feature.feature.int2str(cell) for cell in cells[name]]
            table.class_names[name] = tuple(feature.feature.names)
        elif name == "objects":
            cells[name] = [_objects(cell, feature, table) for cell in cells[name]]
    rows = []
    for index in range(len(dataset)):
        called = f"{source}, {split or 'row'} {index}" if split is None else f"{source}, {split} row {index}"
        row: Row = {name: cells[name][index] for name in rest}
        for name in single:
            row[_column(name, single)] = RowReference(images, index, name, None, called)
        for name in listed:
            row[name] = [
                RowReference(images, index, name, item, f"{called}, frame {item}")
                for item in range(counts[name][index] or 0)
            ]
        if split is not None and (word := split_name(split)) is not None and len(dataset) > 0:
            row.setdefault("split", word)
        rows.append(row)
    return rows


def _column(name: str, images: list[str]) -> str:
    """A column of images called label or annotation, beside another column of images, is one of masks."""
    return "mask" if len(images) > 1 and name.lower() in _ANNOTATION_COLUMNS else name


def _objects(cell: Any, feature: Any, table: Table) -> Any:
    """A cell of the column `objects` as a dict of lists, its classes by name instead of by number."""
    if cell is None:
        return None
    if isinstance(cell, list):
        cell = {key: [item[key] for item in cell] for key in cell[0]} if cell else {"bbox": []}
    named = dict(cell)
    for key in ("category", "categories", "label"):
        inner = _class_label(feature, key)
        if key in cell and inner is not None:
            named[key] = [inner.int2str(value) for value in cell[key]]
            table.class_names["objects"] = tuple(inner.names)
    return named


def _class_label(feature: Any, key: str) -> Any:
    """The `ClassLabel` of one entry of a struct of lists, or of a list of structs; None if there is none."""
    from datasets import ClassLabel

    struct = feature if isinstance(feature, dict) else getattr(feature, "feature", None)
    inner = struct.get(key) if isinstance(struct, dict) else None
    inner = getattr(inner, "feature", inner)
    return inner if isinstance(inner, ClassLabel) else None
