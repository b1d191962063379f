"""What of a folder goes to the Hub: its kind, its files, and a copy that is complete, with code, handler and pipelines."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ..checkpoints import find_checkpoint, shipped_checkpoints
from ..model import modeling_echocare
from ..model.remote_code_echocare import AUTO_MAP, IMAGE_PROCESSOR_AUTO_MAP, copy_code, custom_pipelines

HANDLER = Path(__file__).with_name("handler.py")
REQUIREMENTS = Path(__file__).with_name("handler_requirements.txt")
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
RECORDS = ("metrics.json", "training.json", "conversion.json")

# Of tools, not of the model; nobody misses them.
_TOOLS = {".git", ".cache", "__pycache__", ".ipynb_checkpoints", ".DS_Store", "Thumbs.db"}
_LOOKING_TOOLS = {"audit.csv", "contact_sheet"}  # of a data set: what one looks at before it is published
_LINKED = (".safetensors", ".parquet")  # large, and never changed here


@dataclass(frozen=True)
class Source:
    """A folder that is to be published.

    Attributes:
        folder: where it is.
        kind: a model or a data set.
        shipped: whether it comes with this package.
        files: what is published of it, by its path in the repository.
        config: config.json of a model, manifest.json of a data set.
    """

    folder: Path
    kind: Literal["model", "dataset"]
    shipped: bool
    files: dict[str, Path]
    config: dict[str, Any]


def open_source(given: str) -> Source:
    """Looks at what the user gave.

    Args:
        given: a folder, or the bare name of a checkpoint that comes with the package.

    Raises:
        ValueError: for no folder, one that is neither a model nor a data set, one that lacks a part, or one whose links lead out of it.
    """
    folder = Path(find_checkpoint(given))
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "there is no such folder"
        raise ValueError(
            f"{given}: {what}; give a model folder, one of `echocare curate`, or {', '.join(shipped_checkpoints())}"
        )
    if (folder / "manifest.json").is_file() and not (folder / "config.json").is_file():
        manifest = read_json(folder / "manifest.json")
        if manifest.get("made_by") != "echocare curate":
            raise ValueError(f"{folder}: its manifest.json is not of `echocare curate`; curate the data first")
        return Source(folder, "dataset", False, _files(folder, _LOOKING_TOOLS), manifest)
    files = _files(folder, set())
    if "config.json" not in files:
        raise ValueError(f"{folder}: has no config.json{_hint(folder)}; save it with save_pretrained")
    config = read_json(folder / "config.json")
    if not any(name in files for name in PREPROCESSORS):
        raise ValueError(
            f"{folder}: has no preprocessor_config.json, so nobody knows what images the model expects; "
            "save the image processor there with save_pretrained"
        )
    if not any(name.endswith(".safetensors") and "/" not in name and name.startswith("model") for name in files):
        raise ValueError(f"{folder}: has no model.safetensors; save the model there with save_pretrained")
    _check_references(folder, files, config)
    return Source(folder, "model", given in shipped_checkpoints() and given != str(folder), files, config)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; ValueError that names the file if there is none in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not valid JSON ({error}); write it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds no JSON object; write it again")
    return value


def _files(folder: Path, left_out: set[str]) -> dict[str, Path]:
    """All files below a folder by their path in it; links that lead out of it are errors."""
    root = folder.resolve()
    found = {}
    for directory, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if name not in _TOOLS | left_out)
        for name in sorted((*names, *folders)):
            path = Path(directory, name)
            if path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(root)):
                raise ValueError(f"{path}: is a link out of the folder; put the file itself there")
            if path.is_symlink() and path.is_dir():
                raise ValueError(f"{path}: is a link to a folder; put the folder itself there")
            if path.is_file() and name not in _TOOLS | left_out:
                found[path.relative_to(folder).as_posix()] = path
            elif not path.is_dir() and not path.is_file():
                raise ValueError(f"{path}: is neither a file nor a folder; remove it")
    return found


def _hint(folder: Path) -> str:
    inner = sorted(path.parent.name for path in folder.glob("*/config.json"))
    return f", but {', '.join(inner)} in it has: give that folder" if inner else ""


def _check_references(folder: Path, files: Mapping[str, Path], config: Mapping[str, Any]) -> None:
    """What JSON files name must be in the folder: shards of weights, and modules of code."""
    named: list[tuple[str, str]] = []
    for index in (name for name in files if name.endswith(".safetensors.index.json")):
        shards = read_json(files[index]).get("weight_map")
        if not isinstance(shards, dict):
            raise ValueError(f"{files[index]}: has no weight_map; save the model again")
        named += [(index, str(shard)) for shard in {str(name): None for name in shards.values()}]
    codes = [("config.json", config.get("auto_map")), ("config.json", config.get("custom_pipelines"))]
    codes += [(name, read_json(files[name]).get("auto_map")) for name in PREPROCESSORS if name in files]
    for name, value in codes:
        for text in _modules(value):
            if "--" in text:
                raise ValueError(
                    f"{folder / name}: takes its code from another repository ({text}); strangers would run that"
                )
            named.append((name, text.rsplit(".", 1)[0] + ".py"))
    for name, wanted in named:
        place = PurePosixPath(wanted)
        if place.is_absolute() or ".." in place.parts or "\\" in wanted:
            raise ValueError(f"{folder / name}: names {wanted}, which is outside the folder")
        if wanted not in files:
            raise ValueError(f"{folder / name}: names {wanted}, which is not in the folder; save the model again")


def _modules(value: Any) -> list[str]:
    """The texts `module.Class` of an auto_map or custom_pipelines."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, each in value.items() if key not in ("pt", "type", "default") for text in _modules(each)]
    if isinstance(value, list):
        return [text for each in value for text in _modules(each)]
    return []


