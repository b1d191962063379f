"""The encoder computes what its oracles do: MONAI's SwinTransformer, transformers' Swin block, a written-out loop.

MONAI is wrong on maps smaller than the window (it slices the bias index of the full window), so there its index is
repaired by hand, and the attention is written out pixel by pixel.
"""

import math

import pytest
import torch

from echocare_hf import EchoCareConfig, EchoCareModel
from echocare_hf.hub.convert import monai_arguments
from echocare_hf.hub.monai_mapping import monai_names, relative_position_index, to_monai_state
from echocare_hf.model.layers_echocare import EchoCareBlock, EchoCareWindowAttention

pytest.importorskip("monai", reason="MONAI, the oracle of these tests, is not installed")
from monai.networks.nets.swin_unetr import SwinTransformer

SMALL = {"embed_dim": 24, "depths": [2, 1, 3, 2], "num_heads": [2, 2, 4, 6]}
FP32 = 1e-4  # absolute, on maps of unit variance; measured 4e-5 for base


def pair(seed=0, dtype=torch.float32, attention="sdpa", spread=True, **values):
    """MONAI's encoder and ours with the same random weights, biases and norms of all values."""
    config = EchoCareConfig(**values, drop_path_rate=0.0)
    torch.manual_seed(seed)
    reference = SwinTransformer(**monai_arguments(config)).to(dtype).eval()
    if spread:  # biases and tables near zero, norms of one would hide a mistake
        with torch.no_grad():
            for name, parameter in reference.named_parameters():
                if parameter.ndim == 1 or name.endswith("bias_table"):
                    parameter.add_(torch.randn_like(parameter) * (0.5 if parameter.ndim == 2 else 0.1))
    state = reference.state_dict()
    ours = EchoCareModel(config).to(dtype).eval()
    ours.set_attn_implementation(attention)
    weights = {here: state[there] for here, there in monai_names(config).items()}
    assert ours.load_state_dict(weights, strict=False).missing_keys == ["embeddings.mask_token"]
    return reference, ours


def images(height, width, batch=1, channels=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.rand(batch, channels, height, width, generator=generator, dtype=torch.float64).to(dtype)


def maps(model, pixel_values, **kwargs):
    return model(pixel_values, output_hidden_states=True, **kwargs).reshaped_hidden_states


def largest_differences(ours, theirs):
    assert [tuple(a.shape) for a in ours] == [tuple(b.shape) for b in theirs]
    return [float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)]


# Outputs


@torch.no_grad()
@pytest.mark.parametrize("size", [(256, 256), (230, 245)])
def test_base_gives_monais_five_maps(size):
    reference, ours = pair(spread=False)
    pixel_values = images(*size)
    assert max(largest_differences(maps(ours, pixel_values), reference(pixel_values))) < FP32


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [(128, 128), (230, 245), (160, 200), (256, 192)])
def test_small_gives_monais_five_maps(size, batch, attention):
    reference, ours = pair(attention=attention, **SMALL)
    pixel_values = images(*size, batch)
    assert max(largest_differences(maps(ours, pixel_values), reference(pixel_values))) < FP32


