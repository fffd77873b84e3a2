_base_ = './_base_/cascade_maskrcnn_coco.py'
checkpoint = 'hybrid://cvt_21_in1k'

model = dict(
    # norm_eval: every block has BatchNorm, and two images per GPU are too few for its statistics.
    backbone=dict(
        _delete_=True,
        type='CvT',
        arch='21',
        drop_path_rate=0.2,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[64, 192, 384, 384]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=12),
)
