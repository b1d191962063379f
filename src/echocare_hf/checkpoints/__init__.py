"""The checkpoints that come with the package, each a folder for `from_pretrained` beside this file: they load without a network."""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def shipped_checkpoints() -> list[str]:
    """Names of the checkpoints that come with the package, in alphabetical order."""
    return sorted(config.parent.name for config in _FOLDER.glob("*/config.json"))


def checkpoint_path(name: str = "echocare-tiny") -> Path:
    """The folder of a checkpoint that comes with the package.

        model = AutoModel.from_pretrained(checkpoint_path("echocare-tiny"))

    Args:
        name: one of `shipped_checkpoints()`.

    Returns:
        A folder with config.json, model.safetensors, the image processor and the card.

    Raises:
        ValueError: if there is no checkpoint of that name, with those that there are.
    """
    if name not in shipped_checkpoints():
        shipped = ", ".join(shipped_checkpoints()) or "none"
        raise ValueError(f"no checkpoint called {name!r} comes with the package; it has {shipped}")
    return _FOLDER / name


def find_checkpoint(source: str) -> str:
    """What `from_pretrained` takes for what a user typed: the path of a shipped checkpoint for its bare name, else `source` itself.

    A folder of that name in the working directory goes first.
    """
    if source in shipped_checkpoints() and not Path(source).is_dir():
        return str(checkpoint_path(source))
    return source


__all__ = ["checkpoint_path", "find_checkpoint", "shipped_checkpoints"]
