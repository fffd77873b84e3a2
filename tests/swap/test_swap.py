"""Every family in every framework: what swap_backbone gives is built, takes a training step and predicts."""

import copy
import functools

import pytest
import torch
from backbones.test_contract import tiny
from families import ONE_OF_EACH
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from test_configs import segmentation_batch
from torch import nn

from hybrid_backbones.datasets.roots import walk
from hybrid_backbones.engine.config import read_config
from hybrid_backbones.swap import swap_backbone

# The table of docs/swapping.md.
FRAMEWORKS = {
    'Faster R-CNN': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'Mask R-CNN': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'Cascade Mask R-CNN': 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'RetinaNet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'FCOS': 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'ATSS': 'mmdet::atss/atss_r50_fpn_1x_coco.py',
    'RTMDet': 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'SOLOv2': 'mmdet::solov2/solov2_r50_fpn_1x_coco.py',
    'Deformable DETR': 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'DINO': 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'Mask2Former (instances)': 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'ATSS with DyHead': 'mmdet::dyhead/atss_r50_fpn_dyhead_1x_coco.py',
    'Faster R-CNN with CARAFE': 'mmdet::carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py',
    'CondInst': 'mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
    'UperNet': 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
    'FPN': 'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py',
    'FCN': 'mmseg::fcn/fcn_r50-d8_4xb4-160k_ade20k-512x512.py',
    'PSPNet': 'mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py',
    'DeepLabV3+': 'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512.py',
    'SegFormer head': 'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    'FastFCN (JPU)': 'mmseg::fastfcn/fastfcn_r50-d32_jpu_psp_4xb4-80k_ade20k-512x512.py',
    'Mask2Former (semantic)': 'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
}
WITH_MASKS = {'CondInst', 'Mask R-CNN', 'Cascade Mask R-CNN', 'SOLOv2', 'Mask2Former (instances)'}


@functools.cache
def read(path: str) -> Config:
    return read_config(path, import_custom_modules=False)


def swapped(framework: str, name: str, **options) -> Config:
    return swap_backbone(read(FRAMEWORKS[framework]), name, **options)


def _shrink_part(part: dict) -> None:
    for key in ('num_layers', 'stacked_convs', 'num_convs'):
        # CondInst's mask head has as many convolutions as its `num_params` say.
        if isinstance(part.get(key), int) and part[key] > 1 and 'mask_feature_head' not in part:
            part[key] = 1
    for key in ('num_queries', 'num_dn_queries', 'max_per_img', 'max_per_image'):
        if key in part:
            part[key] = 20
    if part.get('num_points', 0) > 1000:
        part['num_points'] = 64
    if part.get('type') == 'RandomSampler':
        part['num'] = 32
    if part.get('type') == 'BatchFixedSizePad':
        part['size'] = (128, 128)
    if 'num_grids' in part:
        part['num_grids'] = [10, 8, 6, 4, 2]


def shrink(cfg: Config) -> Config:
    """Fewer layers, queries, regions and pixels behind the backbone, so that a step takes little of a CPU."""
    backbone = cfg.model.pop('backbone')
    walk(cfg.model, _shrink_part)
    cfg.model.backbone = backbone
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = (64, 64)
    return cfg


def batch_for(framework: str, cfg: Config) -> dict:
    if cfg.default_scope == 'mmseg':
        return segmentation_batch()
    from mmdet.testing import demo_mm_inputs

    sizes, masks = [[3, 96, 128], [3, 64, 96]], framework in WITH_MASKS
    return demo_mm_inputs(2, sizes, num_items=[3, 1], num_classes=80, with_mask=masks)


def build(cfg: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg.model)))
        model.init_weights()  # the DETRs leave parameters unset before
    return model


