_base_ = './_base_/maskrcnn_coco.py'
checkpoint = 'hybrid://moganet_xt_in1k'

# The authors' recipe, which has no layer decay, on the 3x schedule instead of their 1x.
model = dict(
    backbone=dict(
        _delete_=True,
        type='MogaNet',
        arch='xtiny',
        drop_path_rate=0.05,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[32, 64, 96, 192]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=1.0, num_layers=12),
)
