"""Cascade Mask R-CNN with Conv2Former-N on `shapes`, from scratch on two CPU cores.

Narrow like maskrcnn_conv2former_n_shapes.py, which says why; the box heads have two linear layers each, in place of the
published four convolutions, SyncBN and one linear layer.
"""

_base_ = ['mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py', './_base_/shapes_detection.py']

width = 64
model = dict(
    # Layer scale 1e-6, as published, keeps the blocks silent for longer than this whole run lasts.
    backbone=dict(_delete_=True, type='Conv2Former', arch='nano', layer_scale_init=1.0),
    neck=dict(
        in_channels=[64, 128, 256, 512],
        out_channels=width,
        num_outs=4,
        norm_cfg=dict(type='GN', num_groups=8),
    ),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, finest_scale=28),
        bbox_head=[
            dict(
                type='Shared2FCBBoxHead',
                in_channels=width,
                fc_out_channels=256,
                roi_feat_size=7,
                num_classes=6,
                bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=stds),
                reg_class_agnostic=True,
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
            )
            for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
        ],
        mask_roi_extractor=dict(out_channels=width, finest_scale=28),
        mask_head=dict(in_channels=width, conv_out_channels=width, num_convs=2, num_classes=6),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=300),
        rcnn=[
            dict(
                assigner=dict(
                    type='MaxIoUAssigner', pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou, match_low_quality=False
                ),
                sampler=dict(type='RandomSampler', num=64, pos_fraction=0.25, add_gt_as_proposals=True),
                mask_size=28,
                pos_weight=-1,
                debug=False,
            )
            for iou in (0.5, 0.6, 0.7)
        ],
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)),
)
