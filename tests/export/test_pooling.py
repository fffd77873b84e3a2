import pytest
import torch
from torch import nn

from hybrid_backbones.export.pooling import AdaptiveAvgPoolByProducts, replace_adaptive_pooling


@pytest.mark.parametrize('size', [1, 2, 3, 6, (3, None), (None, 2)])
@pytest.mark.parametrize('shape', [(6, 6), (7, 13), (5, 40), (2, 3)])
def test_equals_pytorch(size, shape):
    x = torch.randn(2, 4, *shape)
    height, width = size if isinstance(size, tuple) else (size, size)
    torch.testing.assert_close(AdaptiveAvgPoolByProducts(height, width)(x), nn.AdaptiveAvgPool2d(size)(x))


def test_replaced_wherever_they_are():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.AdaptiveAvgPool2d(1)))
    x = torch.randn(1, 3, 9, 5)
    expected = network(x)
    replaced = replace_adaptive_pooling(network)
    assert [type(module) for module in replaced[1]] == [AdaptiveAvgPoolByProducts, nn.AdaptiveAvgPool2d]
    torch.testing.assert_close(replaced(x), expected)
