"""Mask R-CNN on data in COCO's layout; tools/new_config.py adds classes, backbone, sizes and schedule.

GroupNorm in the neck: its maps start at the right scale whatever that of the backbone's is, which a short run needs.
"""

_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/default_runtime.py',
    './own_runtime.py',
]

model = dict(neck=dict(norm_cfg=dict(type='GN', num_groups=32)))

train_dataloader = dict(
    batch_size=4,
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    batch_sampler=dict(_delete_=True, type='ResumableBatchSampler', batch_sampler=dict(type='AspectRatioBatchSampler')),
)
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(
        type='SafeCheckpointHook', by_epoch=False, interval=500, max_keep_ckpts=1, save_best='coco/segm_mAP'
    ),
)
log_processor = dict(window_size=10, by_epoch=False)
