"""Configs of a detector and a segmentor that take milliseconds an iteration, on `shapes` at 64 pixels."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
BACKBONE = """backbone=dict(
        _delete_=True, type='Conv2Former', drop_path_rate=0.3,
        arch=dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), kernel_size=3)),"""

# Eight images in batches of two. Flips, scales, dropped paths, sampled RoIs and shuffling all draw random numbers.
DETECTOR = f"""
_base_ = '{ROOT}/configs/maskrcnn_conv2former_n_coco.py'
model = dict(
    {BACKBONE}
    neck=dict(in_channels=[8, 16, 24, 32], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8),
        bbox_head=dict(in_channels=8, fc_out_channels=16, num_classes=6),
        mask_roi_extractor=dict(out_channels=8),
        mask_head=dict(num_convs=1, in_channels=8, conv_out_channels=8, num_classes=6)),
    train_cfg=dict(rpn_proposal=dict(nms_pre=100, max_per_img=50), rcnn=dict(sampler=dict(num=16))))
metainfo = dict(classes=('circle', 'square', 'triangle', 'star', 'ring', 'cross'))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomChoiceResize', scales=[(64, 64), (96, 96), (128, 128)], keep_ratio=True),
    dict(type='PackDetInputs')]
train_dataloader = dict(
    num_workers=1,
    dataset=dict(
        pipeline=train_pipeline,
        filter_cfg=dict(filter_empty_gt=False),
        metainfo=metainfo))
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(metainfo=metainfo))
val_cfg = val_dataloader = val_evaluator = None
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
    dict(type='MultiStepLR', by_epoch=True, milestones=[2], gamma=0.1)]
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=0)
"""
SEGMENTOR = f"""
_base_ = '{ROOT}/configs/upernet_conv2former_n_ade20k.py'
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    {BACKBONE}
    decode_head=dict(in_channels=[8, 16, 24, 32], channels=8, num_classes=7),
    auxiliary_head=dict(in_channels=24, channels=8, num_classes=7))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(96, 96), ratio_range=(0.7, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(64, 64), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs')]
dataset = dict(
    type='BaseSegDataset', reduce_zero_label=True,
    metainfo=dict(classes=('circle', 'square', 'triangle', 'star', 'ring', 'cross', 'background')))
train_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline, **dataset))
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
val_cfg = val_dataloader = val_evaluator = None
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=12)
param_scheduler = [dict(type='PolyLR', power=1.0, by_epoch=False, begin=0, end=12)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=5))
"""
