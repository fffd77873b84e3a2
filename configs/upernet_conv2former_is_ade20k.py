_base_ = './_base_/upernet_ade20k.py'

model = dict(
    # No weights are published. From scratch, layer_scale_init=0.1 learns faster.
    backbone=dict(_delete_=True, type='IsotropicConv2Former', arch='small', pyramid='multi_depth', drop_path_rate=0.1),
    decode_head=dict(in_channels=[312, 312, 312, 312]),
    auxiliary_head=dict(in_channels=312),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.9, num_layers=18),
)
