"""UperNet on data in ADE20K's layout with class numbers from 0 and 255 ignored; tools/new_config.py adds the rest.

GroupNorm in the heads: the pooled maps of a small batch have no statistics to speak of.
"""

_base_ = [
    'mmseg::_base_/models/upernet_r50.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    './own_runtime.py',
]

norm_cfg = dict(_delete_=True, type='GN', num_groups=32)
model = dict(
    pretrained=None,
    backbone=dict(norm_eval=True),
    decode_head=dict(norm_cfg=norm_cfg),
    auxiliary_head=dict(norm_cfg=norm_cfg),
)
# ADE20KDataset knows ADE20K's classes only.
dataset = dict(type='BaseSegDataset', reduce_zero_label=False)
train_dataloader = dict(batch_size=4, num_workers=2, batch_sampler=dict(type='ResumableBatchSampler'), dataset=dataset)
val_dataloader = dict(num_workers=2, dataset=dataset)
test_dataloader = val_dataloader

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='SafeCheckpointHook', by_epoch=False, interval=500, max_keep_ckpts=1, save_best='mIoU'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
log_processor = dict(window_size=10, by_epoch=False)
