"""Every published config: it fits together, and the small ones take a training step and predict."""

import copy
import functools
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from hybrid_backbones import create_backbone, list_backbones
from hybrid_backbones._meta import meta_device
from hybrid_backbones.backbones import TimmPlainPyramid, TimmPyramid
from hybrid_backbones.backbones._plain import PlainBackbone
from hybrid_backbones.backbones.factory import find_backbone
from hybrid_backbones.datasets.checks import check_data
from hybrid_backbones.engine.config import load_config
from hybrid_backbones.engine.model_checks import check_channels
from hybrid_backbones.engine.starting_weights import recommended_weights

FOLDER = Path(__file__).parents[1] / 'configs'
# Pretrained on ImageNet-22k at larger images: UperNet crops 640 pixels, as ConvNeXt-L.
LARGE = {'conv2former_l', 'hornet_l', 'hornet_l_gf', 'moat_2', 'moat_3', 'moat_4', 'replknet_31l', 'replknet_xl'}
# Authors whose batches on ADE20K are eight times larger.
LARGE_BATCH = {'replknet_31b', 'replknet_31l', 'replknet_xl'}
# timm's networks that have configs; its others are put into any config (docs/swapping.md).
OF_TIMM = re.compile(r'timm_((convnext|swin)_[tsb]|maxvit_t|resnet_50|(tf_)?efficientnet_\w+)')
# The first is an option of its family's configs.
WITHOUT_CONFIG = {'conv2former_b_k7'} | {
    name
    for name in list_backbones()
    if issubclass(find_backbone(name)[0], TimmPlainPyramid | TimmPyramid) and not OF_TIMM.fullmatch(name)
}
# Runs of minutes, of no recipe.
SHORT = ('overfit', 'proxy')
CONFIGS = sorted(path.stem for pattern in ('*_coco.py', '*_ade20k.py') for path in FOLDER.glob(pattern))


def load(name: str) -> Config:
    return copy.deepcopy(_read(name))


@functools.cache
def _read(name: str) -> Config:
    return Config.fromfile(FOLDER / f'{name}.py')


