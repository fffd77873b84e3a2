"""What the `shapes` configs share: the embedded data, and a schedule in iterations that two CPU cores can afford."""

_base_ = './runtime.py'

# tools/train.py draws this dataset into the cache on first use and points every data_root there.
embedded_data = 'shapes'
randomness = dict(seed=0)

train_cfg = dict(type='IterBasedTrainLoop', max_iters=500, val_interval=125)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=30, end=500, eta_min_ratio=0.01),
]
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='LayerDecayOptimWrapperConstructor',
    # From scratch no stage is to be spared: all layers learn at the same rate.
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=1.0, num_layers=6),
    # Fused: on a CPU the plain update of so small a batch takes a tenth of the step.
    optimizer=dict(type='AdamW', lr=8e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=5.0),
)
