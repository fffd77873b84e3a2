"""What swap_backbone changes of a config, what it writes, and what it refuses."""

import functools
import re

import pytest
import torch
from mmengine.config import Config
from swap.test_swap import FRAMEWORKS, read, swapped
from test_configs import CONFIGS, FOLDER, backbone_of

from hybrid_backbones import create_backbone
from hybrid_backbones.backbones import PyramidBackbone
from hybrid_backbones.engine.layer_decay import LayerDecayOptimWrapperConstructor
from hybrid_backbones.swap import swap_backbone, write_swapped
from hybrid_backbones.swap.override import difference, to_code, without_scope
from hybrid_backbones.swap.recipe import layer_decay

DOCS = FOLDER.parent / 'docs' / 'swapping.md'


def test_neck_gets_the_maps_of_equal_stride_and_no_others():
    model = swapped('RetinaNet', 'cvt_13').model
    assert model.backbone == dict(type='CvT', arch='13', out_indices=(1, 2, 3))
    assert (model.neck.in_channels, model.neck.start_level, model.neck.num_outs) == ([192, 384, 384], 0, 5)
    assert model.bbox_head == read(FRAMEWORKS['RetinaNet']).model.bbox_head
    model = swapped('RTMDet', 'cvt_13').model
    assert (model.backbone.out_indices, model.neck.in_channels) == ((1, 2, 3), [192, 384, 384])
    model = swapped('DINO', 'cvt_13').model
    assert (model.backbone.out_indices, model.neck.in_channels) == ((1, 2, 3), [192, 384, 384])
    assert 'out_indices' not in swapped('Mask R-CNN', 'cvt_13').model.backbone


def test_heads_of_a_dilated_network_get_the_stages_in_its_places(capsys):
    model = swapped('DeepLabV3+', 'cvt_13').model
    head, auxiliary = model.decode_head, model.auxiliary_head
    assert model.backbone.out_indices == (0, 2, 3)
    assert (head.c1_in_channels, head.in_index, head.in_channels) == (64, 2, 384)
    assert (auxiliary.in_index, auxiliary.in_channels) == (1, 384)
    assert 'maps of strides (4, 16, 32) take the places of (4, 8, 8), stage by stage' in capsys.readouterr().out
    model = swapped('PSPNet', 'conv2former_n').model
    assert model.backbone.out_indices == (2, 3)
    assert (model.decode_head.in_index, model.decode_head.in_channels) == (1, 512)
    assert (model.auxiliary_head.in_index, model.auxiliary_head.in_channels) == (0, 256)


def test_heads_that_know_strides_learn_others(capsys):
    assert swapped('Mask2Former (semantic)', 'botnet_s1_50').model.decode_head.strides == [4, 8, 16, 16]
    assert 'strides (4, 8, 16, 16) take the places of (4, 8, 16, 32)' in capsys.readouterr().out


def test_necks_of_several_kinds(capsys):
    model = swap_backbone('mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py', 'cvt_13').model
    assert model.neck.in_channels == [384, 384, 192]  # from coarse to fine
    model = swap_backbone('mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py', 'cvt_13').model
    assert (model.neck.in_channels, model.backbone.out_indices) == (384, (3,))
    # One map of stride 16, of a plain network as it is.
    model = swap_backbone(
        'mmseg::segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py', 'deit_t', pyramid=None
    ).model
    assert model.backbone == dict(type='ViT', arch='tiny', pyramid=None) and model.decode_head.in_channels == 192
    segmenter = 'mmseg::segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py'
    backbone = swap_backbone(segmenter, 'deit_t', pyramid=None, blocks=(5, 11)).model.backbone
    assert backbone == dict(type='ViT', arch='tiny', pyramid=None, blocks=(5,))
    # Of a package that is not installed here, and of a plain network that runs at one image size only.
    cfg = swap_backbone('mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py', 'cvt_13')
    assert cfg.model.neck.in_channels == [64, 192, 384, 384]
    assert cfg.custom_imports.imports == ['hybrid_backbones']
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    model = swap_backbone('mmseg::beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py', 'cvt_13').model
    assert model.neck is None and model.decode_head.in_channels == [64, 192, 384, 384]
    assert 'strides (4, 8, 16, 32) assumed' in capsys.readouterr().out