def build(cfg: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return revert_sync_batchnorm(MODELS.build(cfg.model))


def backbone_of(name: str) -> str:
    """`cvt_13` of `maskrcnn_cvt_13_coco`, `deit_s` of `maskrcnn_deit_s_window_coco`."""
    framework = r'(?:overfit_|proxy_)?(?:cascade_)?(?:maskrcnn|upernet)'
    return re.fullmatch(framework + r'_(.+?)(?:_window)?_(?:coco|ade20k)', name)[1]


def test_all_are_there():
    expected = {f'maskrcnn_conv2former_{size}_coco' for size in 'ntsbl'}
    expected |= {f'cascade_maskrcnn_conv2former_{size}_coco' for size in 'tsbl'}
    expected |= {f'upernet_conv2former_{size}_ade20k' for size in 'ntsbl'}
    for run in SHORT:
        expected |= {f'{run}_maskrcnn_conv2former_n_coco', f'{run}_upernet_conv2former_n_ade20k'}
    for backbone in ('cvt_13', 'cvt_21', 'coatnet_0', 'coatnet_1', 'botnet_50'):
        expected |= {f'maskrcnn_{backbone}_coco', f'cascade_maskrcnn_{backbone}_coco', f'upernet_{backbone}_ade20k'}
    for size in ('t', 's', 'b', 'l', 't_gf', 's_gf', 'b_gf', 'l_gf'):
        expected |= {f'cascade_maskrcnn_hornet_{size}_coco', f'upernet_hornet_{size}_ade20k'}
    for size in ('31b', '31l', 'xl'):
        expected |= {f'cascade_maskrcnn_replknet_{size}_coco', f'upernet_replknet_{size}_ade20k'}
    expected |= {f'upernet_slak_{size}_ade20k' for size in 'tsb'} | {'cascade_maskrcnn_slak_t_coco'}
    expected |= {f'maskrcnn_{backbone}_coco' for backbone in ('hornet_t', 'replknet_31b', 'slak_t')}
    for backbone in ('deit_s', 'deit_b', 'convit_s', 'ceit_s', 'vitc_4gf'):
        for windows in ('', '_window'):
            expected |= {f'{detector}_{backbone}{windows}_coco' for detector in ('maskrcnn', 'cascade_maskrcnn')}
        expected |= {f'upernet_{backbone}_ade20k'}
    for network in ('convnext_t', 'swin_t', 'resnet_50', 'efficientnet_lite0', 'tf_efficientnet_lite0'):
        expected |= {f'maskrcnn_timm_{network}_coco', f'upernet_timm_{network}_ade20k'}
    expected |= {f'cascade_maskrcnn_timm_{backbone}_coco' for backbone in ('convnext_t', 'swin_t')}
    assert set(CONFIGS) >= expected
    # Nor is any family or variant without one.
    assert {backbone_of(name) for name in CONFIGS} >= set(list_backbones()) - WITHOUT_CONFIG


@pytest.mark.parametrize('name', CONFIGS)
def test_builds_and_fits_together(name):
    cfg = load(name)
    with meta_device():
        model = build(cfg)
    check_channels(model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert sum(len(group['params']) for group in optimizer.param_groups) == len(list(model.parameters()))
    rates = {group['lr'] for group in optimizer.param_groups}
    assert max(rates) == pytest.approx(cfg.optim_wrapper.optimizer.lr)
    decays = cfg.optim_wrapper.get('paramwise_cfg', {}).get('decay_rate', 1.0) < 1
    assert len(rates) > 4 if decays else len(rates) == 1


@pytest.mark.parametrize('name', [name for name in CONFIGS if not name.startswith(SHORT)])
def test_recipe(name):
    cfg = load(name)
    assert cfg.find_unused_parameters is False
    assert cfg.custom_imports.imports == ['hybrid_backbones']
    backbone = backbone_of(name)
    init_cfg = cfg.model.backbone.pop('init_cfg', None)
    recommended = recommended_weights(backbone)
    assert cfg.get('checkpoint') == recommended
    assert init_cfg == (dict(type='Pretrained', checkpoint=recommended) if recommended else None)
    assert recommended or not cfg.model.backbone.get('norm_eval'), 'statistics that no weights have set'
    # HorNet's recipes have filters of two sizes.
    options = {key: value for key, value in cfg.model.backbone.items() if key == 'filter_image_size'}
    with meta_device():
        ours, named = MODELS.build(cfg.model.backbone), create_backbone(backbone, **options)
    shapes = [
        # What plain networks' two kinds of pyramid add differs.
        {
            key: value.shape
            for key, value in network.state_dict().items()
            if not key.startswith(network.dense_only_prefixes)
        }
        for network in (ours, named)
    ]
    assert shapes[0] == shapes[1]
    if 'window' in name:
        assert cfg.model.backbone.window_size == 14
    elif isinstance(ours, PlainBackbone):
        assert not cfg.model.backbone.get('window_size')
        assert cfg.model.backbone.get('pyramid', 'simple') == ('simple' if name.endswith('coco') else 'multi_depth')
    large = backbone in LARGE
    if name.endswith('coco'):
        assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].end == 36
        assert cfg.model.data_preprocessor.pad_size_divisor == 32
    else:
        iterations = 40000 if backbone in LARGE_BATCH else 160000
        assert cfg.train_cfg.max_iters == cfg.param_scheduler[1].end == iterations
        crop = (640, 640) if large else (512, 512)
        crops = [transform for transform in cfg.train_dataloader.dataset.pipeline if transform.type == 'RandomCrop']
        assert crops[0].crop_size == cfg.model.test_cfg.crop_size == cfg.model.data_preprocessor.size == crop
        resizes = [transform for transform in cfg.test_dataloader.dataset.pipeline if transform.type == 'Resize']
        assert resizes[0].scale == (4 * crop[0], crop[0])
    if name.startswith('cascade'):
        if backbone.startswith('conv2former'):
            assert cfg.model.backbone.drop_path_rate == dict(t=0.2, s=0.6, b=0.9, l=0.7)[backbone[-1]]
        for head in cfg.model.roi_head.bbox_head:
            assert (head.num_shared_convs, head.num_shared_fcs, head.norm_cfg.type) == (4, 1, 'SyncBN')
            assert head.reg_decoded_bbox and head.loss_bbox == dict(type='GIoULoss', loss_weight=10.0)


@pytest.mark.parametrize('name', [name for name in CONFIGS if name.startswith('proxy')])
def test_proxies_train_on_one_split_and_score_the_other(name):
    cfg = load(name)
    train, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    assert cfg.test_dataloader == cfg.val_dataloader
    assert cfg.test_evaluator == cfg.val_evaluator
    assert train.data_prefix != val.data_prefix
    if name.endswith('coco'):
        assert (train.ann_file, val.ann_file) == tuple(f'annotations/instances_{s}2017.json' for s in ('train', 'val'))
        assert cfg.val_evaluator.ann_file.endswith(val.ann_file)
    assert train.get('indices') is val.get('indices') is None
    # Everything is seen through the schedule: the last rate is that of the last iteration.
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters
    # A BatchNorm that learns, whatever is put in the place of this backbone and wherever its weights come from.
    assert not cfg.model.backbone.get('norm_eval')


def detection_batch() -> dict:
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(2, [[3, 96, 70], [3, 64, 96]], num_items=[3, 0], num_classes=80, with_mask=True)


def segmentation_batch() -> dict:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = []
    for _ in range(2):
        sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 150, (1, 64, 64))))
        sample.set_metainfo(dict(img_shape=(64, 64), ori_shape=(64, 64)))
        samples.append(sample)
    return dict(inputs=[torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in samples], data_samples=samples)


