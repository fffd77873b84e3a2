_base_ = './_base_/cascade_maskrcnn_coco.py'
checkpoint = 'hybrid://timm_swin_b_in1k'

# Swin's own recipe, which has no layer decay.
model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmPyramid',
        arch='swin_base_patch4_window7_224',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=1.0, num_layers=12),
)
