_base_ = './_base_/cascade_maskrcnn_coco.py'

model = dict(
    # No weights are published. BatchNorm learns its statistics, over all GPUs; with pretrained weights and few images,
    # norm_eval=True keeps those.
    backbone=dict(_delete_=True, type='BoTNet', arch='50'),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)

sync_bn = 'torch'
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=6),
)
