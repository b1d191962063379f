"""What must not reach the Hub: pickles, secrets, paths of a machine, files that are too large."""

import json
import os
import pickletools
import re
from collections.abc import Iterable
from pathlib import Path

from .publish_folder import Source, size_text

# Loading one of these runs code that is in it, or may.
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".mar"}
_OTHER_WEIGHTS = {".h5", ".keras", ".msgpack", ".tflite", ".pb"}
_PICKLE_START = re.compile(rb"\x80[\x02-\x05]")
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_TEXT_SUFFIXES = {".json", ".jsonl", ".md", ".txt", ".yaml", ".yml", ".csv", ".tsv", ".toml", ".cfg", ".ini", ".html"}
_IMAGES_AND_TABLES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".mp4", ".avi", ".parquet"}
_MOST_TEXT = 64_000_000  # bytes of a file that is read for secrets
_MOST_PICKLE = 4_000_000  # bytes of a file that is tried as a pickle of text

_SECRET_NAMES = re.compile(
    r"\.env(\..*)?|.*\.env|\.netrc|\.pypirc|\.npmrc|\.git-credentials|\.htpasswd|\.pgpass|credentials(\.json)?|id_(rsa|dsa|ecdsa|ed25519)"
    r"|stored_tokens|token(\.txt)?|.*\.(pem|key|p12|pfx|jks|keystore|kdbx)",
    re.IGNORECASE,
)
_SECRETS = {
    "a Hugging Face token": r"(?<![A-Za-z0-9])(hf|api_org)_[A-Za-z0-9]{16,}",
    "an AWS key": r"(?<![A-Z0-9])(AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}(?![A-Z0-9])",
    "an AWS secret": r"aws_?(secret_?)?(access_?)?(key|session_token)(_id)?[\"']?\s*[:=]\s*[\"']?[A-Za-z0-9/+=]{20,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----",
    "a GitHub token": r"(?<![A-Za-z0-9])(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})",
    "a GitLab token": r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{16,}",
    "a Slack token": r"(?<![A-Za-z0-9])xox[abprs]-[A-Za-z0-9-]{10,}",
    "a Google key": r"(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{30,}",
    "an API key": r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{20,}",
    "a JSON web token": r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.",
    "a password in an address": r"[a-z][a-z0-9+.-]*://[^\s/:@\"']+:[^\s/:@\"'{}$]+@",
    "a password or key": r"[\"']?\b(wandb_api_key|api_?key|auth_?token|access_?token|hf_?token|hub_token|password|passwd|client_secret"
    r"|secret_?key|private_?key)[\"']?\s*[:=]\s*[\"'][^\s\"'{}<>$]{8,}[\"']",
}
_SECRET = re.compile(
    "|".join(f"(?P<s{number}>{form})" for number, form in enumerate(_SECRETS.values())), re.IGNORECASE
)
_CASE = re.compile(
    "|".join(list(_SECRETS.values())[1:2])
)  # AWS keys are capitals; the same letters in base64 are none

_ROOTS = (
    "home|root|Users|tmp|var|mnt|data|datasets|work|workspace|opt|scratch|srv|media|private|content|kaggle|gpfs|lustre|nfs|projects?"
    "|storage|cluster|usr|etc|Volumes|export|shared"
)
_MACHINE_PATH = re.compile(
    rf"(?<![\w.:/~<-])(?:file://)?/(?:{_ROOTS})/[\w.@+-]|(?<!\w)[A-Za-z]:\\{{1,2}}[\w. -]+\\|(?<![\w/])~/\w"
)


def check_files(source: Source, token: str | None, max_file_mb: float) -> None:
    """Goes through all files of a folder.

    Args:
        source: what is to be published.
        token: of the user, which must be in no file.
        max_file_mb: most megabytes of one file.

    Raises:
        ValueError: for the first file that must not be published; one line that names it and the cure, but never the secret.
    """
    for name, path in source.files.items():
        size = path.stat().st_size
        if size > max_file_mb * 1e6:
            raise ValueError(
                f"{path}: has {size_text(size)}, more than the {max_file_mb:g} MB of --max-file-mb; save the model in smaller "
                "shards (save_pretrained(max_shard_size=...)), or raise the limit"
            )
        check_no_pickle(path)
        check_no_secret(path, token)
        if Path(name).suffix.lower() in _TEXT_SUFFIXES or path.suffix == ".safetensors":
            check_no_machine_path(path)


