_base_ = './_base_/maskrcnn_coco.py'

# Swin's own recipe, which has no layer decay.
model = dict(
    # Add init_cfg=dict(type='Pretrained', checkpoint=FILE_OR_URL) to start from timm's ImageNet weights.
    backbone=dict(_delete_=True, type='TimmPyramid', arch='swin_small_patch4_window7_224', drop_path_rate=0.2),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=1.0, num_layers=12),
)
