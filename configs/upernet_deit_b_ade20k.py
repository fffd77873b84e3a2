_base_ = './_base_/upernet_ade20k.py'
checkpoint = 'hybrid://deit_b_in1k'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ViT',
        arch='base',
        pyramid='multi_depth',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[768, 768, 768, 768]),
    auxiliary_head=dict(in_channels=768),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=6e-5, weight_decay=0.01),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.9, num_layers=12),
)