def with_few_regions(cfg: Config) -> None:
    """Regions cost a CPU far more than images of this size."""
    stages = cfg.model.train_cfg.rcnn
    for stage in stages if isinstance(stages, list) else [stages]:
        stage.sampler.num = 32
    cfg.model.train_cfg.rpn_proposal.max_per_img = cfg.model.test_cfg.rpn.max_per_img = 50


@pytest.mark.parametrize(
    'name',
    [
        'maskrcnn_conv2former_n_coco',
        'cascade_maskrcnn_conv2former_t_coco',
        'upernet_conv2former_n_ade20k',
        'maskrcnn_cvt_13_coco',
        'upernet_coatnet_0_ade20k',
        'cascade_maskrcnn_botnet_50_coco',
        'upernet_botnet_s1_50_ade20k',
        'maskrcnn_deit_s_window_coco',
        'upernet_convit_t_ade20k',
        'maskrcnn_vitc_4gf_coco',
        'upernet_ceit_t_ade20k',
        'maskrcnn_timm_swin_t_coco',
        'upernet_timm_efficientnet_lite0_ade20k',
    ],
)
def test_trains_and_predicts(name):
    cfg = load(name)
    if name.startswith('upernet'):
        cfg.model.data_preprocessor.size = (64, 64)
        cfg.model.test_cfg.update(crop_size=(64, 64), stride=(43, 43))
    else:
        with_few_regions(cfg)
    model = build(cfg)
    model.train()
    batch = segmentation_batch() if name.startswith('upernet') else detection_batch()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {key: param.detach().clone() for key, param in model.named_parameters()}
    # BoTNet's blocks start silent, and learn all their layers from the second step on.
    for _ in range(2 if 'botnet' in name else 1):
        losses = model.train_step(batch, optim_wrapper)
    assert all(value.isfinite().all() for value in losses.values())
    moved = [key for key, param in model.named_parameters() if not torch.equal(param, before[key])]
    # Dropped branches and cancelled biases apart, that moves everything.
    assert len(moved) > 0.8 * len(before)

    model.eval()
    with torch.no_grad():
        results = model.test_step(batch)
    assert len(results) == 2
    if name.startswith('upernet'):
        assert results[0].pred_sem_seg.data.shape == (1, 64, 64)
    else:
        prediction = results[0].pred_instances
        assert prediction.bboxes.shape[1] == 4
        assert tuple(prediction.masks.shape[1:]) == tuple(results[0].ori_shape[:2])


@pytest.mark.parametrize(
    ('name', 'data'),
    [('proxy_maskrcnn_conv2former_n_pennfudan', 'pennfudan'), ('proxy_upernet_conv2former_n_camvid', 'camvid')],
)
def test_short_configs_of_other_data(name, data, real_images):
    cfg = load_config(FOLDER / f'{name}.py', data_root=str(real_images(data)))
    check_channels(build(cfg))
    assert not check_data(cfg).findings
    assert 'reduce_zero_label' not in str(cfg.get('tta_pipeline'))
