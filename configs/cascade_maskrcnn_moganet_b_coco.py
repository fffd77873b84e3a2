_base_ = './_base_/cascade_maskrcnn_coco.py'
checkpoint = 'hybrid://moganet_b_in1k'

# The authors' recipe, with layer decay for B and L.
model = dict(
    backbone=dict(
        _delete_=True,
        type='MogaNet',
        arch='base',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[64, 160, 320, 512]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.8, num_layers=12),
)
