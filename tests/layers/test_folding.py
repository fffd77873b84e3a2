"""BatchNorm folded into a convolution is kept, and never outlives what it was folded from."""

import copy

import pytest
import torch
from torch import nn

from hybrid_backbones.layers.folding import conv_norm, folded
from hybrid_backbones.layers.kept import forget_kept


@pytest.fixture
def layers() -> nn.ModuleList:
    """A convolution and its BatchNorm in eval mode."""
    layers = nn.ModuleList([nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)])
    layers[1](torch.randn(2, 4, 5, 5))
    return layers.eval()


def check(layers: nn.ModuleList) -> None:
    """What is folded is what the layers compute."""
    x = torch.randn(2, 8, 8, 3)
    expected = layers[1](layers[0](x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    with torch.inference_mode():
        torch.testing.assert_close(conv_norm(x, *layers), expected.detach())


def test_unchanged_layers_are_folded_once(layers):
    with torch.inference_mode():
        first = folded(*layers)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        assert folded(*layers) is first
    assert not first[0].is_inference()
    assert first[0].dtype is torch.float32
    check(layers)


def test_with_gradients_nothing_is_kept(layers):
    with torch.no_grad():
        kept = folded(*layers)
    assert folded(*layers)[0].requires_grad
    assert not kept[0].requires_grad


@pytest.mark.parametrize('change', ['step', 'statistics', 'load', 'replace', 'dtype'])
def test_a_change_is_seen(layers, change):
    check(layers)
    if change == 'step':
        optimizer = torch.optim.SGD(layers.parameters(), lr=1.0)
        layers[1](layers[0](torch.randn(2, 3, 8, 8))).square().mean().backward()
        optimizer.step()
    elif change == 'statistics':
        layers[1].train()(torch.randn(2, 4, 5, 5) + 3)
        layers[1].eval()
    elif change == 'load':
        layers.load_state_dict({key: value + 1 for key, value in layers.state_dict().items()})
    elif change == 'replace':
        layers[0].weight = nn.Parameter(layers[0].weight.detach() * 2)
    else:
        layers.double()
        with torch.no_grad():
            assert folded(*layers)[0].dtype is torch.float64
        layers.float()
    check(layers)


def test_weights_swapped_behind_the_version_counter_are_seen_once_forgotten(layers):
    check(layers)
    layers[0].weight.data.mul_(2)
    forget_kept(layers)
    check(layers)


def test_copies_fold_their_own_weights(layers):
    check(layers)
    other = copy.deepcopy(layers)
    other[1].bias.data.add_(1)
    check(other)
    check(layers)
