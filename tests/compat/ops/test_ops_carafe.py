"""CARAFE against its definition, pixel by pixel, and its gradients."""

import itertools

import mmcv.ops
import pytest
import torch
from torch.autograd import gradcheck

GROUPS, SIDE, SCALE = 2, 3, 2


@pytest.fixture
def tensors(device):
    shapes = [(2, 4, 3, 4), (2, GROUPS * SIDE**2, 3 * SCALE, 4 * SCALE)]
    return [torch.rand(shape, dtype=torch.float64, device=device, requires_grad=True) for shape in shapes]


def by_definition(features, masks):
    """Of equation 2 of the paper, with features beyond the border zero."""
    output = features.new_zeros(2, 4, 6, 8)
    for n, c, y, x, dy, dx in itertools.product(*map(range, output.shape), range(-1, 2), range(-1, 2)):
        row, column = y // SCALE + dy, x // SCALE + dx
        if 0 <= row < 3 and 0 <= column < 4:
            kernel = (c // 2) * SIDE**2 + (dy + 1) * SIDE + dx + 1
            output[n, c, y, x] += masks[n, kernel, y, x] * features[n, c, row, column]
    return output


@pytest.mark.parametrize('operator', [mmcv.ops.carafe, mmcv.ops.carafe_naive])
def test_definition(tensors, operator):
    features, masks = (tensor.detach() for tensor in tensors)
    output = operator(features, masks, SIDE, GROUPS, SCALE)
    torch.testing.assert_close(output, by_definition(features, masks))


def test_gradients(tensors):
    features, masks = tensors
    small = [features[:1, :2, :2, :1], masks[:1, :, :4, :2]]
    small = [tensor.detach().contiguous().requires_grad_() for tensor in small]
    assert gradcheck(lambda *t: mmcv.ops.carafe(*t, SIDE, GROUPS, SCALE), small)


def test_gradients_of_the_naive_operator(tensors, stand_in):
    """By the operator itself: mmcv's Python lets `carafe_naive` go backward on GPUs only."""
    output = mmcv.ops.carafe(*tensors, SIDE, GROUPS, SCALE)
    gradient = torch.rand_like(output)
    buffers = [torch.zeros_like(tensor) for tensor in tensors]
    stand_in.carafe_naive_backward(
        gradient, *tensors, *buffers, kernel_size=SIDE, group_size=GROUPS, scale_factor=SCALE
    )
    torch.testing.assert_close(buffers, list(torch.autograd.grad(output, tensors, gradient)))
