"""`echocare convert`: MONAI's own modules are the sources, and MONAI's own loading is the judge of the way back."""

import hashlib
import itertools
import json
import os
import pickle
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel
from typer.testing import CliRunner

from echocare_hf import EchoCareConfig, EchoCareForPreTraining, EchoCareModel
from echocare_hf.cli import app
from echocare_hf.hub import convert as convert_module
from echocare_hf.hub.convert import MONAI_TOLERANCE, convert_checkpoint, monai_arguments

pytest.importorskip("monai", reason="MONAI, the oracle of these tests, is not installed")
from monai.networks.nets.swin_unetr import SwinTransformer, SwinUNETR

SMALL = {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [2, 2, 4, 4], "window_size": 4}
TABLE = "layers1.0.blocks.0.attn.relative_position_bias_table"
INDEX = "layers1.0.blocks.0.attn.relative_position_index"


def released_state(seed=0, **values):
    """A state dict as the released one: MONAI's encoder and a mask token."""
    config = EchoCareConfig(**{**SMALL, **values})
    torch.manual_seed(seed)
    state = dict(SwinTransformer(**monai_arguments(config)).state_dict())
    return {**state, "mask_token": torch.randn(1, config.embed_dim, 1, 1)}


class Upsample(torch.nn.Sequential):
    """3x3 convolution, instance norm, leaky ReLU, 2x bilinear upsampling."""

    def __init__(self, inputs, outputs):
        super().__init__(
            torch.nn.Conv2d(inputs, outputs, 3, padding=1),
            torch.nn.InstanceNorm2d(outputs),
            torch.nn.LeakyReLU(),
            torch.nn.Upsample(scale_factor=2, mode="bilinear"),
        )


class Pretraining(torch.nn.Module):
    """A pretraining model of the described layout, under names that the converter has never seen."""

    def __init__(self, widths=(384, 192, 96, 48, 24, 24), nodes=117):
        super().__init__()
        self.mask_token = torch.nn.Parameter(torch.randn(1, 24, 1, 1))
        self.encoder = SwinTransformer(**monai_arguments(EchoCareConfig(**SMALL)))
        self.decoder = torch.nn.Sequential(
            *(Upsample(*pair) for pair in itertools.pairwise(widths)), torch.nn.Conv2d(widths[-1], 3, 1)
        )
        self.head = torch.nn.Sequential(torch.nn.Linear(384, 512), torch.nn.Linear(512, nodes))


def save(state, path):
    torch.save(state, path)
    return path


@pytest.fixture
def source(tmp_path):
    return save(released_state(), tmp_path / "echocare_encoder.pth")


@pytest.fixture
def lines():
    return []


def assert_accounted(report, tensors):
    """Every tensor of the source in exactly one list, with its shape."""
    entries = [*report.loaded, *report.checked, *report.left_out]
    assert sorted(entry.name for entry in entries) == sorted(tensors)
    assert all(entry.shape == tuple(tensors[entry.name].shape) for entry in entries)
    assert report.num_source_tensors == len(tensors)
    assert report.identical == len(report.loaded)


# The released file


def test_a_released_file_becomes_a_folder_that_automodel_loads(source, tmp_path, lines):
    state = torch.load(source)
    report = convert_checkpoint(source, tmp_path / "out", report=lines.append)
    assert_accounted(report, state)
    assert len(report.checked) == 5 and not report.left_out and not report.missing
    assert report.num_parameters == sum(t.numel() for t in state.values() if t.is_floating_point())
    assert report.architecture["depths"] == [1, 1, 2, 1] and report.preset is None
    assert len(report.monai_differences) == 5 and max(report.monai_differences) < 1e-4 < MONAI_TOLERANCE

    model, info = AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(model) is EchoCareModel
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert torch.equal(model.embeddings.mask_token.flatten(), state["mask_token"].flatten())
    reference = SwinTransformer(**monai_arguments(model.config)).eval()
    reference.load_state_dict({name: tensor for name, tensor in state.items() if name != "mask_token"})
    pixel_values = torch.rand(1, 3, 128, 96)
    with torch.no_grad():
        mine = model.eval()(pixel_values, output_hidden_states=True).reshaped_hidden_states
        for ours, theirs in zip(mine, reference(pixel_values), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-4)


