"""Reads a checkpoint of unknown origin without running anything that it holds.

A `.pth` file is a pickle, and a pickle is a program. Everything here loads with `weights_only=True`, which knows
tensors and plain containers and nothing else; whatever is more than that is refused with the reason and the cure.
"""

import errno
import hashlib
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint file under dotted names, in the order of the file.

    Containers are unrolled: `{"state_dict": {"module.x": tensor}}` gives `state_dict.module.x`.

    Args:
        path: a file written by `torch.save` (state dict, or containers with state dicts in them) or by safetensors.

    Returns:
        Name to tensor, on the CPU, in the file's own type; memory-mapped where the format allows it.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no checkpoint, is damaged, holds Python objects, or holds no tensors.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a checkpoint file (--to-monai is the way from a folder to a file)")
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    head = _head(path)
    if _is_safetensors(path, head):
        try:
            return _nonempty(load_file(path), path)
        except SafetensorError as error:
            raise ValueError(
                f"{path} is a damaged or truncated safetensors file ({error}): download it again"
            ) from None
    return _nonempty(_flatten_all(_torch_load(path, head), path), path)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError(f"{path} is empty (0 bytes): download it again")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not the checkpoint itself: run `git lfs pull`")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ValueError(f"{path} is a web page, not a checkpoint: the download went wrong, download it again")
    return head


def _is_safetensors(path: Path, head: bytes) -> bool:
    # The format: the length of the header in 8 bytes, then the header, which is JSON.
    return path.suffix == ".safetensors" or head[8:9] == b"{"


def _torch_load(path: Path, head: bytes) -> Any:
    is_zip = zipfile.is_zipfile(path)
    if head.startswith(b"PK") and not is_zip:
        raise ValueError(f"{path} is truncated or damaged (a zip file without its end): download it again")
    if not is_zip and not head.startswith(b"\x80"):
        raise ValueError(f"{path} is no checkpoint: neither a file of torch.save nor of safetensors")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)|global (\S+) was not", str(error))
        objects = f" ({next(filter(None, found.groups()))})" if found else ""
        raise ValueError(
            f"{path} holds Python objects{objects}, not only tensors: loading it could run any code hidden in it, "
            "so it is refused. Ask for a state dict, or, where you trust the file, re-save one in a sandbox: "
            "torch.save(model.state_dict(), 'weights.pth')"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is damaged or truncated, or no checkpoint of torch ({reason})") from None


def _flatten_all(content: Any, path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, tensor in _flatten(content, ""):
        if name in tensors:
            raise ValueError(f"{path} holds two tensors by the name {name!r}: re-save one state dict alone")
        tensors[name] = tensor
    return tensors


def _flatten(content: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Tensors in nested dicts, lists and tuples; numbers, texts and the like are passed over."""
    if isinstance(content, Tensor):
        yield name, content.detach()
    elif isinstance(content, (Mapping, list, tuple)):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from _flatten(value, f"{name}.{key}" if name else str(key))


def _nonempty(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    if not tensors:
        raise ValueError(f"{path} holds no tensors, so it is no checkpoint of a model")
    return tensors
