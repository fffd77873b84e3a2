"""Published detectors and segmentors load completely under the names used here, and never without their output norms.

`foreign_keys/NAME.txt` pairs the keys of the authors' dense backbones, of four tiny stages, with those of ours (`-` for
a key that is left out); they were written down from the authors' code at a commit, whose maps ours equalled to 2e-5.
"""

from pathlib import Path

import pytest
import torch
from engine.models import NANO
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from hybrid_backbones import create_backbone
from hybrid_backbones.checkpoints import CheckpointError
from hybrid_backbones.checkpoints.whole_models import with_model_names
from hybrid_backbones.engine.config import read_config

CONFIGS = Path(__file__).parents[2] / 'configs'
# Those that trained OpenMMLab's files, by ours for them.
OF_OPENMMLAB = {
    'maskrcnn_timm_convnext_t_coco': 'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    'cascade_maskrcnn_timm_convnext_t_coco': (
        'mmdet::convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
    ),
    'maskrcnn_timm_swin_t_coco': 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py',
    'upernet_timm_convnext_t_ade20k': 'mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
    'upernet_timm_swin_t_ade20k': ('mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'),
}
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
    swin = MODELS.build(dict(type=f'{scope}.SwinTransformer', **options))
    theirs = swin.state_dict()
    network = create_backbone('timm_swin_t', arch=SWIN)
    assert network.out_norms['0'].eps == swin.norm0.eps
    renamed = with_model_names(network, {f'backbone.{key}': value for key, value in theirs.items()})
    own = {f'backbone.{key}': value.shape for key, value in network.state_dict().items()}
    assert {key: value.shape for key, value in renamed.items()} == own
    norm = theirs['stages.0.downsample.norm.weight'] + torch.arange(48)
    theirs['stages.0.downsample.norm.weight'] = norm
    renamed = with_model_names(network, {f'backbone.{key}': value for key, value in theirs.items()})
    merged = renamed['backbone.trunk.layers.1.downsample.norm.weight']
    torch.testing.assert_close(merged, norm.view(12, 2, 2).permute(2, 1, 0).flatten())


def both(config: str) -> tuple[Config, Config]:
    """Ours and OpenMMLab's, without weights of backbones."""
    configs = read_config(CONFIGS / f'{config}.py'), read_config(OF_OPENMMLAB[config], import_custom_modules=False)
    for cfg in configs:
        cfg.model.backbone.init_cfg = None
        if cfg.model.test_cfg.get('mode'):
            cfg.model.test_cfg = dict(mode='whole')
    return configs


def build(cfg: Config) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return revert_sync_batchnorm(MODELS.build(cfg.model)).eval()


@pytest.mark.parametrize('config', OF_OPENMMLAB)
def test_necks_and_heads_are_those_of_openmmlab(config):
    shapes = []
    for cfg in both(config):
        cfg.model.backbone = NANO
        with torch.device('meta'):
            shapes.append({key: value.shape for key, value in build(cfg).state_dict().items()})
    assert shapes[0] == shapes[1]


@pytest.mark.slow
@pytest.mark.parametrize('config', [config for config in OF_OPENMMLAB if '_swin_' in config])
def test_models_of_openmmlab_predict_the_same_here(config):
    """ConvNeXt's take mmpretrain, which mmdet cannot be imported beside."""
    ours, theirs = (build(cfg).double() for cfg in both(config))
    torch.manual_seed(0)
    with torch.no_grad():
        for key, value in theirs.named_parameters():
            spread = (value[0].numel() if value.ndim > 1 else 25) ** -0.5
            value.copy_(torch.randn_like(value) * spread + (value.ndim == 1 and key.endswith('weight')))
    ours.load_state_dict(with_model_names(ours.backbone, theirs.state_dict()))
    image = torch.randn(1, 3, 160, 224, dtype=torch.float64)
    for a, b in zip(predictions(ours, image), predictions(theirs, image), strict=True):
        assert (a - b).norm() < 1e-8 * b.norm()


@torch.no_grad()
def predictions(model: torch.nn.Module, image: Tensor) -> list[Tensor]:
    """Logits of a segmentor, (1, classes, H, W); classes, boxes and masks of a detector's proposals."""
    meta = dict(img_shape=image.shape[2:], ori_shape=image.shape[2:], pad_shape=image.shape[2:], scale_factor=(1, 1))
    if hasattr(model, 'decode_head'):
        return [model.encode_decode(image, [meta])]
    (outputs,) = model(image, [DetDataSample(metainfo=meta)])
    return list(outputs)
