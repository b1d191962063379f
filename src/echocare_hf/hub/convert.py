"""`echocare convert`: the released weights to a folder that `AutoModel` loads, and back to MONAI, with proof.

A conversion reads the file without running anything in it, accounts for each of its tensors, writes beside the target,
loads what it wrote, compares that with the source bit by bit, runs MONAI's model and ours on one image where MONAI is
installed, and only then gives the result its name. If anything does not fit, nothing is left behind.
"""

import errno
import importlib.metadata
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from ..files import readable_weights
from ..model.configuration_echocare import EchoCareConfig
from ..model.image_processing_pil_echocare import EchoCareImageProcessorPil
from ..model.modeling_echocare import EchoCareForPreTraining, EchoCareModel
from .checkpoint_file import read_tensors, sha256
from .decoder_mapping import match_decoder, match_head
from .model_card import conversion_card
from .monai_mapping import (
    ARCHITECTURE,
    MASK_TOKEN,
    MASK_TOKEN_HERE,
    differences,
    expected_shapes,
    find_encoder,
    index_names,
    infer_config,
    is_encoder_name,
    matching_preset,
    monai_names,
    relative_position_index,
    to_monai_state,
)

# The maps that both models return have unit variance, so this is a share of a standard deviation. For base with random
# weights, float32 gives about 4e-5 (tests/model/test_parity_monai.py).
MONAI_TOLERANCE = 1e-3
PARITY_SEED = 0

# Lines of missing or left out tensors to print; conversion.json has them all.
MAX_LINES = 20

Report = Callable[[str], object]


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the source, or one that it lacks, and what became of it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    note: str


@dataclass
class ConversionReport:
    """What a conversion did. Every tensor of the source is in exactly one of `loaded`, `checked` and `left_out`.

    Attributes:
        source: name of the converted file or folder, without its path.
        source_sha256: of the file, or of the folder's model.safetensors.
        architecture: the values that the tensors imply, by their names in `EchoCareConfig`.
        preset: the preset of that architecture, if any.
        loaded: tensors written to the result; the note is the name there.
        checked: tensors that are not stored but were compared with what takes their place.
        missing: tensors that the source lacks and that were made; the note says how.
        left_out: tensors without a place in the result; the note says why.
        identical: tensors that were read back from the result and equal the source bit by bit.
        monai_version: the MONAI that ran beside ours, None if it is not installed.
        monai_differences: largest absolute difference of each of the five maps.
        monai_image_size: side of the square random image they saw, in pixels.
        versions: of the packages that took part.
        date: of the conversion, ISO 8601.
    """

    source: str
    source_sha256: str
    architecture: dict[str, Any]
    preset: str | None
    dtype: str
    model_class: str
    loaded: list[TensorEntry] = field(default_factory=list)
    checked: list[TensorEntry] = field(default_factory=list)
    missing: list[TensorEntry] = field(default_factory=list)
    left_out: list[TensorEntry] = field(default_factory=list)
    identical: int = 0
    monai_version: str | None = None
    monai_differences: list[float] = field(default_factory=list)
    monai_image_size: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    date: str = ""

    @property
    def num_source_tensors(self) -> int:
        """Tensors that the source holds."""
        return len(self.loaded) + len(self.checked) + len(self.left_out)

    @property
    def num_parameters(self) -> int:
        """Values in the loaded tensors."""
        return count_values(self.loaded)


def convert_checkpoint(
    checkpoint: str | Path,
    output: str | Path,
    *,
    preset: str | None = None,
    to_monai: bool = False,
    report: Report = print,
) -> ConversionReport:
    """Converts weights with MONAI's names into a model folder, or a model folder into weights with MONAI's names.

    Args:
        checkpoint: the `.pth` or `.safetensors` file; with `to_monai`, a folder of
            `EchoCareModel.save_pretrained`.
        output: the folder to make; with `to_monai`, the `.pth` or `.safetensors` file to write.
        preset: `"tiny"`, `"base"` or `"large"` to insist on that architecture; by default the tensors say which it is.
        to_monai: the way back.
        report: gets what happens, line by line.

    Returns:
        What was loaded, missing and left out, and the proof.

    Raises:
        OSError: the source is not there, or the result cannot be written.
        ValueError: the source is no such checkpoint, is not safe to read, does not fit, holds values that are not
            finite, or the result did not stand the comparison. The message is one line and names the file; nothing is
            left behind.
    """
    source, target = Path(checkpoint), Path(output)
    with quiet_transformers(), progress(report) as (say, step):
        convert = folder_to_monai if to_monai else file_to_folder
        return convert(source, target, preset, say, step)


