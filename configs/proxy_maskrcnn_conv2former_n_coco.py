"""Mask R-CNN on a few real images in minutes: compares backbones at one small budget, and scores held-out images.

Written for `coco_mini` (60 images to train on, 36 to validate on) and one CPU thread; any backbone takes this one's
place with `--backbone`. The figures order backbones at this budget and are no substitute for those of the full recipe.
Neck and heads are as narrow as in `_base_/overfit_maskrcnn_coco.py`, and for the same reasons; images are flipped,
scaled and cropped. BatchNorm in a backbone learns, with a checkpoint or without.
"""

_base_ = './_base_/overfit_maskrcnn_coco.py'

side = 224
max_iters = 200
width = 96

model = dict(
    # Layer scale 1e-6, as published, keeps the blocks silent for longer than this whole run lasts.
    backbone=dict(_delete_=True, type='Conv2Former', arch='nano', layer_scale_init=1.0),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=width, norm_cfg=dict(num_groups=8)),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        # Images are small, and strides 4 and 8 know little of classes: these scales take more regions from 16 and 32.
        bbox_roi_extractor=dict(out_channels=width, finest_scale=14),
        # Boxes and masks for all classes in one: most have one or two images to learn from. Regions are averaged in front
        # of the linear layers, which would need a far lower learning rate than all else for thousands of inputs.
        bbox_head=dict(
            type='ConvFCBBoxHead',
            num_shared_convs=1,
            num_shared_fcs=1,
            with_avg_pool=True,
            in_channels=width,
            conv_out_channels=width,
            fc_out_channels=256,
            norm_cfg=dict(type='GN', num_groups=8),
            reg_class_agnostic=True,
        ),
        mask_roi_extractor=dict(out_channels=width, finest_scale=14),
        mask_head=dict(in_channels=width, conv_out_channels=width, class_agnostic=True),
    ),
    # Half of the regions show an object: among so many classes and so few updates, background is learned too well.
    train_cfg=dict(rcnn=dict(sampler=dict(num=48, pos_fraction=0.5))),
    # Scores of so short a run are low, and where nothing passes the threshold mmdet computes no AP at all.
    # Few boxes: pasting their masks takes longer than all the rest of an evaluation.
    test_cfg=dict(rpn=dict(max_per_img=100), rcnn=dict(score_thr=0.001, max_per_img=50)),
)

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=(side, side), ratio_range=(1.0, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_type='absolute', crop_size=(side, side), allow_negative_crop=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(side, side), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=4,
    dataset=dict(indices=None, filter_cfg=dict(_delete_=True, filter_empty_gt=True), pipeline=train_pipeline),
)
val_dataloader = dict(
    dataset=dict(
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        indices=None,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/coco/annotations/instances_val2017.json')
test_evaluator = val_evaluator

train_cfg = dict(max_iters=max_iters, val_interval=50)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=20, T_max=180, end=max_iters, eta_min_ratio=0.01),
]
default_hooks = dict(checkpoint=dict(interval=max_iters))
optim_wrapper = dict(optimizer=dict(lr=4e-3), paramwise_cfg=dict(decay_rate=0.7))