def test_the_report_says_what_happened_to_every_tensor(source, tmp_path, lines):
    report = convert_checkpoint(source, tmp_path / "out", report=lines.append)
    text = "\n".join(lines)
    assert report.source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest() and report.source_sha256 in text
    loaded = len(report.loaded)
    assert f"Account    {loaded} loaded + 5 checked + 0 left out = {loaded + 5} tensors" in lines
    assert f"Reloaded   {loaded} of {loaded} tensors equal the source bit by bit" in lines
    assert "Missing    none" in lines and "Left out   none" in lines
    groups = [re.search(r"(\d+) tensors +([\d,]+) parameters$", line) for line in lines if line.startswith(" " * 13)]
    counts = [(int(match[1]), int(match[2].replace(",", ""))) for match in groups]
    assert tuple(map(sum, zip(*counts, strict=True))) == (loaded, report.num_parameters)


def test_the_folder_holds_card_processor_account_and_code(source, tmp_path):
    report = convert_checkpoint(source, tmp_path / "out", report=str)
    out = tmp_path / "out"
    names = {path.name for path in out.iterdir()}
    assert {
        "README.md",
        "config.json",
        "conversion.json",
        "model.safetensors",
        "modeling_echocare.py",
        "preprocessor_config.json",
    } <= names
    account = json.loads((out / "conversion.json").read_text())
    assert account["source"] == "echocare_encoder.pth" and account["source_sha256"] == report.source_sha256
    assert account["counts"] == {"loaded": len(report.loaded), "checked": 5, "missing": 0, "left_out": 0}
    assert account["versions"]["torch"] and len(account["loaded"]) == len(report.loaded)
    assert str(tmp_path) not in (out / "README.md").read_text() + (out / "conversion.json").read_text()
    processor = AutoImageProcessor.from_pretrained(out)
    pixel_values = processor(torch.full((3, 100, 80), 255, dtype=torch.uint8), return_tensors="pt").pixel_values
    assert pixel_values.shape == (1, 3, 256, 256) and torch.equal(pixel_values, torch.ones(1, 3, 256, 256))
    assert AutoConfig.from_pretrained(out).embed_dim == 24
    assert (out / "model.safetensors").stat().st_mode == (out / "config.json").stat().st_mode
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_card_has_the_metadata_of_the_hub_and_is_honest_about_the_licence(source, tmp_path):
    from huggingface_hub import ModelCard

    report = convert_checkpoint(source, tmp_path / "out", report=str)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "image-feature-extraction"
    assert "ultrasound" in card.data.tags and card.data.license == "unknown"
    assert report.source_sha256 in card.text and "2509.11752" in card.text and "trust_remote_code=True" in card.text
    assert "**no mean and standard" in card.text and "Below\n64 pixels" in card.text
    assert f"{len(report.loaded)} of {len(report.loaded)}" in card.text
    assert all(f"{value:.1e}" in card.text for value in report.monai_differences)
    assert not re.search(r"[{}]\w+[{}]", card.text.split("```bibtex")[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_kept(dtype, tmp_path, lines):
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in released_state().items()}
    report = convert_checkpoint(save(state, tmp_path / "half.pth"), tmp_path / "out", report=lines.append)
    assert_accounted(report, state)
    assert f"Precision  {str(dtype).removeprefix('torch.')}, kept as it is" in lines
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {dtype}


@pytest.mark.parametrize(
    "values",
    [
        {"use_conv_blocks": False},
        {"qkv_bias": False, "mlp_ratio": 2.0},
        {"num_channels": 1, "patch_size": 4},
        {"window_size": 7, "depths": [2, 1, 1, 3]},
    ],
    ids=str,
)
def test_the_architecture_is_read_off_the_tensors(values, tmp_path):
    path = save(released_state(**values), tmp_path / "other.pth")
    convert_checkpoint(path, tmp_path / "out", report=str)
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert {name: getattr(config, name) for name in values} == values


def test_safetensors_and_the_old_format_of_torch_are_read_too(tmp_path):
    state = released_state()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "b.pth"):
        assert_accounted(convert_checkpoint(tmp_path / name, tmp_path / name[0], report=str), state)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_without_monai_the_comparison_is_skipped_and_said_so(source, tmp_path, lines, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "monai.networks.nets.swin_unetr", None)
    report = convert_checkpoint(source, tmp_path / "out", report=lines.append)
    assert report.monai_version is None and any("MONAI is not installed" in line for line in lines)
    assert "not run: MONAI was not installed" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("missing", ["mask_token", "index"])
