"""Every value of a pretraining run: a YAML file read into a typed dataclass, any value to be overridden on the command line."""

# ruff: noqa: RUF009  (`_value` makes a field; a default that can change gets a factory)

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from .schedule import Schedule


def _value(default: Any, text: str) -> Any:
    if isinstance(default, list | dict):
        return field(default_factory=lambda: default.copy(), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class Recipe:
    """Every value can stand in a recipe or on the command line."""

    data: list[str] = _value(
        [],
        "corpora: a curated corpus, a folder with index.csv or metadata.csv, a folder of images, or phantoms:COUNT",
    )
    output_dir: str = _value("", "folder of the run; a run that was cut off goes on there")
    resume: bool = _value(True, "go on with what the folder holds; false refuses a folder that holds a run")
    seed: int = _value(0, "of the weights, the order, the augmentation and the masks")

    licences: list[str] = _value(
        [], "use only images under these, such as 'CC BY'; a version counts if it is named; none, or '', for all"
    )
    exclude: list[str] = _value(
        [], "text files with a file name a line that must not be seen, nor what looks the same"
    )
    exclude_groups: list[str] = _value([], "text files with a group a line that must not be seen")
    validation: float = _value(0.1, "share of the images that is held out, by group, where the corpus does not say")
    memory_mb: int = _value(4096, "keep decoded images in memory if they need no more than this")
    workers: int = _value(0, "processes that read and augment, per training process")
    threads: int = _value(
        0, "threads of PyTorch on a CPU, per process; 0: as the machine has it, and as before where a run goes on"
    )

    preset: str = _value("tiny", "tiny, base or large")
    config: dict = _value(
        {},
        "values of EchoCareConfig that differ from the preset, as YAML; --config.NAME VALUE changes one of the recipe's",
    )
    initial_weights: str = _value(
        "",
        "folder or Hub id of a checkpoint to start from, whose image decoder keeps its width; random weights if not given",
    )

    steps: int = _value(1000, "steps of the optimizer")
    batch_size: int = _value(32, "images a step, over all processes and accumulated parts")
    accumulation: int = _value(1, "parts that a step's batch is cut into, to save memory")
    learning_rate: float = _value(1e-3, "highest")
    learning_rate_floor: float = _value(0.0, "share of the highest at which the cosine ends")
    warmup_steps: int = _value(100, "steps in which the learning rate rises")
    weight_decay: float = _value(0.05, "of AdamW; none on norms, biases, bias tables and tokens")
    betas: list[float] = _value([0.9, 0.95], "of AdamW")
    epsilon: float = _value(1e-8, "of AdamW")
    max_grad_norm: float = _value(1.0, "gradients are clipped to this norm")
    precision: str = _value("auto", "fp32, bf16, or auto: bf16 where the hardware multiplies in it")

    image_size: str = _value("128", "side of the input in pixels; may be knots such as '0:128 0.5:192'")
    mask_ratio: str = _value("0.5", "share of the mask units that is hidden; may be knots")
    hard_share: str = _value(
        "0:0 1:0.5", "share of the hidden units that the teacher chooses, with hard_patches; may be knots"
    )
    ema_decay: str = _value("0:0.999 1:0.9999", "share of its old value that the EMA keeps a step; may be knots")

    reconstruction_weight: float = _value(1.0, "of L_MIM")
    anatomy_weight: float = _value(1.0, "of L_HIE")
    hard_patches: bool = _value(False, "adaptive hard patch mining: the EMA of the model chooses what to hide")
    hard_patch_weight: float = _value(1.0, "of the relative loss that trains its predictor")
    contrast_weight: float = _value(0.0, "of the structured contrast; 0 for none")
    contrast_temperature: float = _value(0.07, "of the structured contrast")
    contrast_size: int = _value(128, "numbers of the projection that is contrasted")

    crop: float = _value(0.5, "probability of a random resized crop")
    crop_scale: list[float] = _value([0.3, 1.0], "smallest and largest share of the image's area in a crop")
    crop_aspect: list[float] = _value([0.75, 1.3333], "narrowest and widest crop, relative to the image's own aspect")
    flip_horizontal: float = _value(0.5, "probability of mirroring left and right")
    flip_vertical: float = _value(0.5, "probability of mirroring up and down")
    grey: float = _value(0.2, "probability of dropping the colour")
    jitter: float = _value(0.2, "probability of a weak change of gain, contrast and gamma")

    log_every: int = _value(10, "steps between two lines of the log")
    evaluate_every: int = _value(500, "steps between two looks at the held-out images")
    save_every: int = _value(500, "steps between two checkpoints")
    keep: int = _value(2, "checkpoints that are kept, at least 2")
    evaluation_images: int = _value(512, "most held-out images that are looked at")
    probe_images: int = _value(1024, "most training images that kNN and linear probe learn from; 0 for no probes")
    sample_images: int = _value(8, "reconstructions that are drawn at each look; 0 for none")
    trackers: list[str] = _value([], "tensorboard, trackio, or '' for none; metrics.jsonl is always written")

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, list):
                setattr(self, entry.name, without_empty(value))

    def schedule(self) -> Schedule:
        return Schedule(
            self.steps,
            self.learning_rate,
            self.warmup_steps,
            self.learning_rate_floor,
            self.image_size,
            self.mask_ratio,
            self.hard_share if self.hard_patches else "0",
            self.ema_decay,
        )

    def check(self) -> None:
        """Raises a ValueError, one line, for values that cannot work."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            numbers = [
                number for number in (value if isinstance(value, list) else [value]) if isinstance(number, float)
            ]
            # Gradients that are clipped to an infinite norm are not clipped.
            if not all(map(math.isfinite, numbers)) and (entry.name != "max_grad_norm" or math.isnan(numbers[0])):
                raise ValueError(f"{entry.name} is a finite number, not {value}")
        self.schedule()
        if not self.data:
            raise ValueError("no corpus: give --data FOLDER, or a value `data` in the recipe")
        if not self.output_dir:
            raise ValueError("no folder for the run: give --output_dir FOLDER, or a value `output_dir` in the recipe")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision is fp32, bf16 or auto, not {self.precision!r}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are two numbers from 0 to below 1, not {self.betas}")
        if unknown := sorted(set(self.trackers) - {"tensorboard", "trackio"}):
            raise ValueError(f"unknown tracker {', '.join(unknown)}: choose from tensorboard, trackio")
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(
                f"crop_scale is a smallest and a largest share above 0 and at most 1, not {self.crop_scale}"
            )
        if len(self.crop_aspect) != 2 or not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise ValueError(f"crop_aspect is a narrowest and a widest aspect above 0, not {self.crop_aspect}")
        for name in ("crop", "flip_horizontal", "flip_vertical", "grey", "jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, 0 to 1, not {getattr(self, name)}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation is a share above 0 and below 1, not {self.validation}")
        least = {
            "keep": 2,
            "workers": 0,
            "threads": 0,
            "probe_images": 0,
            "sample_images": 0,
            "seed": 0,
            "memory_mb": 0,
        }
        for name in (
            "batch_size",
            "accumulation",
            "contrast_size",
            "log_every",
            "evaluate_every",
            "save_every",
            "evaluation_images",
            *least,
        ):
            if getattr(self, name) < least.get(name, 1):
                raise ValueError(f"{name} is at least {least.get(name, 1)}, not {getattr(self, name)}")
        for name in (
            "reconstruction_weight",
            "anatomy_weight",
            "hard_patch_weight",
            "contrast_weight",
            "weight_decay",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is not negative, got {getattr(self, name)}")
        for name in ("max_grad_norm", "contrast_temperature", "epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is above 0, not {getattr(self, name)}")
        if not 0 <= self.learning_rate_floor <= 1:
            raise ValueError(f"learning_rate_floor is a share, 0 to 1, not {self.learning_rate_floor}")
        if not self.reconstruction_weight and not self.anatomy_weight and not self.contrast_weight:
            raise ValueError(
                "reconstruction_weight, anatomy_weight and contrast_weight are all 0: there is nothing to learn"
            )


# What may change between the parts of a run that was cut off: it does not touch the weights.
FREE_VALUES = (
    *("resume", "output_dir", "memory_mb", "workers", "threads", "log_every", "evaluate_every", "save_every", "keep"),
    *("evaluation_images", "probe_images", "sample_images", "trackers", "data"),
)


def read_recipe(path: Path) -> dict[str, Any]:
    """The values of a recipe file, checked against the types of `Recipe`.

    Raises:
        ValueError: if the file cannot be read, or holds an unknown value or one of another type.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as a recipe ({str(error).splitlines()[0]})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a recipe is a list of `name: value`, one a line")
    return convert(values, str(path))


