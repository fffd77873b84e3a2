_base_ = './_base_/maskrcnn_coco.py'

model = dict(
    # Add init_cfg=dict(type='Pretrained', checkpoint=FILE_OR_URL) to start from ImageNet weights, as published.
    backbone=dict(_delete_=True, type='ViT', arch='base', drop_path_rate=0.1),
    neck=dict(in_channels=[192, 384, 768, 768]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.1),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=12),
)
