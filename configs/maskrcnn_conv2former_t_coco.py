_base_ = './_base_/maskrcnn_coco.py'
checkpoint = 'hybrid://conv2former_t_in1k'

model = dict(
    backbone=dict(
        _delete_=True,
        type='Conv2Former',
        arch='tiny',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[72, 144, 288, 576]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.95, num_layers=6),
)
