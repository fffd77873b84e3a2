"""The depthwise convolution and its gradients are torch's, in parts or whole."""

import pytest
import torch
import torch.nn.functional as F

from hybrid_backbones.layers.depthwise import Depthwise, depthwise


# 101x102 pixels under a kernel of 9 are convolved in parts of 24 channels, here with two left over.
@pytest.mark.parametrize(('size', 'channels', 'kernel'), [((101, 102), 50, 9), ((101, 102), 8, 9), ((7, 5), 50, 11)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_conv2d(size, channels, kernel, dtype):
    x = torch.randn(2, channels, *size).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(channels, 1, kernel, kernel).div(kernel).to(dtype).requires_grad_()
    bias = torch.randn(channels).to(dtype).requires_grad_()
    # In float32: torch's own bf16 convolution is what the function avoids where the CPU has none.
    expected = F.conv2d(x.float(), weight.float(), bias.float(), padding=kernel // 2, groups=channels)
    grad = torch.randn_like(expected).to(dtype)
    expected_grads = torch.autograd.grad(expected, (x, weight, bias), grad.float())

    actual = depthwise(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
    grads = torch.autograd.grad(actual, (x, weight, bias), grad)
    tolerance = dict(rtol=1e-4, atol=1e-3) if dtype == torch.float32 else dict(rtol=2e-2, atol=5e-2)
    with torch.inference_mode():
        inferred = depthwise(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
    assert torch.equal(inferred, actual)
    torch.testing.assert_close(actual.float(), expected, **tolerance)
    torch.testing.assert_close(grads[0], expected_grads[0], **tolerance)
    for a, b in zip(grads[1:], expected_grads[1:], strict=True):
        assert a.shape == b.shape
        assert (a.float() - b.float()).norm() < (1e-5 if dtype == torch.float32 else 1e-2) * b.float().norm()


def test_the_gradient_of_a_kernel_has_the_kernel_s_strides():
    weight = torch.randn(6, 1, 3, 3, requires_grad=True)
    depthwise(torch.randn(1, 5, 7, 6), weight).square().sum().backward()
    assert weight.grad.stride() == weight.stride()


@pytest.mark.parametrize('dilation', [2, 3])
def test_a_dilated_kernel_keeps_the_size(dilation):
    layer = Depthwise(8, 8, 7, padding=3 * dilation, dilation=dilation, groups=8)
    x = torch.randn(2, 8, 19, 23).contiguous(memory_format=torch.channels_last)
    expected = F.conv2d(x, layer.weight, layer.bias, 1, 3 * dilation, dilation, 8)
    torch.testing.assert_close(layer(x), expected)
