"""Mask R-CNN on a few real images in minutes: compares backbones at one small budget, and scores held-out images.

Written for `coco_mini` (60 images to train on, 36 to validate on) and one CPU thread; any backbone takes this one's
place with `--backbone`. The figures order backbones at this budget and are no substitute for those of the full recipe.
Neck and heads are as narrow as in `_base_/overfit_maskrcnn_coco.py`, and for the same reasons; images are flipped,
scaled and cropped. BatchNorm in a backbone learns, with a checkpoint or without.
"""

_base_ = './_base_/overfit_maskrcnn_coco.py'

# At 224 pixels half of the objects would be smaller than 14; crops keep the cost of training down.
scale = (320, 320)
crop_size = (224, 224)
max_iters = 200
width = 96

model = dict(
    # Layer scale 1e-6, as published, keeps the blocks silent for longer than this whole run lasts.
    backbone=dict(_delete_=True, type='Conv2Former', arch='nano', layer_scale_init=1.0),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=width, norm_cfg=dict(num_groups=8)),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        # Boxes and masks for all classes in one: most have one or two images to learn from.
        bbox_head=dict(in_channels=width, reg_class_agnostic=True),
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(in_channels=width, conv_out_channels=width, class_agnostic=True),
    ),
    # Half of the regions show an object: among so many classes and so few updates, background is learned too well.
    train_cfg=dict(rcnn=dict(sampler=dict(pos_fraction=0.5))),
    # Scores of so short a run are low, and where nothing passes the threshold mmdet computes no AP at all.
    # Few boxes: pasting their masks takes longer than all the rest of an evaluation.
    test_cfg=dict(rpn=dict(max_per_img=100), rcnn=dict(score_thr=0.001, max_per_img=50)),
)

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=scale, ratio_range=(0.7, 1.4), keep_ratio=True),
    dict(type='RandomCrop', crop_type='absolute', crop_size=crop_size, allow_negative_crop=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=scale, keep_ratio=True),
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
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(decay_rate=0.8))
