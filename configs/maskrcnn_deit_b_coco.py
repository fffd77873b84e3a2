_base_ = './_base_/maskrcnn_coco.py'
checkpoint = 'hybrid://deit_b_in1k'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ViT',
        arch='base',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[192, 384, 768, 768]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.1),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=12),
)
