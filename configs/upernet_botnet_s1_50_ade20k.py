_base_ = './_base_/upernet_ade20k.py'
checkpoint = 'hybrid://botnet_s1_50_in1k'

model = dict(
    # No weights are published. BatchNorm learns its statistics, over all GPUs; with pretrained weights and few images,
    # norm_eval=True keeps those.
    backbone=dict(_delete_=True, type='BoTNet', arch='s1_50', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024),
)

sync_bn = 'torch'
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='stage_wise', decay_rate=0.9, num_layers=6),
)
