_base_ = './_base_/upernet_ade20k.py'

model = dict(
    backbone=dict(_delete_=True, type='CoAtNet', arch='1', drop_path_rate=0.3),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
# Statistics over the GPUs of a distributed run: two images of a GPU are too few.
sync_bn = 'torch'

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='stage_wise', decay_rate=0.9, num_layers=12),
)