@torch.no_grad()
@pytest.mark.parametrize(
    "values",
    [
        {"window_size": 7},
        {"window_size": 4, "patch_size": 4},
        {"use_conv_blocks": False},
        {"qkv_bias": False},
        {"mlp_ratio": 2.0},
        {"num_channels": 1},
        {"depths": [1, 1, 1, 1]},
    ],
    ids=str,
)
def test_every_option_of_the_architecture_means_what_it_means_in_monai(values):
    reference, ours = pair(**{**SMALL, **values})
    pixel_values = images(135, 170, channels=values.get("num_channels", 3))
    assert max(largest_differences(maps(ours, pixel_values), reference(pixel_values))) < FP32


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_in_double_precision_nothing_but_rounding_is_left(attention):
    reference, ours = pair(dtype=torch.float64, attention=attention, **SMALL)
    pixel_values = images(230, 245, 2, dtype=torch.float64)
    assert max(largest_differences(maps(ours, pixel_values), reference(pixel_values))) < 1e-11


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bfloat16_autocast_is_as_near_to_fp32_as_monais(attention):
    """Both round at other places, so each is held against MONAI's fp32: ours may be at most 1.5 times as far off."""
    reference, ours = pair(attention=attention, **SMALL)
    pixel_values = images(160, 200)
    exact = reference(pixel_values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs, mine = reference(pixel_values), maps(ours, pixel_values)
    for target, their_map, my_map in zip(exact, theirs, mine, strict=True):
        error = (my_map.float() - target).pow(2).mean().sqrt()
        assert error <= 1.5 * (their_map.float() - target).pow(2).mean().sqrt() + 1e-4
        assert error < 0.05  # of a standard deviation


# Masked input


def monai_maps_of_masked(reference, pixel_values, mask, mask_token):
    """MONAI's forward with the mask token put into the patch embedding, as EchoCare's pretraining does."""
    x = reference.patch_embed(pixel_values)
    x = torch.where(mask[:, None], mask_token, x)
    outputs = [reference.proj_out(x, True)]
    for stage in range(1, 5):
        x = getattr(reference, f"layers{stage}c")[0](x.contiguous())
        x = getattr(reference, f"layers{stage}")[0](x.contiguous())
        outputs.append(reference.proj_out(x, True))
    return outputs


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_masked_images_give_monais_maps_with_the_token_put_in_by_hand(attention):
    reference, ours = pair(attention=attention, **SMALL)
    ours.embeddings.mask_token.normal_()
    pixel_values = images(160, 192, 2)
    units = torch.rand(2, 10, 12, generator=torch.Generator().manual_seed(1)) < 0.5
    patches = units.repeat_interleave(8, 1).repeat_interleave(8, 2)  # units of 16 pixels, patches of 2
    theirs = monai_maps_of_masked(reference, pixel_values, patches, ours.embeddings.mask_token.permute(0, 3, 1, 2))
    assert max(largest_differences(maps(ours, pixel_values, bool_masked_pos=units), theirs)) < FP32
    assert max(largest_differences(maps(ours, pixel_values, bool_masked_pos=patches), theirs)) < FP32
    assert max(largest_differences(theirs, reference(pixel_values))) > 0.1


# Gradients


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_gradients_of_every_parameter_and_of_the_image(attention):
    reference, ours = pair(dtype=torch.float64, attention=attention, **SMALL)
    reference.train(), ours.train()
    pixel_values = images(135, 160, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    inputs, losses = [], []
    weights = None
    for run in (reference, lambda image: maps(ours, image)):
        image = pixel_values.clone().requires_grad_()
        outputs = run(image)
        if weights is None:
            weights = [torch.randn(output.shape, generator=generator, dtype=output.dtype) for output in outputs]
        loss = sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True))
        loss.backward()
        inputs.append(image.grad)
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-11)
    assert relative_difference(inputs[1], inputs[0]) < 1e-10
    theirs, mine = dict(reference.named_parameters()), dict(ours.named_parameters())
    names = monai_names(ours.config)
    assert len(names) == len(theirs) == len(mine) - 1  # the mask token
    worst = {here: relative_difference(mine[here].grad, theirs[there].grad) for here, there in names.items()}
    assert {name: value for name, value in worst.items() if not value < 1e-10} == {}


def relative_difference(first, second):
    return float((first - second).abs().max() / second.abs().max())


# Maps smaller than the window


def attention_pixel_by_pixel(module, hidden_states, shifted):
    """Window attention written out: who shares a window, who was a neighbour before the shift, how far apart."""
    height, width, channels = hidden_states.shape
    sides = []
    for length in (height, width):
        window = min(length, module.window_size)
        shift = module.window_size // 2 if shifted and length > module.window_size else 0
        sides.append((window, shift, math.ceil(length / window) * window))
    (window_h, shift_h, padded_h), (window_w, shift_w, padded_w) = sides
    full = torch.zeros(padded_h, padded_w, channels, dtype=hidden_states.dtype)
    full[:height, :width] = hidden_states
    query, key, value = module.qkv(full).view(padded_h, padded_w, 3, module.num_heads, -1).unbind(2)

    def cell(place, window, shift, length):  # the window after the shift, and whether the place came round
        return (place - shift) % length // window, place < shift

    span = 2 * module.window_size - 1
    output = torch.zeros_like(hidden_states)
    for i in range(height):
        for j in range(width):
            mine = cell(i, window_h, shift_h, padded_h), cell(j, window_w, shift_w, padded_w)
            scores, values = [], []
            for k in range(padded_h):
                for m in range(padded_w):
                    if (cell(k, window_h, shift_h, padded_h), cell(m, window_w, shift_w, padded_w)) == mine:
                        row = (i - k + module.window_size - 1) * span + j - m + module.window_size - 1
                        bias = module.relative_position_bias_table[row]
                        scores.append((query[i, j] * key[k, m]).sum(-1) * module.scaling + bias)
                        values.append(value[k, m])
            weights = torch.stack(scores).softmax(0)  # (tokens, heads)
            output[i, j] = (weights[..., None] * torch.stack(values)).sum(0).flatten()
    return module.projection(output)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(3, 3), (4, 4), (3, 9), (10, 2), (1, 6), (1, 1), (7, 10), (8, 8)])
