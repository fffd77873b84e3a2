"""UperNet on a few real images in two minutes: compares backbones at one small budget, and scores held-out images.

Written for `ade20k_mini` (17 pairs to train on, 9 to validate on) and one CPU thread; any backbone takes this one's
place with `--backbone`. The figures order backbones at this budget and are no substitute for those of the full recipe.
What differs from `upernet_conv2former_n_ade20k.py`, for speed and for so short a run: images of 160 pixels, a head of
an eighth of the width with GroupNorm and without dropout, no auxiliary head, layer scale that starts at 1, no drop
path. The learning rate is high, because a slower head has learned nothing by the end; layer decay keeps what is
pretrained from it. BatchNorm in a backbone learns, with a checkpoint or without.
"""

_base_ = './upernet_conv2former_n_ade20k.py'

crop_size = (160, 160)
max_iters = 200
width = 64

model = dict(
    data_preprocessor=dict(size=crop_size, test_cfg=dict(size_divisor=32)),
    backbone=dict(drop_path_rate=0.0, layer_scale_init=1.0),
    # GroupNorm: pooled maps of one pixel, of four images, have no statistics to speak of.
    decode_head=dict(channels=width, dropout_ratio=0.0, norm_cfg=dict(_delete_=True, type='GN', num_groups=8)),
    auxiliary_head=None,
    test_cfg=dict(_delete_=True, mode='whole'),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(4 * crop_size[0], crop_size[0]), ratio_range=(1.0, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(4 * crop_size[0], crop_size[0]), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),  # at the label's own size, so after Resize
    dict(type='PackSegInputs'),
]
# The ratios that ADE20K's has to the photographs' own size, to that of `test_pipeline`.
sides = [round(ratio * crop_size[0]) for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(4 * side, side), keep_ratio=True) for side in sides],
            [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0.0, 1.0)],
            [dict(type='LoadAnnotations', reduce_zero_label=True)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(max_iters=max_iters, val_interval=50)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=10),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=10, T_max=190, end=max_iters, eta_min_ratio=0.01),
]
optim_wrapper = dict(optimizer=dict(lr=5e-3), paramwise_cfg=dict(decay_rate=0.7), clip_grad=dict(max_norm=5.0))
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_iters, max_keep_ckpts=1))
randomness = dict(seed=0)
