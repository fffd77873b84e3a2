_base_ = './_base_/cascade_maskrcnn_coco.py'
checkpoint = 'hybrid://hornet_l_in22k'

model = dict(
    backbone=dict(
        _delete_=True,
        type='HorNet',
        arch='large',
        drop_path_rate=0.7,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=12),
)
