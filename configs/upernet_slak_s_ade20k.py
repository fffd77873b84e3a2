_base_ = './_base_/upernet_ade20k.py'
checkpoint = 'hybrid://slak_s_in1k'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SLaK',
        arch='small',
        drop_path_rate=0.3,
        keep_sparse=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[124, 249, 499, 998]),
    auxiliary_head=dict(in_channels=499),
)
# Over the GPUs of a distributed run, as the authors'.
sync_bn = 'torch'

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='stage_wise', decay_rate=0.9, num_layers=12),
)
