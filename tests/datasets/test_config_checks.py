"""Configs against their data: class names, heads, strides, evaluators, normalisation, wrappers."""

import json

import pytest
from datasets.tiny_data import CLASSES, coco_config, segmentation_config, write_coco, write_label_maps
from mmengine.config import Config

from hybrid_backbones.datasets.checks import DataError, check_data
from hybrid_backbones.datasets.checks.geometry import check_geometry
from hybrid_backbones.datasets.checks.heads import check_heads
from hybrid_backbones.datasets.checks.view import DataView

TRAIN, VAL = 'train_dataloader.dataset', 'val_dataloader.dataset'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp('coco'))


ERRORS = {
    'text for a tuple': ({f'{TRAIN}.metainfo.classes': 'square'}, "label 0 is named 's'.*'square',\\)"),
    'a name twice': ({f'{TRAIN}.metainfo.classes': ('square', 'disc', 'square')}, 'classes-double'),
    'short palette': ({f'{TRAIN}.metainfo.palette': [(0, 0, 0)]}, 'palette has 1 colours for 3 classes'),
    'other order in validation': ({f'{VAL}.metainfo.classes': CLASSES[::-1]}, 'the same classes in another order'),
    'classes of a head': ({'model.roi_head.bbox_head.num_classes': 2}, r'num_classes=3'),
    'evaluator': ({'val_evaluator.metric': 'bbx'}, "CocoMetric knows no metric 'bbx'.*val_evaluator.metric='bbox'"),
    'masks of a model without them': (
        {'model.roi_head.mask_head': None},
        "segm measures masks, and MaskRCNN has no head for them.*val_evaluator.metric='bbox'",
    ),
    'classes of a head as text': ({'model.roi_head.bbox_head.num_classes': '3'}, "it is '3', but"),
    'numbers for names': ({f'{TRAIN}.metainfo.classes': (1, 2, 3)}, 'classes holds 1, which is no name'),
    'metric item': ({'val_evaluator.metric_items': ['mAp']}, 'CocoMetric knows no item'),
    'best checkpoint': (
        {'default_hooks': dict(checkpoint=dict(type='CheckpointHook', save_best='coco/bbox_map'))},
        "save_best='coco/bbox_mAP'",
    ),
    'mean from 0 to 1': (
        {'model.data_preprocessor': dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])},
        r'mean=\[123.675, 116.28, 103.53\]',
    ),
    'mean from 0 to 1 alone': (
        {'model.data_preprocessor': dict(mean=[0.485, 0.456, 0.406], std=[58.395, 57.12, 57.375])},
        r'std=\[58.395, 57.12, 57.375\] is not',
    ),
    'deviation of 0': ({'model.data_preprocessor': dict(mean=[1.0, 1, 1], std=[0.0, 1, 1])}, 'holds 0'),
    'no such class': ({f'{TRAIN}.type': 'CocoDatset'}, "no dataset class 'CocoDatset' is registered"),
}


@pytest.mark.parametrize('options, message', ERRORS.values(), ids=ERRORS)
def test_mistakes_are_errors(data, options, message):
    with pytest.raises(DataError, match=f'(?s){message}'):
        check_data(coco_config(data, **options))


def test_validation_on_training_images(data):
    options = {f'{VAL}.ann_file': 'train.json', f'{VAL}.data_prefix.img': 'train/'}
    report = check_data(coco_config(data, **options, **{'val_evaluator.ann_file': f'{data}/train.json'}))
    assert [(f.severity, f.code, f.count) for f in report.findings] == [('warning', 'validation-trained-on', 4)]


def test_evaluator_of_another_file(data):
    with pytest.raises(DataError, match=r'evaluator-file.*\n.*\n.*\n.*val_evaluator\.ann_file='):
        check_data(coco_config(data, **{'val_evaluator.ann_file': f'{data}/train.json'}))


def test_the_file_of_an_evaluator_is_checked_as_that_of_its_dataset(data, tmp_path):
    content = json.loads((data / 'val.json').read_text())
    content['categories'][0]['name'] = 'Square'
    content['annotations'][0].pop('iscrowd')
    (tmp_path / 'other.json').write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        check_data(coco_config(data, **{'val_evaluator.ann_file': str(tmp_path / 'other.json')}))
    assert f"[category-missing] {tmp_path}/other.json: categories does not have 'square'" in str(error.value)
    assert f'[iscrowd-missing] {tmp_path}/other.json' in str(error.value)


@pytest.mark.parametrize('mean, turned', [([123.675, 116.28, 103.53], False), ([103.53, 116.28, 123.675], True)])
def test_order_of_colours(data, mean, turned):
    options = dict(mean=mean, std=[58.395, 57.12, 57.375])
    right, wrong = (
        check_data(coco_config(data, **{'model.data_preprocessor': dict(options, bgr_to_rgb=turn)}))
        for turn in (not turned, turned)
    )
    assert right.findings == []
    assert [f.remedy for f in wrong.findings] == [f'bgr_to_rgb={not turned}']


def test_classes_of_the_dataset_class_itself(data):
    cfg = coco_config(data)
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.pop('metainfo')
    with pytest.raises(DataError, match='the config gives no metainfo: these are the classes of CocoDataset itself'):
        check_data(cfg)