def test_a_config_given_as_such_is_not_changed():
    before = without_scope(read(FRAMEWORKS['PSPNet']).to_dict())
    swapped('PSPNet', 'moat_2')
    assert without_scope(read(FRAMEWORKS['PSPNet']).to_dict()) == before


def test_what_belonged_to_the_old_backbone_is_dropped(capsys):
    cfg = Config(read(FRAMEWORKS['PSPNet']).to_dict())
    cfg.load_from = 'whole_segmentor.pth'
    cfg = swap_backbone(cfg, 'hornet_t', drop_path_rate=0.2)
    assert cfg.model.pretrained is None and cfg.load_from is None
    assert cfg.model.backbone == dict(type='HorNet', arch='tiny', drop_path_rate=0.2, out_indices=(2, 3))
    printed = capsys.readouterr().out
    assert 'load_from: whole_segmentor.pth' in printed and 'open-mmlab://resnet50_v1c' in printed
    cfg = swapped('SegFormer head', 'hornet_t')
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys.keys() == {'norm', 'head'}
    assert "old backbone's pos_block dropped" in capsys.readouterr().out


@functools.cache
def on_meta(name: str) -> PyramidBackbone:
    with torch.device('meta'):
        return create_backbone(name)


def test_backbones_know_their_images_as_our_configs_do():
    for name in CONFIGS:
        network = on_meta(backbone_of(name))
        text = (FOLDER / f'{name}.py').read_text()
        if base := re.match(r"_base_ = './(.*)'", text):
            text += (FOLDER / base[1]).read_text()
        unit_range = 'mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]' in text
        assert (network.image_mean == network.image_std == (127.5,) * 3) == unit_range, name


def test_images_are_normalised_for_the_new_backbone():
    def normalisation(cfg):
        preprocessor = cfg.model.data_preprocessor
        return preprocessor.mean, preprocessor.std, preprocessor.bgr_to_rgb

    imagenet = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], True)
    assert normalisation(read(FRAMEWORKS['FCOS'])) != imagenet
    assert normalisation(swapped('FCOS', 'cvt_13')) == normalisation(swapped('RTMDet', 'moat_0')) == imagenet
    assert normalisation(swapped('UperNet', 'moat_2')) == ([127.5] * 3, [127.5] * 3, True)


def test_optimizer_of_sgd_configs():
    wrapper = swapped('FCOS', 'conv2former_n').optim_wrapper
    assert (wrapper.optimizer.type, wrapper.optimizer.lr, wrapper.optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    assert wrapper.constructor == LayerDecayOptimWrapperConstructor.__name__
    assert wrapper.paramwise_cfg == dict(decay_type='layer_wise', decay_rate=0.95, num_layers=6)
    assert wrapper.clip_grad.max_norm == 35
    cfg = swapped('UperNet', 'conv2former_s')
    assert cfg.optim_wrapper.paramwise_cfg == dict(decay_type='stage_wise', decay_rate=0.9, num_layers=12)
    # SGD's schedule ends at 1e-4, where AdamW's begins.
    assert cfg.param_scheduler[0].eta_min == pytest.approx(1e-6)


def test_layer_decay_is_that_of_our_configs():
    # Isotropic Conv2Former's blocks are 18 layers, and the recipes of HorNet and of timm's networks are their authors'.
    others = ('conv2former_i', 'hornet', 'timm_')
    for name in CONFIGS:
        backbone = backbone_of(name)
        given = re.search(r'paramwise_cfg=(dict\(.*?\))', (FOLDER / f'{name}.py').read_text())
        # A rate of 1 is the recipe of authors who use none.
        decays = given and eval(given[1])['decay_rate'] < 1
        if decays and name.startswith(('maskrcnn', 'upernet')) and not backbone.startswith(others):
            assert layer_decay(on_meta(backbone), name.startswith('upernet')) == eval(given[1]), name


def test_optimizer_of_adamw_configs():
    for framework in ('DINO', 'Deformable DETR', 'Mask2Former (instances)'):
        assert swapped(framework, 'deit_t').optim_wrapper == read(FRAMEWORKS[framework]).optim_wrapper
    wrapper = swapped('RTMDet', 'deit_t').optim_wrapper
    assert wrapper.optimizer == read(FRAMEWORKS['RTMDet']).optim_wrapper.optimizer
    assert wrapper.paramwise_cfg == dict(decay_type='layer_wise', decay_rate=0.7, num_layers=12)


def test_batch_norm(tmp_path, capsys):
    checkpoint = tmp_path / 'cvt.pth'
    checkpoint.touch()
    cfg = swapped('RetinaNet', 'cvt_13', checkpoint=checkpoint)  # whose own backbone keeps its statistics
    assert cfg.model.backbone.norm_eval and 'sync_bn' not in cfg
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint=str(checkpoint))
    assert 'norm_eval' not in swapped('RetinaNet', 'cvt_13').model.backbone  # random weights have no statistics
    assert swapped('RetinaNet', 'cvt_13').sync_bn == swapped('UperNet', 'cvt_13').sync_bn == 'torch'
    assert 'sync_bn' not in swapped('UperNet', 'cvt_13', norm_eval=True)
    assert 'sync_bn' not in swapped('UperNet', 'deit_t')


