"""Sources that are not on this machine, copied to the work folder once: URLs through Daft's readers, files and data sets of the Hub."""

import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from .engine import import_daft
from .options import Progress, digest
from .unpacked import Contents, materialise, name_classes, write_rows

_AT_ONCE = 64  # files, and
_AT_ONCE_BYTES = 128 * 1024**2  # bytes, that are fetched in one go; larger files are copied piece by piece
_BLOCK = 8 * 1024**2
_HUB_THREADS = 8  # as huggingface_hub downloads a repository


def without_secrets(url: str) -> str:
    """A URL without user name, password and query, for what others may read."""
    plain = re.sub(r"//[^/@]*@", "//", url)
    return plain.partition("?")[0] if _is_http(url) else plain


def fetch(url: str, work: Path, progress: Progress) -> Path:
    """Copies of the files behind a URL, or a glob of URLs, in the folders they have there.

    Credentials come from the environment, as for other tools: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_REGION,
    AWS_ENDPOINT_URL for S3 and what speaks its protocol, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN. A public bucket needs none:
    AWS_NO_SIGN_REQUEST=1. hf:// is read by huggingface_hub: Daft 0.7.26 does not send HF_TOKEN, finds nothing by a glob with a
    revision, and asks for names with `#`, `?` or `%` in them as if they ended there.

    Args:
        url: of one file, or with `*`, `**` or `?` in it, or with a slash at its end for all below; https:// has single files only.
        work: folder of what is fetched.
        progress: called as files arrive.

    Returns:
        The folder.

    Raises:
        ValueError: if there is nothing, or it cannot be read, in one line.
        OSError: if the disk is full.
    """
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    daft = import_daft()
    if url.lower().startswith("hf://"):
        url = f"hf://{url[5:]}"
    place = work / digest(url)
    refused = (daft.exceptions.DaftCoreException, HTTPError, OfflineModeIsEnabled, FileNotFoundError)
    try:
        if url.startswith("hf://"):
            materialise(place, lambda target: _fetch_from_hub(url, target, progress))
        else:
            materialise(place, lambda target: _fetch(daft, url, target, progress))
    except (*refused, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, refused):
            raise  # of this machine; a download that was cut short has no number
        problem = " ".join(str(error).split())[:160]
        raise ValueError(f"{without_secrets(url)}: cannot be read ({problem}); check it and your access") from error
    return place


def _is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _fetch(daft: Any, url: str, target: Path, progress: Progress) -> Contents:
    key = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if url.startswith("gs://") and key and not Path(key).is_file():
        raise ValueError(f"{url}: GOOGLE_APPLICATION_CREDENTIALS names {key}, which is no file; correct or unset it")
    config = _config(daft)
    many = url.endswith("/") or bool(
        re.search(r"[*]" if _is_http(url) else r"[*?]", url)
    )  # ? parts the query of a web address
    if many and _is_http(url):
        raise ValueError(f"{without_secrets(url)}: web servers list no files; give the URL of a file or an archive")
    found: list[tuple[str, int | None]] = [(url, None)]
    if many:
        plain = re.sub(r"([\[\]{}\\])", r"\\\1", url)  # to Daft these, too, are wild
        glob = daft.from_glob_path(f"{plain}**" if url.endswith("/") else plain, io_config=config)
        found = [(row["path"], row["size"]) for row in glob.select("path", "size").iter_rows()]
    fixed = len(re.sub(r"[^/]*[*?].*", "", url)) if many else len(url.rpartition("/")[0]) + 1
    small: list[str] = []
    waiting = 0
    for number, (path, size) in enumerate(found, 1):
        if size is None or size > _AT_ONCE_BYTES // 4:
            remote = daft.File(path, io_config=config)
            with remote.open(buffer_size=_BLOCK) as content, _new(target, path, fixed).open("wb") as file:
                shutil.copyfileobj(content, file, _BLOCK)
        else:
            small.append(path)
            waiting += size
        if small and (number == len(found) or len(small) == _AT_ONCE or waiting > _AT_ONCE_BYTES):
            download = daft.functions.download(daft.col("path"), io_config=config)
            for row in daft.from_pydict({"path": small}).with_column("content", download).iter_rows():
                _new(target, row["path"], fixed).write_bytes(row["content"])
            small, waiting = [], 0
        progress("fetch", number, len(found))
    if not found:
        raise ValueError(f"{without_secrets(url)}: no file matches; check it")
    return [], []  # the folder is walked like any other


