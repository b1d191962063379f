"""The CPU kernels by themselves, against PyTorch's own layers in double precision."""

import pytest
import torch
from torch.nn import functional as F

from echocare_hf import EchoCareConfig
from echocare_hf.model import kernels_echocare, layers_echocare
from echocare_hf.model.kernels_echocare import LEAKY_SLOPE, instance_norm_activation, norm_linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("channels", [5, 24, 64, 96], ids="{} channels".format)
@pytest.mark.parametrize("joined", [False, True], ids=["alone", "with a residual"])
def test_instance_norm_and_activation(dtype, channels, joined):
    """Few channels are scaled row by row in bf16, many pixel by pixel: the same numbers either way."""
    generator = torch.Generator().manual_seed(channels)
    given = [torch.randn(3, 7, 9, channels, generator=generator, dtype=torch.float64) for _ in range(3)]
    given[0] = 2 * given[0] + torch.arange(channels) / channels  # channels differ in mean
    feature_map, residual, grad = (one.to(dtype) for one in given)
    feature_map.requires_grad_()
    residual.requires_grad_()
    found = instance_norm_activation(feature_map, residual if joined else None)
    found.backward(grad)

    exact = feature_map.detach().double().requires_grad_()
    normed = F.instance_norm(exact.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    exact_residual = residual.detach().double().requires_grad_()
    before = normed + exact_residual if joined else normed
    expected = F.leaky_relu(before, LEAKY_SLOPE)
    expected.backward(grad.double())

    tolerance = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 0.06}[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
    sure = before.abs() > tolerance  # rounding decides on which side of the kink the others stand
    assert sure.double().mean() > 0.9
    torch.testing.assert_close(feature_map.grad.double()[sure], exact.grad[sure], rtol=0, atol=tolerance)
    if joined:
        torch.testing.assert_close(residual.grad.double()[sure], exact_residual.grad[sure], rtol=0, atol=tolerance)


def block_gradients(block, inputs, grad):
    """Output of a block, the gradients of its input and its weights, and the bytes that wait for the backward pass."""
    inputs = inputs.clone().requires_grad_()
    block.zero_grad()
    saved = {}

    def note(tensor):
        saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = block(inputs)
    output.backward(grad)
    return [output, inputs.grad, *(parameter.grad.clone() for parameter in block.parameters())], sum(saved.values())


@pytest.mark.parametrize("size", [(16, 16), (20, 12), (4, 4)], ids=["whole windows", "padded", "one small window"])
@pytest.mark.parametrize("shifted", [False, True], ids=["unshifted", "shifted"])
def test_kept_and_recomputed_activations_give_the_gradients_of_the_written_out_block(size, shifted, monkeypatch):
    """Whether the backward pass finds probabilities, norms and activations or computes them anew, only the memory differs."""
    torch.manual_seed(0)
    config = EchoCareConfig.preset("tiny")
    block = layers_echocare.EchoCareBlock(config, 24, 2, shifted, drop_path=0.0).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.3)
    inputs, grad = torch.randn(2, *size, 24).double(), torch.randn(2, *size, 24).double()
    kept, kept_bytes = block_gradients(block, inputs, grad)
    monkeypatch.setattr(kernels_echocare, "keeps_activations", lambda values, channels, dtype: False)
    anew, anew_bytes = block_gradients(block, inputs, grad)
    monkeypatch.setattr(layers_echocare, "runs_on_cpu_kernels", lambda hidden_states: False)
    expected, _ = block_gradients(block, inputs, grad)
    assert kept_bytes > 1.2 * anew_bytes
    for one, other, exact in zip(kept, anew, expected, strict=True):
        torch.testing.assert_close(one, exact, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(other, exact, rtol=1e-9, atol=1e-9)


def test_wide_layers_compute_activations_anew():
    """Base at 256 pixels keeps no probabilities in its first three stages, whatever the batch; tiny does in its second."""
    for tokens, heads, channels in ((128**2, 4, 128), (64**2, 8, 256), (32**2, 16, 512)):
        assert not kernels_echocare.keeps_activations(tokens * 64 * heads, channels, torch.float32)
    assert kernels_echocare.keeps_activations(32 * 256 * 64 * 4, 48, torch.float32)


@pytest.mark.parametrize("channels", [24, 40])
def test_norm_linear_in_bf16(channels):
    """Few channels are normed through fp32."""
    generator = torch.Generator().manual_seed(1)
    norm, linear = torch.nn.LayerNorm(channels), torch.nn.Linear(channels, 16)
    rows, grad = (torch.randn(128, width, generator=generator).bfloat16() for width in (channels, 16))
    rows.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = norm_linear(rows, norm, linear)
    found.backward(grad)
    gradients = [rows.grad, norm.weight.grad, norm.bias.grad, linear.weight.grad, linear.bias.grad]

    exact = rows.detach().double().requires_grad_()
    norm.double().zero_grad()
    linear.double().zero_grad()
    expected = linear(norm(exact))
    expected.backward(grad.double())
    others = [exact.grad, norm.weight.grad, norm.bias.grad, linear.weight.grad, linear.bias.grad]
    for one, other in zip([found, *gradients], [expected, *others], strict=True):
        assert (one.double() - other).norm() < 0.02 * other.norm()
