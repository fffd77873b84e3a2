_base_ = './_base_/upernet_ade20k.py'
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
    decode_head=dict(in_channels=[64, 192, 384, 384]),
    auxiliary_head=dict(in_channels=384),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='stage_wise', decay_rate=0.9, num_layers=12),
)
