_base_ = './_base_/cascade_maskrcnn_coco.py'
checkpoint = 'hybrid://convit_s_in1k'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ConViT',
        arch='small',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[108, 216, 432, 432]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.1),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=12),
)
