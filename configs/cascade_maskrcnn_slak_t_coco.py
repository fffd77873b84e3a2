_base_ = './_base_/cascade_maskrcnn_coco.py'
checkpoint = 'hybrid://slak_t_in1k'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SLaK',
        arch='tiny',
        drop_path_rate=0.4,
        keep_sparse=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[124, 249, 499, 998]),
)
# Over the GPUs of a distributed run, as the authors'.
sync_bn = 'torch'

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=6),
)