def test_attention_equals_the_written_out_loop(size, shifted, attention):
    config = EchoCareConfig(embed_dim=12, depths=[1], num_heads=[3], window_size=4)
    config._attn_implementation = attention
    torch.manual_seed(3)
    module = EchoCareWindowAttention(config, 12, 3, shifted).double().eval()
    torch.nn.init.normal_(module.relative_position_bias_table)
    norm = torch.nn.LayerNorm(12).double()
    torch.nn.init.normal_(norm.bias)
    hidden_states = torch.randn(2, *size, 12, dtype=torch.float64)
    result, _ = module(hidden_states, norm)
    for sample in range(2):
        expected = attention_pixel_by_pixel(module, norm(hidden_states[sample]), shifted)
        assert (result[sample] - expected).abs().max() < 1e-12


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_96_pixel_image_equals_monai_with_its_index_repaired(attention):
    """The last blocks see 6x6 maps with a window of 8: MONAI as it is goes wrong there, and only there."""
    reference, ours = pair(dtype=torch.float64, attention=attention, **SMALL)
    pixel_values = images(96, 96, dtype=torch.float64)
    mine, broken = maps(ours, pixel_values), reference(pixel_values)
    assert max(largest_differences(mine[:4], broken[:4])) < 1e-11
    assert (mine[4] - broken[4]).abs().max() > 1e-3
    place = torch.arange(8)
    inside = ((place[:, None] < 6) & (place[None, :] < 6)).flatten()
    for block in reference.layers4[0].blocks:
        block.attn.relative_position_index = relative_position_index(8)[inside][:, inside]
    assert max(largest_differences(mine, reference(pixel_values))) < 1e-11


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 40), (32, 256), (16, 16), (8, 8), (9, 130)])
def test_images_down_to_eight_pixels_run(size):
    """On maps of one pixel a side too; both implementations of attention agree."""
    _, ours = pair(dtype=torch.float64, **SMALL)
    pixel_values = images(*size, 2, dtype=torch.float64)
    with_sdpa = maps(ours, pixel_values)
    ours.set_attn_implementation("eager")
    assert all(bool(feature_map.isfinite().all()) for feature_map in with_sdpa)
    assert max(largest_differences(with_sdpa, maps(ours, pixel_values))) < 1e-11
    assert with_sdpa[-1].shape[-2:] == tuple(math.ceil(side / 32) for side in size)


# transformers' Swin: one block (its patch merging has another order, and its output another layout)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (13, 21), (8, 8)])
def test_a_block_equals_transformers_swin_layer(size, shifted, attention):
    from transformers import SwinConfig
    from transformers.models.swin.modeling_swin import SwinLayer

    channels, heads, window = 24, 3, 8
    config = EchoCareConfig(embed_dim=channels, depths=[2], num_heads=[heads], window_size=window)
    config._attn_implementation = attention
    swin_config = SwinConfig(embed_dim=channels, window_size=window, layer_norm_eps=1e-5)
    swin_config._attn_implementation = attention
    torch.manual_seed(4)
    ours = EchoCareBlock(config, channels, heads, shifted, drop_path=0.0).double().eval()
    for parameter in ours.parameters():
        parameter.normal_(std=0.3)
    shift = window // 2 if shifted else 0
    theirs = SwinLayer(swin_config, channels, size, heads, shift_size=shift).double().eval()
    state = {}
    for name, tensor in ours.state_dict().items():
        if ".qkv." in name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace(".qkv.", f".{letter}_proj.")] = part
        elif name.endswith("bias_table"):
            state["attention.relative_position_bias.relative_position_bias_table"] = tensor
        else:
            state[name.replace("attention.projection", "attention.o_proj")] = tensor
    result = theirs.load_state_dict(state, strict=False)
    assert not result.unexpected_keys and all("index" in name for name in result.missing_keys)
    hidden_states = torch.randn(2, *size, channels, dtype=torch.float64)
    expected = theirs(hidden_states.flatten(1, 2), size)[0].view_as(hidden_states)
    tolerance = 1e-11 if attention == "sdpa" else 1e-5  # transformers' eager softmax is always float32
    assert (ours(hidden_states) - expected).abs().max() < tolerance


def test_the_index_and_the_names_are_monais():
    reference, ours = pair(**SMALL)
    state = to_monai_state(ours.state_dict(), ours.config)
    assert state.pop("mask_token").shape == (1, 24, 1, 1)
    assert set(state) == set(reference.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in reference.state_dict().items())
