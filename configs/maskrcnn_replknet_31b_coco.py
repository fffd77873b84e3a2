_base_ = './_base_/maskrcnn_coco.py'
checkpoint = 'hybrid://replknet_31b_in1k'

# The authors' recipe for this framework is not published; this is theirs for Cascade Mask R-CNN.
model = dict(
    backbone=dict(
        _delete_=True,
        type='RepLKNet',
        arch='31b',
        drop_path_rate=0.6,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
# Over the GPUs of a distributed run; on a single one, set model.backbone.norm_eval=True instead.
sync_bn = 'torch'

# The authors' batch: one image per GPU, the number of which they do not give. No layer decay.
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(
    optimizer=dict(lr=4e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=1.0, num_layers=12),
)
