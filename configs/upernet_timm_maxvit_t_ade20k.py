_base_ = './_base_/upernet_ade20k.py'
checkpoint = 'hybrid://timm_maxvit_t_in1k'

# No recipe of this framework is published for it; this is ConvNeXt's.
model = dict(
    # norm_eval: two images per GPU are too few for BatchNorm's statistics. From scratch: False, and SyncBN.
    backbone=dict(
        _delete_=True,
        type='TimmPyramid',
        arch='maxvit_tiny_tf_224',
        drop_path_rate=0.2,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='stage_wise', decay_rate=0.9, num_layers=6),
)
