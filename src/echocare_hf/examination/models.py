"""Checkpoints of any head, loaded for inference: the network, its image processor, and the facts that let a reader repeat a result."""

import hashlib
import json
import os
import re
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.utils import cached_file

import echocare_hf
from echocare_hf import EchoCareConfig, EchoCareImageProcessorPil
from echocare_hf.checkpoints import find_checkpoint, shipped_checkpoints
from echocare_hf.hub.checkpoint_file import sha256
from echocare_hf.inference import bfloat16_is_fast, optimize_for_inference
from echocare_hf.model.label_losses_echocare import problem_type_of

from .results import ModelFacts

TASKS = {
    "EchoCareForPreTraining": "anatomy",
    "EchoCareForImageClassification": "classification",
    "EchoCareForSemanticSegmentation": "segmentation",
    "EchoCareForObjectDetection": "detection",
    "EchoCareForKeypointDetection": "keypoints",
    "EchoCareForVideoClassification": "video",
    "EchoCareForImageToImage": "enhancement",
}
"""Class of a checkpoint to its task; an image classifier of measured values is a "regression"."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_NAMELESS = re.compile(r"\d*|model|best|last|final|output|checkpoint([-_]\d+)?", re.IGNORECASE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SCALE_FREE = ("%", "1")


@dataclass(eq=False)
class LoadedModel:
    """A checkpoint that is ready to run.

    Attributes:
        facts: name, source, task, hash and revision.
        network: the model, in evaluation mode, optimised for inference on a CPU.
        processor: its image processor.
        config: its configuration.
        folder: where the checkpoint lies on this machine.
        device: where it runs.
        dtype: of its weights.
    """

    facts: ModelFacts
    network: Any
    processor: Any
    config: EchoCareConfig
    folder: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def task(self) -> str:
        return self.facts.task

    @cached_property
    def labels(self) -> dict[int, str]:
        """Name of each class or target, by its index."""
        return {int(index): str(name) for index, name in (self.config.id2label or {}).items()}

    @cached_property
    def sees_whole_image(self) -> bool:
        """Whether it gets the whole image rather than the ultrasound region.

        A length that is read off an image as a whole depends on how large things are in it, so a regression of anything but a share
        gets the image as it got it in training.
        """
        if problem_type_of(self.config) != "regression" or self.task not in ("regression", "video"):
            return False
        return any(unit not in _SCALE_FREE for unit in self.config.regression_unit or [""])

    @cached_property
    def input_key(self) -> Hashable:
        """Equal for models that take the same pixels, so that these are resized once."""
        size = self.processor.size
        return (
            *(size["height"], size["width"], int(self.processor.resample), self.processor.resize_mode),
            self.sees_whole_image,
        )

    def resize(self, pixels: np.ndarray) -> Tensor:
        """An image, uint8 `(height, width, 3)` or, if grey, `(height, width)`, at the model's input size: uint8 `(3, height, width)`.

        The image processor's own resizing, all channels at once, which takes a quarter of its time.
        """
        size = self.processor.size
        geometry = self.processor.resize_geometry(*pixels.shape[:2])
        (rows, columns), (top, left) = geometry.resized, geometry.offset
        resized = Image.fromarray(pixels).resize((columns, rows), int(self.processor.resample))
        placed = np.zeros((3, size["height"], size["width"]), np.uint8)
        placed[:, top : top + rows, left : left + columns] = np.moveaxis(np.atleast_3d(np.asarray(resized)), 2, 0)
        return torch.from_numpy(placed)

    def normalize(self, resized: Tensor) -> Tensor:
        """What the network takes of resized images `(..., 3, height, width)`: in its value range, type and on its device."""
        values = resized.to(self.device).float()
        if self.processor.do_rescale:
            values = values * self.processor.rescale_factor
        if self.processor.do_normalize:
            mean, deviation = (
                torch.tensor(numbers, device=self.device).view(-1, 1, 1)
                for numbers in (self.processor.image_mean, self.processor.image_std)
            )
            values = (values - mean) / deviation
        return values.to(self.dtype)

    @property
    def precision(self) -> str:
        return next(name for name, dtype in PRECISIONS.items() if dtype == self.dtype)


def load_models(sources: Sequence[str], device: str = "auto", precision: str = "auto") -> list[LoadedModel]:
    """Loads checkpoints of any head.

    Args:
        sources: bare names of checkpoints that ship (`echocare-tiny`), folders that `save_pretrained` made, Hub ids; `NAME=SOURCE`
            gives the model a name of its own in the results.
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
        precision: "fp32", "bf16", or "auto": bf16 where the device is fast at it.

    Raises:
        ValueError: for a checkpoint that is none, of another architecture, or without its weights; or a device that is not there.
    """
    if not sources:
        raise ValueError(f"no model was given; {_choices()}")
    place = find_device(device)
    dtype = _dtype(precision, place)
    loaded: list[LoadedModel] = []
    for source in sources:
        model = load_model(source, place, dtype)
        taken = {other.name for other in loaded}
        if any(
            other.facts.sha256 == model.facts.sha256 and other.config.to_dict() == model.config.to_dict()
            for other in loaded
        ):
            raise ValueError(f"--model {source}: is given twice")
        name, number = model.name, 2
        while name in taken:
            name, number = f"{model.name}-{number}", number + 1
        model.facts = replace(model.facts, name=name)
        loaded.append(model)
    return loaded


def load_model(source: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> LoadedModel:
    """One checkpoint; see `load_models`."""
    device = torch.device(device)
    name, given = split_name(source)
    place = find_checkpoint(given)
    _check_place(given, place)
    config = _config(given, place)
    architecture = (config.architectures or ["none"])[0]
    if architecture not in TASKS:
        raise ValueError(
            f"{given}: is a checkpoint of {architecture}, which has no results to write; give one of {', '.join(TASKS)}"
        )
    with ThreadPoolExecutor(1) as beside:
        hashing = beside.submit(hash_weights, weight_files(given, place)) if Path(place).is_dir() else None
        try:
            # Never the code that lies in the folder: it is another copy of ours at best.
            network, report = getattr(echocare_hf, architecture).from_pretrained(
                place, config=config, output_loading_info=True, dtype=torch.float32
            )
            processor = EchoCareImageProcessorPil.from_pretrained(place)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise _not_loadable(given, error) from error
    if not processor.do_resize or getattr(processor, "do_center_crop", False) or getattr(processor, "do_pad", False):
        raise ValueError(
            f"{given}: its image processor does more than resize to one size, so places cannot be mapped back"
        )
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{given}: {len(missing)} weights are missing, {missing[0]} among them; train or export the model again"
        )
    weights = weight_files(given, place)
    task = TASKS[architecture]
    if task == "classification" and problem_type_of(config) == "regression":
        task = "regression"
    if task == "anatomy":
        network.image_decoder = nn.Identity()  # it paints; nothing here looks at that
    network = network.to(device, dtype).eval().requires_grad_(False)
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        network = optimize_for_inference(network)
    own = Path(given).name if Path(place).is_dir() else given.split("/")[-1]
    facts = ModelFacts(
        name=name or (task if _NAMELESS.fullmatch(own) else own),
        source=Path(given).name if Path(place).is_dir() else given,
        task=task,
        sha256=hashing.result() if hashing else hash_weights(weights),
        revision=getattr(config, "_commit_hash", None),
    )
    return LoadedModel(facts, network, processor, config, weights[0].parent, device, dtype)


def split_name(source: str) -> tuple[str | None, str]:
    """The name that the user gave the model, if any, and its source."""
    name, sign, rest = source.partition("=")
    if sign and re.fullmatch(r"[\w.-]{1,64}", name) and not Path(source).exists():
        return name, rest
    return None, source


def _check_place(given: str, place: str) -> None:
    folder = Path(place)
    if folder.is_file():
        raise ValueError(f"{given}: is a file; --model takes the folder that it lies in")
    if not folder.is_dir():
        if not _HUB_ID.fullmatch(given):
            raise ValueError(f"{given}: there is no such folder; {_choices()}")
        return
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin") and not os.access(path, os.R_OK):
            raise ValueError(f"{given}: {path.name} cannot be read (Permission denied); check its permissions")
    if not (folder / "config.json").is_file():
        raise ValueError(f"{given}: has no config.json, so it is no checkpoint; {_choices()}")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise ValueError(f"{given}: has a config.json but no weights ({_WEIGHTS[0]}); copy the whole folder")
    if not (folder / "preprocessor_config.json").is_file():
        raise ValueError(
            f"{given}: has no preprocessor_config.json, so how its images are prepared is not known; "
            "save the image processor beside the model"
        )


def _config(given: str, place: str) -> EchoCareConfig:
    try:
        config = transformers.AutoConfig.from_pretrained(place)
    except (OSError, ValueError, KeyError) as error:
        raise _not_loadable(given, error) from error
    if not isinstance(config, EchoCareConfig):
        raise ValueError(f"{given}: is a {config.model_type} checkpoint; --model takes an EchoCare one")
    if config.num_channels != 3:
        raise ValueError(f"{given}: takes images of {config.num_channels} channels; predict gives models three")
    return config


def _not_loadable(given: str, error: Exception) -> ValueError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(f"{given}: cannot be loaded as a checkpoint ({reason}); {_choices()}")


def _choices() -> str:
    names = " or ".join(("a Hub id such as organisation/name", *shipped_checkpoints()))
    return f"--model takes a folder that save_pretrained made, {names}"


def weight_files(given: str, place: str) -> list[Path]:
    """The files that hold the weights, in the order of their names."""
    for name in _WEIGHTS:
        try:
            found = cached_file(place, name, _raise_exceptions_for_missing_entries=False, local_files_only=True)
        except OSError as error:
            raise _not_loadable(given, error) from error
        if found is None:
            continue
        path = Path(found)
        if not name.endswith(".index.json"):
            return [path]
        parts = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        return [path.with_name(part) for part in parts]
    raise ValueError(f"{given}: has no weights ({_WEIGHTS[0]}); copy the whole folder")


def hash_weights(files: Sequence[Path]) -> str:
    """SHA-256 of the weights' file; of the parts' hashes where there are several."""
    if len(files) == 1:
        return sha256(files[0])
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


def find_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"--device {name}: cannot be used ({reason}); give cpu, or leave it out") from error
    return device


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision in PRECISIONS:
        return PRECISIONS[precision]
    if precision != "auto":
        raise ValueError(f"--precision is auto, {' or '.join(PRECISIONS)}, got {precision!r}")
    fast = bfloat16_is_fast() if device.type == "cpu" else device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


__all__ = [
    "PRECISIONS",
    "TASKS",
    "LoadedModel",
    "find_device",
    "hash_weights",
    "load_model",
    "load_models",
    "split_name",
    "weight_files",
]
