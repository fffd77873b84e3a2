_base_ = './_base_/maskrcnn_coco.py'
checkpoint = 'hybrid://moganet_l_in1k'

# The authors' recipe, which has no layer decay.
model = dict(
    backbone=dict(
        _delete_=True,
        type='MogaNet',
        arch='large',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[64, 160, 320, 640]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=1.0, num_layers=12),
)
