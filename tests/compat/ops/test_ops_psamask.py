"""PSANet's masks against their definition, weight by weight, and their gradients."""

import itertools

import mmcv.ops
import pytest
import torch
from torch.autograd import gradcheck


def by_definition(windows, psa_type, size):
    n, _, height, width = windows.shape
    masks = windows.new_zeros(n, height * width, height, width)
    for y, x, i, j in itertools.product(*map(range, (height, width, *size))):
        row, column = y + i - (size[0] - 1) // 2, x + j - (size[1] - 1) // 2
        if 0 <= row < height and 0 <= column < width:
            weight = windows[:, i * size[1] + j, y, x]
            if psa_type == 'collect':
                masks[:, row * width + column, y, x] = weight
            else:
                masks[:, y * width + x, row, column] = weight
    return masks


@pytest.mark.parametrize('psa_type', ['collect', 'distribute'])
@pytest.mark.parametrize('size', [(3, 3), (2, 5), (7, 9)])
def test_definition_and_gradient(psa_type, size, device):
    windows = torch.rand(2, size[0] * size[1], 4, 5, dtype=torch.float64, device=device, requires_grad=True)
    layer = mmcv.ops.PSAMask(psa_type, size)
    torch.testing.assert_close(layer(windows), by_definition(windows, psa_type, size))
    assert gradcheck(layer, windows[:1].detach().requires_grad_())
