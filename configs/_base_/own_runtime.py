"""What configs of tools/new_config.py share: AdamW, a schedule in iterations, the best checkpoint kept.

The learning rate is that of ConvNeXt's detectors for 16 images an iteration. For AdamW it goes with the square root of
the batch (arXiv 2205.10287), where SGD's goes with the batch itself; a config has the rate for its own batch.
"""

_base_ = './runtime.py'

train_cfg = dict(type='IterBasedTrainLoop', max_iters=5000, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
randomness = dict(seed=0)