@pytest.mark.parametrize('framework', ['RetinaNet', 'PSPNet', 'SegFormer head', 'Mask2Former (semantic)'])
def test_written_file_is_the_same_config(tmp_path, framework):
    out = tmp_path / 'out.py'
    write_swapped(FRAMEWORKS[framework], out, 'moat_2', drop_path_rate=0.2)
    expected = swapped(framework, 'moat_2', drop_path_rate=0.2)
    assert without_scope(Config.fromfile(out).to_dict()) == without_scope(expected.to_dict())
    text = out.read_text()
    assert f'_base_ = {FRAMEWORKS[framework]!r}' in text
    assert len(text.splitlines()) < 40
    assert max(map(len, text.splitlines())) <= 120


def test_written_file_inherits_by_a_relative_path(tmp_path):
    source = tmp_path / 'configs' / 'source.py'
    source.parent.mkdir()
    source.write_text(f'_base_ = {FRAMEWORKS["Mask R-CNN"]!r}\nmodel = dict(backbone=dict(init_cfg=None))\n')
    out = tmp_path / 'others' / 'out.py'
    out.parent.mkdir()
    write_swapped(source, out, 'cvt_13')
    assert "_base_ = '../configs/source.py'" in out.read_text()
    expected = swap_backbone(source, 'cvt_13')
    assert without_scope(Config.fromfile(out).to_dict()) == without_scope(expected.to_dict())


def test_difference_and_code_of_nested_values(tmp_path):
    old = dict(a=1, b=dict(x=1, y=2), c=dict(d=dict(e=1), f=2), g=[1], h=None, i=3)
    new = dict(a=1, b=dict(x=1), c=dict(d=dict(e=2), f=2, n=(1,)), g=dict(t='x'), h=dict(z={'a.b': 1}), i=None, k='v')
    changes = difference(old, new)
    assert changes['c'] == dict(d=dict(e=2), n=(1,)) and 'a' not in changes
    (tmp_path / 'old.py').write_text('\n'.join(f'{key} = {to_code(value)}' for key, value in old.items()))
    lines = [f'{key} = {to_code(value)}' for key, value in changes.items()]
    (tmp_path / 'new.py').write_text('\n'.join(["_base_ = 'old.py'", *lines]))
    assert Config.fromfile(tmp_path / 'new.py').to_dict() == new


def test_a_head_on_the_only_map_and_its_roi_extractor():
    model = swap_backbone('mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py', 'conv2former_n').model
    head, extractor = model.roi_head.bbox_head, model.roi_head.bbox_roi_extractor
    assert model.backbone.out_indices == (2,)
    assert model.rpn_head.in_channels == head.in_channels == extractor.out_channels == 256
    assert extractor.featmap_strides == model.rpn_head.anchor_generator.strides == [16]


def test_a_head_on_maps_of_a_neck_and_of_the_backbone():
    path = 'mmseg::fastfcn/fastfcn_r50-d32_jpu_enc_4xb2-80k_cityscapes-512x1024.py'
    model = swap_backbone(path, 'conv2former_n').model
    assert (model.neck.in_channels, model.auxiliary_head.in_channels) == ((128, 256, 512), 256)
    assert (model.decode_head.in_channels, model.decode_head.in_index) == ([128, 256, 2048], (0, 1, 2))


