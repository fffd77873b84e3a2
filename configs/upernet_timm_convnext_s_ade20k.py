_base_ = './_base_/upernet_ade20k.py'
checkpoint = 'hybrid://timm_convnext_s_in1k'

model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmPyramid',
        arch='convnext_small',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='stage_wise', decay_rate=0.9, num_layers=12),
)