def file_to_folder(source: Path, target: Path, preset: str | None, say: Report, step: Report) -> ConversionReport:
    """Weights with MONAI's names to a model folder; see `convert_checkpoint`."""
    check_free(target, folder=True)
    step(f"reading {source.name}")
    tensors = read_tensors(source)
    digest = sha256(source)
    say(f"Reading    {source} ({mebibytes(source.stat().st_size)}), {len(tensors)} tensors")
    say(f"sha256     {digest}")

    step("checking every tensor")
    prefix = find_encoder(tensors, str(source))
    encoder = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    config = infer_config(encoder, str(source))
    check_preset(config, preset, str(source))
    result = new_report(source.name, digest, config)
    state, origin = collect(tensors, prefix, config, result, str(source))
    is_pretraining = any(name.startswith("image_decoder.") for name in state)
    model_class = EchoCareForPreTraining if is_pretraining else EchoCareModel
    result.model_class = model_class.__name__
    describe(result, prefix, say)

    with beside(target) as folder:
        step("writing")
        folder.mkdir()
        if is_pretraining:
            state = {name if name.startswith("image_decoder.") else f"echocare.{name}": t for name, t in state.items()}
        model, _ = load(
            model_class, None, config=config, state_dict=dict(state), dtype=next(iter(state.values())).dtype
        )
        weights = {name: tensor for name, tensor in model.state_dict().items() if name in state}
        model.save_pretrained(folder, state_dict=weights, max_shard_size="50GB")
        EchoCareImageProcessorPil().save_pretrained(folder)
        readable_weights(folder)
        del model, weights

        step("comparing the result with the source")
        model, info = load(model_class, folder)
        allowed = {name for name in model.state_dict() if name.startswith("anatomy_classifier.")}
        if set(info["missing_keys"]) - allowed or info["unexpected_keys"] or info["mismatched_keys"]:
            raise ValueError(f"{source}: the written folder does not load whole ({info}); nothing was kept")
        written = {name.removeprefix("echocare."): tensor for name, tensor in model.state_dict().items()}
        back = to_monai_state({k: v for k, v in written.items() if k in expected_shapes(config)}, config)
        for theirs, ours in origin.items():
            bare = MASK_TOKEN if ours == MASK_TOKEN_HERE else theirs.removeprefix(prefix)
            reloaded = written[ours] if ours.startswith("image_decoder.") else back[bare]
            if not same_bits(reloaded.reshape(tensors[theirs].shape), tensors[theirs]):
                raise ValueError(f"{source}: {theirs} changed on its way through {target}; nothing was kept")
            result.identical += 1
        say(f"Reloaded   {result.identical} of {len(result.loaded)} tensors equal the source bit by bit")
        base = model.echocare if is_pretraining else model
        compare_with_monai(base, back, result, say, step)

        write_json(folder / "conversion.json", result)
        (folder / "README.md").write_text(conversion_card(result, config), encoding="utf-8")
    size = sum(file.stat().st_size for file in target.iterdir())
    say(f"Written    {target} ({mebibytes(size)}, {result.model_class})")
    say(f"Load it    AutoModel.from_pretrained({str(target)!r}, trust_remote_code=True)")
    return result