def test_what_follows_from_the_rest_may_be_missing_and_is_reported(missing, tmp_path, lines):
    state = {name: tensor for name, tensor in released_state().items() if missing not in name}
    report = convert_checkpoint(save(state, tmp_path / "a.pth"), tmp_path / "out", report=lines.append)
    assert_accounted(report, state)
    assert len(report.missing) == (1 if missing == "mask_token" else 5)
    assert any(line.startswith("Missing    ") and "none" not in line for line in lines)
    _, info = AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]


# The whole pretraining state dict


@pytest.mark.parametrize(
    ("container", "prefix"),
    [
        (None, "module."),
        (None, "module._orig_mod."),
        ("state_dict", ""),
        ("model", "module."),
        ("model_state_dict", ""),
        ("module", ""),
    ],
)
def test_the_encoder_is_found_under_any_prefix(prefix, container, tmp_path):
    state = {f"{prefix}encoder.{name}": tensor for name, tensor in released_state().items()}
    content = state if container is None else {container: state, "epoch": 3, "args": {"lr": 1e-4}}
    report = convert_checkpoint(save(content, tmp_path / "a.pth"), tmp_path / "out", report=str)
    place = f"{container}." if container else ""
    assert_accounted(report, {place + name: tensor for name, tensor in state.items()})
    assert not report.left_out and not report.missing


def test_a_whole_pretraining_model_keeps_its_decoder_but_not_its_nameless_head(tmp_path, lines):
    torch.manual_seed(5)
    theirs = torch.nn.DataParallel(Pretraining())
    optimizer = torch.optim.AdamW(theirs.parameters())
    sum(parameter.sum() for parameter in theirs.parameters()).backward()
    optimizer.step()
    content = {"epoch": 7, "model": theirs.state_dict(), "optimizer": optimizer.state_dict()}
    report = convert_checkpoint(save(content, tmp_path / "whole.pth"), tmp_path / "out", report=lines.append)

    tensors = {f"model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    for index, values in content["optimizer"]["state"].items():
        tensors |= {f"optimizer.state.{index}.{name}": tensor for name, tensor in values.items()}
    assert_accounted(report, tensors)
    head = [entry for entry in report.left_out if entry.name.startswith("model.module.head.")]
    assert len(head) == 4 and all("117 nodes" in entry.note and "never published" in entry.note for entry in head)
    assert any("model.module.head.0.weight (512, 384) (anatomy head of 117" in line for line in lines)

    model, info = EchoCareForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"anatomy_classifier"}
    pixel_values = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        encoded = theirs.module.encoder.eval()(pixel_values)[-1]
        expected = theirs.module.decoder.eval()(encoded)
        ours = model.eval()(pixel_values).reconstruction
    assert torch.allclose(ours, expected, atol=1e-3)
    _, info = AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert "AutoModelForPreTraining" in (tmp_path / "out" / "README.md").read_text()


def test_a_pixel_shuffle_decoder_is_known_too(tmp_path):
    state = {f"encoder.{name}": tensor for name, tensor in released_state().items()}
    conv = torch.nn.Conv2d(384, 32**2 * 3, 1)
    state |= {"decoder.0.weight": conv.weight.detach(), "decoder.0.bias": conv.bias.detach()}
    report = convert_checkpoint(save(state, tmp_path / "a.pth"), tmp_path / "out", report=str)
    assert_accounted(report, state)
    model = EchoCareForPreTraining.from_pretrained(tmp_path / "out")
    assert model.config.decoder_type == "pixel_shuffle" and torch.equal(model.image_decoder.output.weight, conv.weight)


