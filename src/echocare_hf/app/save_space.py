"""The page as a folder for huggingface.co/spaces: the page's program, what it needs, the package itself, and the models."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path

import echocare_hf
from echocare_hf.checkpoints import find_checkpoint, shipped_checkpoints
from echocare_hf.files import written_beside

from .limits import Limits

SETTINGS = "settings.json"
SPACE_FILES = ("app.py", "requirements.txt", "README.md")

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


def write_space(folder: Path, models: Sequence[str], limits: Limits, say: Callable[[str], None]) -> None:
    """Writes a Space that shows the page with these models.

    Args:
        folder: to write; must not be there, or be empty.
        models: folders, which are copied; Hub ids, which the Space loads when it starts; names of checkpoints that ship.
        limits: of a request.
        say: prints a line.

    Raises:
        ValueError: for a folder that holds something, or a model that is neither a folder nor a Hub id.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"{folder}: is there already; give an empty or a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(folder) as partial:
        partial.mkdir()
        with as_file(files(__package__) / "space") as source:
            for name in SPACE_FILES:
                shutil.copyfile(source / name, partial / name)
        shutil.copytree(Path(echocare_hf.__file__).parent, partial / "echocare_hf", ignore=_LEFT_OUT)
        sources = [_copy_model(model, partial / "models") for model in models]
        settings = {"models": sources, "max_mb": limits.megabytes, "max_seconds": limits.seconds}
        (partial / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    say(
        f"{folder}: a Space, ready to push: hf upload ORGANISATION/NAME {folder} --repo-type space. "
        "Try it first: pip install -r requirements.txt, then python app.py in the folder."
    )


def _copy_model(given: str, target: Path) -> str:
    """What the Space's page gives `load_models` for a model; a folder is copied."""
    name, sign, source = given.partition("=")
    if not sign or Path(given).exists():
        name, sign, source = "", "", given
    if source in shipped_checkpoints() and not Path(source).is_dir():
        return given
    folder = Path(find_checkpoint(source))
    if not folder.exists():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
            raise ValueError(f"--model {given}: is neither a folder nor a Hub id (ORGANISATION/NAME)")
        return given
    if not (folder / "config.json").is_file():
        raise ValueError(f"--model {given}: has no config.json, so it is no checkpoint")
    place, number = target / (name or folder.resolve().name), 2
    while place.exists():
        place, number = target / f"{place.name}-{number}", number + 1
    place.mkdir(parents=True)
    for path in folder.iterdir():  # what from_pretrained reads, and the card; not the state of a training
        if path.suffix in (".json", ".safetensors", ".md", ".txt", ".model"):
            shutil.copyfile(path, place / path.name)
    return f"{name}{sign}models/{place.name}"


__all__ = ["SETTINGS", "SPACE_FILES", "write_space"]