def stage(source: Source, target: Path) -> list[str]:
    """Copies what is published into `target`, and adds what a stranger needs: code, the map of classes, pipelines, handler.

    Args:
        source: the folder.
        target: an empty folder.

    Returns:
        Remarks on what was done, a line each.
    """
    for name, path in source.files.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(path, place)
    if source.kind == "dataset":
        return []
    if source.config.get("model_type") == "echocare":
        _add_code(source, target)
    remarks = _changed_code(source)
    for added, name in ((HANDLER, "handler.py"), (REQUIREMENTS, "requirements.txt")):
        if not (target / name).exists():
            shutil.copyfile(added, target / name)
    return remarks


def _link_or_copy(path: Path, place: Path) -> None:
    if path.suffix in _LINKED:
        try:
            os.link(path.resolve(), place)
            return
        except OSError:  # another disk: then a copy
            pass
    shutil.copyfile(path, place)


def _add_code(source: Source, target: Path) -> None:
    """The code files and what names them, where the folder has none."""
    if not any(name.endswith("_echocare.py") for name in source.files):
        copy_code(target)
    values = read_json(target / "config.json")
    if "auto_map" not in values:
        values["auto_map"] = AUTO_MAP
        head = getattr(modeling_echocare, (values.get("architectures") or [""])[0], None)
        if head is not None and (pipelines := custom_pipelines(head)):
            values["custom_pipelines"] = pipelines
        write_json(target / "config.json", values)
    for name in PREPROCESSORS:
        if (target / name).is_file() and "auto_map" not in (values := read_json(target / name)):
            write_json(target / name, values | {"auto_map": {"AutoImageProcessor": IMAGE_PROCESSOR_AUTO_MAP}})


def _changed_code(source: Source) -> list[str]:
    """A line if the folder's code is not that of this package."""
    own = sorted(name for name in source.files if name.endswith(("_echocare.py", "_echocare_report.py")))
    package = Path(modeling_echocare.__file__).parent
    changed = [
        name
        for name in own
        if not (package / name).is_file() or (package / name).read_bytes() != source.files[name].read_bytes()
    ]
    if not changed:
        return []
    return [f"note: {len(changed)} code files are not those of this version of the package, {changed[0]} among them"]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object as save_pretrained does."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def tree_text(folder: Path) -> str:
    """The files of a folder with their sizes, a line each, folders first named and then indented."""
    lines, total = [], 0
    shown: set[PurePosixPath] = set()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        place = PurePosixPath(path.relative_to(folder).as_posix())
        for parent in reversed(place.parents[:-1]):
            if parent not in shown:
                shown.add(parent)
                lines.append(f"{'  ' * len(parent.parts)}{parent.name}/")
        size = path.stat().st_size
        total += size
        lines.append(f"{'  ' * len(place.parts)}{place.name}  {size_text(size)}")
    return "\n".join([*lines, f"  {len(lines) - len(shown)} files, {size_text(total)}"])


def size_text(size: int) -> str:
    """A number of bytes for people: 512 B, 7.4 kB, 11.7 MB."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e3:.1f} kB" if size < 1_000_000 else f"{size / 1e6:.1f} MB"


__all__ = ["RECORDS", "Source", "open_source", "read_json", "size_text", "stage", "tree_text", "write_json"]
