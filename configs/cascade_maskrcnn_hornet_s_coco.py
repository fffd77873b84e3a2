_base_ = './_base_/cascade_maskrcnn_coco.py'
checkpoint = 'hybrid://hornet_s_in1k'

model = dict(
    backbone=dict(
        _delete_=True,
        type='HorNet',
        arch='small',
        drop_path_rate=0.6,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=12),
)
