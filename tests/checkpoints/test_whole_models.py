"""Published detectors and segmentors load completely under the names used here, and never without their output norms.

`foreign_keys/NAME.txt` pairs the keys of the authors' dense backbones, of four tiny stages, with those of ours (`-` for
a key that is left out); they were written down from the authors' code at a commit, whose maps ours equalled to 2e-5.
"""

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from torch import Tensor

from hybrid_backbones import create_backbone
from hybrid_backbones.checkpoints import CheckpointError
from hybrid_backbones.checkpoints.whole_models import with_model_names

DEPTHS = (1, 1, 2, 1)
CONVNEXT = dict(model_name='convnext_tiny', depths=DEPTHS, dims=(8, 16, 24, 32))
SWIN = dict(model_name='swin_tiny_patch4_window7_224', embed_dim=12, depths=DEPTHS, num_heads=(1, 2, 3, 4))
REPLKNET = dict(
    depths=DEPTHS, dims=(8, 16, 24, 32), kernel_sizes=(31, 15, 7, 5), small_kernel=3, dw_ratio=1.5
)  # fmt: skip
# Ours of the networks in foreign_keys: name, options.
OURS = {
    'convnext': ('timm_convnext_t', dict(arch=CONVNEXT)),
    'convnext_of_openmmlab': ('timm_convnext_t', dict(arch=CONVNEXT)),
    'hornet': ('hornet_t_gf', dict(arch=dict(depths=DEPTHS, dims=(8, 16, 32, 64), orders=(2, 3, 3, 4), gf=(2, 3)))),
    'moganet': ('moganet_t', dict(arch=dict(depths=DEPTHS, dims=(8, 16, 24, 32), mlp_ratios=(8, 8, 4, 4)))),
    'replknet_xl': ('replknet_xl', dict(arch=REPLKNET, out_norm='batch')),
    'slak': (
        'slak_t',
        dict(arch=dict(depths=DEPTHS, dims=(9, 17, 24, 31), kernel_sizes=(31, 15, 9, 7), small_kernel=3)),
    ),
    'swin': ('timm_swin_t', dict(arch=SWIN)),
}


def keys_of(name: str) -> dict[str, str]:
    """Ours by theirs."""
    lines = Path(__file__).with_name('foreign_keys').joinpath(f'{name}.txt').read_text().splitlines()
    return dict(line.split() for line in lines)


def published(name: str) -> tuple[torch.nn.Module, dict[str, Tensor], dict[str, Tensor]]:
    """Our backbone, a detector's file under their names, and the tensors that ours should get, each another number."""
    backbone, options = OURS[name]
    network = create_backbone(backbone, **options)
    shapes, theirs, expected = network.state_dict(), {}, {}
    for number, (key, own) in enumerate(keys_of(name).items()):
        theirs[f'backbone.{key}'] = torch.full(shapes[own].shape if own != '-' else (1,), float(number))
        if own != '-':
            expected[own] = theirs[f'backbone.{key}']
    return network, theirs, expected


@pytest.mark.parametrize('name', OURS)
def test_every_tensor_of_the_authors_backbone_finds_its_place(name):
    network, theirs, expected = published(name)
    assert expected.keys() == network.state_dict().keys()
    head = {'neck.lateral_convs.0.conv.weight': torch.ones(3), 'roi_head.bbox_head.0.fc_cls.bias': torch.zeros(2)}
    renamed = with_model_names(network, theirs | head)
    own = {key.removeprefix('backbone.'): value for key, value in renamed.items() if key.startswith('backbone.')}
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[key], expected[key]) for key in own)
    assert {key: renamed[key] for key in head} == head
    assert len(renamed) == len(own) + len(head)


@pytest.mark.parametrize('name', [name for name in OURS if name != 'moganet'])
def test_a_file_without_output_norms_is_an_error(name):
    network, theirs, _ = published(name)
    pairs = keys_of(name)
    trunk = {key: value for key, value in theirs.items() if 'out_norms' not in pairs[key.removeprefix('backbone.')]}
    assert len(trunk) < len(theirs)
    with pytest.raises(CheckpointError, match=r'FILE has no out_norms\.0\.(.|\n)*initial values(.|\n)*init_cfg'):
        with_model_names(network, trunk, 'FILE')


def test_our_own_file_and_one_of_another_model_stay_as_they_are():
    network, _, _ = published('hornet')
    own = {f'backbone.{key}': value for key, value in network.state_dict().items()}
    for state in (own, {'decode_head.conv_seg.weight': torch.ones(2)}):
        assert with_model_names(network, state) is state
    other = {'backbone.layer1.0.conv1.weight': torch.ones(2)}
    assert with_model_names(network, other) == other


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_swin_models_of_openmmlab_load_completely(scope):
    """Names, shapes and the order of merged pixels; tests/backbones/test_timm.py compares the maps."""
    options = dict(embed_dims=12, depths=DEPTHS, num_heads=(1, 2, 3, 4), out_indices=(0, 1, 2, 3))
    theirs = MODELS.build(dict(type=f'{scope}.SwinTransformer', **options)).state_dict()
    network = create_backbone('timm_swin_t', arch=SWIN)
    renamed = with_model_names(network, {f'backbone.{key}': value for key, value in theirs.items()})
    own = {f'backbone.{key}': value.shape for key, value in network.state_dict().items()}
    assert {key: value.shape for key, value in renamed.items()} == own
    norm = theirs['stages.0.downsample.norm.weight'] + torch.arange(48)
    theirs['stages.0.downsample.norm.weight'] = norm
    renamed = with_model_names(network, {f'backbone.{key}': value for key, value in theirs.items()})
    merged = renamed['backbone.trunk.layers.1.downsample.norm.weight']
    torch.testing.assert_close(merged, norm.view(12, 2, 2).permute(2, 1, 0).flatten())
