"""Networks on the meta device have the names and shapes of others, and initialisation elsewhere is what it was."""

import torch
from torch import nn

from hybrid_backbones import create_backbone
from hybrid_backbones._meta import meta_device
from hybrid_backbones.backbones.factory import find_backbone


def test_names_and_shapes_are_those_of_a_network_with_values():
    for name in ('moganet_t', 'timm_convnext_t'):
        arch = find_backbone(name)[0].tiny_arch
        with meta_device():
            state = create_backbone(name, arch=arch).state_dict()
        expected = create_backbone(name, arch=arch).state_dict()
        assert all(value.is_meta for value in state.values())
        assert {key: value.shape for key, value in state.items()} == {key: v.shape for key, v in expected.items()}


def test_tensors_with_values_are_filled():
    with meta_device():
        value = torch.zeros(3, device='cpu').add_(1)
        nn.init.constant_(weight := torch.empty(2, device='cpu'), 5.0)
    assert value.tolist() == [1, 1, 1]
    assert weight.tolist() == [5, 5]