def test_another_decoder_is_left_out_with_its_tensors_listed(tmp_path, lines):
    theirs = Pretraining(widths=(384, 64, 64, 64, 64, 64))
    report = convert_checkpoint(save(theirs.state_dict(), tmp_path / "a.pth"), tmp_path / "out", report=lines.append)
    assert_accounted(report, theirs.state_dict())
    assert report.model_class == "EchoCareModel"
    assert sum(entry.name.startswith("decoder.") for entry in report.left_out) == 12
    assert any("decoder.0.0.weight (64, 384, 3, 3) (no place" in line for line in lines)


def test_the_encoder_of_a_swin_unetr_is_taken(tmp_path):
    unetr = SwinUNETR(in_channels=1, out_channels=2, feature_size=24, spatial_dims=2, use_v2=True, window_size=7)
    report = convert_checkpoint(save(unetr.state_dict(), tmp_path / "a.pth"), tmp_path / "out", report=str)
    assert_accounted(report, unetr.state_dict())
    assert report.architecture["num_heads"] == [3, 6, 12, 24] and report.left_out
    assert [entry.name for entry in report.missing] == ["mask_token"]


# The way back


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_there_and_back_gives_the_released_file_tensor_for_tensor(suffix, source, tmp_path, lines):
    convert_checkpoint(source, tmp_path / "out", report=str)
    back = tmp_path / f"back{suffix}"
    report = convert_checkpoint(tmp_path / "out", back, to_monai=True, report=lines.append)
    state = load_file(back) if suffix == ".safetensors" else torch.load(back, weights_only=True)
    original = torch.load(source)
    assert set(state) == set(original)
    assert all(
        torch.equal(state[name], original[name]) and state[name].dtype == original[name].dtype for name in state
    )
    assert len(report.monai_differences) == 5 and report.identical == len(report.loaded)
    # the printed instructions work
    assert any('state.pop("mask_token")' in line for line in lines)
    state.pop("mask_token")
    SwinTransformer(**monai_arguments(EchoCareConfig(**SMALL))).load_state_dict(state, strict=True)


def test_back_and_there_gives_our_model_bit_for_bit(tmp_path):
    model = EchoCareForPreTraining(EchoCareConfig.preset("tiny"))
    model.save_pretrained(tmp_path / "tiny")
    report = convert_checkpoint(tmp_path / "tiny", tmp_path / "tiny.pth", to_monai=True, preset="tiny", report=str)
    others = {name: t for name, t in model.state_dict().items() if not name.startswith("echocare.")}
    assert {entry.name: entry.shape for entry in report.left_out} == {n: tuple(t.shape) for n, t in others.items()}
    convert_checkpoint(tmp_path / "tiny.pth", tmp_path / "again", preset="tiny", report=str)
    again = EchoCareModel.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.echocare.state_dict().items())


def test_a_backbone_goes_to_monai_without_a_mask_token(tmp_path):
    from echocare_hf import EchoCareBackbone

    EchoCareBackbone(EchoCareConfig(**SMALL)).save_pretrained(tmp_path / "backbone")
    convert_checkpoint(tmp_path / "backbone", tmp_path / "a.pth", to_monai=True, report=str)
    reference = SwinTransformer(**monai_arguments(EchoCareConfig(**SMALL)))
    reference.load_state_dict(torch.load(tmp_path / "a.pth"), strict=True)


# Wrong input: one line that names the file, and nothing left behind


def assert_refused(tmp_path, path, target, *words, **options):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((ValueError, OSError)) as error:
        convert_checkpoint(path, target, report=str, **options)
    message = str(error.value)
    assert path.name in message or target.name in message
    assert all(word in message for word in words), message
    assert sorted(tmp_path.rglob("*")) == before


class Payload:
    """What a full pickle may do on loading."""

    def __reduce__(self):
        return os.system, ("echo this must never run",)


