_base_ = './_base_/cascade_maskrcnn_coco.py'

# The authors' recipe, which has no layer decay for S.
model = dict(
    # Add init_cfg=dict(type='Pretrained', checkpoint=FILE_OR_URL) to start from ImageNet weights, as published.
    backbone=dict(_delete_=True, type='MogaNet', arch='small', drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=1.0, num_layers=12),
)
