_base_ = './_base_/maskrcnn_coco.py'

model = dict(
    # No weights are published. From scratch, layer_scale_init=0.1 learns faster.
    backbone=dict(_delete_=True, type='IsotropicConv2Former', arch='small', drop_path_rate=0.1),
    neck=dict(in_channels=[78, 156, 312, 312]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=18),
)
