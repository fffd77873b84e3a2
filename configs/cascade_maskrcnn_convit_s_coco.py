_base_ = './_base_/cascade_maskrcnn_coco.py'

model = dict(
    # Add init_cfg=dict(type='Pretrained', checkpoint=FILE_OR_URL) to start from ImageNet weights, as published.
    backbone=dict(_delete_=True, type='ConViT', arch='small', drop_path_rate=0.1),
    neck=dict(in_channels=[108, 216, 432, 432]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.1),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=12),
)