def check_no_pickle(path: Path) -> None:
    """Refuses pickles by their names and by their first bytes, weights in other formats, and safetensors that are none."""
    suffix = path.suffix.lower()
    cure = "publish weights as safetensors (save_pretrained writes them) and remove this file"
    if suffix in _PICKLES:
        raise ValueError(
            f"{path}: is a pickle by its name, which can run code on the machine of whoever loads it; {cure}"
        )
    if suffix in _OTHER_WEIGHTS:
        raise ValueError(f"{path}: holds weights in another format; {cure}")
    with path.open("rb") as file:
        head = file.read(8)
        if _PICKLE_START.match(head):
            raise ValueError(f"{path}: is a pickle inside, whatever its name says; {cure}")
        if head.startswith(_ZIP_STARTS):
            raise ValueError(f"{path}: is a zip archive inside, as pickles of PyTorch are; {cure}, or unpack it")
    if suffix == ".safetensors":
        _safetensors_header(path)
    elif suffix not in _TEXT_SUFFIXES | _IMAGES_AND_TABLES | {".py"} and _is_text_pickle(path):
        raise ValueError(f"{path}: is a pickle inside, whatever its name says; {cure}")


def _is_text_pickle(path: Path) -> bool:
    """Whether a file is a whole pickle of protocol 0 or 1, which has no mark of its own."""
    if not 2 < path.stat().st_size <= _MOST_PICKLE:
        return False
    content = path.read_bytes()
    try:
        *_, (last, _, place) = pickletools.genops(content)
    except Exception:  # any other file: the parser raises whatever its bytes lead to
        return False
    return last.name == "STOP" and (place or 0) >= 2


def _safetensors_header(path: Path) -> str:
    """The JSON at the start of a safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(100_000_000, max(0, path.stat().st_size - 8)):
            raise ValueError(f"{path}: is no safetensors file, whatever its name says; save the model again")
        text = file.read(length)
    try:
        json.loads(text)
        return text.decode()
    except ValueError as error:
        raise ValueError(f"{path}: is no safetensors file, whatever its name says; save the model again") from error


def check_no_secret(path: Path, token: str | None = None) -> None:
    """Refuses files that hold keys by their name, and texts with tokens, keys or passwords in them; the message never shows one."""
    cure = "remove it, and revoke it if anyone else has seen the folder"
    if _SECRET_NAMES.fullmatch(path.name):
        raise ValueError(f"{path}: is a file for secrets by its name; {cure}")
    text = _text_of(path)
    if token and token in text:
        raise ValueError(f"{path}:{_line(text, text.index(token))}: holds the token that you publish with; {cure}")
    for found in _SECRET.finditer(text):
        number = next(number for number in range(len(_SECRETS)) if found[f"s{number}"] is not None)
        what = list(_SECRETS)[number]
        if what == "an AWS key" and not _CASE.match(found[0]):
            continue
        raise ValueError(f"{path}:{_line(text, found.start())}: holds what looks like {what}; {cure}")


def check_no_machine_path(path: Path) -> None:
    """Refuses texts with absolute paths: they tell of the machine and its people, and lead nowhere elsewhere."""
    text = _text_of(path)
    own = {str(Path.home()), str(Path.cwd()), str(path.parent.resolve())} - {"/", os.sep}
    places = [text.index(each + "/") for each in own if each + "/" in text]
    if found := _MACHINE_PATH.search(text):
        places.append(found.start())
    if places:
        place = min(places)
        shown = re.split(r"[\s\"',)]", text[place : place + 80])[0]
        raise ValueError(
            f"{path}:{_line(text, place)}: names a path of a machine ({shown}...); write the last part of it alone"
        )


def _text_of(path: Path) -> str:
    """What of a file can be read as text: all of a text, the header of weights, nothing of pictures and tables."""
    if path.suffix == ".safetensors":
        return _safetensors_header(path)
    if path.suffix.lower() in _IMAGES_AND_TABLES or path.stat().st_size > _MOST_TEXT:
        return ""
    return path.read_bytes().decode("utf-8", errors="replace")


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def leftover(names: Iterable[str]) -> list[str]:
    """Of files in a repository, those that take part in loading a model or show it: of an older version they would mislead."""
    kinds = re.compile(
        r"[^/]*\.safetensors(\.index\.json)?|[^/]*_echocare(_report)?\.py|examples/.*|data/.*\.parquet|[^/]*\.(bin|pt|pth|pkl|ckpt)"
    )
    return sorted(name for name in names if kinds.fullmatch(name))


__all__ = ["check_files", "check_no_machine_path", "check_no_pickle", "check_no_secret", "leftover"]
