"""Attention of tokens in windows against the one with a mask over all pairs."""

import pytest
import torch
from plain_definitions import attention, seen

from hybrid_backbones.layers.transformer import Attention


@pytest.mark.parametrize('num_prefix', [0, 1, 2])
@pytest.mark.parametrize('window_size', [None, 1, 3, 4, 50])
@pytest.mark.parametrize('size', [(8, 18), (7, 4), (1, 9)])
def test_windows_are_attention_with_a_mask(size, window_size, num_prefix):
    layer = Attention(12, 3, window_size=window_size).double()
    x = torch.randn(2, num_prefix + size[0] * size[1], 12, dtype=torch.double, requires_grad=True)
    expected = attention(layer, x, seen(size, num_prefix, window_size))
    actual = layer(x, size)
    torch.testing.assert_close(actual, expected)
    inputs, grad = (x, *layer.parameters()), torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(actual, inputs, grad), torch.autograd.grad(expected, inputs, grad))