def _fetch_from_hub(url: str, target: Path, progress: Progress) -> Contents:
    from fsspec.callbacks import TqdmCallback
    from huggingface_hub import HfFileSystem

    hub: Any = HfFileSystem(skip_instance_cache=True)  # what an earlier one has listed may be out of date
    is_glob = re.search(r"[*?]", url) is not None
    folder = re.sub(r"[^/]*[*?].*", "", url) if is_glob else url.rpartition("/")[0]
    try:
        root = hub.resolve_path(folder).unresolve()
    except (ValueError, NotImplementedError) as error:
        raise ValueError(f"{url}: names no repository and what is in it, as hf://datasets/ORG/NAME/ does") from error
    if is_glob:
        found = hub.glob(url.replace("[", "[[]"), detail=True)
    else:
        found = hub.find(url, detail=True) if url.endswith("/") else {url: hub.info(url)}
    names = [about["name"] for about in found.values() if about["type"] == "file"]
    if not names:
        raise ValueError(f"{url}: no file matches; check it")

    def copy(name: str) -> None:
        with _new(target, name, len(root)).open("wb") as file:
            hub.get_file(name, outfile=file, callback=TqdmCallback(tqdm_kwargs={"disable": True}))

    with ThreadPoolExecutor(_HUB_THREADS) as threads:
        for number, _ in enumerate(threads.map(copy, names), 1):
            progress("fetch", number, len(names))
    return [], []


def _new(target: Path, url: str, fixed: int) -> Path:
    """Where a file goes: under its name behind the fixed part of the glob, which can lead nowhere else."""
    name = url[fixed:].partition("?")[0] if _is_http(url) else url[fixed:]
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
    place = target.joinpath(*parts) if parts else target / digest(url)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _config(daft: Any) -> Any:
    """How Daft reads, with what it does not take from the environment by itself."""
    keys = {"endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")}
    keys["region_name"] = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    given: dict[str, Any] = {name: value for name, value in keys.items() if value}
    if os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes"):
        given["anonymous"] = True
    s3 = daft.io.S3Config(num_tries=5, use_ssl=not given.get("endpoint_url", "").startswith("http:"), **given)
    # Without this, Daft goes on as nobody if it cannot use them.
    gcs = daft.io.GCSConfig(credentials=os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or None)
    return daft.io.IOConfig(s3=s3, gcs=gcs, http=daft.io.HTTPConfig(num_tries=3, connect_timeout_ms=10_000))


def fetch_rows(given: str, work: Path, progress: Progress) -> Path:
    """The rows of a data set of the Hub as files, made once.

    Args:
        given: `name/of_it` or `name/of_it:split`, the split train by default.
        work: folder of what is fetched.
        progress: called with the number of rows.

    Returns:
        The folder.

    Raises:
        ValueError: if there is no such data set or split, in one line.
        OSError: if the disk is full.
    """
    from datasets import ClassLabel, load_dataset
    from huggingface_hub.errors import HfHubHTTPError

    name, _, split = given.partition(":")

    def rows() -> Iterator[dict[str, Any]]:
        data = load_dataset(name, split=split or "train", streaming=True).decode(False)
        features = (data.features or {}).items()
        classes = {column: kind.names for column, kind in features if isinstance(kind, ClassLabel)}
        stated = (data.info.splits or {}).get(split or "train")
        total = stated.num_examples if stated else 0
        for number, row in enumerate(data, 1):
            yield name_classes(row, classes)
            progress("fetch", number, max(number, total))

    target = work / digest(given)
    try:
        materialise(target, lambda folder: (write_rows(rows(), folder), []))
    except (FileNotFoundError, ConnectionError, HfHubHTTPError, ValueError) as error:
        raise ValueError(
            f"{given}: is no file or folder here, and no data set of the Hub that can be read"
            f" ({' '.join(str(error).split())[:120]}); check the name and the split"
        ) from error
    return target
