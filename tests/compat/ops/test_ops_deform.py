"""Deformable convolution and deformable attention: gradients and limits where they are plain operations."""

import mmcv.ops
import pytest
import torch
import torch.nn.functional as F
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from torch.autograd import gradcheck


@pytest.fixture
def tensors(device):
    """Input, offset, mask, weight, bias of a 3x3 convolution, stride 2, 2 groups, 2 deformable groups."""
    shapes = [(2, 4, 4, 3), (2, 36, 2, 2), (2, 18, 2, 2), (4, 2, 3, 3), (4,)]
    return [torch.rand(shape, dtype=torch.float64, device=device, requires_grad=True) for shape in shapes]


SETTINGS = (2, 1, 1, 2, 2)


def test_gradients(tensors):
    x, offset, mask, weight, bias = tensors
    assert gradcheck(lambda *t: mmcv.ops.deform_conv2d(*t, *SETTINGS), (x, offset, weight))
    assert gradcheck(lambda *t: mmcv.ops.modulated_deform_conv2d(*t, *SETTINGS), (x, offset, mask, weight, bias))
    assert gradcheck(lambda *t: mmcv.ops.modulated_deform_conv2d(*t, None, *SETTINGS), (x, offset, mask, weight))


def test_offsets_larger_than_the_output(tensors):
    """Each image's first numbers are read as if they had the output's size, as mmcv's kernels do."""
    x, offset, mask, weight, bias = tensors
    large = [torch.cat([t.flatten(1), t.flatten(1).flip(1)], 1).detach().view(2, -1, 4, 2) for t in (offset, mask)]
    large = [tensor.requires_grad_() for tensor in large]
    expected = mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *SETTINGS)
    torch.testing.assert_close(mmcv.ops.modulated_deform_conv2d(x, *large, weight, bias, *SETTINGS), expected)
    function = lambda *t: mmcv.ops.modulated_deform_conv2d(x.detach(), *t, weight.detach(), None, *SETTINGS)  # noqa: E731
    assert gradcheck(function, large)
    with pytest.raises(RuntimeError, match='offset'):
        mmcv.ops.deform_conv2d(x, large[0], weight, *SETTINGS)


def test_offsets_of_samples_at_minus_one_have_no_gradient(device):
    """As in mmcv; before it there is nothing, after it the gradient is the features'."""
    x = torch.rand(1, 1, 2, 2, dtype=torch.float64, device=device) + 1
    weight = torch.ones(1, 1, 1, 1, dtype=torch.float64, device=device)
    for y, has_gradient in ((-1.1, False), (-1.0, False), (-0.9, True)):
        offset = torch.zeros(1, 2, 2, 2, dtype=torch.float64, device=device)
        offset[:, 0] = y
        offset.requires_grad_()
        mmcv.ops.deform_conv2d(x, offset, weight)[:, :, 0].sum().backward()
        assert bool(offset.grad[0, 0, 0].all()) == bool(offset.grad.any()) == has_gradient


def test_without_offsets_it_is_a_convolution(tensors):
    x, offset, mask, weight, bias = tensors
    expected = F.conv2d(x, weight, None, 2, 1, 1, 2)
    torch.testing.assert_close(mmcv.ops.deform_conv2d(x, offset * 0, weight, *SETTINGS), expected)
    modulated = mmcv.ops.modulated_deform_conv2d(x, offset * 0, mask * 0 + 1, weight, bias, *SETTINGS)
    torch.testing.assert_close(modulated, expected + bias[:, None, None])


@pytest.mark.parametrize('wanted', ['x', 'weight', 'both'])
def test_the_weights_gradient_alone_or_shared(tensors, wanted):
    """The weight's gradient comes with the input's, or by itself; it must be that of the same backward pass."""
    x, offset, _, weight, _ = tensors
    inputs = [x.detach(), offset.detach(), weight.detach()]
    leaves = [inputs[i].requires_grad_() for i in {'x': [0], 'weight': [2], 'both': [0, 2]}[wanted]]
    output = mmcv.ops.deform_conv2d(*inputs, *SETTINGS)
    reference = mmcv.ops.modulated_deform_conv2d(
        inputs[0], inputs[1], torch.ones_like(tensors[2]), inputs[2], None, *SETTINGS
    )
    for gradient in (torch.ones_like(output), torch.rand_like(output)):
        got = torch.autograd.grad(output, leaves, gradient, retain_graph=True)
        expected = torch.autograd.grad(reference, leaves, gradient, retain_graph=True)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision(tensors, dtype):
    """Under autocast mmcv brings everything to the offset's type, which the offset's own convolution made half."""
    halves = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    output = mmcv.ops.modulated_deform_conv2d(*halves, *SETTINGS)
    expected = mmcv.ops.modulated_deform_conv2d(*(tensor.float() for tensor in halves), *SETTINGS)
    assert torch.equal(output, expected.to(dtype))
    output.float().sum().backward()
    assert all(tensor.grad.dtype == dtype and tensor.grad.isfinite().all() for tensor in halves)


def test_as_a_layer_under_autocast():
    layer = mmcv.ops.ModulatedDeformConv2dPack(4, 6, 3, padding=1)
    x = torch.rand(2, 4, 9, 7)
    with torch.autocast('cpu', torch.bfloat16):
        output = layer(x)
    output.float().sum().backward()
    # A new layer has no offsets, and sigmoid(0) as its mask.
    torch.testing.assert_close(output.float(), F.conv2d(x, layer.weight, padding=1) / 2, rtol=0.02, atol=0.02)
    assert layer.conv_offset.weight.grad.isfinite().all() and layer.weight.grad.any()


def attention_inputs(dtype, device, queries=3):
    shapes = torch.tensor([[4, 5], [2, 3]], device=device)
    value = torch.rand(2, 26, 2, 3, dtype=dtype, device=device, requires_grad=True)
    locations = torch.rand(2, queries, 2, 2, 4, 2, dtype=dtype, device=device, requires_grad=True)
    weights = torch.rand(2, queries, 2, 2, 4, dtype=dtype, device=device, requires_grad=True)
    return value, shapes, torch.tensor([0, 20], device=device), locations, weights


def test_attention_gradients(device):
    value, shapes, starts, locations, weights = attention_inputs(torch.float64, device)
    attend = MultiScaleDeformableAttnFunction.apply
    assert gradcheck(lambda v, p, w: attend(v, shapes, starts, p, w, 64), (value, locations, weights))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_attention_in_half_precision(dtype, device):
    value, shapes, starts, locations, weights = attention_inputs(dtype, device)
    output = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)
    assert output.dtype == dtype and output.shape == (2, 3, 6)
    output.float().sum().backward()
    assert value.grad.dtype == locations.grad.dtype == weights.grad.dtype == dtype


def test_attention_without_queries(device):
    value, *rest = attention_inputs(torch.float32, device, queries=0)
    output = MultiScaleDeformableAttnFunction.apply(value, *rest, 64)
    output.sum().backward()
    assert output.shape == (2, 0, 6) and not value.grad.any()
