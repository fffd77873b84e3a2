"""UperNet with Conv2Former-N learns eight ADE20K pairs by heart: a proof of the whole chain, not a segmentor.

Trained from random weights and evaluated on the same pairs, the first eight of the training folder (written for the
subset `ade20k_mini`), in about 45 minutes on two CPU cores. What differs from `upernet_conv2former_n_ade20k.py`, for
speed and for so short a run: images of 192 pixels without augmentation, a head of a quarter of the width and without
dropout, no auxiliary head, layer scale that starts at 1, no drop path, one learning rate for all layers.
"""

_base_ = './upernet_conv2former_n_ade20k.py'

indices = 8
scale = (192, 192)
max_iters = 400
width = 128

model = dict(
    data_preprocessor=dict(size=scale, test_cfg=dict(size_divisor=32)),
    backbone=dict(drop_path_rate=0.0, layer_scale_init=1.0),
    decode_head=dict(channels=width, dropout_ratio=0.0),
    auxiliary_head=None,
    test_cfg=dict(_delete_=True, mode='whole'),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(indices=indices, pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        indices=indices,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

train_cfg = dict(max_iters=max_iters, val_interval=100)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=150, T_max=250, end=max_iters, eta_min_ratio=0.01),
]
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(decay_rate=1.0), clip_grad=dict(max_norm=5.0))
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=100, max_keep_ckpts=1))
randomness = dict(seed=0)
