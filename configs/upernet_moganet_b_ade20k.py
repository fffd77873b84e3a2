_base_ = './_base_/upernet_ade20k.py'
checkpoint = 'hybrid://moganet_b_in1k'

# The authors' recipe, which has no layer decay.
model = dict(
    backbone=dict(
        _delete_=True,
        type='MogaNet',
        arch='base',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[64, 160, 320, 512]),
    auxiliary_head=dict(in_channels=320),
)
# Over the GPUs of a distributed run, as in the authors' segmentors.
sync_bn = 'torch'

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.01),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=1.0, num_layers=12),
)