def test_a_full_pickle_is_refused_unopened(tmp_path, capfd):
    torch.save({"model": released_state(), "x": Payload()}, tmp_path / "full.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload()))
    torch.save(Pretraining(), tmp_path / "module.pth")
    assert_refused(tmp_path, tmp_path / "full.pth", tmp_path / "out", "Python objects", "any code", "state_dict()")
    assert_refused(tmp_path, tmp_path / "module.pth", tmp_path / "out", "Python objects", "Pretraining")
    assert_refused(tmp_path, tmp_path / "plain.pth", tmp_path / "out")
    assert "must never run" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"just text\n" * 20, "no checkpoint"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04" + b"\0" * 100, "truncated"),
        (b"\x80\x02", "damaged"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "no checkpoint"),
    ],
)
def test_files_that_are_no_checkpoints(content, word, tmp_path):
    (tmp_path / "a.pth").write_bytes(content)
    assert_refused(tmp_path, tmp_path / "a.pth", tmp_path / "out", word)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files(suffix, share, source, tmp_path):
    path = tmp_path / f"cut{suffix}"
    save_file(torch.load(source), path) if suffix == ".safetensors" else shutil.copy(source, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert_refused(tmp_path, path, tmp_path / "out", "truncated")


def test_missing_files_and_folders(source, tmp_path):
    assert_refused(tmp_path, tmp_path / "none.pth", tmp_path / "out", "no such file")
    assert_refused(tmp_path, tmp_path, tmp_path / "out", "is a folder")
    assert_refused(tmp_path, tmp_path / "none", tmp_path / "a.pth", "no such folder", to_monai=True)
    assert_refused(tmp_path, source, tmp_path / "a.pth", "takes a model folder", to_monai=True)
    assert_refused(tmp_path, tmp_path, tmp_path / "a.pth", "config.json", to_monai=True)
    assert_refused(tmp_path, tmp_path, tmp_path / "a.txt", ".pth", to_monai=True)


def test_results_are_never_overwritten(source, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert_refused(tmp_path, source, tmp_path / "full", "not empty", "remove it")
    assert_refused(tmp_path, source, tmp_path / "full" / "notes.txt", "exists")
    (tmp_path / "empty").mkdir()
    convert_checkpoint(source, tmp_path / "empty", report=str)
    assert_refused(tmp_path, tmp_path / "empty", source, "exists", to_monai=True)


def spoil(**changes):
    """A function that gives the released state with some tensors replaced, added, or (None) removed."""

    def change(state):
        for name, make in changes.items():
            name = {"TABLE": TABLE, "INDEX": INDEX}.get(name, name)
            if make is None:
                del state[name]
            else:
                state[name] = make(state.get(name))
        return state

    return change


def with_value(value):
    def put(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[3] = value
        return tensor

    return put


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (spoil(TABLE=with_value(float("nan"))), ["NaN or infinite", TABLE]),
        (spoil(mask_token=with_value(float("inf"))), ["NaN or infinite", "mask_token"]),
        (spoil(INDEX=lambda index: index.t().contiguous()), ["index", "bias tables"]),
        (spoil(INDEX=lambda index: index[:9, :9].clone()), ["index"]),
        (spoil(TABLE=lambda table: table[:48].clone()), ["48 rows", "square window"]),
        (spoil(TABLE=lambda table: table[:25].clone()), ["different windows"]),
        (spoil(TABLE=lambda table: table.repeat(1, 7)), ["14 heads"]),
        (spoil(TABLE=lambda table: table.half()), ["several types", "float16"]),
        (spoil(TABLE=lambda table: table.int()), ["torch.int32"]),
        (spoil(**{"layers2.0.downsample.norm.bias": None}), ["lacks 1 tensors: layers2.0.downsample.norm.bias"]),
        (spoil(**{"layers2.0.downsample.norm.bias": lambda x: x[:5].clone()}), ["(5,)", "(192,)"]),
        (spoil(**{"patch_embed.norm.weight": lambda _: torch.ones(24)}), ["no place", "patch_embed.norm.weight"]),
        (spoil(**{"patch_embed.proj.weight": lambda x: x[..., None].clone()}), ["3-D model"]),
        (spoil(**{"patch_embed.proj.weight": lambda x: x[..., :1].clone()}), ["2x1 pixels"]),
        (spoil(**{"patch_embed.proj.weight": None}), ["no encoder"]),
        (lambda state: {"student": state, "teacher": state}, ["2 encoders", "student.", "teacher."]),
        (lambda state: {"epoch": 3}, ["no tensors"]),
        (lambda state: torch.zeros(3), ["no encoder"]),
        (lambda state: {"conv1.weight": torch.zeros(3)}, ["no encoder", "conv1.weight"]),
        (lambda state: EchoCareModel(EchoCareConfig(**SMALL)).state_dict(), ["this package's names already"]),
        (lambda state: {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}, ["two tensors"]),
    ],
)
def test_tensors_that_do_not_fit(change, words, tmp_path):
    assert_refused(tmp_path, save(change(released_state()), tmp_path / "a.pth"), tmp_path / "out", *words)


def test_a_preset_that_disagrees_with_the_tensors(source, tmp_path):
    assert_refused(tmp_path, source, tmp_path / "out", "not the preset 'base'", "embed_dim 24, not 128", preset="base")
    with pytest.raises(ValueError, match="unknown preset 'huge': choose one of tiny, base, large"):
        convert_checkpoint(source, tmp_path / "out", preset="huge", report=str)


def test_folders_that_do_not_fit(source, tmp_path):
    folder = tmp_path / "model"
    convert_checkpoint(source, folder, report=str)
    weights, config = (folder / "model.safetensors").read_bytes(), (folder / "config.json").read_text()

    (folder / "model.safetensors").write_bytes(weights[:5000])
    assert_refused(tmp_path, folder, tmp_path / "a.pth", "damaged", to_monai=True)
    save_file({"encoder.other": torch.ones(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert_refused(tmp_path, folder, tmp_path / "a.pth", "do not fit its config.json", to_monai=True)
    (folder / "model.safetensors").write_bytes(weights)
    for change, word in (
        ({"model_type": "swin"}, "'swin'"),
        ({"hidden_act": "relu"}, "hidden_act relu"),
        ({"window_size": 5}, "do not fit its config.json"),
    ):
        (folder / "config.json").write_text(json.dumps(json.loads(config) | change))
        assert_refused(tmp_path, folder, tmp_path / "a.pth", word, to_monai=True)
    (folder / "config.json").write_text("{")
    assert_refused(tmp_path, folder, tmp_path / "a.pth", "no JSON", to_monai=True)


@pytest.mark.parametrize("fault", ["bits", "maps", "interrupt"])
def test_a_failed_proof_leaves_nothing_behind(fault, source, tmp_path, monkeypatch):
    error = ValueError
    if fault == "bits":
        monkeypatch.setattr(convert_module, "same_bits", lambda first, second: False)
    elif fault == "maps":
        monkeypatch.setattr(convert_module, "MONAI_TOLERANCE", -1.0)
    else:
        error = KeyboardInterrupt

        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(convert_module, "conversion_card", interrupt)
    with pytest.raises(error, match="nothing was kept" if error is ValueError else None):
        convert_checkpoint(source, tmp_path / "out", report=str)
    assert [path.name for path in tmp_path.iterdir()] == ["echocare_encoder.pth"]


def test_the_command(source, tmp_path):
    done = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "out")])
    assert done.exit_code == 0 and "equal the source bit by bit" in done.stdout
    done = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "out")])
    assert done.exit_code == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_card_of_large(tmp_path):
    """What is verified and what is not is said of large as of base."""
    state = released_state(embed_dim=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], window_size=8)
    report = convert_checkpoint(save(state, tmp_path / "encoder.pth"), tmp_path / "large", preset="large", report=str)
    text = (tmp_path / "large/README.md").read_text()
    assert report.preset == "large" and "# EchoCare large, converted from `encoder.pth`" in text
    assert f"{report.num_parameters:,}" in text and all(f"{value:.1e}" in text for value in report.monai_differences)
    assert "## What was checked" in text and "## What was not checked" in text


@pytest.mark.slow
def test_base_there_and_back(tmp_path):
    state = released_state(embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], window_size=8)
    path = save(state, tmp_path / "echocare_encoder.pth")
    report = convert_checkpoint(path, tmp_path / "base", preset="base", report=str)
    assert_accounted(report, state)
    assert report.preset == "base" and len(report.checked) == 24 and report.num_parameters == 120_221_688 + 128
    assert max(report.monai_differences) < 1e-4
    text = (tmp_path / "base/README.md").read_text()
    assert "# EchoCare base, converted from" in text and "## What was not checked" in text
    convert_checkpoint(tmp_path / "base", tmp_path / "back.pth", to_monai=True, report=str)
    back = torch.load(tmp_path / "back.pth")
    assert set(back) == set(state) and all(torch.equal(back[name], state[name]) for name in state)