def test_misspelt_backbone():
    with pytest.raises(ValueError, match=r"unknown backbone 'CoAtNet0'.*Did you mean coatnet_0"):
        swapped('UperNet', 'CoAtNet0')


def test_options():
    with pytest.raises(ValueError, match=r'ViT takes no option window here; it takes .*window_size'):
        swapped('UperNet', 'deit_t', window=14)
    with pytest.raises(ValueError, match='takes no option out_indices here'):
        swapped('UperNet', 'deit_t', out_indices=(0, 1))
    with pytest.raises(FileNotFoundError, match=r'no checkpoint absent\.pth for deit_t'):
        swapped('UperNet', 'deit_t', checkpoint='absent.pth')
    cfg = swapped('UperNet', 'deit_t', checkpoint='hybrid://deit_t_in1k')
    assert cfg.model.backbone.init_cfg.checkpoint == 'hybrid://deit_t_in1k'
    with pytest.raises(FileNotFoundError, match=r'no config absent\.py'):
        swap_backbone('absent.py', 'deit_t')


REFUSED = {
    'mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py': r'model\.roi_head\.shared_head \(ResLayer\) reads',
    'mmdet::ssd/ssd300_coco.py': r'model\.neck \(SSDNeck\) reads internals',
    'mmdet::rtmdet/rtmdet_l_swin_b_p6_4xb16-100e_coco.py': r'model\.neck \(CSPNeXtPAFPN\) reads a map of stride 64',
    'mmdet::grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py': r'model\.language_model \(BertModel\)',
    'mmdet::detectors/detectors_cascade-rcnn_r50_1x_coco.py': r'model\.neck \(RFP\) reads internals',
    'mmseg::dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py': r'model\.decode_head \(DPTHead\).*class tokens',
    'mmseg::san/san-vit-b16_coco-stuff164k-640x640.py': r'model\.text_encoder \(CLIPTextEncoder\) is the text encoder',
    'mmseg::unet/unet-s5-d16_fcn_4xb4-40k_chase-db1-128x128.py': r'model\.decode_head \(FCNHead\).*\(16, 8, 4, 2, 1\)',
}


@pytest.mark.parametrize('path', REFUSED)
def test_configs_that_cannot_be_swapped_say_which_part(path):
    with pytest.raises(ValueError, match=rf'cvt_13 cannot be put into {path}: .*{REFUSED[path]}'):
        swap_backbone(path, 'cvt_13')


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(default_scope='mmdet3d', model=dict(type='VoxelNet')), "default_scope='mmdet3d': a 3-D config"),
        (dict(default_scope='mmpretrain', model=dict(backbone=dict(type='ViT'))), "default_scope='mmpretrain'"),
        (dict(default_scope='mmdet', model=dict(type='X', img_backbone=dict(type='Y'))), r'model\.img_backbone \(Y\)'),
        (dict(default_scope='mmdet', model=dict(type='X', head=dict())), 'no part called backbone, but head, type'),
        (dict(default_scope='mmdet'), 'it has no model'),
    ],
)
def test_configs_of_another_kind(cfg, message):
    with pytest.raises(ValueError, match=f'cvt_13 cannot be put into this config: .*{message}'):
        swap_backbone(Config(cfg), 'cvt_13')


def test_backbones_without_the_maps_that_are_read():
    with pytest.raises(ValueError, match=r'model\.neck \(FPN\) reads a map of stride 32; BoTNet.*\(4, 8, 16, 16\)'):
        swapped('Faster R-CNN', 'botnet_s1_50')
    with pytest.raises(ValueError, match=r'model\.neck \(FPN\) reads a map of stride 8; ViT .*has strides \(16,\)'):
        swapped('RetinaNet', 'deit_t', pyramid=None)


def test_docs_list_every_framework():
    cells = [line.split(' | ') for line in DOCS.read_text().splitlines() if '| `mm' in line]
    assert [row[0].removeprefix('| ') for row in cells] == list(FRAMEWORKS)
