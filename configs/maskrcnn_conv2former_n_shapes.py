"""Mask R-CNN with Conv2Former-N on `shapes`, from scratch in minutes on two CPU cores (`make demo`).

Everything after the backbone is narrower than in the published detectors, for speed: neck and heads of 64 channels
instead of 256 (the box head's linear layers of 256 instead of 1024), 64 sampled regions an image instead of 512, and
at most 300 proposals instead of 1000. The smallest images need no anchors beyond stride 32. Precision is fp32: CPUs
without bf16 units are slower in bf16 (`--amp` switches it on).
"""

_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', './_base_/shapes_detection.py']

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
        bbox_head=dict(in_channels=width, fc_out_channels=256, num_classes=6),
        mask_roi_extractor=dict(out_channels=width, finest_scale=28),
        mask_head=dict(in_channels=width, conv_out_channels=width, num_convs=2, num_classes=6),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=300),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)),
)
