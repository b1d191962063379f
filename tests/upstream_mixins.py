"""The test mixins of transformers itself, run against our classes.

transformers ships `ModelTesterMixin`, `BackboneTesterMixin` and `ImageProcessingTestMixin` only in its source
distribution on PyPI. This module fetches those files for exactly the installed version, lays them out as an importable
package `transformers_tests` under `.cache/` (never committed), and hands out its modules:

    from upstream_mixins import upstream_module

    modeling_common = upstream_module("test_modeling_common")   # skips the calling test module when it cannot

    class EchoCareModelTest(modeling_common.ModelTesterMixin, unittest.TestCase): ...

Where the files come from, first that exists:

1. `.cache/transformers-<version>/` in the repository, left by an earlier session;
2. `ECHOCARE_TRANSFORMERS_SDIST`, a `.tar.gz` of the source distribution or the folder it was extracted to;
3. `pip download --no-deps --no-binary :all: transformers==<version>` (10 MB, about half a minute).

Nothing of this happens when this module is imported, only when `upstream_tests` or `upstream_module` is called.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest

ENVIRONMENT_VARIABLE = "ECHOCARE_TRANSFORMERS_SDIST"
PACKAGE = "transformers_tests"
DOWNLOAD_TIMEOUT_SECONDS = 180

# What the wanted files import and we do not need: tests of the exporters and of text generation, and a cache of Hub
# files. `utils/` stands beside the package because test_image_processing_common.py looks for it one folder up.
STUBS = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/exporters/__init__.py": "",
    f"{PACKAGE}/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    f"{PACKAGE}/generation/__init__.py": "",
    f"{PACKAGE}/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n    return url\n",
}


class UpstreamTestsUnavailable(RuntimeError):
    """The upstream test files could not be had; the message says why, in one line."""


def _installed_version() -> str:
    from transformers import __version__

    return __version__


def _read_test_files(source: Path, version: str) -> dict[str, bytes]:
    """`tests/test_*.py` of a source distribution (tar.gz or extracted folder), by file name."""
    if source.is_dir():
        information = source / "PKG-INFO"
        metadata = information.read_text(encoding="utf-8") if information.is_file() else ""
        files = {path.name: path.read_bytes() for path in (source / "tests").glob("test_*.py")}
    elif source.is_file():
        metadata, files = "", {}
        with tarfile.open(source) as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                handle = archive.extractfile(member) if member.isfile() else None
                if handle is None:
                    continue
                if len(parts) == 2 and parts[1] == "PKG-INFO":
                    metadata = handle.read().decode("utf-8")
                elif len(parts) == 3 and parts[1] == "tests" and PurePosixPath(parts[2]).match("test_*.py"):
                    files[parts[2]] = handle.read()
    else:
        raise UpstreamTestsUnavailable(f"{source} does not exist (from {ENVIRONMENT_VARIABLE})")
    versions = [line.removeprefix("Version:").strip() for line in metadata.splitlines() if line.startswith("Version:")]
    found = versions[0] if versions else "of an unknown version"
    if found != version:
        raise UpstreamTestsUnavailable(f"{source} holds transformers {found}, installed is {version}")
    if "test_modeling_common.py" not in files:
        raise UpstreamTestsUnavailable(f"{source} holds no tests/test_modeling_common.py: not a source distribution")
    return files


def _download(version: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--dest", str(folder), f"transformers=={version}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise UpstreamTestsUnavailable(f"pip download gave up after {DOWNLOAD_TIMEOUT_SECONDS} s") from error
    archives = list(folder.glob("transformers-*.tar.gz"))
    if result.returncode or not archives:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise UpstreamTestsUnavailable(f"pip could not download transformers=={version}: {last}")
    return archives[0]


@lru_cache(maxsize=1)
def _prepare() -> Path | str:
    """The folder, or the reason why there is none (kept, so that a failing download is tried once a session)."""
    version = _installed_version()
    folder = Path(__file__).resolve().parent.parent / ".cache" / f"transformers-{version}"
    if (folder / PACKAGE / "__init__.py").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Written beside its place and renamed, so that parallel test workers never see half of it.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="transformers-") as scratch:
            given = os.environ.get(ENVIRONMENT_VARIABLE)
            source = Path(given).expanduser() if given else _download(version, Path(scratch))
            new = Path(scratch) / "new"
            contents = {f"{PACKAGE}/{name}": data for name, data in _read_test_files(source, version).items()}
            contents |= {name: text.encode() for name, text in STUBS.items()}
            for name, data in contents.items():
                path = new / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            try:
                new.rename(folder)
            except OSError:  # another worker was first
                if not (folder / PACKAGE / "__init__.py").is_file():
                    shutil.rmtree(folder, ignore_errors=True)
                    new.rename(folder)
    except (UpstreamTestsUnavailable, OSError, tarfile.TarError) as error:
        return f"the test mixins of transformers {version} are not available: {error}"
    return folder


def upstream_tests() -> Path:
    """The folder that holds the package `transformers_tests` for the installed transformers, put on `sys.path`.

    Raises:
        UpstreamTestsUnavailable: when the files are neither cached, nor given, nor downloadable.
    """
    folder = _prepare()
    if isinstance(folder, str):
        raise UpstreamTestsUnavailable(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return folder


def upstream_module(name: str) -> ModuleType:
    """An upstream test file as a module, e.g. `upstream_module("test_modeling_common").ModelTesterMixin`.

    Skips the calling test module, with the reason, when the files or something they import cannot be had.

    Args:
        name (`str`): the file's name without `.py`.
    """
    try:
        folder = upstream_tests()
    except UpstreamTestsUnavailable as error:
        pytest.skip(str(error), allow_module_level=True)
    pytest.importorskip("parameterized", reason="the test mixins of transformers need `pip install parameterized`")
    _register_markers(folder / PACKAGE / f"{name}.py")
    return importlib.import_module(f"{PACKAGE}.{name}")


def _register_markers(path: Path) -> None:
    """Makes the markers of an upstream file known, which `--strict-markers` would refuse at its import."""
    config = getattr(pytest.mark, "_config", None)  # None outside a test session
    if config is None:
        return
    used = re.findall(r"\bmark\.(\w+)", path.read_text(encoding="utf-8"))
    for marker in sorted(set(used)):
        config.addinivalue_line("markers", f"{marker}: of transformers' own tests")