def folder_to_monai(source: Path, target: Path, preset: str | None, say: Report, step: Report) -> ConversionReport:
    """A model folder to weights with MONAI's names; see `convert_checkpoint`."""
    if target.suffix not in (".pth", ".pt", ".safetensors"):
        raise ValueError(f"{target}: the file to write ends in .pth, .pt or .safetensors")
    check_free(target, folder=False)
    check_model_folder(source)
    step(f"reading {source.name}")
    try:
        model, info = load(EchoCareModel, source, ignore_mismatched_sizes=True)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise ValueError(f"{source}: its weights are damaged or do not fit its config.json ({error})") from None
    config = model.config
    has_mask_token = MASK_TOKEN_HERE not in {name.removeprefix("echocare.") for name in info["missing_keys"]}
    missing = [name for name in info["missing_keys"] if not name.endswith(MASK_TOKEN_HERE)]
    if missing or info["mismatched_keys"]:
        wrong = [f"{name} (missing)" for name in sorted(missing)]
        wrong += [f"{name} (shape {tuple(there)}, not {tuple(here)})" for name, there, here in info["mismatched_keys"]]
        raise ValueError(f"{source}: its weights do not fit its config.json: {some(wrong)}")
    check_preset(config, preset, str(source))
    check_monai_can(config, str(source))
    weights = sorted(source.glob("*.safetensors"))
    stored = {name: tensor for file in weights for name, tensor in read_tensors(file).items()}
    digest = sha256(weights[0]) if len(weights) == 1 else ""
    say(f"Reading    {source}")
    if digest:
        say(f"sha256     {digest} ({weights[0].name})")

    step("checking every tensor")
    state = {name: tensor for name, tensor in model.state_dict().items() if has_mask_token or name != MASK_TOKEN_HERE}
    check_finite(state, str(source))
    result = new_report(source.resolve().name, digest, config)
    result.model_class = "monai.networks.nets.swin_unetr.SwinTransformer"
    result.dtype = str(model.dtype).removeprefix("torch.")
    monai_name = monai_names(config) | {MASK_TOKEN_HERE: MASK_TOKEN}
    result.loaded = [entry(name, tensor, monai_name[name]) for name, tensor in state.items()]
    if not has_mask_token:
        result.missing.append(TensorEntry(MASK_TOKEN, (1, config.embed_dim, 1, 1), result.dtype, "not written"))
    others = sorted(name for name in stored if name.removeprefix("echocare.") not in model.state_dict())
    result.left_out = [entry(name, stored[name], "no part of the encoder") for name in others]
    describe(result, "", say)
    say(f"Added      {len(index_names(config))} relative position indices, made from the window size")
    monai_state = to_monai_state(state, config)

    with beside(target) as file:
        step("writing")
        if target.suffix == ".safetensors":
            safetensors.torch.save_file(monai_state, file, metadata={"format": "pt"})
        else:
            torch.save(monai_state, file)
        step("comparing the result with the source")
        back = read_tensors(file)
        if list(back) != list(monai_state) and set(back) != set(monai_state):
            raise ValueError(f"{target}: the written file lacks tensors; nothing was kept")
        for name, tensor in monai_state.items():
            if not same_bits(back[name], tensor):
                raise ValueError(f"{target}: {name} changed on its way; nothing was kept")
        result.identical = len(result.loaded)
        say(f"Reloaded   {result.identical} of {len(result.loaded)} tensors equal the source bit by bit")
        compare_with_monai(model, back, result, say, step)
    say(f"Written    {target} ({mebibytes(target.stat().st_size)}, {len(monai_state)} tensors)")
    say(f"sha256     {sha256(target)}")
    values = ", ".join(f"{name}={value}" for name, value in monai_arguments(config).items())
    say(f"Load it    model = monai.networks.nets.swin_unetr.SwinTransformer({values})")
    reading = "safetensors.torch.load_file" if target.suffix == ".safetensors" else "torch.load"
    say(f"           state = {reading}({str(target)!r})")
    if has_mask_token:
        say('           state.pop("mask_token")  # there as in the released file; MONAI\'s module has none')
    say("           model.load_state_dict(state)")
    return result


