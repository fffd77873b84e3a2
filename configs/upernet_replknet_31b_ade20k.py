_base_ = './_base_/upernet_ade20k.py'
checkpoint = 'hybrid://replknet_31b_in1k'

model = dict(
    # Of weights from ImageNet-22k, the authors' drop path is 0.3, and the crop 640 pixels.
    backbone=dict(
        _delete_=True,
        type='RepLKNet',
        arch='31b',
        drop_path_rate=0.5,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
    # The authors test whole images at this crop.
    test_cfg=dict(mode='whole'),
)
# Over the GPUs of a distributed run; on a single one, set model.backbone.norm_eval=True instead.
sync_bn = 'torch'

# The authors' 64 GPUs x 2 images, for a quarter of the usual iterations. No layer decay.
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(max_iters=40000, val_interval=4000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=400),
    dict(type='PolyLR', power=1.0, by_epoch=False, begin=400, end=40000, eta_min=0.0),
]
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=1.0, num_layers=12),
)