def test_a_subset_of_the_categories_passes_with_a_warning(data):
    options = {f'{split}.metainfo': dict(classes=('disc',), palette=[(1, 2, 3)]) for split in (TRAIN, VAL)}
    heads = {f'model.roi_head.{head}.num_classes': 1 for head in ('bbox_head', 'mask_head')}
    report = check_data(coco_config(data, **options, **heads))
    assert [(f.code, f.count, f.total) for f in report.findings if f.severity == 'warning'] == [
        ('category-left-out', 8, 12),
        ('category-left-out', 6, 9),
    ]


@pytest.mark.parametrize('wrapper', ['ConcatDataset', 'RepeatDataset', 'ClassBalancedDataset', 'MultiImageMixDataset'])
def test_wrappers_are_opened(data, tmp_path, wrapper):
    broken = write_coco(tmp_path, lambda c: [r.update(area=0) for r in c['annotations']] and None)
    cfg = coco_config(data)
    inner = dict(cfg.train_dataloader.dataset, data_root=f'{broken}/')
    inside = dict(datasets=[cfg.train_dataloader.dataset, inner]) if wrapper == 'ConcatDataset' else dict(dataset=inner)
    cfg.train_dataloader.dataset = dict(type=wrapper, **inside)
    with pytest.raises(DataError, match='area-zero'):
        check_data(cfg)


LOAD, ANNOTATIONS = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_mask=True)
PACK, FLIP = dict(type='PackDetInputs'), dict(type='RandomFlip', prob=0.5)
PIPELINES = {
    'nothing to learn from': (TRAIN, [LOAD, PACK], r"after LoadImageFromFile: dict\(type='LoadAnnotations', with_bbox"),
    'no masks': (TRAIN, [LOAD, dict(type='LoadAnnotations'), PACK], 'mask_head learns from: with_mask is False'),
    'no boxes': (TRAIN, [LOAD, dict(ANNOTATIONS, with_bbox=False), PACK], 'roi_head learns from: with_bbox is False'),
    'not packed': (TRAIN, [LOAD, ANNOTATIONS], r"no PackDetInputs.*last of the pipeline: dict\(type='PackDetInputs'\)"),
    'validation not packed': (VAL, [LOAD], 'val_dataloader.dataset.pipeline: no PackDetInputs'),
    'flipped': (VAL, [LOAD, FLIP, PACK], 'pipeline-random.*leave RandomFlip out of the pipeline'),
    'a choice of sizes': (
        VAL,
        [LOAD, dict(type='RandomChoiceResize', scales=[(64, 64), (80, 80)]), PACK],
        r"leave RandomChoiceResize out of the pipeline, or dict\(type='Resize', ...\)",
    ),
}


@pytest.mark.parametrize('where, pipeline, message', PIPELINES.values(), ids=PIPELINES)
def test_pipelines(data, where, pipeline, message):
    with pytest.raises(DataError, match=f'(?s){message}'):
        check_data(coco_config(data, **{f'{where}.pipeline': pipeline}))


def test_semantic_heads_need_label_maps(data):
    with pytest.raises(DataError, match='semantic_head learns from: with_seg is False'):
        check_data(coco_config(data, **{'model.roi_head.semantic_head': dict(type='FusedSemanticHead')}))


RESIZE = dict(type='Resize', scale=(32, 32))
CROP = dict(type='RandomCrop', crop_size=(512, 512))


def test_pipelines_of_segmentation(tmp_path):
    write_label_maps(tmp_path)
    pack = dict(type='PackSegInputs')
    labels = dict(type='LoadAnnotations')
    check_data(segmentation_config(tmp_path, **{f'{TRAIN}.pipeline': [LOAD, labels, CROP, pack]}))  # beyond the image
    check_data(segmentation_config(tmp_path, **{f'{VAL}.pipeline': [LOAD, RESIZE, labels, pack]}))
    for pipeline, message in (
        ([LOAD, RESIZE, pack], 'no LoadAnnotations, and IoUMetric compares'),
        ([LOAD, labels, RESIZE, pack], 'loaded before Resize, and IoUMetric compares'),
        ([LOAD, CROP, labels, pack], 'RandomCrop changes the images'),
    ):
        with pytest.raises(DataError, match=message):
            check_data(segmentation_config(tmp_path, **{f'{VAL}.pipeline': pipeline}))


@pytest.mark.parametrize(
    'where, pipeline',
    [
        (VAL, [LOAD, dict(FLIP, prob=0.0), PACK]),
        (VAL, [LOAD, dict(type='RandomCenterCropPad', ratios=None, border=None, test_mode=True), PACK]),
        (VAL, [LOAD, dict(type='TestTimeAug', transforms=[[dict(type='RandomFlip', prob=1.0)], [PACK]])]),
        (VAL, [LOAD, dict(type='RandomResize', scale=(64, 64), keep_ratio=True), PACK]),
        (TRAIN, [LOAD, dict(type='OwnLoader')]),  # which may do all of it
    ],
)
def test_pipelines_that_are_right(data, where, pipeline):
    check_data(coco_config(data, **{f'{where}.pipeline': pipeline}))


