"""Bands of rows give what the plain layers give, whatever the size, the stride and the side of the padding."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hybrid_backbones.backbones.coatnet import MBConv
from hybrid_backbones.layers import inverted_bottleneck
from hybrid_backbones.layers.inverted_bottleneck import banded, expand_in_bands


@pytest.mark.parametrize('band', [1, 500, 2**22], ids=lambda numbers: f'{numbers} at a time')
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [(1, 1), (1, 6), (2, 3), (8, 7), (13, 18), (16, 12)], ids=str)
def test_bands_are_the_plain_layers(size, stride, band, monkeypatch):
    monkeypatch.setattr(inverted_bottleneck, '_BAND', band)
    height, width = size
    x = torch.randn(2, height, width, 5, dtype=torch.double)
    weight, bias, kernel, kernel_bias = (torch.randn(12, *s, dtype=torch.double) for s in ((5,), (), (1, 3, 3), ()))
    wide = F.gelu(F.linear(x, weight, bias)).permute(0, 3, 1, 2)
    for before in {(1, 1), tuple(side % 2 for side in size)} if stride == 2 else {(1, 1)}:
        padded = F.pad(wide, (before[1], 1, before[0], 1))
        expected = F.gelu(F.conv2d(padded, kernel, kernel_bias, stride, groups=12)).permute(0, 2, 3, 1)
        out = expand_in_bands(x, (weight, bias), (kernel, kernel_bias), stride, before)
        assert out.is_contiguous()
        torch.testing.assert_close(out, expected)


def test_bands_are_for_large_maps_in_inference_on_a_cpu():
    x, weight = torch.empty(1, 300, 300, 4), torch.empty(128, 4)
    with torch.no_grad():
        assert banded(x, weight)
        assert not banded(x[:, :100], weight)
        assert not banded(x.bfloat16(), weight)
        with torch.autocast('cpu', torch.bfloat16):
            assert not banded(x, weight)


@pytest.mark.parametrize('stride', [1, 2])
def test_a_block_in_bands_is_the_block(stride, monkeypatch):
    block = MBConv(8, 16, stride, 0.0).eval() if stride == 2 else MBConv(16, 16, 1, 0.0).eval()
    for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean)
        nn.init.normal_(norm.bias)
    x = torch.randn(2, block.pre_norm.num_features, 31, 40).contiguous(memory_format=torch.channels_last)
    expected = block(x)
    monkeypatch.setattr(inverted_bottleneck, '_BAND', 10_000)
    with torch.no_grad():
        torch.testing.assert_close(block(x.clone()), expected)
