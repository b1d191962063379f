"""Where the shards of a split are, and opening one: on disk, at a URL that fsspec reads, or on the Hub."""

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
from datasets import DownloadConfig, load_dataset_builder
from datasets.data_files import EmptyDatasetError, get_data_patterns, resolve_pattern
from datasets.utils.file_utils import is_local_path, xopen

SHARD_ERRORS = (OSError, pyarrow.ArrowException)
"""What opening or reading a damaged or missing shard raises; what fsspec and the Hub's client raise is an OSError."""

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class ShardAccess:
    """What is needed to open a shard.

    Attributes:
        token: of the Hub.
        storage_options: of the file system.
    """

    token: str | bool | None = None
    storage_options: dict[str, Any] = field(default_factory=dict)

    def download_config(self, url: str) -> DownloadConfig:
        protocol = url.partition("://")[0]
        return DownloadConfig(token=self.token, storage_options={protocol: self.storage_options})

    @contextmanager
    def open(self, url: str) -> Iterator[parquet.ParquetFile]:
        """A shard. Lost connections are tried again, as `datasets` does when streaming."""
        if is_local_path(url):
            with parquet.ParquetFile(url, memory_map=True) as shard:
                yield shard
            return
        with (
            xopen(url, "rb", download_config=self.download_config(url)) as file,
            parquet.ParquetFile(file, pre_buffer=True) as shard,  # asks for the pages of a row group at once
        ):
            yield shard


def find_shards(
    path_or_id: str, split: str | None, access: ShardAccess, *, name: str | None = None, revision: str | None = None
) -> list[str]:
    """The parquet files of a split, in order of their names. The arguments are those of `stream`.

    Raises:
        ValueError: if there are none.
    """
    local = Path(path_or_id).expanduser()
    if "://" not in path_or_id and not local.exists() and _HUB_ID.fullmatch(path_or_id):
        files = _on_the_hub(path_or_id, access, name, revision)
    else:
        place = path_or_id.rstrip("/") if "://" in path_or_id else str(local)
        if local.exists():
            place = glob.escape(place)  # its brackets are part of its name
        if place.endswith(".parquet"):
            files, split = {"all": _matching(place, access)}, None
        else:
            files = _in_folder(place, access)
    if split is not None and split not in files:
        raise ValueError(f"{path_or_id}: has no split {split!r}; it has {', '.join(files) or 'none'}")
    chosen = dict.fromkeys(file for part, found in files.items() if split in (None, part) for file in found)
    shards = sorted(file for file in chosen if file.endswith(".parquet"))
    if not shards:
        raise ValueError(
            f"{path_or_id}: holds no parquet files; give a corpus of `echocare curate`, or for a data set of the Hub in "
            'another format revision="refs/convert/parquet"'
        )
    return shards


def _on_the_hub(path_or_id: str, access: ShardAccess, name: str | None, revision: str | None) -> dict[str, list[str]]:
    try:
        builder = load_dataset_builder(path_or_id, name, revision=revision, token=access.token)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path_or_id}: no such folder here, and no such data set on the Hub ({str(error).splitlines()[0]}); correct the "
            "name, or give a token"
        ) from error
    return {str(split): list(files) for split, files in (builder.config.data_files or {}).items()}


def _in_folder(place: str, access: ShardAccess) -> dict[str, list[str]]:
    config = access.download_config(place)
    try:
        patterns = get_data_patterns(place, config)
        return {
            split: [file for each in found for file in _resolve(each, place, config)]
            for split, found in patterns.items()
        }
    except (OSError, EmptyDatasetError) as error:
        raise ValueError(
            f"{place}: there is no such folder, or nothing in it ({str(error).splitlines()[0]})"
        ) from error


def _matching(place: str, access: ShardAccess) -> list[str]:
    try:
        return resolve_pattern(place, "", download_config=access.download_config(place))
    except OSError as error:
        raise ValueError(f"{place}: there is no such file ({str(error).splitlines()[0]})") from error


def _resolve(pattern: str, place: str, config: DownloadConfig) -> list[str]:
    try:
        return resolve_pattern(pattern, place, download_config=config)
    except FileNotFoundError:
        return []  # one of several spellings of a split that `datasets` tries