def collect(
    tensors: Mapping[str, Tensor], prefix: str, config: EchoCareConfig, result: ConversionReport, source: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Sorts every tensor of a file into the report's lists, and raises if the encoder does not fit.

    Args:
        tensors: all tensors of the file.
        prefix: of the encoder's names.
        config: of the encoder; `decoder_type` is set if a decoder is found.
        result: its lists are filled.
        source: the file's name, for messages.

    Returns:
        Tensors by their names here, and name in the file to name here for each of them that the file holds.
    """
    shapes = expected_shapes(config)
    origin = {prefix + there: here for here, there in monai_names(config).items()}
    absent = [name for name in origin if name not in tensors]
    if absent:
        raise ValueError(f"{source}: the encoder lacks {len(absent)} tensors: {some(absent)}")
    indices = [prefix + name for name in index_names(config) if prefix + name in tensors]
    expected_index = relative_position_index(config.window_size)
    for name in indices:
        if not torch.equal(tensors[name].long(), expected_index):
            raise ValueError(
                f"{source}: {name} is not Swin's index of a window of {config.window_size}x{config.window_size}, so "
                "the bias tables are laid out in another way and would be read wrongly"
            )
    strangers = [
        name
        for name in tensors
        if name.startswith(prefix)
        and is_encoder_name(name.removeprefix(prefix))
        and name not in origin
        and name not in indices
    ]
    if strangers:
        raise ValueError(f"{source}: EchoCare's encoder has no place for {len(strangers)} tensors: {some(strangers)}")

    mask_token = find_mask_token(tensors, prefix, config)
    if mask_token:
        origin[mask_token] = MASK_TOKEN_HERE
    for name, here in origin.items():
        shape = tuple(tensors[name].shape)
        if name != mask_token and shape != shapes[here]:
            raise ValueError(f"{source}: {name} has shape {shape}, expected {shapes[here]} beside the other tensors")

    rest = {name: tensor for name, tensor in tensors.items() if name not in origin and name not in indices}
    decoder = match_decoder(rest, config)
    origin |= decoder.names
    rest = {name: tensor for name, tensor in rest.items() if name not in decoder.names}
    if decoder.decoder_type:
        config.decoder_type = decoder.decoder_type

    state = {here: tensors[name] for name, here in origin.items()}
    check_finite({name: tensors[name] for name in origin}, source)
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})
    if len(dtypes) > 1:
        raise ValueError(f"{source}: its weights are of several types, {', '.join(dtypes)}: convert them to one")
    result.dtype = dtypes[0]
    result.loaded = [entry(name, tensors[name], here) for name, here in origin.items()]
    note = f"equal to Swin's index of a window of {config.window_size}x{config.window_size}"
    result.checked = [entry(name, tensors[name], note) for name in indices]
    for name in (prefix + name for name in index_names(config)):
        if name not in tensors:
            note = "a file of MONAI has it; so the order of the bias tables could not be checked"
            result.missing.append(TensorEntry(name, tuple(expected_index.shape), "int64", note))
    if mask_token:
        state[MASK_TOKEN_HERE] = state[MASK_TOKEN_HERE].reshape(shapes[MASK_TOKEN_HERE])
    else:
        state[MASK_TOKEN_HERE] = torch.zeros(shapes[MASK_TOKEN_HERE], dtype=next(iter(state.values())).dtype)
        note = "made of zeros; used for masked images only"
        result.missing.append(TensorEntry(MASK_TOKEN, shapes[MASK_TOKEN_HERE], result.dtype, note))

    head, nodes = match_head(rest, config.hidden_size)
    reasons = dict.fromkeys(
        head, f"anatomy head of {nodes} nodes: which node each logit stands for was never published"
    )
    result.left_out = [
        entry(name, tensor, reasons.get(name, "no place in EchoCare's encoder or decoder"))
        for name, tensor in rest.items()
    ]
    return {name: tensor.contiguous() for name, tensor in state.items()}, origin


def find_mask_token(tensors: Mapping[str, Tensor], prefix: str, config: EchoCareConfig) -> str | None:
    """The name of the mask token: beside the encoder, else the only one of the file; one value a channel."""
    ends = [name for name in tensors if name == MASK_TOKEN or name.endswith(f".{MASK_TOKEN}")]
    names = [prefix + MASK_TOKEN] if prefix + MASK_TOKEN in ends else ends
    fits = len(names) == 1 and max(tensors[names[0]].shape, default=0) == tensors[names[0]].numel() == config.embed_dim
    return names[0] if fits else None


def check_free(target: Path, folder: bool) -> None:
    """Raises unless the result may be written: a new name, or an empty folder."""
    if folder and target.is_dir():
        if any(target.iterdir()):
            raise ValueError(f"{target} is not empty: remove it, or choose another folder")
    elif target.exists() or target.is_symlink():
        raise ValueError(f"{target} exists: remove it, or choose another name")


def check_model_folder(source: Path) -> None:
    """Raises unless `source` looks like a folder of `EchoCareModel.save_pretrained`."""
    if not source.exists():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(source))
    if not source.is_dir():
        raise ValueError(f"{source} is a file; --to-monai takes a model folder")
    config_file = source / "config.json"
    if not config_file.is_file():
        raise ValueError(f"{source} has no config.json, so it is no model folder")
    try:
        model_type = json.loads(config_file.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError):
        raise ValueError(f"{config_file} is no JSON of a model configuration") from None
    if model_type != EchoCareConfig.model_type:
        raise ValueError(f"{source} holds a model of type {model_type!r}, not {EchoCareConfig.model_type!r}")


def check_preset(config: EchoCareConfig, preset: str | None, source: str) -> None:
    """Raises if the user named a preset and the tensors are of another architecture."""
    if preset is None:
        return
    wrong = differences(config, preset)
    if wrong:
        actual = matching_preset(config) or "an architecture of its own"
        raise ValueError(f"{source} is not the preset {preset!r} but {actual}: it has {'; '.join(wrong)}")


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raises if a weight is no floating-point number, NaN or infinite."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{source}: {name} holds {tensor.dtype}, not floating-point weights")
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise ValueError(f"{source}: {name} holds {bad} values that are NaN or infinite: the file is damaged")


def check_monai_can(config: EchoCareConfig, source: str) -> None:
    """Raises if MONAI's SwinTransformer cannot compute what this model does."""
    fixed = {"hidden_act": "gelu", "layer_norm_eps": 1e-5}
    wrong = [f"{name} {getattr(config, name)}" for name, value in fixed.items() if getattr(config, name) != value]
    if config.num_layers != 4:
        wrong.append(f"{config.num_layers} stages")
    if wrong:
        raise ValueError(f"{source} has {', '.join(wrong)}; MONAI's SwinTransformer has four stages, gelu and 1e-05")


def monai_arguments(config: EchoCareConfig) -> dict[str, Any]:
    """The arguments of MONAI's `SwinTransformer` for this architecture."""
    return {
        "in_chans": config.num_channels,
        "embed_dim": config.embed_dim,
        "window_size": [config.window_size] * 2,
        "patch_size": [config.patch_size] * 2,
        "depths": config.depths,
        "num_heads": config.num_heads,
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "spatial_dims": 2,
        "use_v2": config.use_conv_blocks,
    }


def compare_with_monai(
    model: Any, state: Mapping[str, Tensor], result: ConversionReport, say: Report, step: Report
) -> None:
    """Runs MONAI's model and ours on one seeded random image, in float32, and compares the five maps.

    Args:
        model: `EchoCareModel`.
        state: the weights by MONAI's names.
        result: gets the differences.
        say, step: where to tell of it.

    Raises:
        ValueError: a map differs by more than `MONAI_TOLERANCE`.
    """
    config = model.config
    if config.num_layers != 4:
        say("MONAI      not compared: its SwinTransformer has four stages")
        return
    step("running MONAI's model")
    try:
        from monai.networks.nets.swin_unetr import SwinTransformer
    except ImportError as error:
        say(f"MONAI      not compared: MONAI is not installed ({error}); pip install monai")
        return
    reference = SwinTransformer(**monai_arguments(config))
    reference.load_state_dict({name: tensor for name, tensor in state.items() if name != MASK_TOKEN})
    # On a last map smaller than the window MONAI reads the wrong biases.
    side = max(256, config.patch_size * 8 * config.window_size)
    generator = torch.Generator().manual_seed(PARITY_SEED)
    image = torch.rand(1, config.num_channels, side, side, generator=generator)
    with torch.inference_mode():
        theirs = [feature_map.clone() for feature_map in reference.float().eval()(image)]
        del reference
        step("running EchoCare's model")
        ours = model.float().eval()(image, output_hidden_states=True).reshaped_hidden_states
    result.monai_version = importlib.metadata.version("monai")
    result.monai_image_size = side
    result.monai_differences = [float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)]
    listed = " ".join(f"{value:.1e}" for value in result.monai_differences)
    if not max(result.monai_differences) <= MONAI_TOLERANCE:
        raise ValueError(f"{result.source}: the maps differ from MONAI's by {listed}; nothing was kept")
    say(
        f"MONAI      {result.monai_version} beside ours, random {side}x{side} image (seed {PARITY_SEED}, float32), "
        f"largest difference of the five maps {listed}"
    )