def nearest(name: str, names: Iterable[str]) -> str:
    """Which of the names may have been meant, as a part of a message; "" if none is near."""
    found = difflib.get_close_matches(name, list(names), 1)
    return f" (did you mean {found[0]}?)" if found else ""


def without_empty(values: list[Any]) -> list[Any]:
    """A list without empty texts: on a command line, '' stands for a list of nothing."""
    return [value for value in values if value != ""]


def convert(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Values of a recipe brought to the types of `Recipe` where nothing is lost by it, such as 1 to 1.0 and 128 to "128".

    Raises:
        ValueError: for an unknown name, or a value of another type.
    """
    known = {entry.name: entry for entry in fields(Recipe)}
    if unknown := sorted(str(name) for name in set(values) - set(known)):
        raise ValueError(
            f"{where}: unknown value {', '.join(unknown)}{nearest(unknown[0], known)}; `--help` lists them all"
        )
    kinds = typing.get_type_hints(Recipe)
    return {name: _as_type(value, kinds[name], f"{where}: {name}") for name, value in values.items()}


def _as_type(value: Any, kind: Any, where: str) -> Any:
    origin = typing.get_origin(kind) or kind
    if origin is list:
        (item,) = typing.get_args(kind)
        parts = value if isinstance(value, list) else [value]
        return [_as_type(part, item, where) for part in parts]
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            value = str(value)
    if (
        isinstance(origin, types.UnionType)
        or not isinstance(value, origin)
        or (kind is int and isinstance(value, bool))
    ):
        raise ValueError(f"{where} is {getattr(kind, '__name__', kind)}, not {value!r}")
    return value


def changed_values(before: dict[str, Any], recipe: Recipe) -> list[str]:
    """Names of the values that differ and would change the weights; a value that `before` lacks had its default."""
    now, usual = dataclasses.asdict(recipe), dataclasses.asdict(Recipe())
    then = usual | {name: without_empty(value) if isinstance(value, list) else value for name, value in before.items()}
    return sorted(name for name in now if name not in FREE_VALUES and then[name] != now[name])
