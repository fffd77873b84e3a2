_base_ = './_base_/cascade_maskrcnn_coco.py'
checkpoint = 'hybrid://replknet_xl_megdata73m'

model = dict(
    # RepLKNet-XL was trained on images from -1 to 1.
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(
        _delete_=True,
        type='RepLKNet',
        arch='xl',
        drop_path_rate=0.5,
        out_norm='batch',
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
# Over the GPUs of a distributed run; on a single one, set model.backbone.norm_eval=True instead.
sync_bn = 'torch'

# The authors' batch: one image per GPU, the number of which they do not give. No layer decay.
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(
    optimizer=dict(lr=4e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=1.0, num_layers=12),
)
