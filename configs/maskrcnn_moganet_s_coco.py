_base_ = './_base_/maskrcnn_coco.py'
checkpoint = 'hybrid://moganet_s_in1k'

# The authors' recipe, which has no layer decay.
model = dict(
    backbone=dict(
        _delete_=True,
        type='MogaNet',
        arch='small',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=1.0, num_layers=12),
)
