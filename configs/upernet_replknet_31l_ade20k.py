_base_ = './_base_/upernet_ade20k_640.py'
checkpoint = 'hybrid://replknet_31l_in22k'

model = dict(
    backbone=dict(
        _delete_=True,
        type='RepLKNet',
        arch='31l',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
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
