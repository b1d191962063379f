"""The CPU kernels by themselves, against PyTorch's own layers in double precision."""

import pytest
import torch
from torch.nn import functional as F

from echocare_hf.model.kernels_echocare import LEAKY_SLOPE, instance_norm_activation


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
