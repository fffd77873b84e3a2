"""Isotropic Conv2Former has the paper's size, and is Conv2Former's blocks on one grid."""

import pytest
import torch
from torch import nn

from hybrid_backbones import create_classifier
from hybrid_backbones.backbones.conv2former import Block
from hybrid_backbones.backbones.conv2former_isotropic import ARCHS, IsotropicConv2Former


# Table 9, in millions.
@pytest.mark.parametrize(('name', 'expected'), [('conv2former_is', 22), ('conv2former_ib', 86)])
def test_parameters_round_to_the_papers(name, expected):
    with torch.device('meta'):
        classifier = create_classifier(name)
    assert round(sum(p.numel() for p in classifier.parameters()) / 1e6) == expected
    assert {arch['depth'] for arch in ARCHS.values()} == {18}


@pytest.mark.parametrize('size', [(64, 96), (33, 50), (50, 33)])
def test_blocks_run_one_after_another_on_one_grid(size):
    arch = dict(depth=5, dim=16, kernel_size=5)
    network = IsotropicConv2Former(arch, pyramid=None, blocks=range(5), out_norm=False, layer_scale_init=0.5).eval()
    image = torch.randn(2, 3, *size)
    padded = nn.functional.pad(image, (0, -size[1] % 16, 0, -size[0] % 16))
    with torch.inference_mode():
        x = network.patch_embed.proj(padded).permute(0, 2, 3, 1).contiguous()
        for index, output in enumerate(network(image)):
            block = Block(16, 5, 0.0, 0.5).eval()
            block.load_state_dict(network.blocks[index].state_dict())
            x = block(x)
            torch.testing.assert_close(output.permute(0, 2, 3, 1), x)
