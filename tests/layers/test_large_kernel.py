"""Large depthwise convolutions are torch's, directly or by Fourier transform, with the gradients of each argument."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_backbones.layers import large_kernel
from hybrid_backbones.layers.large_kernel import large_depthwise, merge_kernels

# Size of the map, kernels, and whether the transform is expected in inference.
CASES = {
    'large': ((37, 41), [(31, 31)], True),
    'even sides': ((40, 36), [(29, 29)], True),
    'merged forms': ((33, 50), [(27, 27), (5, 5)], True),
    'three forms': ((45, 39), [(51, 5), (5, 51), (5, 5)], False),
    'small kernel': ((30, 31), [(5, 5)], False),
    'smaller than the kernel': ((6, 9), [(31, 31), (5, 5)], False),
    'one row': ((1, 40), [(51, 5), (5, 51)], False),
    'one pixel': ((1, 1), [(13, 13)], False),
    'half a kernel': ((17, 80), [(31, 31)], False),
}


def reference(x: Tensor, weights: list[Tensor], bias: Tensor | None) -> Tensor:
    """torch's convolutions of (N, H, W, C), in double precision."""
    x = x.double().permute(0, 3, 1, 2)
    out = sum(F.conv2d(x, w.double(), None, 1, [k // 2 for k in w.shape[2:]], groups=len(w)) for w in weights)
    return (out if bias is None else out + bias.double()[:, None, None]).permute(0, 2, 3, 1)


def arguments(size, kernels, channels=20, dtype=torch.float32, n=2):
    x = torch.randn(n, *size, channels, dtype=dtype)
    weights = [torch.randn(channels, 1, *kernel) / (kernel[0] * kernel[1]) ** 0.5 for kernel in kernels]
    return [t.requires_grad_() for t in (x, torch.randn(channels), *weights)]


@pytest.fixture
def transforms(monkeypatch) -> list:
    """One entry per convolution by Fourier transform."""
    calls = []
    apply = large_kernel._Fourier.apply
    monkeypatch.setattr(large_kernel._Fourier, 'apply', lambda *args: calls.append(1) or apply(*args))
    return calls


@pytest.mark.parametrize('case', CASES)
def test_outputs_are_those_of_conv2d(case, transforms):
    size, kernels, by_transform = CASES[case]
    x, bias, *weights = arguments(size, kernels)
    with torch.inference_mode():
        actual = large_depthwise(x, weights, bias)
        torch.testing.assert_close(actual.double(), reference(x, weights, bias), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(large_depthwise(x, weights), actual - bias, rtol=1e-5, atol=1e-5)
    assert actual.is_contiguous()
    assert len(transforms) == 2 * by_transform


@pytest.mark.parametrize('pays', [True, False], ids=['transform', 'direct'])
@pytest.mark.parametrize('case', CASES)
def test_gradients_are_those_of_conv2d(case, pays, monkeypatch):
    size, kernels, _ = CASES[case]
    monkeypatch.setattr(large_kernel, '_fourier_pays', lambda *_: pays)
    inputs = arguments(size, kernels)
    x, bias, *weights = inputs
    actual, expected = large_depthwise(x, weights, bias), reference(x, weights, bias)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(actual, inputs, grad.float()), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        assert a.shape == b.shape
        assert (a.double() - b.double()).norm() <= 1e-5 * b.double().norm()


@pytest.mark.parametrize('wanted', [(0,), (1,), (2,), (0, 2)], ids=['map', 'bias', 'kernel', 'map and kernel'])
def test_only_the_gradients_asked_for(wanted, transforms):
    inputs = [t.detach().requires_grad_(i in wanted) for i, t in enumerate(arguments((37, 41), [(31, 31)]))]
    x, bias, weight = inputs
    actual, expected = large_depthwise(x, [weight], bias), reference(x, [weight], bias)
    asked = [inputs[i] for i in wanted]
    for a, b in zip(torch.autograd.grad(actual.sum(), asked), torch.autograd.grad(expected.sum(), asked), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
    assert transforms


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize('case', ['large', 'three forms'])
def test_other_precisions(case, dtype, transforms):
    size, kernels, _ = CASES[case]
    x, bias, *weights = inputs = [t.detach().to(dtype).requires_grad_() for t in arguments(size, kernels)]
    actual, expected = large_depthwise(x, weights, bias), reference(x, weights, bias)
    assert actual.dtype == dtype
    assert transforms
    tolerance = 1e-12 if dtype == torch.float64 else 1e-2
    assert (actual.double() - expected).norm() <= tolerance * expected.norm()
    grad = torch.randn_like(actual)
    for a, b in zip(
        torch.autograd.grad(actual, inputs, grad), torch.autograd.grad(expected, inputs, grad.double()), strict=True
    ):
        assert a.dtype == dtype
        assert (a.double() - b.double()).norm() <= tolerance * b.double().norm()


def test_autocast_keeps_the_map_s_precision():
    x, bias, weight = arguments((37, 41), [(31, 31)], dtype=torch.bfloat16)
    with torch.autocast('cpu', torch.bfloat16):
        out = large_depthwise(x, [weight], bias)
    expected = reference(x, [weight], bias)
    assert out.dtype == torch.bfloat16
    assert (out.double() - expected).norm() <= 5e-3 * expected.norm()
    assert [g.dtype for g in torch.autograd.grad(out.sum(), (x, weight))] == [torch.bfloat16, torch.float32]


def test_parts_of_the_channels_take_the_same_values(monkeypatch):
    parts = []
    depthwise = large_kernel.depthwise
    monkeypatch.setattr(large_kernel, 'depthwise', lambda x, *args, **kw: parts.append(x) or depthwise(x, *args, **kw))
    x, bias, weight = arguments((25, 42), [(13, 13)], channels=250, n=1)
    with torch.inference_mode():
        actual = large_depthwise(x, [weight], bias)
    torch.testing.assert_close(actual.double(), reference(x, [weight], bias), rtol=1e-5, atol=1e-5)
    assert [part.shape[-1] for part in parts] == 15 * [16] + [10]


def test_traced_code_has_no_transform(transforms):
    x, bias, weight = arguments((37, 41), [(31, 31)])
    compiled = torch.compile(large_depthwise, backend='aot_eager', fullgraph=True)(x, [weight], bias)
    assert not transforms
    torch.testing.assert_close(compiled, large_depthwise(x, [weight], bias), rtol=1e-5, atol=1e-5)
    assert transforms


def test_a_map_in_any_layout_and_images_apart():
    x, bias, weight = arguments((37, 41), [(31, 31)])
    with torch.inference_mode():
        expected = large_depthwise(x, [weight], bias)
        planes = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        assert not planes.is_contiguous()
        torch.testing.assert_close(large_depthwise(planes, [weight], bias), expected)
        x[1] = float('nan')
        torch.testing.assert_close(large_depthwise(x, [weight], bias)[0], expected[0])


@pytest.mark.parametrize('size', [(37, 41), (6, 9)])
def test_the_gradient_of_a_kernel_has_the_kernel_s_strides(size):
    x, bias, weight = arguments(size, [(31, 31)])
    large_depthwise(x, [weight], bias).square().sum().backward()
    assert weight.grad.stride() == weight.stride()


def test_merged_kernels_are_the_sum():
    x, _, *weights = arguments((45, 39), CASES['three forms'][1])
    merged = merge_kernels(weights)
    assert merged.shape == (20, 1, 51, 51)
    torch.testing.assert_close(reference(x, [merged], None), reference(x, weights, None), rtol=1e-5, atol=1e-5)
