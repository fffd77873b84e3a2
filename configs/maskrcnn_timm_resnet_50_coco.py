_base_ = './_base_/maskrcnn_coco.py'
checkpoint = 'hybrid://timm_resnet_50_in1k'

# No recipe of this framework is published for it; this is ConvNeXt's.
model = dict(
    # norm_eval: two images per GPU are too few for BatchNorm's statistics. From scratch: False, and SyncBN.
    backbone=dict(
        _delete_=True,
        type='TimmPyramid',
        arch='resnet50',
        norm_eval=True,
        out_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.95, num_layers=6),
)