def test_pipelines_of_wrappers_are_read_with_those_inside(data):
    cfg = coco_config(data)
    dataset = cfg.train_dataloader.dataset
    dataset.pipeline = [LOAD, ANNOTATIONS]
    cfg.train_dataloader.dataset = dict(type='MultiImageMixDataset', dataset=dataset, pipeline=[FLIP, PACK])
    check_data(cfg)
    cfg.train_dataloader.dataset.pipeline = [FLIP]
    with pytest.raises(DataError, match=r'train_dataloader\.dataset\.dataset\.pipeline: no PackDetInputs'):
        check_data(cfg)


def counts(model: dict) -> list[tuple[str, str]]:
    dataset = dict(type='CocoDataset', metainfo=dict(classes=CLASSES))
    cfg = Config(dict(default_scope='mmdet', model=model, train_dataloader=dict(dataset=dataset)))
    return [(f.file, f.remedy.split()[1].rstrip(',')) for f in check_heads(DataView(cfg))]


@pytest.mark.parametrize(
    'model, wrong',
    [
        (dict(bbox_head=dict(type='RetinaHead', num_classes=80)), ['model.bbox_head.num_classes']),
        (dict(bbox_head=dict(type='DETRHead', num_classes=3)), []),
        (
            dict(roi_head=dict(bbox_head=[dict(num_classes=3), dict(num_classes=4)])),
            ['model.roi_head.bbox_head.1.num_classes'],
        ),
        (dict(roi_head=dict(mask_head=dict(type='FCNMaskHead'))), ['model.roi_head.mask_head.num_classes']),
        (dict(roi_head=dict(bbox_head=dict(type='Shared2FCBBoxHead'))), ['model.roi_head.bbox_head.num_classes']),
        (dict(rpn_head=dict(type='RPNHead', num_classes=1), backbone=dict(num_classes=1000)), []),
        (dict(detector=dict(bbox_head=dict(num_classes=9))), ['model.detector.bbox_head.num_classes']),
        (dict(bbox_head=dict(num_classes=80), language_model=dict(type='BertModel')), []),
    ],
)
def test_heads(model, wrong):
    assert counts(model) == [(where, f'{where}=3') for where in wrong]


def test_heads_of_segmentors(tmp_path):
    write_label_maps(tmp_path)
    auxiliary = [dict(type='FCNHead', num_classes=4), dict(type='FCNHead', num_classes=19)]
    with pytest.raises(DataError, match=r'model\.auxiliary_head\.1\.num_classes: it is 19'):
        check_data(segmentation_config(tmp_path, **{'model.auxiliary_head': auxiliary}))
    with pytest.raises(DataError, match='it is 7, but'):
        check_data(segmentation_config(tmp_path, **{'model.decode_head.num_classes': 7}))


def geometry(model: dict) -> dict[str, str]:
    cfg = Config(dict(default_scope='mmdet', model=model))
    return {f.file: f.remedy.split('=')[1] for f in check_geometry(DataView(cfg))}


def detector(**backbone) -> dict:
    kept = backbone.get('out_indices', (0, 1, 2, 3))
    return dict(
        backbone=dict(type='Conv2Former', arch='nano', **backbone),
        neck=dict(type='FPN', in_channels=[(64, 128, 256, 512)[i] for i in kept], out_channels=16, num_outs=5),
        rpn_head=dict(anchor_generator=dict(type='AnchorGenerator', strides=[4, 8, 16, 32, 64])),
        roi_head=dict(bbox_roi_extractor=dict(type='SingleRoIExtractor', featmap_strides=[4, 8, 16, 32])),
    )


def test_strides_of_other_stages():
    assert geometry(detector()) == {}
    assert geometry(detector(out_indices=(1, 2, 3))) == {
        'model.rpn_head.anchor_generator.strides': '[8, 16, 32, 64, 128]',
        'model.roi_head.bbox_roi_extractor.featmap_strides': '[8, 16, 32, 64]',
    }


def test_strides_of_point_heads_and_of_networks_of_mmdet():
    model = dict(
        backbone=dict(type='ResNet', depth=18, out_indices=(1, 2, 3)),
        neck=dict(type='FPN', in_channels=[128, 256, 512], out_channels=16, num_outs=5),
        bbox_head=dict(type='FCOSHead', strides=[4, 8, 16, 32, 64]),
    )
    assert geometry(model) == {'model.bbox_head.strides': '[8, 16, 32, 64, 128]'}
    model['bbox_head'] = dict(anchor_generator=dict(strides=[(8, 8), (16, 16), (32, 32), (64, 64), (128, 128)]))
    assert geometry(model) == {}


def test_findings_are_kept_as_data(data, tmp_path):
    write_coco(tmp_path, lambda c: c['categories'].reverse())
    (finding, *_) = check_data(coco_config(tmp_path)).findings
    assert (finding.severity, finding.code, finding.file) == ('note', 'category-order', f'{tmp_path}/train.json')
    assert json.loads((tmp_path / 'train.json').read_text())['categories'][0]['name'] == 'tri'