def new_report(source: str, digest: str, config: EchoCareConfig) -> ConversionReport:
    """A report with everything that is known before the tensors are looked at."""
    packages = ("echocare-hf", "torch", "transformers", "safetensors")
    return ConversionReport(
        source=source,
        source_sha256=digest,
        architecture={name: getattr(config, name) for name in ARCHITECTURE},
        preset=matching_preset(config),
        dtype="",
        model_class="",
        versions={package: version(package) for package in packages},
        date=date.today().isoformat(),
    )


def describe(result: ConversionReport, prefix: str, say: Report) -> None:
    """Prints what was found, loaded, missing and left out."""
    values = ", ".join(f"{name} {value}" for name, value in result.architecture.items())
    say(f"Model      {result.preset or 'no preset'}: {values}")
    if result.dtype != "float32":
        say(f"Precision  {result.dtype}, kept as it is")
    if prefix:
        say(f"Encoder    found at {prefix!r}")
    say(f"Loaded     {len(result.loaded)} tensors, {result.num_parameters:,} parameters")
    for title, entries in grouped(result.loaded).items():
        say(f"             {title:<28}{len(entries):>4} tensors {count_values(entries):>12,} parameters")
    if result.checked:
        say(f"Checked    {len(result.checked)} relative position indices, {result.checked[0].note}; not stored")
    say_entries("Missing", result.missing, say)
    say_entries("Left out", result.left_out, say)
    loaded, checked, left_out = len(result.loaded), len(result.checked), len(result.left_out)
    say(f"Account    {loaded} loaded + {checked} checked + {left_out} left out = {result.num_source_tensors} tensors")


