"""`optimize_for_inference`: the same answers from packed weights, for every size of map."""

import copy

import pytest
import torch
from torch import nn

from echocare_hf import EchoCareConfig, EchoCareForSemanticSegmentation, inference, optimize_for_inference
from echocare_hf.inference import PackedConv2d, PackedLinear, bfloat16_is_fast


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EchoCareForSemanticSegmentation(EchoCareConfig.preset("tiny", num_labels=3)).eval()


@pytest.fixture(scope="module")
def optimised(model):
    return optimize_for_inference(copy.deepcopy(model))


@pytest.mark.parametrize("side", [128, 32, 200, 64, 128])
@torch.inference_mode()
def test_logits_are_those_of_the_plain_model(model, optimised, side):
    """One model, sizes in turn: weights that were packed for large maps serve small ones and large ones again."""
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    torch.testing.assert_close(optimised(images).logits, model(images).logits, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_convolution_is_packed_anew_for_another_kind_of_map():
    conv = nn.Conv2d(96, 96, 3, padding=1).eval()
    packed = PackedConv2d(conv)
    for side, small in ((32, False), (4, True), (8, True), (32, False)):
        maps = torch.randn(1, 96, side, side, generator=torch.Generator().manual_seed(side))
        torch.testing.assert_close(packed(maps), conv(maps), rtol=1e-4, atol=1e-4)
        assert packed.for_small_maps is small


@pytest.mark.parametrize(
    "amx, avx512, vendor, fast",
    [
        (True, True, "GenuineIntel", True),
        (False, True, "GenuineIntel", False),
        (False, True, "AuthenticAMD", True),
        (False, False, "AuthenticAMD", False),
        (False, True, "", False),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster(monkeypatch, amx, avx512, vendor, fast):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(inference, "_cpu_vendor", lambda: vendor)
    assert bfloat16_is_fast() is fast


@pytest.mark.skipif(not bfloat16_is_fast(), reason="bf16 is not faster on this CPU")
@torch.inference_mode()
def test_weights_in_bfloat16(model):
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    half = copy.deepcopy(model).to(torch.bfloat16)
    logits = optimize_for_inference(copy.deepcopy(half))(images.bfloat16()).logits
    torch.testing.assert_close(logits, half(images.bfloat16()).logits, rtol=0.1, atol=0.1)


def test_it_neither_learns_nor_saves(optimised, tmp_path):
    with pytest.raises(RuntimeError, match="no gradients"):
        optimised(torch.rand(1, 3, 64, 64, requires_grad=True))
    with pytest.raises(RuntimeError, match="cannot be saved"):
        optimised.save_pretrained(tmp_path)


def test_layers_are_replaced(optimised):
    kinds = {type(module) for module in optimised.modules()}
    assert {PackedLinear, PackedConv2d} <= kinds
    assert not [module for module in optimised.modules() if type(module) is nn.Linear]
