"""Convolution at chosen pixels: that of the whole map there, zero elsewhere."""

import mmcv.ops
import pytest
import torch


@pytest.mark.parametrize(('kernel', 'padding'), [(1, 0), (3, 1), ((3, 5), (1, 2))])
def test_masked_conv(kernel, padding, device):
    layer = mmcv.ops.MaskedConv2d(4, 6, kernel, padding=padding).to(device)
    x, mask = torch.rand(1, 4, 7, 9, device=device), torch.rand(1, 7, 9, device=device) > 0.6
    with torch.no_grad():
        torch.testing.assert_close(layer(x, mask.float()), layer(x) * mask)
        assert not layer(x, torch.zeros_like(mask)).any()