def say_entries(title: str, entries: list[TensorEntry], say: Report) -> None:
    """Prints a list of tensors with shapes and reasons, the first `MAX_LINES` of it."""
    if not entries:
        say(f"{title:<11}none")
        return
    say(f"{title:<11}{len(entries)} tensors, {count_values(entries):,} values")
    for item in entries[:MAX_LINES]:
        shape = f"{item.shape} " if item.shape else ""
        say(f"             {item.name} {shape}({item.note})")
    if len(entries) > MAX_LINES:
        say(f"             and {len(entries) - MAX_LINES} more")


def grouped(entries: list[TensorEntry]) -> dict[str, list[TensorEntry]]:
    """Loaded tensors by the part of the model they belong to, in the order in which an image passes the parts."""
    parts = {"conv_block": "convolutions", "blocks": "transformer blocks", "downsample": "patch merging"}
    groups: dict[tuple[int, int, str], list[TensorEntry]] = {}
    for item in entries:
        here = item.note if item.note.startswith(("embeddings.", "encoder.", "image_decoder.")) else item.name
        path = here.split(".")
        if path[0] == "encoder":
            stage = int(path[2]) + 1
            key = (stage, list(parts).index(path[3]), f"stage {stage}, {parts[path[3]]}")
        elif path[0] == "embeddings":
            key = (0, 1, "mask token") if path[-1] == MASK_TOKEN else (0, 0, "patch embedding")
        else:
            key = (len(entries), 0, "image decoder")
        groups.setdefault(key, []).append(item)
    return {key[-1]: groups[key] for key in sorted(groups)}


def entry(name: str, tensor: Tensor, note: str) -> TensorEntry:
    """The report's line on a tensor."""
    return TensorEntry(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), note)


def count_values(entries: list[TensorEntry]) -> int:
    """Values in all tensors of a list."""
    return sum(torch.Size(item.shape).numel() for item in entries)


def some(names: list[str]) -> str:
    """The first three names of a list."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def mebibytes(size: int) -> str:
    """A size in bytes for people, e.g. 458.6 MiB."""
    return f"{size / 2**20:.1f} MiB"


def version(package: str) -> str:
    """The installed version of a package, `unknown` if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same type, shape and bits (unlike `==`, it tells 0.0 from -0.0)."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(first.contiguous().flatten().view(torch.uint8), second.contiguous().flatten().view(torch.uint8))


def write_json(path: Path, result: ConversionReport) -> None:
    """The report as JSON, every tensor listed."""
    counts = {name: len(getattr(result, name)) for name in ("loaded", "checked", "missing", "left_out")}
    content = {"source_tensors": result.num_source_tensors, "counts": counts, **asdict(result)}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load(model_class: Any, folder: Path | None, **options: Any) -> tuple[Any, dict[str, Any]]:
    """`from_pretrained` from local files, with its account of missing and unexpected keys."""
    return model_class.from_pretrained(folder, local_files_only=True, output_loading_info=True, **options)


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to, renamed to it if all goes well and removed if not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial{target.suffix}"
    try:
        yield path
        if target.is_dir():
            target.rmdir()  # it is empty; Windows renames onto no folder
        path.replace(target)
    finally:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers' progress bars and load reports from the terminal: the conversion has its own."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def progress(report: Report) -> Iterator[tuple[Report, Report]]:
    """A function to print a line and one to name the next step, with a bar on a terminal."""
    with tqdm(total=6, leave=False, disable=None, bar_format="{desc} {bar} {n_fmt}/{total_fmt}") as bar:

        def say(line: str) -> None:
            with bar.external_write_mode():
                report(line)

        def step(title: str) -> None:
            bar.set_description(title)
            bar.update()

        yield say, step


__all__ = ["ConversionReport", "TensorEntry", "convert_checkpoint"]
