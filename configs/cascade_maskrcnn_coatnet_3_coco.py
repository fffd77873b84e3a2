_base_ = './_base_/cascade_maskrcnn_coco.py'

model = dict(
    backbone=dict(_delete_=True, type='CoAtNet', arch='3', drop_path_rate=0.7),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
# Statistics over the GPUs of a distributed run: two images of a GPU are too few.
sync_bn = 'torch'

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.8, num_layers=12),
)