def train_once(model: nn.Module, cfg: Config, batch: dict) -> None:
    """Finite losses, of which every parameter of the backbone gets a gradient, and a step of the optimizer."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        data = model.train().data_preprocessor(copy.deepcopy(batch), True)
        total, losses = model.parse_losses(model(**data, mode='loss'))
    assert total > 0
    assert all(value.isfinite().all() for value in losses.values())
    total.backward()
    backbone = dict(model.backbone.named_parameters())
    assert not [name for name, parameter in backbone.items() if parameter.grad is None]
    assert all(parameter.grad.isfinite().all() for parameter in backbone.values())
    positions = {model.backbone.layer_position(name) for name, parameter in backbone.items() if parameter.grad.any()}
    assert {stage for stage, _ in positions} >= {-1, *range(model.backbone.num_stages)}
    before = {name: parameter.detach().clone() for name, parameter in backbone.items()}
    optim_wrapper.step()
    assert any(not torch.equal(parameter, before[name]) for name, parameter in backbone.items())


def check_predictions(framework: str, model: nn.Module, cfg: Config, batch: dict) -> None:
    with torch.no_grad(), DefaultScope.overwrite_default_scope(cfg.default_scope):
        results = model.eval().test_step(batch)
    assert len(results) == 2
    for result in results:
        size = tuple(result.ori_shape[:2])
        if cfg.default_scope == 'mmseg':
            assert result.pred_sem_seg.data.shape == (1, *size)
            continue
        instances = result.pred_instances
        assert instances.bboxes.shape == (len(instances), 4)
        assert instances.scores.isfinite().all()
        assert instances.labels.lt(80).all()
        if framework in WITH_MASKS:
            assert tuple(instances.masks.shape) == (len(instances), *size)


def check(framework: str, name: str, **options) -> None:
    cfg = shrink(swapped(framework, name, **options))
    model, batch = build(cfg), batch_for(framework, cfg)
    train_once(model, cfg, batch)
    check_predictions(framework, model, cfg, batch)


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_every_framework(framework):
    check(framework, 'conv2former_n', **tiny('conv2former_n'))


# A head on a dilated C5 alone; one that reads a neck's own map beside those that it hands on.
SPECIAL = [
    pytest.param('mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py', marks=pytest.mark.slow),
    'mmseg::fastfcn/fastfcn_r50-d32_jpu_enc_4xb4-160k_ade20k-512x512.py',
]


@pytest.mark.parametrize('path', SPECIAL)
def test_heads_that_read_other_maps(path):
    cfg = shrink(swap_backbone(read(path), 'conv2former_n', **tiny('conv2former_n')))
    model, batch = build(cfg), batch_for('', cfg)
    train_once(model, cfg, batch)
    check_predictions('', model, cfg, batch)


@pytest.mark.parametrize('framework', ['Mask R-CNN', 'UperNet'])
@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_every_family(name, framework):
    check(framework, name, **tiny(name))


@pytest.mark.slow
@pytest.mark.parametrize('framework', FRAMEWORKS)
@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_every_family_in_every_framework(name, framework):
    check(framework, name)


# Of timm's plain ViTs, one of every kind of patch, positions and attention.
PLAIN = (
    'timm_deit3_s',
    'timm_dinov2_s',
    'timm_dinov2_reg_s',
    'timm_dinov3_s',
    'timm_dinov3_s_plus',
    'timm_eva02_t',
    'timm_eva02_b',
    'timm_beit_b',
    'timm_beitv2_b',
    'timm_siglip2_b',
    'timm_mae_b',
    'timm_sam_b',
    'timm_cradio_v3_b',
)


@pytest.mark.slow
@pytest.mark.parametrize('framework', ['Mask R-CNN', 'UperNet'])
@pytest.mark.parametrize('name', PLAIN)
def test_every_plain_vit(name, framework):
    check(framework, name)


@pytest.mark.slow
@pytest.mark.parametrize('framework', FRAMEWORKS)
@pytest.mark.parametrize('name', ['timm_dinov2_s', 'timm_dinov3_s', 'timm_beit_b'])
def test_plain_vits_in_every_framework(name, framework):
    check(framework, name)
