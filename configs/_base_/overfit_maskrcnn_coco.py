"""Mask R-CNN learns eight COCO images by heart: a proof of the whole chain, not a detector.

Trained from random weights and evaluated on the same eight images of train2017's subset `coco_mini`, in about 45
minutes on two CPU cores. What differs from the 3x recipe, for speed and for so short a run: images of 320 pixels
without augmentation, neck and heads of half the width with GroupNorm in the neck, two mask convolutions, 64 sampled
regions an image, no drop path, one learning rate for all layers.
"""

_base_ = './maskrcnn_coco.py'

# 43 objects of 22 classes, none of them a crowd or smaller than 11 pixels at this size. The rest would measure the
# resolution rather than the network.
indices = [12, 13, 17, 22, 28, 41, 46, 59]
scale = (320, 320)
max_iters = 500
width = 128

model = dict(
    neck=dict(out_channels=width, norm_cfg=dict(type='GN', num_groups=16)),
    rpn_head=dict(in_channels=width, feat_channels=width, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, finest_scale=28),
        bbox_head=dict(in_channels=width, fc_out_channels=512),
        mask_roi_extractor=dict(out_channels=width, finest_scale=28),
        mask_head=dict(in_channels=width, conv_out_channels=width, num_convs=2),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=300),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    # `instances` is the truth, from which the metric is computed for want of an annotation file of these eight images.
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances'),
    ),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(indices=indices, filter_cfg=dict(_delete_=True, filter_empty_gt=False), pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        indices=indices,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=None)
test_evaluator = val_evaluator

train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=100)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=200, T_max=300, end=max_iters, eta_min_ratio=0.01),
]
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=1.0, num_layers=6),
    clip_grad=dict(max_norm=5.0),
)
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=100, max_keep_ckpts=1),
)
log_processor = dict(window_size=20, by_epoch=False)
randomness = dict(seed=0)
